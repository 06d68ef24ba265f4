"""Decisions on where a network gets, or loses, layers: pure functions of what was measured.

Positions and layers are numbered from 0: position p is after layer p (after block p of a VGG or
ResNet). A layer inserted there becomes layer p + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cbundles.config import INSERTING, Growth, Tuning

POSITION_STREAM = 2**52  # of chance, for arms that draw a position
INSERT, REMOVE = "insert", "remove"


def place(
    arm: str,
    sensitivities: Sequence[float],
    existing: Sequence[float],
    threshold: float,
    *,
    seed: int,
    epoch: int,
) -> int | None:
    """The position that an arm inserts at; None when no sensitivity exceeds `threshold` times the
    mean of the existing layers'.

    sensitivities: of every position; existing: of every existing layer. seed, epoch: of the draw of
    the arm ``random``.
    """
    largest = max(sensitivities)
    if not np.isfinite(largest) or largest <= threshold * float(np.mean(existing)):
        return None
    if arm == "max":
        return int(np.argmax(sensitivities))
    if arm == "min":
        return int(np.argmin(sensitivities))
    if arm == "first":
        return 0
    chance = np.random.Generator(np.random.Philox(key=[seed, POSITION_STREAM + epoch]))
    return int(chance.integers(len(sensitivities)))


def due(growth: Growth, epoch: int, done: int) -> bool:
    """Whether after this epoch a layer may be inserted, when `done` have been."""
    if growth.arm not in INSERTING or done >= growth.insertions:
        return False
    since = epoch - growth.first_epoch
    return since >= 0 and since % growth.every == 0


@dataclass(frozen=True)
class Edit:
    """kind: INSERT or REMOVE; position: of the new layer's predecessor, or of the first layer that
    goes; count: of layers."""

    kind: str
    position: int
    count: int


@dataclass(frozen=True)
class Past:
    """An edit that was judged after an epoch: kept, or undone."""

    edit: Edit
    epoch: int
    kept: bool


def propose(
    tuning: Tuning,
    *,
    depth: int,
    entropy: Sequence[float | None],
    sensitivities: Sequence[float],
    existing: Sequence[float],
    accuracy: float,
    past: Sequence[Past],
    seed: int,
    epoch: int,
) -> Edit | None:
    """What the tuner tries next with a network of `depth` layers, if anything.

    entropy: H of each layer, None where it is not finite. Where a layer conflicts, nothing is
    inserted: nothing behind a collapsed bundle can separate it, yet sensitivities point there. The
    first conflicting layer and all later ones go, if that leaves enough. What the first layer of
    all merges, no depth can mend; so a layer conflicts here when its H is above the first layer's.
    """
    recent = [p for p in past if epoch - p.epoch < tuning.memory]
    given = entropy[0]
    if given is None:
        return None
    conflicting = [i for i, h in enumerate(entropy) if h is None or h > given]
    if conflicting:
        first = conflicting[0]
        if tuning.arm in ("insert", "fixed") or first < tuning.min_depth:
            return None
        return _unless_recent(Edit(REMOVE, first, depth - first), recent)
    saturated = accuracy >= tuning.saturated
    if tuning.arm in ("remove", "fixed") or saturated or depth >= tuning.max_depth:
        return None
    arm = "random" if tuning.arm == "both-random" else "max"
    position = place(arm, sensitivities, existing, tuning.threshold, seed=seed, epoch=epoch)
    return None if position is None else _unless_recent(Edit(INSERT, position, 1), recent)


def _unless_recent(edit: Edit, recent: Sequence[Past]) -> Edit | None:
    """The edit, unless it reverses one that was kept or repeats one that was undone."""
    for past in recent:
        if past.kept and past.edit.kind != edit.kind:
            return None
        if not past.kept and past.edit == edit:
            return None
    return edit
