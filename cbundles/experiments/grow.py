"""Inserting layers while training (third work): does it help, and does it matter where?

All arms and seeds of a setting are one population: arms that insert by sensitivity, their controls,
and fixed networks. Networks of one seed have the same initial weights and see the same batches.
`run` yields after the initial evaluation and after each epoch, and continues from anything that
`freeze` made of what it yielded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cbundles.config import Cell
from cbundles.data.dataset import Facts
from cbundles.data.device import DeviceData
from cbundles.experiments import edits, history
from cbundles.experiments.conv_subjects import ConvSubjects
from cbundles.experiments.history import Moment
from cbundles.experiments.subjects import Subjects


def run(
    cells: Sequence[Cell], data: DeviceData, facts: Facts, resume: bytes | None = None
) -> Iterator[Moment]:
    """Train cells that differ in arm and seed as one population."""
    epochs, growth = cells[0].training.epochs, cells[0].growth
    subjects = _subjects(cells, data, facts)
    moment = Moment.begin(subjects) if resume is None else Moment.thaw(resume, subjects)
    everyone = np.ones(len(cells), bool)
    if moment.epoch >= epochs:  # interrupted after the last epoch
        yield moment
    for epoch in range(moment.epoch + 1, epochs + 1):
        with moment.timed():
            if epoch > 0:
                subjects.advance(epoch, everyone)
                moment.spend(everyone)
                if growth.backtrack:
                    _undo_what_did_not_help(moment, epoch)
            if epoch < epochs:
                _insert(moment, epoch)
            look = epoch == epochs or history.shown(epoch, epochs)
            moment.evaluate(epoch, [look] * len(cells))
        yield moment


def _subjects(cells: Sequence[Cell], data: DeviceData, facts: Facts) -> Subjects:
    if cells[0].model.family != "fc":
        return ConvSubjects(cells, data, facts)
    depths = [edits.start_depth(cell) for cell in cells]
    return Subjects(cells, depths, max(map(edits.room, cells)), data, facts)


def _insert(moment: Moment, epoch: int) -> None:
    """Insert a layer into every network that is due."""
    subjects, members = moment.subjects, moment.members
    growth = subjects.cells[0].growth
    due = [edits.due(c.growth, epoch, m.made) and m.trial is None
           for c, m in zip(subjects.cells, members, strict=True)]  # fmt: skip
    if not any(due):
        return
    scores, positions = subjects.scores(), np.full(len(members), -1, np.int32)
    for i, (cell, member) in enumerate(zip(subjects.cells, members, strict=True)):
        if not due[i]:
            continue
        sensitivities, existing = scores[i]
        member.spend(subjects.score_flops(i))
        member.scored(epoch, sensitivities, existing)
        place = edits.place(cell.growth.arm, sensitivities, existing, growth.threshold,
                            seed=cell.training.seed, epoch=epoch)  # fmt: skip
        positions[i] = -1 if place is None else place
    chosen = positions >= 0
    if not chosen.any():
        return
    loss = subjects.performance(subjects.data.probe).loss if growth.backtrack else None
    if growth.backtrack:
        moment.keep(chosen)
    subjects.insert(positions, growth.learning_rate_factor)
    for i, member in enumerate(members):
        if not chosen[i]:
            continue
        edit = edits.Edit(edits.INSERT, int(positions[i]), 1, int(subjects.depths[i]) - 1)
        member.edited(epoch, edit, int(subjects.depths[i]), None if loss is None else loss[i])
        if loss is not None:
            member.spend(subjects.probe_flops(i))
            member.trial, member.before = (edit, epoch), float(loss[i])


def _undo_what_did_not_help(moment: Moment, epoch: int) -> None:
    """Take back the insertions after which the loss on the probe set is no lower than before."""
    subjects, members = moment.subjects, moment.members
    growth = subjects.cells[0].growth
    ends = [m.trial is not None and epoch - m.trial[1] >= growth.backtrack for m in members]
    if not any(ends):
        return
    loss = subjects.performance(subjects.data.probe).loss
    for i, member in enumerate(members):
        if ends[i]:
            member.spend(subjects.probe_flops(i))
    undone = np.array([ends[i] and not loss[i] < m.before for i, m in enumerate(members)])
    moment.restore(undone)
    for i, member in enumerate(members):
        if ends[i]:
            member.judged(epoch, not undone[i], int(subjects.depths[i]))


def records(cells: Sequence[Cell], moment: Moment) -> list[dict[str, Any]]:
    """The completion record of each cell, plain data."""
    return history.records("grow", cells, moment)
