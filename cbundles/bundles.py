"""Bundles and bundle entropy: which samples does a layer make indistinguishable?

Two samples are *bundled* by a layer when the weight update cannot tell their activations apart
(paper, definition 1 and eq. 1). A weight w moves by a * (alpha / |B|), so two activations are the
same when they lead to the same float32 number

    q = w - a * alpha * (1 / |B|)            every operation rounded to float32, in this order,

where w is the largest absolute trainable weight of the whole model. Equality of q is an
equivalence relation, hence bundles are well defined. A bundle D with class shares p(n) has

    H(D) = -sum_n p(n) ln(p(n) + eps), floored at 0                                     (eq. 2)

and a layer, over the probe set B,

    H^l = 1/|B| sum_D |D| H(D).                                                         (eq. 3)

How it is computed: each row of q is read once and hashed to 64 bits, the hashes are sorted, and
runs of equal hashes are the bundles. Neighbours in the sorted order are then compared in full, so
a hash collision is always noticed (`Layer.collided`); callers repeat with another `salt`.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

EPSILON = 1e-5
MAX_SALTS = 8


class Resolution(NamedTuple):
    """What decides whether two activations differ, as float32 scalars *known only at run time*.

    Were they compile-time constants, XLA would fold ``alpha * (1/|B|)`` into one factor and change
    the partition. ``opaque_zero`` is a uint32 0 for the same reason: see `weight_update`.
    """

    amplitude: ArrayLike
    learning_rate: ArrayLike
    inverse_batch_size: ArrayLike
    opaque_zero: ArrayLike

    @classmethod
    def of(cls, amplitude: float, learning_rate: float, batch_size: int) -> Resolution:
        return cls(
            np.float32(amplitude),
            np.float32(learning_rate),
            np.float32(1.0 / batch_size),
            np.uint32(0),
        )


class Layer(NamedTuple):
    """Bundles of one layer, as arrays inside a compiled program.

    entropy: float32 (), nats, meaningless when not ``finite``. num_bundles: int32 ().
    bundle_ids: int32 (N,), 0-based in order of first occurrence. finite: bool (), every activation
    and the amplitude are finite. collided: bool (), two different rows got the same hash: repeat
    with another salt.
    """

    entropy: jax.Array
    num_bundles: jax.Array
    bundle_ids: jax.Array
    finite: jax.Array
    collided: jax.Array


def weight_update(activations: jax.Array, resolution: Resolution) -> jax.Array:
    """q = w - a * alpha * (1/|B|), float32, with the bits that NumPy gives.

    (Except that a step below 1.2e-38, which XLA may flush to zero, differs when w is 0.)

    A compiler may contract the last multiplication and the subtraction into one fused operation
    that rounds once. Passing the product through an integer operation it cannot see through
    (xor with a zero that arrives at run time) rules that out.
    """
    step = activations * resolution.learning_rate * resolution.inverse_batch_size
    rounded = lax.bitcast_convert_type(step, jnp.uint32) ^ resolution.opaque_zero
    q = resolution.amplitude - lax.bitcast_convert_type(rounded, jnp.float32)
    return jnp.where(q == 0, jnp.float32(0), q)  # -0.0 equals 0.0, so let their bits agree


def _mix(x: jax.Array) -> jax.Array:
    """A bijection of uint32 in which every input bit reaches every output bit (two rounds of
    multiply and xor-shift)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def fingerprint(q: jax.Array, salt: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two uint32 lanes per row of q (N, d), (N,) each: sums of independently mixed elements.

    The element's bits are mixed with a pseudo-random key of its column, so that neither permuted
    columns nor sign flips nor arithmetic progressions cancel in the sum.
    """
    bits = lax.bitcast_convert_type(q, jnp.uint32)
    column = lax.iota(jnp.uint32, q.shape[1])

    def lane(number: int) -> jax.Array:
        key = _mix(_mix(column + salt * jnp.uint32(0x9E3779B9)) + jnp.uint32(number))
        return jnp.sum(_mix(_mix(bits ^ key) + key), axis=1, dtype=jnp.uint32)

    return lane(1), lane(2)


def layer_bundles(
    activations: jax.Array, labels: jax.Array, resolution: Resolution, salt: jax.Array
) -> Layer:
    """Bundles of one layer (eq. 1-3). activations: float32 (N, d); labels: int32 (N,); jittable.

    Sort by (hash, label, index). A run of equal hashes is a bundle of size n_D; within it a run of
    equal labels holds the n_c samples of class c. Since sum_D |D| H(D) sums -ln(n_c/n_D + eps)
    over the samples, no (bundles x classes) table is needed.
    """
    n = activations.shape[0]
    q = weight_update(activations, resolution)
    lane1, lane2 = fingerprint(q, salt)
    index = lax.iota(jnp.int32, n)
    lane1, lane2, label, order = lax.sort((lane1, lane2, labels, index), num_keys=4)

    rows = q[order]
    same_hash = (lane1[1:] == lane1[:-1]) & (lane2[1:] == lane2[:-1])
    same_row = jnp.all(rows[1:] == rows[:-1], axis=1)
    not_a_number = jnp.any(jnp.isnan(rows), axis=1)  # equals nothing, not even itself
    collided = jnp.any(same_hash & ~same_row & ~not_a_number[1:])

    first = jnp.ones((1,), bool)
    new_bundle = jnp.concatenate([first, ~(same_hash & same_row)])
    new_class = new_bundle | jnp.concatenate([first, label[1:] != label[:-1]])
    bundle = jnp.cumsum(new_bundle) - 1
    size = _run_lengths(new_bundle)
    same_class = _run_lengths(new_class)

    share = same_class.astype(jnp.float32) / size.astype(jnp.float32)
    surprise = jnp.where(same_class == size, 0.0, -jnp.log(share + jnp.float32(EPSILON)))
    surprise = jnp.zeros_like(surprise).at[order].set(surprise)  # add up in the samples' own order

    oldest = jax.ops.segment_min(order, bundle, num_segments=n, indices_are_sorted=True)
    representative = jnp.zeros_like(order).at[order].set(oldest[bundle])
    by_first_occurrence = jnp.cumsum(representative == index) - 1
    return Layer(
        entropy=jnp.maximum(surprise.mean(), 0.0),
        num_bundles=bundle[-1] + 1,
        bundle_ids=by_first_occurrence[representative],
        finite=jnp.all(jnp.isfinite(activations)) & jnp.isfinite(resolution.amplitude),
        collided=collided,
    )


def _run_lengths(starts: jax.Array) -> jax.Array:
    """For each position, how long its run is. starts: bool (N,), True where a run begins."""
    n = starts.shape[0]
    position = lax.iota(jnp.int32, n)
    begin = lax.cummax(jnp.where(starts, position, 0))
    next_start = jnp.concatenate([jnp.where(starts, position, n)[1:], jnp.full((1,), n, jnp.int32)])
    end = lax.cummin(next_start, reverse=True)
    return end - begin


@dataclasses.dataclass(frozen=True, eq=False)
class Bundles:
    """What `bundle_entropy` found.

    num_bundles: how many bundles the layer makes of the N samples (N when all are told apart).
    entropy: H^l in nats, in [0, ln num_classes]; None when an activation is not finite.
    bundle_ids: int32 (N,), 0-based in order of first occurrence.
    diverged: True when some activation is NaN or infinite: the network has diverged, and an
    entropy would mean nothing. A row with a NaN is a bundle of its own.
    """

    num_bundles: int
    entropy: float | None
    bundle_ids: np.ndarray
    diverged: bool


_jitted_layer_bundles = jax.jit(layer_bundles)


def bundle_entropy(
    activations: np.ndarray | jax.Array,
    labels: np.ndarray | jax.Array,
    *,
    num_classes: int,
    amplitude: float,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
) -> Bundles:
    """Bundle entropy of one layer (paper, section 2.3, eq. 1-3).

    activations: (N, ...) float, one row a sample, measured in float32. labels: (N,) integers in
    [0, num_classes). amplitude: the largest absolute trainable weight of the whole model.
    learning_rate, batch_size: those the network is *trained* with; they set the resolution.

    Raises ValueError when shapes, labels or numbers make no sense.

    >>> import numpy as np
    >>> same = np.ones((4, 3), np.float32)
    >>> result = bundle_entropy(same, [0, 1, 0, 1], num_classes=2, amplitude=0.5)
    >>> result.num_bundles, round(result.entropy, 4)
    (1, 0.6931)
    """
    rows, classes = _checked(activations, labels, num_classes)
    if not (np.isfinite(amplitude) and amplitude >= 0):
        raise ValueError(f"amplitude must be a finite number >= 0, not {amplitude}")
    if not (np.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"learning_rate must be a finite number > 0, not {learning_rate}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")

    resolution = Resolution.of(amplitude, learning_rate, batch_size)
    for salt in range(MAX_SALTS):
        layer = _jitted_layer_bundles(rows, classes, resolution, np.uint32(salt))
        if not layer.collided:
            break
    else:
        raise CollisionError()
    finite = bool(layer.finite)
    return Bundles(
        num_bundles=int(layer.num_bundles),
        entropy=float(layer.entropy) if finite else None,
        bundle_ids=np.asarray(layer.bundle_ids),
        diverged=not finite,
    )


class CollisionError(RuntimeError):
    """Every salt made two different rows collide. Chance alone does this about once in 10^100."""

    def __init__(self) -> None:
        super().__init__(f"{MAX_SALTS} independent 64-bit fingerprints collided; report this input")


def _checked(
    activations: np.ndarray | jax.Array, labels: np.ndarray | jax.Array, num_classes: int
) -> tuple[jax.Array, np.ndarray]:
    activations = jnp.asarray(activations)
    if activations.ndim < 1 or activations.shape[0] == 0:
        raise ValueError(f"activations must be (N, ...) with N >= 1, not {activations.shape}")
    if not jnp.issubdtype(activations.dtype, jnp.floating):
        raise ValueError(f"activations must be floating point, not {activations.dtype}")
    classes = np.asarray(labels)
    if classes.shape != activations.shape[:1]:
        raise ValueError(f"labels must be ({activations.shape[0]},), not {classes.shape}")
    if not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"labels must be integers, not {classes.dtype}")
    if classes.min() < 0 or classes.max() >= num_classes:
        bad = classes[(classes < 0) | (classes >= num_classes)][0]
        raise ValueError(f"label {bad} is outside 0..{num_classes - 1} (num_classes={num_classes})")
    rows = activations.astype(jnp.float32).reshape(activations.shape[0], -1)
    return rows, classes.astype(np.int32)
