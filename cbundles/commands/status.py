"""`cbundles status`: how far a run is, from its folder alone, also while a process works on it."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich.console import Console

from cbundles.chains import chains_so_far
from cbundles.commands.output import say
from cbundles.config import AUTOTUNE, LESION, SECTIONS, Cell, build
from cbundles.console import duration
from cbundles.errors import DamagedCheckpoint, InputError
from cbundles.executor import planner
from cbundles.executor.planner import PopulationJob
from cbundles.report import runs
from cbundles.store import Store
from cbundles.wording import counted

DEVICES = ("cpu", "gpu")  # on which the same cells make other populations
SHOWN = 20  # half-trained populations that are listed


class HalfDone(NamedTuple):
    """A population, or the study of a network, that has a checkpoint.

    cells: identities of its networks; empty where the settings of the run do not tell
    epoch: finished ones; None of a study, and where the checkpoint cannot be used
    saved: seconds ago
    what: which networks, and how far they are, in words
    """

    cells: list[str]
    epoch: int | None
    saved: float
    what: str

    def __str__(self) -> str:
        return f"{self.what}, saved {duration(self.saved)} ago"


def show_status(folder: Path, as_json: bool, console: Console) -> None:
    """Print what is finished and what is half done. InputError when there is no run."""
    run = runs.read(folder)
    half_done = list(_half_done(run.store, run.description))
    working = run.store.is_in_use()
    if as_json:
        content = {
            "run": run.name,
            "kind": run.kind,
            "finished": len(run.records),
            "unfinished": run.unfinished + run.baselines_missing,
            "in_use": working,
            "half_done": [{"cells": each.cells, "epoch": each.epoch} for each in half_done],
        }
        print(json.dumps(content))
        return
    finished = f"{len(run.records)} of {len(run.records) + run.unfinished} finished"
    if run.kind == AUTOTUNE:  # how many networks a seed needs is not known before its end
        finished = (
            f"{counted(len(run.records), 'network')} finished, "
            f"{counted(run.unfinished, 'seed')} not at the end"
        )
        if run.baselines_missing:
            finished += f", {counted(run.baselines_missing, 'network')} to compare with missing"
    say(console, f"{folder}: {run.kind}, {finished}")
    say(console, f"a process is {'working on it now' if working else 'not working on it'}")
    for each in half_done[:SHOWN]:
        say(console, f"half done: {each}")
    if len(half_done) > SHOWN:
        say(console, f"half done: {len(half_done) - SHOWN} more")
    if run.unfinished + run.baselines_missing and not working:
        say(console, "the command that began it continues it")
    if (folder / "table.md").is_file():
        drawn = f", figures: {run.store.figures}" if run.store.figures.is_dir() else ""
        say(console, f"table: {folder / 'table.md'}{drawn}")


def _half_done(store: Store, description: dict[str, Any]) -> Iterator[HalfDone]:
    """The populations that have a checkpoint, the latest first."""
    by_key = _populations(store, description)
    now = datetime.datetime.now().timestamp()
    for key, saved in store.checkpoints():
        of_population, _, rest = key.partition("-")
        job = by_key.get(of_population)
        cells = [] if job is None else [cell.id for cell in job.cells]
        label = f"population {of_population}" if job is None else _label(job)
        if rest.startswith(LESION):
            yield HalfDone(cells, None, now - saved, f"{label}: a study of its blocks")
            continue
        try:
            content = store.load_checkpoint(key)
            if content is None:  # what it was for has ended a moment ago
                continue
            epoch = msgspec.msgpack.decode(content, type=_CheckpointPart).population.epoch
        except (DamagedCheckpoint, OSError, msgspec.DecodeError):
            yield HalfDone(cells, None, now - saved, f"{label}: unusable")
        else:
            of = "" if job is None else f" of {job.cells[0].training.epochs}"
            yield HalfDone(cells, epoch, now - saved, f"{label}: epoch {epoch}{of}")


def _label(job: PopulationJob) -> str:
    more = f" (+{len(job.cells) - 1} more)" if len(job.cells) > 1 else ""
    return f"{job.cells[0].label}{more}"


def _populations(store: Store, description: dict[str, Any]) -> dict[str, PopulationJob]:
    """The populations of a run by their keys, whatever device it works on; of an auto-tuning also
    the network that each seed is at. What a run compares with is not among them."""
    try:
        if description["config"]["model"].get("build") is not None:
            return {}  # to know them, the code that the file names would have to be run
        cells = cells_of_run(description["config"])
    except (InputError, KeyError, TypeError, AttributeError):  # of another version, or the toy
        return {}
    jobs = [job for device in DEVICES for job in planner.populations(cells, device)]
    if description.get("kind") == AUTOTUNE:
        # Something may be damaged, or of another version.
        with contextlib.suppress(InputError, KeyError, ValueError):
            chains = chains_so_far(cells, description["rule"], store)
            jobs += [PopulationJob((chain.latest,)) for chain in chains]
    return {job.key: job for job in jobs}


def cells_of_run(grid: dict[str, Any]) -> Sequence[Cell]:
    """What a run is made of, by what its run.json says of its configuration."""
    return build(_without_defaults(grid), default_name="run").cells


def _without_defaults(grid: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a configuration file had to say: run.json holds every setting, also those that have no
    effect, which a file must not name, and what follows from a user's architecture."""
    given: dict[str, dict[str, Any]] = {}
    for section, kind in SECTIONS.items():
        defaults = {field.name: field.default for field in dataclasses.fields(kind)}
        given[section] = {
            key: value
            for key, value in grid[section].items()
            if key not in defaults or value != defaults[key]
        }
    if given["model"].get("build") is not None:
        for key in ("family", "source"):
            given["model"].pop(key, None)
    return given


class _PopulationPart(msgspec.Struct):
    epoch: int


class _CheckpointPart(msgspec.Struct):
    """What is read of a checkpoint; all else in it, the arrays above all, is passed over."""

    population: _PopulationPart
