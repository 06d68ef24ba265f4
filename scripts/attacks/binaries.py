"""Kept networks, checkpoints and decoded data sets with some bytes changed.

Their checksums must show it: what is read is what was written, or nothing is.
"""

from __future__ import annotations

import functools
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from attacks.attempt import Attempt
from attacks.damage import VALUES, damaged_bytes
from cbundles import data, formats
from cbundles.config import Cell, Data, Model, Probe, Training
from cbundles.data import dataset, device, spirals
from cbundles.errors import DamagedCheckpoint, InputError
from cbundles.experiments import sweep
from cbundles.experiments.run_state import RunState
from cbundles.networks import saved

CELL = Cell(
    Data(name="spirals"),
    Model(family="fc", depth=2, width=3),
    Training(epochs=2),
    Probe(samples=64),
)


def networks(chance: Random, count: int, folder: Path) -> Iterator[Attempt]:
    """A network's file is refused, or its numbers are those that were saved."""
    content = saved.encode(_network())
    params = _network().network.params
    for number in range(count):
        damaged = damaged_bytes(chance, content) if number % 3 else _other_header(chance, content)
        what = f"network, {len(damaged)} bytes"
        try:
            read = saved.decode(damaged, "a network")
        except InputError as error:
            yield Attempt(what, None if "a network" in str(error) else f"no place: {error}")
            continue
        except Exception as error:
            yield Attempt(what, f"{type(error).__name__}: {error}"[:300])
            continue
        same = np.array_equal(read.network.params, params)
        yield Attempt(what, None if same else "other numbers were read")


def checkpoints(chance: Random, count: int, folder: Path) -> Iterator[Attempt]:
    """Damaged below the checksum, which must show it; or above it, which must show in another way:
    a run then starts from the beginning, and gives the right numbers."""
    content = _frozen_state()
    sealed = formats.seal(content)
    for number in range(count):
        if number % 2:
            damaged = damaged_bytes(chance, sealed)
            try:
                same = formats.unseal(damaged) == content
                problem = None if same else "other content was read"
            except DamagedCheckpoint:
                problem = None
            yield Attempt("checkpoint", problem)
            continue
        damaged = damaged_bytes(chance, content)
        try:
            _thawed(damaged)
            problem = None  # a number within a weight: without its checksum nobody can tell
        except DamagedCheckpoint:
            problem = None
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"[:300]
        yield Attempt("checkpoint with a right checksum", problem)


def caches(chance: Random, count: int, folder: Path) -> Iterator[Attempt]:
    """A decoded data set is whole, or none."""
    kept, changed = folder / "whole", folder / "changed"
    dataset.write(kept, "spirals", ("first", "second"), spirals.arrays())
    whole = dataset.read(kept, verify=True)
    assert whole is not None
    for _ in range(count):
        shutil.rmtree(changed, ignore_errors=True)
        shutil.copytree(kept, changed)
        path = chance.choice(sorted(changed.iterdir()))
        path.write_bytes(damaged_bytes(chance, path.read_bytes()))
        try:
            read = dataset.read(changed, verify=True)
        except Exception as error:
            yield Attempt(f"cache, {path.name}", f"{type(error).__name__}: {error}"[:300])
            continue
        same = read is None or (
            read.fingerprint == whole.fingerprint
            and read.classes == whole.classes
            and np.array_equal(read.train_images, whole.train_images)
        )
        yield Attempt(f"cache, {path.name}", None if same else "other images were read")


def _other_header(chance: Random, content: bytes) -> bytes:
    """The file of a network with another header, whose checksums are right."""
    with np.load(io.BytesIO(content)) as archive:
        arrays = dict(archive)
    header = json.loads(str(arrays["header"]))
    place: Any = chance.choice((header, header["shape"], header["origin"]))
    key = chance.choice(list(place) or ["x"])
    place[key] = chance.choice(VALUES)
    file = io.BytesIO()
    np.savez(file, **{**arrays, "header": np.array(json.dumps(header))})
    return file.getvalue()


@functools.cache
def _start() -> tuple[Any, Any]:
    stored = data.load("spirals")
    return device.place(stored, CELL.data, CELL.probe), stored.facts


@functools.cache
def _first_state() -> RunState[Any]:
    placed, facts = _start()
    return next(iter(sweep.train((CELL,), placed, facts, None)))


def _frozen_state() -> bytes:
    return _first_state().freeze()


def _thawed(content: bytes) -> None:
    placed, facts = _start()
    next(iter(sweep.train((CELL,), placed, facts, content)))


@functools.cache
def _network() -> saved.Saved:
    shape, network = _first_state().population.network_of(0)
    return saved.Saved(shape, network, {"cell": CELL.id})
