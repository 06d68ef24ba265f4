"""What commands that train have in common: options, data, and following a run to its end."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rich.console import Console

from cbundles import data, keeping, provenance
from cbundles.config import Cell, Experiment, Images
from cbundles.console import Display, Tally, display_for, duration
from cbundles.data.dataset import Facts
from cbundles.errors import InputError
from cbundles.executor import local, on_ray, planner
from cbundles.executor.cluster import Cluster
from cbundles.executor.on_ray import RayCluster
from cbundles.executor.planner import Job, PopulationJob
from cbundles.executor.shards import Shard
from cbundles.executor.speed import Speed, kind_of
from cbundles.records import EditedRecord, SweepRecord
from cbundles.store import CELLS, SWEEPS, Store
from cbundles.wording import counted

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
    keep: tuple[str, ...] = ()  # epochs whose networks are kept, see `keeping`
    devices: int | None = None  # that share each population; None: one, or all of a cluster
    cluster: Cluster | None = None  # where several processes train it together
    publish: bool = False  # the run becomes, or stays, one of the repository's own
    ray: RayCluster | None = None  # where workers are, None for this machine
    shard: Shard | None = None  # the part of the run that this command does, None for all of it
    speed: Speed = dataclasses.field(default_factory=Speed)  # of this machine, for times told

    def has(self, store: Store, cell: Cell, fingerprint: str | None) -> bool:
        """Whether all that is wanted of a cell, trained on this data, is there."""
        if not store.is_finished(cell.id, fingerprint):
            return False
        wanted = keeping.epochs_of(self.keep, cell.training.epochs)
        if cell.training.checks and wanted:  # it may have ended early
            reached = store.record(cell.id, SWEEPS).epochs_trained
            wanted = [epoch for epoch in wanted if epoch == keeping.LAST or int(epoch) <= reached]
        return all(store.weights_path(cell.id, epoch).is_file() for epoch in wanted)


class Command(Protocol):
    """What is to be done, once flags, or a step of a profile, have been understood."""

    @property
    def name(self) -> str:
        """Of its folder in the results."""

    def execute(self, options: Options, console: Console) -> int:
        """Do what is not done yet and tell about all of it; returns the exit code."""


class PlannedCommand(Command, Protocol):
    """A command that takes long enough to ask first."""

    def show_plan(self, options: Options, console: Console) -> None:
        """Print what would be done, and its cost; do nothing."""


class SharedCommand(PlannedCommand, Protocol):
    """A command whose work is a list of populations, which shards share out."""

    def populations(self, options: Options) -> list[PopulationJob]:
        """Of the whole run."""


def describe_data(cells: Sequence[Cell]) -> dict[Images, Facts]:
    """Facts about the data sets of cells without preparing any."""
    return {images: data.describe(*images) for images in _data_sets(cells)}


class PreparedData(NamedTuple):
    """The data sets of cells, now that they are on disk."""

    facts: dict[Images, Facts]
    fingerprints: dict[Images, str]


def prepare_data(cells: Sequence[Cell], options: Options) -> PreparedData:
    """Make sure that the data sets of cells are there and whole."""
    facts, fingerprints = {}, {}
    for images in _data_sets(cells):
        dataset = data.load(*images, data_dir=options.data_dir, manual_dir=options.manual_dir)
        facts[images], fingerprints[images] = dataset.facts, dataset.fingerprint
    return PreparedData(facts, fingerprints)


def _data_sets(cells: Sequence[Cell]) -> list[Images]:
    return list(dict.fromkeys(cell.data.images for cell in cells))


def run_jobs(
    jobs: Sequence[Job],
    finished: int,
    facts: dict[Images, Facts],
    store: Store,
    options: Options,
    console: Console,
    then: Following | None = None,
    what: str = "to train",
) -> int:
    """Run populations, or studies, and show how far they are; returns how many cells failed.

    finished: how many cells need nothing more, to be told
    then: which jobs follow from one that has finished
    what: what the jobs are, in a word or two
    """
    if options.ray is not None:
        options = dataclasses.replace(options, workers=options.ray.connect(options.device))
    expected = {job.key: expected_seconds(job, facts, options) for job in jobs}
    tally = Tally({job.key: job for job in jobs}, expected, options.workers)
    log = logs_of(store, options) / "progress.log"
    display = display_for(console, tally.total_cells, options.as_json, log)
    how = "the same command without --fresh" if options.fresh else "the same command"
    until = "at any time"
    if store.is_replacing:
        until = "once a network is finished (before that the earlier run stays as it was)"
    try:
        if finished:
            display.line(f"finished already: {finished}")
        predicted = planner.wall_seconds(list(tally.cost.values()), options.workers)
        display.line(
            f"{what}: {tally.total_cells} on {devices(options)}, "
            f"about {duration(predicted)}; stop {until}, {how} continues"
        )
        return _follow(jobs, tally, display, store, options, facts, then)
    except KeyboardInterrupt:
        if store.settle():
            display.line("stopped before anything was finished; the earlier run is as it was")
        else:
            for line in tally.at_the_end():
                display.line(line)
            display.line(f"{how} continues")
        raise
    finally:
        display.close()


def _follow(
    jobs: Sequence[Job],
    tally: Tally,
    display: Display,
    store: Store,
    options: Options,
    facts: dict[Images, Facts],
    then: Following | None,
) -> int:
    """Show what the workers report until nothing is left; returns how many cells failed."""

    def add(finished: Job) -> list[Job]:
        added = then(finished, display) if then else []
        for job in added:
            tally.add(job, expected_seconds(job, facts, options))
        return added

    failed = 0
    logs = logs_of(store, options)
    if options.ray is None:
        events = local.run_jobs(
            jobs,
            store.folder,
            device=options.device,
            workers=options.workers,
            keep=options.keep,
            logs=logs,
            then=add,
            devices=options.devices,
            cluster=options.cluster,
        )
    else:
        events = on_ray.run_jobs(
            jobs,
            store.folder,
            cluster=options.ray,
            device=options.device,
            keep=options.keep,
            logs=logs,
            data_dir=options.data_dir,
            manual_dir=options.manual_dir,
            then=add,
        )
    trained: list[Cell] = []
    with contextlib.closing(events):  # at an interrupt, no worker outlives this
        for event in events:
            tally.update(event)
            if event["event"] == "failed":
                failed += len(tally.jobs[event["population"]].cells)
            elif event["event"] == "finished":
                store.settle()  # there is a record now: what it replaces may go
                job = tally.jobs[event["population"]]
                trained += job.cells if isinstance(job, PopulationJob) else ()
            display.event(event, tally)
    _learn(trained, store, options, facts)
    return failed


def _learn(
    trained: Sequence[Cell], store: Store, options: Options, facts: Mapping[Images, Facts]
) -> None:
    """Note how long this machine took for what was trained, unless workers were in each other's
    way, or elsewhere."""
    if options.ray is not None or options.cluster is not None or options.devices is not None:
        return
    if options.device == "cpu" and options.workers > len(local.usable_cores()):
        return
    taken: dict[str, list[tuple[float, float]]] = {}
    for cell in trained:
        record = store.record(cell.id, CELLS)
        if record.origin.workers_on_device > 1:
            return
        predicted = planner.training_seconds(cell, facts[cell.data.images])
        if isinstance(record, SweepRecord):  # which may have been stopped
            seconds = sum(record.seconds)
            predicted *= record.epochs_trained / cell.training.epochs
        elif isinstance(record, EditedRecord):
            seconds = record.seconds
        else:
            continue
        taken.setdefault(kind_of(cell), []).append((seconds, predicted))
    for kind, of_networks in taken.items():
        seconds, predicted = map(sum, zip(*of_networks, strict=True))
        options.speed.learn(kind, seconds, predicted)


def compute_for_first(options: Options) -> int:
    """Take part in a command as another process than the first, which alone plans and writes;
    returns the exit code."""
    assert options.cluster is not None
    archives = {
        name: str(folder)
        for name, folder in (("data_dir", options.data_dir), ("manual_dir", options.manual_dir))
        if folder is not None
    }
    code = local.compute_for_first(
        options.out, options.device, options.devices, options.cluster, archives
    )
    if code:
        print(
            "cbundles: the processes lost each other (see above), and all of them end; start them "
            "again, and the run continues",
            file=sys.stderr,
        )
    return code


def logs_of(store: Store, options: Options) -> Path:
    """Where this command writes what it prints: shards of a run do not share a log."""
    return store.logs if options.shard is None else store.logs / options.shard.folder_name


def costs(jobs: Sequence[Job], facts: Mapping[Images, Facts]) -> dict[str, float]:
    """Predicted seconds of each job on one worker, by its key: the same on every machine."""
    return {job.key: planner.job_seconds(job, facts) for job in jobs}


def expected_seconds(job: Job, facts: Mapping[Images, Facts], options: Options) -> float:
    """Seconds that a job takes a worker of this machine, compiling included."""
    return options.speed.expected(job, planner.job_seconds(job, facts))


def expected_training_seconds(cell: Cell, facts: Mapping[Images, Facts], options: Options) -> float:
    """Seconds that training and measuring a network takes a worker of this machine."""
    return options.speed.ratio(cell) * planner.training_seconds(cell, facts[cell.data.images])


def use_device(device: str) -> None:
    """Have JAX compute in this process on the CPU or the GPU; InputError without a GPU."""
    try:
        import jax

        if device == "cpu":
            jax.config.update("jax_platforms", "cpu")
        found = jax.default_backend()
    except Exception as error:  # whatever JAX makes of its variables, such as JAX_PLATFORMS
        asked = {name: value for name, value in os.environ.items() if name.startswith("JAX_")}
        told = f"; the environment says {asked}" if asked else ""
        reason = str(error) or type(error).__name__
        raise InputError(f"JAX cannot start ({reason}){told}; unset what it names") from None
    if device != "cpu" and found == "cpu":
        raise InputError(local.NO_GPU)


def devices(options: Options) -> str:
    """``one GPU``, ``2 CPU cores``, ``4 processes``, ``8 GPUs of a Ray cluster``."""
    if options.cluster is not None:
        return f"{options.cluster.processes} processes"
    if options.ray is not None:
        kind = "GPU" if options.device == "gpu" else "CPU core"
        return f"{counted(options.workers, kind)} of a Ray cluster"
    if options.device == "gpu":
        gpus = options.workers * (options.devices or 1)
        return "one GPU" if gpus == 1 else f"{gpus} GPUs"
    return "1 CPU core" if options.workers == 1 else f"{options.workers} CPU cores"


def description(
    experiment: Experiment, fingerprints: dict[Images, str], options: Options
) -> dict[str, Any]:
    """What `run.json` says of a run before any of it was computed."""
    return {
        "name": experiment.name,
        "kind": experiment.cells[0].kind,
        **published_mark(options),
        "config": experiment.grid,
        "cells": [cell.id for cell in experiment.cells],
        "seeds": sorted({cell.training.seed for cell in experiment.cells}),
        "data": {str(images): digest for images, digest in fingerprints.items()},
        **origin(),
    }


def published_mark(options: Options) -> dict[str, Any]:
    """What `run.json` says of a run that claims may be judged on, see `places`."""
    return {"published": True} if options.publish else {}


def origin() -> dict[str, Any]:
    """What `run.json` says of the program and the moment."""
    return {
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
