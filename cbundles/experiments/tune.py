"""The depth tuner: remove layers that conflict, insert one where it helps, keep what proves useful.

At each check one probe set tells H of every layer and the sensitivity of every position
(`edits.propose`). An edit is on trial for some epochs: unless it has lowered the loss on held-out
images by then, the network is put back as it was before, and the compute is lost. Every arm has the
same compute, counted in FLOPs: shallow networks train for more epochs than deep ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cbundles.config import Cell
from cbundles.data.dataset import Facts
from cbundles.data.device import DeviceData, Examples
from cbundles.decisions import edits
from cbundles.decisions.edits import INSERT, Edit
from cbundles.experiments import editing
from cbundles.experiments.editing import Edited, EditedRun
from cbundles.experiments.pace import Pace
from cbundles.experiments.run_state import RunState, thaw
from cbundles.population import Population
from cbundles.records import Origin, TuneRecord


def train(
    cells: Sequence[Cell], data: DeviceData, facts: Facts, resume: bytes | None = None
) -> Iterator[EditedRun]:
    """Train cells that differ in arm and seed as one population, until their compute is spent;
    yields after the initial evaluation, after each epoch, and within long ones."""
    assert data.held_out is not None
    if len(data.labels) < cells[0].training.batch_size:
        raise ValueError("fewer training images than a batch holds")
    depths = [cell.model.depth for cell in cells]
    room = max(*depths, min(edits.ROOM, cells[0].tuning.max_depth))
    population = Population(cells, data, facts, depths=depths, room=room)
    if resume is None:
        state = RunState(population, [Edited() for _ in cells])
        with state.timed():
            editing.evaluate(state, [True] * len(cells), data.held_out)
        yield state
    else:
        state = thaw(resume, population, editing.member_of)
        if not _can_train(state).any():  # interrupted after the last epoch
            yield state
    pace = Pace(population)
    while (active := _can_train(state)).any():
        with state.timed():
            pace.advance(active)
            if population.step == 0:
                _after_epoch(state, active)
        yield state


def budget(state: EditedRun) -> float:
    """FLOPs that each network may spend."""
    cell = state.population.cells[0]
    return float(cell.training.epochs * state.population.epoch_flops_at(cell.tuning.budget_depth))


def _can_train(state: EditedRun) -> np.ndarray:
    """Which members can afford another epoch, bool (members,)."""
    limit = budget(state)
    return np.array(
        [
            member.flops + state.population.epoch_flops(number) <= limit
            for number, member in enumerate(state.members)
        ]
    )


def _after_epoch(state: EditedRun, active: np.ndarray) -> None:
    """Judge, edit, evaluate. active: which members were trained."""
    population = state.population
    assert population.data.held_out is not None
    held_out = population.data.held_out
    editing.spend_epoch(state, active)
    _judge(state, active, held_out)
    if state.epoch % population.cells[0].tuning.every == 0:
        _try_edits(state, active, held_out)
    look = editing.is_shown(state.epoch, population.cells[0].training.epochs)
    editing.evaluate(state, list(active & (look | ~_can_train(state))), held_out)


def _affords_trial(state: EditedRun, number: int, held_out: Examples) -> bool:
    """Whether a check, and an insertion with its trial and the judgement, are within the limit: no
    edit is left that has not been judged."""
    population = state.population
    trial, deeper = population.cells[0].tuning.trial, int(population.depths[number]) + 1
    epoch = population.epoch_flops_at(deeper)
    images = population.steps * population.recipe.batch_size
    judgement = len(held_out.labels) * epoch / (3 * images)
    check = _check_flops(population, number, held_out)
    return state.members[number].flops + check + trial * epoch + judgement <= budget(state)


def _check_flops(population: Population, number: int, held_out: Examples) -> float:
    """Of scoring, measuring H and accuracy on the probe set, and the loss on held-out images."""
    apart = len(held_out.labels) * population.flops(number)
    return population.score_flops(number) + 2 * population.probe_flops(number) + apart


def _judge(state: EditedRun, active: np.ndarray, held_out: Examples) -> None:
    """Keep the edits that lowered the loss on held-out images, take back the others."""
    trial = state.population.cells[0].tuning.trial
    ends = [
        bool(active[number]) and member.trial_ends(state.epoch, trial)
        for number, member in enumerate(state.members)
    ]
    editing.judge_trials(state, ends, held_out)


def _is_due(state: EditedRun, number: int, held_out: Examples) -> bool:
    """Whether a member may try an edit now."""
    cell, member = state.population.cells[number], state.members[number]
    if cell.tuning.arm == "fixed" or member.pending is not None:
        return False
    if member.judged and state.epoch - member.judged[-1].epoch < cell.tuning.cooldown:
        return False
    return _affords_trial(state, number, held_out)


def _try_edits(state: EditedRun, active: np.ndarray, held_out: Examples) -> None:
    """Let every network that is due try an edit."""
    population, members, epoch = state.population, state.members, state.epoch
    due = [bool(active[n]) and _is_due(state, n, held_out) for n in range(len(members))]
    if not any(due):
        return
    entropy, scores = _entropies(population), population.scores()
    train, apart = population.performance(population.data.probe), population.performance(held_out)
    chosen: list[Edit | None] = [None] * len(members)
    for number, (cell, member) in enumerate(zip(population.cells, members, strict=True)):
        if not due[number]:
            continue
        member.spend(_check_flops(population, number, held_out))
        member.note_scores(epoch, scores[number], entropy=entropy[number])
        chosen[number] = edits.propose(
            cell.tuning,
            depth=int(population.depths[number]),
            entropy=entropy[number],
            sensitivities=scores[number].positions,
            existing=scores[number].existing,
            accuracy=float(train.accuracy[number]),
            past=member.judged,
            seed=cell.training.seed,
            epoch=epoch,
        )
    if not any(chosen):
        return
    editing.remember(state, np.array([edit is not None for edit in chosen]))
    _apply(population, chosen)
    for number, edit in enumerate(chosen):
        if edit is not None:
            loss = float(apart.loss[number])
            members[number].note_edit(epoch, edit, int(population.depths[number]), loss)
            members[number].put_on_trial(epoch, edit, loss)


def _entropies(population: Population) -> list[list[float | None]]:
    """H of every layer of every member on the probe set, nats; None where it is not finite."""
    own = population.measured().own
    entropies = []
    for number, depth in enumerate(population.depths):
        values, finite = own.entropy[number, :depth], own.finite[number, :depth]
        entropies.append([float(h) if ok else None for h, ok in zip(values, finite, strict=True)])
    return entropies


def _apply(population: Population, chosen: Sequence[Edit | None]) -> None:
    inserted = np.full(len(chosen), -1, np.int32)
    left = population.depths.copy()
    for number, edit in enumerate(chosen):
        if edit is None:
            continue
        if edit.kind == INSERT:
            inserted[number] = edit.position
        else:
            left[number] = edit.position
    if (left != population.depths).any():
        population.truncate(left)
    population.insert(inserted)


def records(cells: Sequence[Cell], state: EditedRun, origin: Origin) -> list[TuneRecord]:
    """The completion record of each cell."""
    return editing.records_of_type(TuneRecord, cells, state, origin)


def progress(state: EditedRun) -> dict[str, Any]:
    """The share of all compute that has been spent."""
    spent = sum(member.flops for member in state.members)
    share = round(100 * spent / (budget(state) * len(state.members)))
    return {"event": "step", "part": share, "of": 100, "what": "% of the compute"}
