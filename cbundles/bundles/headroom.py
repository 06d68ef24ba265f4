"""Headroom: how far is a layer from conflicting, in bits of the learning rate?

Healthy networks all have an entropy and a conflict rate of 0, so neither can rank them. What a
weight update can see shrinks with the learning rate, so one can ask how far that may go:

    headroom is the largest k, in steps of half a bit from -10 to 14, for which the conflict rate is
    at most `CLEAR_RATE` at the learning rate alpha 2^-k and at every larger one of these.

With 5 bits a layer conflicts below a learning rate of alpha / 32; with -3 it conflicts already, and
would at up to eight times the rate. A factor of ten is 3.3 bits. The grids to which updates are
rounded at two learning rates are not nested, so the conflict rate need not grow with k: the first
crossing counts, and no bisection finds it.

It says how far a layer is from collapse and nothing about explosion: large initial weights have
much headroom and train badly.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Int64, Integer, UInt32

from cbundles.arrays import Numbers
from cbundles.bits import HIGHEST, LOWEST, STEP, Headroom
from cbundles.bundles.entropy import Layer, partition_layers
from cbundles.bundles.equality import Equality, Scale, signature
from cbundles.bundles.result import (
    MIN_NORMAL,
    checked_amplitude,
    checked_classes,
    checked_number,
    checked_rows,
    checked_whole,
    without_collision,
)
from cbundles.criterion import CLEAR_RATE

BITS = np.arange(LOWEST, HIGHEST + STEP, STEP)


def headroom(
    activations: Float[Numbers, "samples *features"],
    labels: Integer[Numbers, " samples"] | Sequence[int],
    *,
    num_classes: int,
    amplitude: float,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    own_conflict_rate: float = 0.0,
) -> Headroom | None:
    """How many bits the learning rate may fall before a layer conflicts; None if it diverged.

    A measure of our own, beside the paper's: the largest k, in steps of half a bit from -10 to 14,
    up to which the conflict rate stays below 1e-3 at all learning rates down to
    `learning_rate` / 2^k.

    Args:
        activations, labels, num_classes, amplitude, learning_rate, batch_size: as in
            `bundle_entropy`; activations are (N, ...), labels (N,).
        own_conflict_rate: of the inputs themselves, in [0, 1], where equal ones have different
            labels: no layer can do better, and a layer conflicts when its conflict rate is more
            than 1e-3 above that.

    Raises:
        ValueError: as `bundle_entropy` does.

    >>> import numpy as np
    >>> far_apart = np.array([[0.0], [1.0]], np.float32)
    >>> print(headroom(far_apart, [0, 1], num_classes=2, amplitude=0.5))
    conflicts below a learning rate of 9.8e-07: 10 bits of headroom
    """
    num_classes = checked_classes(num_classes)
    batch_size = checked_whole("batch_size", batch_size)
    rows, classes = checked_rows(activations, labels, num_classes)
    amplitude = checked_amplitude(amplitude, "float32")
    learning_rate = checked_number("learning_rate", learning_rate, at_least=MIN_NORMAL * 2**HIGHEST)
    own = checked_number("own_conflict_rate", own_conflict_rate, at_least=0, at_most=1)
    scales = scales_of_scan(amplitude, learning_rate, batch_size)
    layers = without_collision(
        rows, lambda keys: _scanned(rows, classes, scales, keys, num_classes)
    )
    if not np.isfinite(np.asarray(rows, np.float32)).all():
        return None
    return Headroom(bits_of_headroom(np.asarray(layers.conflict_rate), own), learning_rate)


def scales_of_scan(amplitude: float, learning_rate: float, batch_size: int) -> Scale:
    """The scales at all `BITS`, as arrays with a leading axis."""
    each = [Scale.of(amplitude, learning_rate * 2.0**-bits, batch_size) for bits in BITS]
    stacked: Scale = jax.tree.map(lambda *numbers: np.stack(numbers), *each)
    return stacked


def evenly_spread(samples: int, count: int) -> Int64[np.ndarray, " picked"]:
    """Which of the samples are scanned: so many, or all, evenly spread, also where they are sorted
    by class."""
    return np.unique(np.linspace(0, samples - 1, min(count, samples)).round().astype(np.int64))


def signatures_of_scan(
    activations: Float[Array, "samples *features"],
    scales: Scale,
    keys: UInt32[Array, " keys"],
    equality: Equality,
) -> UInt32[Array, "scales 4 samples"]:
    """The signatures of a layer at several scales, which have a leading axis; jittable. Whether
    rows may be given a batch at a time, `signature` says."""

    def at(scale: Scale) -> UInt32[Array, "4 samples"]:
        return signature(activations, scale, keys, equality)

    return jax.lax.map(at, scales)


def bits_of_headroom(
    conflict_rates: Float[np.ndarray, " bits"],
    own_conflict_rate: float | Float[np.ndarray, " bits"] = 0.0,
) -> float:
    """The headroom of a layer with these conflict rates at all `BITS`. own_conflict_rate: what is
    not the layer's doing, at all of them or at each."""
    conflicts: Bool[np.ndarray, " bits"] = conflict_rates > own_conflict_rate + CLEAR_RATE
    if not conflicts.any():
        return HIGHEST
    return float(BITS[int(np.argmax(conflicts))] - STEP)


@functools.partial(jax.jit, static_argnums=4)
def _scanned(
    activations: Float[Array, "samples *features"],
    labels: Int32[Array, " samples"],
    scales: Scale,
    keys: UInt32[Array, " keys"],
    num_classes: int,
) -> Layer:
    """The bundles of one layer at all scales."""
    signed = signatures_of_scan(jnp.asarray(activations), scales, keys, Equality())
    return partition_layers(signed, labels, num_classes)
