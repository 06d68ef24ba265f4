"""The depth tuner: remove layers that conflict, insert one where it helps, keep what proves useful.

At each check one probe set tells H of every layer and the sensitivity of every position
(`edits.propose`). An edit is on trial for some epochs: unless it has lowered the loss on held-out
images by then, the network is put back as it was before, and the compute is lost. Every arm has the
same compute, counted in FLOPs: shallow networks train for more epochs than deep ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cbundles.config import Cell
from cbundles.data.dataset import Facts
from cbundles.data.device import DeviceData, Examples
from cbundles.experiments import edits, history
from cbundles.experiments.edits import INSERT, Edit
from cbundles.experiments.history import Member, Moment
from cbundles.experiments.subjects import Subjects


def budget(cell: Cell, subjects: Subjects) -> float:
    """FLOPs that each network may spend."""
    return float(cell.training.epochs * subjects.epoch_flops_at(cell.tuning.budget_depth))


def run(
    cells: Sequence[Cell], data: DeviceData, facts: Facts, resume: bytes | None = None
) -> Iterator[Moment]:
    """Train cells that differ in arm and seed as one population, until their compute is spent;
    yields after the initial evaluation and after each epoch."""
    held_out = data.held_out
    assert held_out is not None
    if len(data.labels) < cells[0].training.batch_size:
        raise ValueError("fewer training images than a batch holds")
    depths = [cell.model.depth for cell in cells]
    deepest = max(*depths, min(edits.ROOM, cells[0].tuning.max_depth))
    subjects = Subjects(cells, depths, deepest, data, facts)
    moment = Moment.begin(subjects) if resume is None else Moment.thaw(resume, subjects)
    limit = budget(cells[0], subjects)
    resumed = moment if resume is not None else None
    for epoch in itertools.count(moment.epoch + 1):
        active = np.array([
            epoch == 0 or _affords_epoch(m, i, subjects, limit)
            for i, m in enumerate(moment.members)
        ])  # fmt: skip
        if not active.any():
            break
        with moment.timed():
            if epoch > 0:
                subjects.advance(epoch, active)
                moment.spend(active)
                _judge(moment, epoch, active, held_out)
                _edit(moment, epoch, active, held_out, limit)
            look = history.shown(epoch, cells[0].training.epochs)
            moment.evaluate(epoch, [
                bool(active[i]) and (look or not _affords_epoch(m, i, subjects, limit))
                for i, m in enumerate(moment.members)
            ], held_out)  # fmt: skip
        resumed = None
        yield moment
    if resumed is not None:  # interrupted after the last epoch
        yield resumed


def progress(moment: Moment) -> float:
    """The share of all compute that has been spent."""
    limit = budget(moment.subjects.cells[0], moment.subjects)
    return sum(member.flops for member in moment.members) / (limit * len(moment.members))


def _affords_epoch(member: Member, i: int, subjects: Subjects, limit: float) -> bool:
    return member.flops + subjects.epoch_flops(i) <= limit


def _affords_trial(
    member: Member, i: int, subjects: Subjects, held_out: Examples, limit: float
) -> bool:
    """Whether a check, and an insertion with its trial and the judgement, are within the limit: no
    edit is left that has not been judged."""
    trial, deeper = subjects.cells[0].tuning.trial, int(subjects.depths[i]) + 1
    epoch = subjects.epoch_flops_at(deeper)
    judgement = len(held_out.labels) * epoch / (3 * subjects.steps * subjects.recipe.batch_size)
    check = _check_flops(i, subjects, held_out)
    return member.flops + check + trial * epoch + judgement <= limit


def _check_flops(i: int, subjects: Subjects, held_out: Examples) -> float:
    """Of scoring, measuring H and accuracy on the probe set, and the loss on held-out images."""
    apart = len(held_out.labels) * subjects.flops(i)
    return subjects.score_flops(i) + 2 * subjects.probe_flops(i) + apart


def _judge(moment: Moment, epoch: int, active: np.ndarray, held_out: Examples) -> None:
    """Keep the edits that lowered the loss on held-out images, take back the others."""
    subjects, members = moment.subjects, moment.members
    tuning = subjects.cells[0].tuning
    ends = [
        bool(active[i]) and m.trial is not None and epoch - m.trial[1] >= tuning.trial
        for i, m in enumerate(members)
    ]
    if not any(ends):
        return
    loss, undone = subjects.performance(held_out).loss, np.zeros(len(members), bool)
    for i, member in enumerate(members):
        if ends[i]:
            member.spend(len(held_out.labels) * subjects.flops(i))
            undone[i] = not loss[i] < member.before
    moment.restore(undone)
    for i, member in enumerate(members):
        if ends[i]:
            member.judged(epoch, not undone[i], int(subjects.depths[i]))


def _edit(moment: Moment, epoch: int, active: np.ndarray, held_out: Examples, limit: float) -> None:
    """Let every network that is due try an edit."""
    subjects, members = moment.subjects, moment.members
    tuning = subjects.cells[0].tuning
    if epoch % tuning.every:
        return
    due = [
        bool(active[i]) and cell.tuning.arm != "fixed" and m.trial is None
        and (not m.past or epoch - m.past[-1].epoch >= tuning.cooldown)
        and _affords_trial(m, i, subjects, held_out, limit)
        for i, (cell, m) in enumerate(zip(subjects.cells, members, strict=True))
    ]  # fmt: skip
    if not any(due):
        return
    entropy, scores = subjects.entropy(), subjects.scores()
    train, apart = subjects.performance(subjects.data.probe), subjects.performance(held_out)
    chosen: list[Edit | None] = [None] * len(members)
    for i, (cell, member) in enumerate(zip(subjects.cells, members, strict=True)):
        if not due[i]:
            continue
        sensitivities, existing = scores[i]
        member.spend(_check_flops(i, subjects, held_out))
        member.scored(epoch, sensitivities, existing, entropy=entropy[i])
        chosen[i] = edits.propose(
            cell.tuning, depth=int(subjects.depths[i]), entropy=entropy[i],
            sensitivities=sensitivities, existing=existing, accuracy=float(train.accuracy[i]),
            past=member.past, seed=cell.training.seed, epoch=epoch,
        )  # fmt: skip
    if any(chosen):
        moment.keep(np.array([edit is not None for edit in chosen]))
        _apply(subjects, chosen)
        for i, edit in enumerate(chosen):
            if edit is not None:
                members[i].edited(epoch, edit, int(subjects.depths[i]), float(apart.loss[i]))
                members[i].before = float(apart.loss[i])
                members[i].trial = (edit, epoch)


def _apply(subjects: Subjects, chosen: Sequence[Edit | None]) -> None:
    inserted = [e.position if e is not None and e.kind == INSERT else -1 for e in chosen]
    left = [e.position if e is not None and e.kind != INSERT else int(depth)
            for e, depth in zip(chosen, subjects.depths, strict=True)]  # fmt: skip
    if (np.array(left) != subjects.depths).any():
        subjects.truncate(np.array(left, np.int32))
    if max(inserted) >= 0:
        subjects.insert(np.array(inserted, np.int32))


def records(cells: Sequence[Cell], moment: Moment) -> list[dict[str, Any]]:
    """The completion record of each cell, plain data."""
    return history.records("tune", cells, moment)
