"""From signatures to bundles and conflict rates, a layer at a time."""

from __future__ import annotations

import functools

import jax
import numpy as np
from jaxtyping import Float, Int32, UInt32

from cbundles import bundles
from cbundles.bundles import Bundles, CollisionError, Equality

# The orders of the three lanes of a signature. Rows are sorted by the first two; where these do not
# tell two rows apart but the third does, another order will.
ORDERS = ([0, 1, 2, 3], [1, 2, 0, 3], [2, 0, 1, 3])

_partition = functools.partial(jax.jit, static_argnums=2)(bundles.partition_layers)


def bundles_of(
    signatures: UInt32[np.ndarray, "4 rows"], labels: Int32[np.ndarray, " rows"], num_classes: int
) -> Bundles:
    """The bundles of one layer."""
    # As arrays of NumPy, all at once: taking one number out of an array of JAX takes longer than
    # the bundles of 512 rows.
    layer = jax.device_get(_partitioned(signatures[None], labels, num_classes))
    finite = bool(layer.finite[0])
    return Bundles(
        entropy=float(layer.entropy[0]) if finite else None,
        diverged=not finite,
        bundle_ids=layer.bundle_ids[0],
        labels=labels,
        num_classes=num_classes,
        equality=Equality(),
    )


def conflict_rates(
    signatures: UInt32[np.ndarray, "scales 4 rows"],
    labels: Int32[np.ndarray, " rows"],
    num_classes: int,
) -> Float[np.ndarray, " scales"]:
    """The conflict rates of one layer at several scales."""
    return np.asarray(_partitioned(signatures, labels, num_classes).conflict_rate)


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


def _partitioned(
    signatures: UInt32[np.ndarray, "layers 4 rows"],
    labels: Int32[np.ndarray, " rows"],
    num_classes: int,
) -> bundles.Layer:
    """Raises CollisionError, which chance alone hardly ever does."""
    for order in ORDERS:
        layer = _partition(signatures[:, order], labels, num_classes)
        if not np.any(layer.collided):
            return layer
    raise CollisionError()
