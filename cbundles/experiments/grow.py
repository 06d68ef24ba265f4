"""Inserting layers while training (third work): does it help, and does it matter where?

All arms and seeds of a setting are one population: arms that insert by sensitivity, their controls,
and fixed networks. Networks of one seed have the same initial weights and see the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cbundles.config import Cell
from cbundles.data.dataset import Facts
from cbundles.data.device import DeviceData
from cbundles.decisions import edits
from cbundles.experiments import editing
from cbundles.experiments.editing import Edited, EditedRun
from cbundles.experiments.pace import Pace
from cbundles.experiments.run_state import RunState, thaw
from cbundles.population import Population
from cbundles.records import GrowRecord, Origin


def train(
    cells: Sequence[Cell], data: DeviceData, facts: Facts, resume: bytes | None = None
) -> Iterator[EditedRun]:
    """Train cells that differ in arm and seed as one population; yields after the initial
    evaluation, after each epoch, and within long ones. resume: what was frozen of a state."""
    epochs = cells[0].training.epochs
    population = _population(cells, data, facts)
    if resume is None:
        state = RunState(population, [Edited() for _ in cells])
        with state.timed():
            editing.evaluate(state, [True] * len(cells))
        yield state
    else:
        state = thaw(resume, population, editing.member_of)
        if state.epoch >= epochs:  # interrupted after the last epoch
            yield state
    pace = Pace(population)
    while state.epoch < epochs:
        with state.timed():
            pace.advance()
            if population.step == 0:
                _after_epoch(state, epochs)
        yield state


def _population(cells: Sequence[Cell], data: DeviceData, facts: Facts) -> Population:
    if cells[0].model.family != "fc":
        return Population(cells, data, facts)
    depths = [edits.start_depth(cell) for cell in cells]
    return Population(cells, data, facts, depths=depths, room=max(map(edits.room, cells)))


def _after_epoch(state: EditedRun, epochs: int) -> None:
    """Undo, insert, evaluate."""
    everyone = np.ones(len(state.members), bool)
    editing.spend_epoch(state, everyone)
    if state.population.cells[0].growth.backtrack:
        _undo_what_did_not_help(state)
    if state.epoch < epochs:
        _insert_where_due(state)
    look = state.epoch == epochs or editing.is_shown(state.epoch, epochs)
    editing.evaluate(state, [look] * len(state.members))


def _insert_where_due(state: EditedRun) -> None:
    population, members, epoch = state.population, state.members, state.epoch
    growth = population.cells[0].growth
    due = [
        edits.due(cell.growth, epoch, member.insertions) and member.pending is None
        for cell, member in zip(population.cells, members, strict=True)
    ]
    if not any(due):
        return
    scores = population.scores()
    positions = np.full(len(members), -1, np.int32)
    for number, (cell, member) in enumerate(zip(population.cells, members, strict=True)):
        if not due[number]:
            continue
        member.spend(population.score_flops(number))
        member.note_scores(epoch, scores[number])
        place = edits.place(
            cell.growth.arm,
            scores[number].positions,
            scores[number].existing,
            growth.threshold,
            seed=cell.training.seed,
            epoch=epoch,
        )
        positions[number] = -1 if place is None else place
    if (positions >= 0).any():
        _insert(state, positions)


def _insert(state: EditedRun, positions: np.ndarray) -> None:
    """A layer into every network whose position is not negative, on trial where the setting is
    `backtrack`."""
    population, epoch = state.population, state.epoch
    growth = population.cells[0].growth
    chosen = positions >= 0
    loss = population.performance(population.data.probe).loss if growth.backtrack else None
    if growth.backtrack:
        editing.remember(state, chosen)
    population.insert(positions, growth.learning_rate_factor)
    for number, member in enumerate(state.members):
        if not chosen[number]:
            continue
        depth = int(population.depths[number])
        edit = edits.Edit(edits.INSERT, int(positions[number]), 1, depth - 1)
        if loss is None:
            member.note_edit(epoch, edit, depth)
        else:
            member.note_edit(epoch, edit, depth, loss[number])
            member.spend(population.probe_flops(number))
            member.put_on_trial(epoch, edit, float(loss[number]))


def _undo_what_did_not_help(state: EditedRun) -> None:
    """Take back the insertions after which the loss on the probe set is no lower than before."""
    population = state.population
    wait = population.cells[0].growth.backtrack
    ends = [member.trial_ends(state.epoch, wait) for member in state.members]
    editing.judge_trials(state, ends, population.data.probe)


def records(cells: Sequence[Cell], state: EditedRun, origin: Origin) -> list[GrowRecord]:
    """The completion record of each cell."""
    return editing.records_of_type(GrowRecord, cells, state, origin)


def progress(state: EditedRun) -> dict[str, Any]:
    """What to tell of a state while training goes on."""
    epochs = state.population.cells[0].training.epochs
    return {"event": "step", "part": state.epoch, "of": epochs, "what": "epochs"}
