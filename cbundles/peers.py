"""Peers of the bundle entropy, of the networks of a sweep: what else one could look at early.

Of the last hidden layer, on the probe set: of how many directions its activations make use, and how
alike those of different classes are; of the whole network, on some of the probe set: how strongly
the loss pulls at its parameters. `peer_measures` has the measures; an audit takes more of them, of
every layer.

It is a pass of its own. So whether it is made changes no bit of what `measure` finds.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax.stages import Wrapped
from jaxtyping import Array, Float32, Int32

from cbundles import measure, peer_measures, scan
from cbundles.arrays import Numbers
from cbundles.data.device import Examples
from cbundles.measure import Measurement
from cbundles.networks import network, watched
from cbundles.networks.network import Network
from cbundles.networks.shape import FcShape

IMAGES_AT_ONCE = 256  # of which the activations of all layers are held


class Peers(NamedTuple):
    """Of one network; None where a measure is undefined, or something is not finite.

    effective_rank: of the last hidden layer's activations
    class_cosine: the mean cosine of activations of different classes there
    gradient_norm: of the mean cross-entropy by all parameters, of `scan.scanned_samples`
    """

    effective_rank: float | None
    class_cosine: float | None
    gradient_norm: float | None


class LookedAt(NamedTuple):
    """What the measures are taken of.

    features: the last hidden layer's activations
    gradient: by the parameters
    """

    features: Float32[Numbers, "*members width samples"]
    gradient: Float32[Numbers, "*members params"]


def looked_at(
    subject: Network, probe: Examples, *, shape: FcShape, measurement: Measurement
) -> LookedAt:
    """What the measures of one network are taken of. Padding adds zeros, which change none."""
    norm = measurement.own.batch_norm

    def features_of(x: Float32[Array, "batch *pixels"]) -> Float32[Array, "width batch"]:
        see = {watched.OUTPUTS: lambda activations: activations}
        return watched.visit(shape, subject, x, see, norm)[watched.OUTPUTS][-1].T

    scanned = scan.scanned_samples(probe)
    x = measure.as_numbers(scanned.images, measurement.augmentation)

    def loss(params: Float32[Array, " params"]) -> Float32[Array, ""]:
        logits = network.logits(shape, subject._replace(params=params), x, norm)
        labels: Int32[Array, " scanned"] = scanned.labels
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    features = measure.in_batches(
        probe.images, features_of, measurement.augmentation, IMAGES_AT_ONCE
    )
    return LookedAt(features, jax.grad(loss)(subject.params))


@functools.cache
def looked_at_program(shape: FcShape, measurement: Measurement) -> Wrapped:
    """`looked_at` of a population, compiled once per shape."""
    one = functools.partial(looked_at, shape=shape, measurement=measurement)
    return jax.jit(jax.vmap(one, in_axes=(0, None)))


def peers_of_member(found: LookedAt, labels: Int32[np.ndarray, " samples"], member: int) -> Peers:
    """The measures of one network of a population."""
    rows, gradient = np.asarray(found.features[member]).T, np.asarray(found.gradient[member])
    rank = cosine = norm = None
    if np.isfinite(rows).all():
        rank = peer_measures.effective_rank(rows)
        cosine = peer_measures.class_cosine(rows, labels)
    if np.isfinite(gradient).all():
        norm = peer_measures.gradient_norm([gradient])
    return Peers(rank, cosine, norm)
