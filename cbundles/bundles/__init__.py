"""The metric: which samples does a layer make indistinguishable, and how much do they conflict?

`equality` turns each activation into a signature, `entropy` sorts signatures into bundles and
computes their entropy, `result` is what users call.
"""

from cbundles.bundles.entropy import Layer, largest_entropy, partition, partition_layers
from cbundles.bundles.equality import RULES, Equality, Scale, draw_keys, signature
from cbundles.bundles.result import MAX_SALTS, Bundles, CollisionError, bundle_entropy

__all__ = [
    "MAX_SALTS",
    "RULES",
    "Bundles",
    "CollisionError",
    "Equality",
    "Layer",
    "Scale",
    "bundle_entropy",
    "draw_keys",
    "largest_entropy",
    "partition",
    "partition_layers",
    "signature",
]
