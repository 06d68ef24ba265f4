"""From signatures to bundles and conflict rates."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable

import jax
import numpy as np
from jaxtyping import Array, Float, Int32, UInt32

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
    signatures: UInt32[np.ndarray, "scales 4 rows"],
    labels: Int32[np.ndarray, " rows"],
    num_classes: int,
) -> Float[np.ndarray, " scales"]:
    """The conflict rates of one layer at several scales."""
    found = _without_collisions(_partition, signatures, labels, num_classes)
    return np.asarray(found.conflict_rate)


def conflict_rate_of_some(found: Bundles, some: slice | np.ndarray) -> float:
    """The conflict rate of some of the samples of a layer that did not diverge."""
    part = Bundles(
        found.entropy,
        found.diverged,
        found.bundle_ids[some],
        found.labels[some],
        found.num_classes,
        found.equality,
    )
    rate = part.conflict_rate
    assert rate is not None
    return rate


def pairs_in_conflict(found: Bundles) -> int:
    """How many pairs of samples of different classes share a bundle; 0 of a layer that diverged."""
    if not found.conflict_rate:
        return 0
    in_class = np.bincount(found.labels).astype(np.int64)
    possible = len(found.labels) ** 2 - int((in_class**2).sum())
    return round(found.conflict_rate * possible / 2)


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
