"""From signatures to bundles and their entropy.

A bundle D with class shares p(n) has

    H(D) = -sum_n p(n) ln(p(n) + eps), floored at 0                                     (eq. 2)

and a layer, over the probe set B,

    H^l = 1/|B| sum_D |D| H(D).                                                         (eq. 3)

(The floor is applied to H^l, which matters only for bundles of more than a million samples.)

H grows with the probe set, and "H > 0" hangs on a single pair. The *conflict rate* does not: it is
the probability that two samples of different classes share a bundle,

    c^l = sum_D (n_D^2 - sum_n n_Dn^2) / (N^2 - sum_n N_n^2),

with n_Dn of the n_D samples in D of class n, and N_n of all N samples. It is 0 when all bundles are
pure and 1 when one bundle holds all samples.

Signatures are sorted; runs of equal ones are the bundles. Time O(N log N), memory O(N), whatever
the width of the layer.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, Integer, Num, UInt32, UInt64

from cbundles.bundles.equality import INFINITY, LANES

EPSILON = 1e-5
HASH_BITS = 44  # of a sort key, at least; the rest of its 64 bits hold the label and the index
ROWS_AT_ONCE = 2**17
NAN_MARK = np.uint32(0x9E3779B9)  # any number that is not the hash of a particular row


class Layer(NamedTuple):
    """Bundles of one layer, or of each layer of a stack, as arrays inside a compiled program.

    entropy: nats, meaningless when not ``finite``.
    conflict_rate: likewise; 0 for samples of one class.
    bundle_ids: 0-based in order of first occurrence.
    finite: every number is.
    collided: two different rows had the same sort key: repeat with another salt.
    """

    entropy: Float32[Array, "*layers"]
    conflict_rate: Float32[Array, "*layers"]
    num_bundles: Int32[Array, "*layers"]
    bundle_ids: Int32[Array, "*layers samples"]
    finite: Bool[Array, "*layers"]
    collided: Bool[Array, "*layers"]


def largest_entropy(labels: Integer[np.ndarray, " samples"]) -> float:
    """The most that H^l can be on samples with these labels: that of one bundle which holds them
    all, in nats. ln(classes) only where all classes have equally many samples.

    >>> largest_entropy(np.array([0] * 950 + [1] * 50))  # doctest: +ELLIPSIS
    0.1984...
    """
    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) == 1:
        return 0.0
    shares = counts / counts.sum()
    return float(max(0.0, -(shares * np.log(shares + EPSILON)).sum()))


def partition(
    signature: UInt32[Array, "4 samples"], labels: Int32[Array, " samples"], num_classes: int
) -> Layer:
    """Bundles of one layer; jittable.

    Sort by (hash, label, index). A run of equal hashes is a bundle of size n_D; within it a run of
    equal labels holds the n_c samples of class c. Since sum_D |D| H(D) sums -ln(n_c/n_D + eps)
    over the samples, no (bundles x classes) table is needed.
    """
    index = lax.iota(jnp.int32, labels.shape[0])
    has_nan = signature[LANES] > INFINITY
    # Where a row with a NaN is sorted is without meaning, as long as it is apart from its equals.
    # Not at 0: that is the hash of a row of zeros, under all keys.
    mark = jnp.full_like(signature[0], NAN_MARK)
    apart = jnp.stack([index.astype(jnp.uint32) + mark, mark, mark])
    lanes = jnp.where(has_nan, apart, signature[:LANES])

    order, label, same_key = _sorted(lanes, labels, num_classes)
    neighbours, nan = lanes[:, order], has_nan[order]
    same_row = jnp.all(neighbours[:, 1:] == neighbours[:, :-1], axis=0)
    same_row &= ~(nan[1:] | nan[:-1])  # a NaN equals nothing, whatever the hashes
    first = jnp.ones((1,), bool)
    new_bundle = jnp.concatenate([first, ~same_row])
    new_class = new_bundle | jnp.concatenate([first, label[1:] != label[:-1]])
    bundle, size = _runs(new_bundle)
    same_class = _runs(new_class)[1]

    share = same_class.astype(jnp.float32) / size.astype(jnp.float32)
    surprise = jnp.where(same_class == size, 0.0, -jnp.log(share + jnp.float32(EPSILON)))
    surprise = _at(order, surprise)  # added up in the samples' own order, whatever the hashes

    oldest = jnp.full_like(index, len(index)).at[bundle].min(order, indices_are_sorted=True)
    representative = _at(order, oldest[bundle])
    by_first_occurrence = _count_up_to_here(representative == index) - 1
    return Layer(
        entropy=jnp.maximum(surprise.mean(), 0.0),
        conflict_rate=_conflict_rate(size, same_class, labels, num_classes),
        num_bundles=bundle[-1] + 1,
        bundle_ids=by_first_occurrence[representative],
        finite=jnp.all(signature[LANES] < INFINITY),
        collided=jnp.any(same_key & ~same_row),
    )


def _conflict_rate(
    size: Int32[Array, " samples"],
    same_class: Int32[Array, " samples"],
    labels: Int32[Array, " samples"],
    num_classes: int,
) -> Float32[Array, ""]:
    """c^l. size, same_class: how many samples are in the bundle of each sample, and how many of
    these are of its class; so their difference counts its conflicts."""
    with jax.enable_x64(True):  # the square of 60,000 samples is more than 32 bits hold
        samples = labels.shape[0]
        of_class = jnp.zeros(num_classes, jnp.int64).at[labels].add(1)
        possible = samples**2 - jnp.sum(of_class**2)
        found = jnp.sum(lax.convert_element_type(size - same_class, jnp.int64))
        rate = found / jnp.maximum(possible, 1)
        return lax.convert_element_type(rate, jnp.float32)


def partition_layers(
    signatures: UInt32[Array, "layers 4 samples"],
    labels: Int32[Array, " samples"],
    num_classes: int,
) -> Layer:
    """`partition` for a stack of layers: as many at once as memory allows."""
    at_once = max(1, ROWS_AT_ONCE // labels.shape[0])

    def one(signature: UInt32[Array, "4 samples"]) -> Layer:
        return partition(signature, labels, num_classes)

    return lax.map(one, signatures, batch_size=min(at_once, signatures.shape[0]))


def _sorted(
    lanes: UInt32[Array, "lanes samples"], labels: Int32[Array, " samples"], num_classes: int
) -> tuple[Int32[Array, " samples"], Int32[Array, " samples"], Bool[Array, " samples-1"]]:
    """Samples in the order of (hash, label, index): their indices and labels, and whether each but
    the first has the hash bits of the one before it.

    Sorting plain 64-bit numbers is five times as fast as sorting several arrays by a comparison, so
    as long as enough bits of the hash remain, label and index share one number with it.
    """
    n = labels.shape[0]
    index_bits, label_bits = max(n - 1, 1).bit_length(), max(num_classes - 1, 1).bit_length()
    low_bits = index_bits + label_bits
    with jax.enable_x64(True):
        hashed = (_u64(lanes[0]) << np.uint64(32)) | _u64(lanes[1])
        rest = (_u64(labels) << np.uint64(index_bits)) | _u64(lax.iota(jnp.uint32, n))
        if low_bits <= 64 - HASH_BITS:
            low = np.uint64(2**low_bits - 1)
            keys = lax.sort((hashed & ~low) | rest)
            hashed, rest = keys & ~low, keys & low
        else:
            hashed, rest = lax.sort((hashed, rest), num_keys=2)
        order = lax.convert_element_type(rest & np.uint64(2**index_bits - 1), jnp.int32)
        label = lax.convert_element_type(rest >> np.uint64(index_bits), jnp.int32)
        return order, label, hashed[1:] == hashed[:-1]


def _u64(x: Integer[Array, "*shape"]) -> UInt64[Array, "*shape"]:
    return lax.convert_element_type(x, jnp.uint64)


def _runs(
    starts: Bool[Array, " samples"],
) -> tuple[Int32[Array, " samples"], Int32[Array, " samples"]]:
    """For each position the number of its run and how long that is. starts: True where a run
    begins."""
    number = _count_up_to_here(starts) - 1
    lengths = jnp.zeros_like(number).at[number].add(1, indices_are_sorted=True)
    return number, lengths[number]


def _count_up_to_here(flags: Bool[Array, " samples"]) -> Int32[Array, " samples"]:
    return jnp.cumsum(flags, dtype=jnp.int32)


def _at(order: Int32[Array, " samples"], values: Num[Array, " samples"]) -> Num[Array, " samples"]:
    """values[i] at position order[i]. order: a permutation."""
    return jnp.zeros_like(values).at[order].set(values, unique_indices=True)
