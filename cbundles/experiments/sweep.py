"""Sweeps (paper, sec. 3.3): train networks of a grid, measure every layer after every epoch, and
after steps of the first one where these are asked for (`early_steps`); and say how far each layer
is from conflicting, where that is asked for (`bits`)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cbundles import bits, criterion, measure
from cbundles.bundles import largest_entropy
from cbundles.config import Cell
from cbundles.data.dataset import Facts
from cbundles.data.device import DeviceData
from cbundles.experiments import entries
from cbundles.experiments.pace import Pace
from cbundles.experiments.run_state import RunState, thaw
from cbundles.networks.shape import OwnShape, Shape
from cbundles.population import Population
from cbundles.records import EarlyHistory, Origin, SweepHistory, SweepRecord
from cbundles.records.earlier import add_conflict_rates
from cbundles.spread import on_host


@dataclass
class Observed:
    """What is known of one network."""

    history: list[dict[str, Any]] = field(default_factory=list)  # an entry for each epoch, from 0
    first_epoch: list[dict[str, Any]] = field(default_factory=list)  # one for each early step


def train(
    cells: Sequence[Cell], data: DeviceData, facts: Facts, resume: bytes | None = None
) -> Iterator[RunState[Observed]]:
    """Train cells as one population: those that differ in seed, depth or width only. Yields at
    initialisation, after each epoch, after the early steps, and within long epochs.

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
        with state.timed():
            if not _is_due(state):
                pace.advance(until=_next_early_step(state))
            if _is_due(state):
                _measure(state)
        if population.step == 0:
            state.entry_is_written()
        yield state


def _is_due(state: RunState[Observed]) -> bool:
    """Whether training has come to a place that is measured, and has not been."""
    step = state.population.step
    if step:
        return step == _next_early_step(state)
    return len(state.members[0].history) == state.epoch


def _next_early_step(state: RunState[Observed]) -> int | None:
    """The early step at which training pauses next to be measured; None where none is left."""
    steps = state.population.cells[0].early_steps
    measured = len(state.members[0].first_epoch)
    return steps[measured] if state.epoch == 0 and measured < len(steps) else None


def _is_over(state: RunState[Observed]) -> bool:
    training, epoch = state.population.cells[0].training, state.epoch
    if state.population.step or _is_due(state):
        return False
    if 0 < epoch <= training.checks:
        last = state.members[0].history[-1][training.stop_conflicting][-1]
        if criterion.conflicts(training.stop_conflicting, last):
            return True
    return epoch == training.epochs


def _measure(state: RunState[Observed]) -> None:
    """Add an entry to what is known of every member."""
    population, step = state.population, state.population.step
    is_trained = population.epoch or step
    losses = population.mean_losses() if is_trained else [None] * len(population.cells)
    accuracy = population.accuracy()
    compiled, started = population.compile_seconds, perf_counter()
    measured = population.measured()
    peers = population.peers() if population.cells[0].probe.peers == "on" else None
    for number, member in enumerate(state.members):
        shape = population.shape_of(number)
        entry = entries.entry_of_member(accuracy[number], measured, number, shape, losses[number])
        if peers is not None:
            entry["peers"] = entries.peers_of_entry(peers[number])
        if step:
            member.first_epoch.append({"step": step, **entry})
        else:
            member.history.append(entry)
    if not step:
        _add_headroom(state)
    spent = perf_counter() - started - (population.compile_seconds - compiled)
    state.probe_seconds.append(round(spent, 4))


def _add_headroom(state: RunState[Observed]) -> None:
    """Add to the entries of an epoch how far layers are from conflicting, where that is asked for.
    Whether an epoch was the last one, what has just been measured may decide."""
    population = state.population
    when = population.cells[0].probe.headroom
    if when == bits.OFF:
        return
    found = population.headroom() if when == bits.ALL or _is_over(state) else None
    for number, member in enumerate(state.members):
        entry = member.history[-1]
        entry["headroom"] = (
            None if found is None else entries.headroom_of_member(found[number], entry)
        )


def _observed(population: Population, content: dict[str, Any], number: int) -> Observed:
    """A member from plain data. Raises some error for what is none: it ends in a record."""
    cell, history = population.cells[number], content["history"]
    first_epoch = content.get("first_epoch", [])  # older checkpoints know nothing of early steps
    for entry in [*history, *first_epoch]:
        entries.check(entry, cell, population.shape_of(number))
        add_conflict_rates(entry)
    if len(history) != population.epoch + 1:
        raise ValueError(f"it holds {len(history)} measurements after epoch {population.epoch}")
    passed = [step for step in cell.early_steps if population.epoch or step <= population.step]
    if [entry["step"] for entry in first_epoch] != passed:
        raise ValueError(f"it holds {len(first_epoch)} measurements within the first epoch")
    return Observed(history, first_epoch)


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
            first_epoch=_within_first_epoch(member),
            steps_per_epoch=population.steps,
            seconds=[round(s / len(cells), 4) for s in state.seconds],
            probe_seconds=[round(s / len(cells), 4) for s in state.probe_seconds],
            latency_seconds=_latency(cell, state, shape) if origin.workers_on_device == 1 else None,
            layers=list(shape.sites) if isinstance(shape, OwnShape) else None,
        )
        result.append(record)
    return result


def _within_first_epoch(member: Observed) -> EarlyHistory | None:
    """What was measured after the early steps, where there were any."""
    return EarlyHistory.of_entries(member.first_epoch) if member.first_epoch else None


def _latency(cell: Cell, state: RunState[Observed], shape: Shape) -> float | None:
    """Seconds for a batch of its size, of a network that was trained to the end, alone in its
    population; None of any other network, and of our fully connected ones."""
    population = state.population
    if cell.model.family == "fc" or population.epoch < cell.training.epochs:
        return None
    networks = on_host(population.state.network())
    alone = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), networks)
    images = jnp.asarray(on_host(population.data.test.images[: cell.training.batch_size]))
    augmentation = population.measurement.augmentation
    return measure.latency(shape, alone, images, augmentation)


def progress(state: RunState[Observed]) -> dict[str, Any]:
    """What to tell of a state while training goes on."""
    population, cell = state.population, state.population.cells[0]
    if not population.step:
        latest = [member.history[-1] for member in state.members]
        return {"event": "epoch", "epoch": state.epoch, **_told(latest)}
    # On the scale of the events after epochs: the initial measurement counts as one.
    steps, epochs = population.steps, cell.training.epochs
    done = (state.epoch + 1) * steps + population.step
    event = {"event": "step", "part": done, "of": (epochs + 1) * steps, "what": "steps"}
    if state.epoch == 0 and population.step in cell.early_steps:
        latest = [member.first_epoch[-1] for member in state.members]
        event |= {"step": population.step, **_told(latest)}
    return event


def _told(latest: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is told of a measurement of every member."""
    return {
        "test_accuracy": [entry["test_accuracy"] for entry in latest],
        "bundle_entropy": [entry["entropy"][-1] for entry in latest],
    }
