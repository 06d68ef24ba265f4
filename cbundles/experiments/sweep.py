"""Sweeps (paper, sec. 3.3): train networks of a grid, measure every layer after every epoch."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import jax
import numpy as np

from cbundles import measure
from cbundles.bundles import largest_entropy
from cbundles.config import Cell
from cbundles.data.dataset import Facts
from cbundles.data.device import DeviceData
from cbundles.experiments import entries
from cbundles.experiments.pace import Pace
from cbundles.experiments.run_state import RunState, thaw
from cbundles.networks.shape import Shape
from cbundles.population import Population
from cbundles.records import Origin, SweepHistory, SweepRecord
from cbundles.records.earlier import add_conflict_rates


@dataclass
class Observed:
    """What is known of one network."""

    history: list[dict[str, Any]] = field(default_factory=list)  # an entry for each epoch, from 0


def train(
    cells: Sequence[Cell], data: DeviceData, facts: Facts, resume: bytes | None = None
) -> Iterator[RunState[Observed]]:
    """Train cells as one population: those that differ in seed, depth or width only. Yields at
    initialisation, after each epoch, and within long ones.

    resume: what was frozen of an earlier state; training then continues after it, and on the CPU
    ends bit-identical to a run that was never interrupted.
    """
    population = Population(cells, data, facts)
    if resume is None:
        state = RunState(population, [Observed() for _ in cells])
    else:
        state = thaw(resume, population, functools.partial(_observed, population))
        if _is_over(state):  # it was interrupted before its record was written
            yield state
    pace = Pace(population)
    while not _is_over(state):
        if _is_measured(state):
            with state.timed():
                pace.advance()
        if population.step == 0:
            with state.timed():
                _measure(state)
            state.entry_is_written()
        yield state


def _is_measured(state: RunState[Observed]) -> bool:
    """Whether there is an entry for the last epoch that is finished."""
    return len(state.members[0].history) > state.epoch


def _is_over(state: RunState[Observed]) -> bool:
    training, epoch = state.population.cells[0].training, state.epoch
    if state.population.step or not _is_measured(state):
        return False
    stops = 0 < epoch <= training.conflict_checks and conflicts(state.members[0].history[-1])
    return stops or epoch == training.epochs


def _measure(state: RunState[Observed]) -> None:
    """Add an entry to the history of every member."""
    population = state.population
    losses = population.mean_losses() if population.epoch else [None] * len(population.cells)
    accuracy = population.accuracy()
    compiled, started = population.compile_seconds, perf_counter()
    measured = population.measured()
    spent = perf_counter() - started - (population.compile_seconds - compiled)
    state.probe_seconds.append(round(spent, 4))
    for number, member in enumerate(state.members):
        shape = population.shape_of(number)
        entry = entries.entry_of_member(accuracy[number], measured, number, shape, losses[number])
        member.history.append(entry)


def conflicts(entry: dict[str, Any]) -> bool:
    """Whether the last layer conflicts in this measurement; so does a network that diverged."""
    entropy = entry["entropy"][-1]
    return entropy is None or entropy > 0


def _observed(population: Population, content: dict[str, Any], number: int) -> Observed:
    """A member from plain data. Raises some error for what is none: it ends in a record."""
    history = content["history"]
    for entry in history:
        entries.check(entry, population.cells[number], population.shape_of(number))
        add_conflict_rates(entry)
    if len(history) != population.epoch + 1:
        raise ValueError(f"it holds {len(history)} measurements after epoch {population.epoch}")
    return Observed(history)


def records(cells: Sequence[Cell], state: RunState[Observed], origin: Origin) -> list[SweepRecord]:
    """The completion record of each cell: everything that tables are made from."""
    population, result = state.population, []
    largest = round(largest_entropy(np.asarray(population.data.probe.labels)), 6)
    for number, (cell, member) in enumerate(zip(cells, state.members, strict=True)):
        shape = population.shape_of(number)
        record = SweepRecord(
            id=cell.id,
            origin=origin,
            config=cell.asdict(),
            num_classes=population.facts.num_classes,
            parameters=shape.parameters,
            bytes=shape.bytes,
            flops=shape.flops,
            compile_seconds=round(state.compile_seconds / len(cells), 2),
            population=len(cells),
            largest_entropy=largest,
            history=SweepHistory.of_entries(member.history),
            seconds=[round(s / len(cells), 4) for s in state.seconds],
            probe_seconds=[round(s / len(cells), 4) for s in state.probe_seconds],
            latency_seconds=_latency(cell, state, shape),
        )
        result.append(record)
    return result


def _latency(cell: Cell, state: RunState[Observed], shape: Shape) -> float | None:
    """Seconds that a VGG or ResNet that was trained to the end, alone in its population, takes for
    a batch of its size; None of any other network."""
    population = state.population
    if cell.model.family == "fc" or population.epoch < cell.training.epochs:
        return None
    alone = jax.tree.map(lambda leaf: leaf[0], population.state.network())
    images = population.data.test.images[: cell.training.batch_size]
    augmentation = population.measurement.augmentation
    return measure.latency(shape, alone, images, augmentation)


def progress(state: RunState[Observed]) -> dict[str, Any]:
    """What to tell of a state while training goes on."""
    latest = [member.history[-1] for member in state.members]
    population = state.population
    if population.step:
        # On the scale of the events after epochs: the initial measurement counts as one.
        steps, epochs = population.steps, population.cells[0].training.epochs
        done = (state.epoch + 1) * steps + population.step
        return {"event": "step", "part": done, "of": (epochs + 1) * steps, "what": "steps"}
    return {
        "event": "epoch",
        "epoch": state.epoch,
        "test_accuracy": [entry["test_accuracy"] for entry in latest],
        "bundle_entropy": [entry["entropy"][-1] for entry in latest],
    }
