"""`cbundles status`: how far a run is, from its folder alone, also while a process works on it."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich.console import Console

from cbundles.commands.output import say
from cbundles.config import SECTIONS, Cell, build
from cbundles.console import duration
from cbundles.errors import DamagedCheckpoint, InputError
from cbundles.executor import planner
from cbundles.executor.planner import PopulationJob
from cbundles.report import runs
from cbundles.store import Store

DEVICES = ("cpu", "gpu")  # on which the same cells make other populations
SHOWN = 20  # half-trained populations that are listed


class HalfDone(NamedTuple):
    """A population that has a checkpoint."""

    cells: tuple[Cell, ...]
    epoch: int | None  # finished ones; None where the checkpoint cannot be used
    saved: float  # seconds ago

    def __str__(self) -> str:
        more = f" (+{len(self.cells) - 1} more)" if len(self.cells) > 1 else ""
        epochs = self.cells[0].training.epochs
        place = "unusable" if self.epoch is None else f"epoch {self.epoch} of {epochs}"
        return f"{self.cells[0].label}{more}: {place}, saved {duration(self.saved)} ago"


def show_status(folder: Path, as_json: bool, console: Console) -> None:
    """Print what is finished and what is half done. InputError when there is no run."""
    run = runs.read(folder)
    half_done = list(_half_done(run.store, run.description))
    wanted = len(run.records) + run.unfinished
    working = run.store.is_in_use()
    if as_json:
        content = {
            "run": run.name,
            "kind": run.kind,
            "finished": len(run.records),
            "unfinished": run.unfinished,
            "in_use": working,
            "half_done": [
                {"cells": [cell.id for cell in each.cells], "epoch": each.epoch}
                for each in half_done
            ],
        }
        print(json.dumps(content))
        return
    say(console, f"{folder}: {run.kind}, {len(run.records)} of {wanted} finished")
    say(console, f"a process is {'working on it now' if working else 'not working on it'}")
    for each in half_done[:SHOWN]:
        say(console, f"half done: {each}")
    if len(half_done) > SHOWN:
        say(console, f"half done: {len(half_done) - SHOWN} more")
    if run.unfinished and not working:
        say(console, "the command that began it continues it")
    if (folder / "table.md").is_file():
        say(console, f"table: {folder / 'table.md'}, figures: {run.store.figures}")


def _half_done(store: Store, description: dict[str, Any]) -> Iterator[HalfDone]:
    """The populations that have a checkpoint, the latest first."""
    by_key = _populations(description)
    now = datetime.datetime.now().timestamp()
    for key, saved in store.checkpoints():
        job = by_key.get(key.partition("-")[0])
        if job is not None:
            yield HalfDone(job.cells, _epoch_of(store, key), now - saved)


def _populations(description: dict[str, Any]) -> dict[str, PopulationJob]:
    """The populations of a run by their keys, whatever device it works on."""
    try:
        cells = build(_without_defaults(description["config"]), default_name="run").cells
    except (InputError, KeyError, TypeError, AttributeError):  # of another version, or the toy
        return {}
    jobs = [job for device in DEVICES for job in planner.populations(cells, device)]
    return {job.key: job for job in jobs}


def _without_defaults(grid: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a configuration file had to say: run.json holds every setting, also those that have no
    effect, which a file must not name."""
    given: dict[str, dict[str, Any]] = {}
    for section, kind in SECTIONS.items():
        defaults = {field.name: field.default for field in dataclasses.fields(kind)}
        named = grid[section].items()
        given[section] = {key: value for key, value in named if value != defaults[key]}
    return given


class _PopulationPart(msgspec.Struct):
    epoch: int


class _CheckpointPart(msgspec.Struct):
    """What is read of a checkpoint; all else in it, the arrays above all, is passed over."""

    population: _PopulationPart


def _epoch_of(store: Store, key: str) -> int | None:
    """Finished epochs in a checkpoint; None where it cannot be used."""
    try:
        content = store.load_checkpoint(key) or b""
        return msgspec.msgpack.decode(content, type=_CheckpointPart).population.epoch
    except (DamagedCheckpoint, OSError, msgspec.DecodeError):
        return None
