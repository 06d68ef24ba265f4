"""Decisions on where a network gets, or loses, layers: pure functions of what was measured.

Positions and layers are numbered from 0: position p is after layer p (after block p of a VGG or
ResNet). A layer inserted there becomes layer p + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cbundles.chance import INSERTED_POSITION, generator
from cbundles.config import INSERTING, Cell, Growth, Tuning

INSERT, REMOVE = "insert", "remove"
ROOM = 8  # layers that the tuner pads to at least: fewer programs


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
    mean of the existing layers', or they are not finite; with a threshold of 0 there always is one.

    sensitivities: of every position; existing: of every existing layer. seed, epoch: of the draw of
    the arm ``random``.
    """
    largest = float(np.max(sensitivities))
    if not np.isfinite([largest, *existing]).all():
        return None
    if threshold > 0 and largest <= threshold * float(np.mean(existing)):
        return None
    if arm == "max":
        return int(np.argmax(sensitivities))
    if arm == "min":
        return int(np.argmin(sensitivities))
    if arm == "first":
        return 0
    chance = generator(seed, INSERTED_POSITION, epoch)
    return int(chance.integers(len(sensitivities)))


def due(growth: Growth, epoch: int, done: int) -> bool:
    """Whether after this epoch a layer may be inserted, when `done` have been."""
    if growth.arm not in INSERTING or done >= growth.insertions:
        return False
    since = epoch - growth.first_epoch
    return since >= 0 and since % growth.every == 0


def start_depth(cell: Cell) -> int:
    """Layers that a network has at the start."""
    if cell.growth.arm == "large":
        return cell.growth.large_depth
    return cell.model.depth + (cell.growth.insertions if cell.growth.arm == "matched" else 0)


def room(cell: Cell) -> int:
    """Layers that a growing network may come to have."""
    inserted = cell.growth.insertions if cell.growth.arm in INSERTING else 0
    return max(start_depth(cell), cell.model.depth + inserted)


@dataclass(frozen=True)
class Edit:
    """kind: INSERT or REMOVE; position: of the new layer's predecessor, or of the first layer that
    goes; count: of layers; depth: before it."""

    kind: str
    position: int
    count: int
    depth: int


@dataclass(frozen=True)
class JudgedEdit:
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
    past: Sequence[JudgedEdit],
    seed: int,
    epoch: int,
) -> Edit | None:
    """What the tuner tries next with a network of `depth` layers, if anything.

    entropy: H of each layer, None where it is not finite. Where a layer conflicts, nothing is
    inserted: sensitivities point behind it, where weight updates see less of what differs. The
    first conflicting layer and all later ones go, if that leaves enough. What the first layer of
    all merges, no depth can mend; so a layer conflicts here when its H is above the first layer's.
    An edit neither reverses a recent one that was kept, nor repeats one that was undone.
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
        edit = Edit(REMOVE, first, depth - first, depth)
        reverses = any(p.kept and p.edit.kind == INSERT for p in recent)
        repeats = any(not p.kept and p.edit == edit for p in recent)
        return None if reverses or repeats else edit
    saturated = accuracy >= tuning.saturated
    if tuning.arm in ("remove", "fixed") or saturated or depth >= tuning.max_depth:
        return None
    if any(p.kept and p.edit.kind == REMOVE for p in recent):
        return None
    tried = {
        p.edit.position
        for p in recent
        if not p.kept and p.edit.kind == INSERT and p.edit.depth == depth
    }
    left = [p for p in range(len(sensitivities)) if p not in tried]
    if not left:
        return None
    arm = "random" if tuning.arm == "both-random" else "max"
    position = place(arm, [sensitivities[p] for p in left], existing, tuning.threshold,
                     seed=seed, epoch=epoch)  # fmt: skip
    return None if position is None else Edit(INSERT, left[position], 1, depth)
