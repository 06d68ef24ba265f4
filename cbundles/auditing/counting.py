"""From signatures to bundles and conflict rates."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable

import jax
import numpy as np
from jaxtyping import Array, Float, Int32, Integer, UInt32

from cbundles import bundles
from cbundles.bundles import Bundles, CollisionError, Equality

# The orders of the three lanes of a signature. Rows are sorted by the first two; where these do not
# tell two rows apart but the third does, another order will.
ORDERS = ([0, 1, 2, 3], [1, 2, 0, 3], [2, 0, 1, 3])

_partition = functools.partial(jax.jit, static_argnums=2)(bundles.partition_layers)
ROWS_AT_ONCE = 2**17  # of several layers, whose signatures are copied into one array


def bundles_of_layers(
    signatures: Iterable[UInt32[np.ndarray, "4 rows"]],
    labels: Int32[np.ndarray, " rows"],
    num_classes: int,
) -> list[Bundles]:
    """The bundles of each layer. Few programs are called: of 512 rows a call takes longer than what
    is computed in it."""
    coming = iter(signatures)
    found: list[Bundles] = []
    while group := list(itertools.islice(coming, max(1, ROWS_AT_ONCE // len(labels)))):
        together = jax.device_get(
            _without_collisions(_partition_one_by_one, np.stack(group), labels, num_classes)
        )
        for place, finite in enumerate(together.finite):
            entropy = float(together.entropy[place]) if finite else None
            ids = together.bundle_ids[place]
            found.append(Bundles(entropy, not finite, ids, labels, num_classes, Equality()))
    return found


@functools.partial(jax.jit, static_argnums=2)
def _partition_one_by_one(
    signatures: UInt32[Array, "layers 4 rows"], labels: Int32[Array, " rows"], num_classes: int
) -> bundles.Layer:
    """What `partition_layers` does, with entropies that do not depend on how many layers there are:
    when several are added up at once, the last bit may be another one."""
    return jax.lax.map(lambda one: bundles.partition(one, labels, num_classes), signatures)


def conflict_rates(
    signatures: UInt32[np.ndarray, "scales 4 rows"], inputs: Bundles
) -> tuple[Float[np.ndarray, " scales"], Float[np.ndarray, " scales"]]:
    """The conflict rates of one layer at several scales, and what equal inputs are of each
    (`rate_of_equal_inputs`). inputs: of the same rows."""
    found = _without_collisions(_partition, signatures, inputs.labels, inputs.num_classes)
    rates = np.asarray(found.conflict_rate)
    equal = [rate_of_equal_inputs(ids, inputs) for ids in np.asarray(found.bundle_ids)]
    return rates, np.array(equal)


def some_of(found: Bundles, some: slice | Integer[np.ndarray, " some"]) -> Bundles:
    """The bundles of some of the rows of a layer, without their entropy."""
    return _grouped(found, found.bundle_ids[some], found.labels[some])


def rate_of_equal_inputs(bundle_ids: Int32[np.ndarray, " rows"], inputs: Bundles) -> float:
    """What equal inputs are of the conflict rate of a layer that did not diverge: the probability
    that two rows of different classes share a bundle in it and are equal as inputs, too. A model
    can tell equal tokens apart by what is around them, and equal samples never."""
    if not inputs.conflict_rate:
        return 0.0
    both = bundle_ids.astype(np.int64) * len(bundle_ids) + inputs.bundle_ids
    rate = _grouped(inputs, both, inputs.labels).conflict_rate
    assert rate is not None
    return rate


def added_entropy(found: Bundles, inputs: Bundles) -> float:
    """By how much the entropy of a layer that did not diverge is above that of its rows that share
    a bundle and are equal inputs, in nats; never below 0."""
    assert found.entropy is not None
    if not inputs.conflict_rate:
        return found.entropy
    both = found.bundle_ids.astype(np.int64) * len(found.labels) + inputs.bundle_ids
    own, of_equal = (_entropy(ids, inputs.labels) for ids in (found.bundle_ids, both))
    return max(0.0, own - of_equal)


def _entropy(groups: Integer[np.ndarray, " rows"], labels: Int32[np.ndarray, " rows"]) -> float:
    """H of equation 3 in float64. Groups in any order have the same one to the last bit, so that a
    difference of 0 means that there is none."""
    of_group = np.unique(groups, return_inverse=True)[1]
    pairs, counts = np.unique(np.stack([of_group, labels]), axis=1, return_counts=True)
    shares = counts / np.bincount(of_group)[pairs[0]]
    return -math.fsum(counts * np.log(shares)) / len(labels)


def _grouped(
    found: Bundles, groups: Integer[np.ndarray, " rows"], labels: Int32[np.ndarray, " rows"]
) -> Bundles:
    """Rows with the same number share a bundle; all else is that of the others."""
    ids = np.unique(groups, return_inverse=True)[1].astype(np.int32)
    return dataclasses.replace(found, entropy=None, bundle_ids=ids, labels=labels)


def pairs_in_conflict(rate: float, labels: Int32[np.ndarray, " rows"]) -> int:
    """How many pairs of rows of different classes share a bundle at this conflict rate."""
    in_class = np.bincount(labels).astype(np.int64)
    possible = len(labels) ** 2 - int((in_class**2).sum())
    return round(rate * possible / 2)


def _without_collisions(
    partition: Callable[..., bundles.Layer],
    signatures: UInt32[np.ndarray, "layers 4 rows"],
    labels: Int32[np.ndarray, " rows"],
    num_classes: int,
) -> bundles.Layer:
    """Raises CollisionError, which chance alone hardly ever does."""
    for order in ORDERS:
        layer = partition(signatures[:, order], labels, num_classes)
        if not np.any(layer.collided):
            return layer
    raise CollisionError()
