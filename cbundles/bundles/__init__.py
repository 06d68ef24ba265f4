"""The metric: which samples look alike to a weight update behind a layer, and do they conflict?

Bundled is not indistinguishable: samples of a bundle still differ in the forward pass, and layers
above may tell them apart.

`equality` turns each activation into a signature, `entropy` sorts signatures into bundles and
computes their entropy, `result` and `headroom` are what users call.
"""

from cbundles.bits import Headroom
from cbundles.bundles.entropy import Layer, largest_entropy, partition, partition_layers
from cbundles.bundles.equality import RULES, Equality, Scale, draw_keys, rounded, signature
from cbundles.bundles.headroom import (
    bits_of_headroom,
    evenly_spread,
    headroom,
    scales_of_scan,
    signatures_of_scan,
)
from cbundles.bundles.result import MAX_SALTS, Bundles, CollisionError, bundle_entropy

__all__ = [
    "MAX_SALTS",
    "RULES",
    "Bundles",
    "CollisionError",
    "Equality",
    "Headroom",
    "Layer",
    "Scale",
    "bits_of_headroom",
    "bundle_entropy",
    "draw_keys",
    "evenly_spread",
    "headroom",
    "largest_entropy",
    "partition",
    "partition_layers",
    "rounded",
    "scales_of_scan",
    "signature",
    "signatures_of_scan",
]
