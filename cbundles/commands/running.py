"""What commands that train have in common: options, checks, costs, and following a run."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from cbundles import provenance
from cbundles.config import TUNE, Cell, Experiment
from cbundles.console import Display, Tally, display_for, duration
from cbundles.data.dataset import Facts
from cbundles.data.pipelines import require_square
from cbundles.errors import InputError
from cbundles.executor import local, planner
from cbundles.executor.planner import Job
from cbundles.store import Store

# What follows from a finished population; it may tell the display why.
Following = Callable[[Job, Display], list[Job]]


@dataclass(frozen=True)
class Options:
    """How to run, as against what to run: none of this changes a result."""

    out: Path
    device: str
    workers: int
    fresh: bool
    as_json: bool
    data_dir: Path | None
    manual_dir: Path | None
    keep_weights: bool = False

    def has(self, store: Store, cell: Cell, fingerprint: str | None) -> bool:
        """Whether all that is wanted of a cell, trained on this data, is there."""
        weights = not self.keep_weights or store.weights_path(cell.id).is_file()
        return weights and store.is_finished(cell.id, fingerprint)


def require_trained(store: Store, cells: Sequence[Cell], prints: dict[str, str]) -> None:
    """Read the trained networks of cells; InputError for one that is missing, damaged or not the
    one that its name says."""
    from cbundles.networks import saved

    for cell in cells:
        path = store.weights_path(cell.id)
        if not path.is_file():
            raise InputError(
                f"{path}: missing; train it with cbundles sweep CONFIG.yaml --keep-weights --out "
                f"{store.folder}, or with cbundles lesion --config CONFIG.yaml --out {store.folder}"
            )
        saved.read_trained(path, cell.id, prints[cell.data.name])


def require(experiment: Experiment, kind: str) -> None:
    """InputError unless all networks of an experiment are for this command: TRAIN, GROW, TUNE."""
    for cell in experiment.cells:
        if cell.kind != kind:
            arm = {"grow": "growth.arm", "tune": "tuning.arm"}
            given = f"{arm[cell.kind]} is set" if cell.kind in arm else f"{arm[kind]} is none"
            verb = cell.kind if cell.kind in arm else "sweep"
            raise InputError(
                f"{experiment.name}: {given} for {cell.label}; "
                f"cbundles {'sweep' if kind == 'train' else kind} cannot run it, "
                f"cbundles {verb} can"
            )


def check_against_data(cell: Cell, facts: Facts) -> None:
    require_square(cell.data, facts.image_shape)
    available, left = facts.train, ""
    if cell.kind == TUNE:
        available -= round(cell.tuning.held_out * facts.train)
        left = f" left when tuning.held_out = {cell.tuning.held_out}"
    for path, value in (
        ("probe.samples", cell.probe.count(available)),
        ("training.batch_size", cell.training.batch_size),
    ):
        if value > available:
            raise InputError(
                f"{path} = {value}: {cell.data.name} has {available} training images{left}; "
                f"nearest valid: {available}"
            )


def train(
    populations: Sequence[Job],
    finished: int,
    facts: dict[str, Facts],
    store: Store,
    options: Options,
    console: Console,
    then: Following | None = None,
    what: str = "to train",
) -> int:
    """Run populations, or studies, and those that `then` adds; returns how many cells failed."""
    todo = {population.key: population for population in populations}
    tally = Tally(todo, costs(populations, facts))
    display = display_for(console, tally.total_cells, options.as_json)
    try:
        if finished:
            display.line(f"finished already: {finished}")
        predicted = wall_seconds(list(tally.cost.values()), options.workers)
        display.line(
            f"{what}: {tally.total_cells} on {devices(options)}, "
            f"about {duration(predicted)}; stop at any time, the same command continues"
        )
        return follow(todo, tally, display, store, options, facts, then)
    except KeyboardInterrupt:
        display.line("stopped; the same command continues")
        raise
    finally:
        display.close()


def follow(
    todo: dict[str, Job],
    tally: Tally,
    display: Display,
    store: Store,
    options: Options,
    facts: dict[str, Facts],
    then: Following | None,
) -> int:
    def add(finished: Job) -> list[Job]:
        added = then(finished, display) if then else []
        for population in added:
            tally.add(population, costs([population], facts)[population.key])
        return added

    failed = 0
    events = local.run(
        list(todo.values()),
        store.folder,
        device=options.device,
        workers=options.workers,
        keep_weights=options.keep_weights,
        then=add,
    )
    for event in events:
        if event["event"] == "failed":
            failed += len(todo[event["population"]].cells)
        tally.update(event)
        display.event(event, tally)
    return failed


def costs(populations: Sequence[Job], facts: dict[str, Facts]) -> dict[str, float]:
    """Predicted seconds of each population on one worker."""
    return {job.key: planner.job_seconds(job, facts) for job in populations}


def wall_seconds(costs: Sequence[float], workers: int) -> float:
    return max(sum(costs) / workers, max(costs, default=0.0))


def devices(options: Options) -> str:
    if options.device == "gpu":
        return "one GPU"
    return f"{options.workers} CPU core{'s' * (options.workers != 1)}"


def description(experiment: Experiment, fingerprints: dict[str, str]) -> dict[str, Any]:
    """What `run.json` says of a run before any of it was computed."""
    return {
        "name": experiment.name,
        "config": experiment.grid,
        "cells": [cell.id for cell in experiment.cells],
        "seeds": sorted({cell.training.seed for cell in experiment.cells}),
        "data": fingerprints,
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
