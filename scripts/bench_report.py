"""How long a report over many records takes, and how much memory: synthetic records, real report.

    python scripts/bench_report.py [--records N] [--json FILE]

Three runs are made up in a temporary folder: seven tenths of the records are a sweep of fully
connected networks (11 widths, 16 depths from 2 to 32, 5 epochs), two tenths grow and one tenth is
tuned. Their numbers are drawn at random; nothing is trained. Then `cbundles report` runs on them as
a process of its own. Wanted with 10,000 records: 30 seconds, and 1 GB in its largest process.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice, product
from pathlib import Path
from typing import TypeVar

import numpy as np

from cbundles.config import Cell
from cbundles.files import write_atomically
from cbundles.records import (
    CellRecord,
    EditedHistory,
    EditedRecord,
    Event,
    GrowRecord,
    Origin,
    Scoring,
    SweepHistory,
    SweepRecord,
    TuneRecord,
    sealed,
)
from cbundles.store import CELLS, Store

WANTED_SECONDS, WANTED_BYTES = 30, 1e9
WIDTHS, DEPTHS, EPOCHS = range(10, 120, 10), range(2, 34, 2), 5
GROWN_WIDTHS, STARTS = (5, 10, 25, 50), (2, 8, 20)
GROWTH_ARMS = ("max", "min", "first", "random", "small", "matched", "large")
TUNING_ARMS = ("fixed", "remove", "insert", "both", "both-random")
EVALUATIONS = 20  # of a network that changes its depth
ORIGIN = Origin(
    platform="cpu",
    device="cpu",
    processor="made up",
    versions={"jax": "none"},
    commit=None,
    data_fingerprint="made up",
)
Edited = TypeVar("Edited", bound=EditedRecord)
Point = TypeVar("Point")


def swept() -> Iterator[SweepRecord]:
    """Networks that conflict the more, the deeper they are for their width; seed after seed."""
    chance = np.random.default_rng(0)
    for seed, (width, depth) in _by_seed(product(WIDTHS, DEPTHS)):
        cell = Cell.fromdict(
            {
                "data": {"name": "mnist"},
                "model": {"family": "fc", "depth": depth, "width": width},
                "training": {"epochs": EPOCHS, "seed": seed},
            }
        )
        first = width / 5 + chance.normal()  # the first layer that conflicts
        height = np.clip(np.arange(depth) - first, 0, 20) / 20 * math.log(10)
        entropy = (height * chance.uniform(0.5, 1, (EPOCHS + 1, 1))).round(6)
        accuracy = np.clip(0.95 - entropy[:, -1] / 3 + chance.normal(0, 0.02, EPOCHS + 1), 0, 1)
        yield SweepRecord(
            id=cell.id,
            origin=ORIGIN,
            config=cell.asdict(),
            num_classes=10,
            parameters=depth * width**2,
            bytes=4 * depth * width**2,
            flops=2 * depth * width**2,
            compile_seconds=3.0,
            population=1,
            largest_entropy=2.302585,
            history=SweepHistory(
                test_accuracy=accuracy.round(4).tolist(),
                train_loss=[None, *chance.uniform(0.1, 2, EPOCHS).tolist()],
                entropy=entropy.tolist(),
                conflict_rate=(entropy / 3).tolist(),
                num_bundles=chance.integers(1, 2048, (EPOCHS + 1, depth)).tolist(),
            ),
            seconds=[0.1] + [1.0] * EPOCHS,
            probe_seconds=[0.1] * (EPOCHS + 1),
        )


def grown() -> Iterator[GrowRecord]:
    """Networks of every arm that grow once; seed after seed."""
    for seed, (width, arm) in _by_seed(product(GROWN_WIDTHS, GROWTH_ARMS)):
        growth = {"arm": arm, "first_epoch": 40, "large_depth": 4}
        cell = Cell.fromdict(
            {
                "data": {"name": "spirals"},
                "model": {"family": "fc", "depth": 2, "width": width},
                "training": {"epochs": 100, "seed": seed},
                "growth": growth,
            }
        )
        yield _edited(GrowRecord, cell, depth=4 if arm == "large" else 2)


def tuned() -> Iterator[TuneRecord]:
    """Networks of every arm that are tuned from several depths; seed after seed."""
    for seed, (start, arm) in _by_seed(product(STARTS, TUNING_ARMS)):
        tuning = {"arm": arm, "budget_depth": 8, "max_depth": 40}
        cell = Cell.fromdict(
            {
                "data": {"name": "spirals"},
                "model": {"family": "fc", "depth": start, "width": 5},
                "training": {"epochs": 100, "seed": seed},
                "tuning": tuning,
            }
        )
        yield _edited(TuneRecord, cell, depth=start)


def _by_seed(points: Iterable[Point]) -> Iterator[tuple[int, Point]]:
    """All points of a grid with seed 0, then with seed 1, without an end."""
    grid = list(points)
    return ((seed, point) for seed in count() for point in grid)


def _edited(kind: type[Edited], cell: Cell, depth: int) -> Edited:
    """A record whose loss falls, and of a network that gets a layer after epoch 40."""
    chance = np.random.default_rng(int(cell.id, 16))
    epochs = np.linspace(0, 100, EVALUATIONS).round().astype(int).tolist()
    loss = (0.7 * np.exp(-np.linspace(0, chance.uniform(1, 3), EVALUATIONS))).tolist()
    event = Event(
        epoch=40, kind="insert", position=1, count=1, depth=depth + 1, loss_before=loss[8]
    )
    scores = chance.uniform(0, 1, (2, depth)).tolist()
    return kind(
        id=cell.id,
        origin=ORIGIN,
        config=cell.asdict(),
        num_classes=2,
        parameters=100,
        bytes=400,
        flops=200,
        compile_seconds=1.0,
        population=20,
        steps_per_epoch=9,
        history=EditedHistory(
            epoch=epochs,
            flops=[1000.0 * depth * epoch for epoch in epochs],
            depth=[depth + (epoch > 40) for epoch in epochs],
            train_loss=loss,
            train_accuracy=[1 - value / 2 for value in loss],
            test_loss=loss,
            test_accuracy=[1 - value / 2 for value in loss],
            held_out_loss=loss,
        ),
        events=[event],
        scores=[Scoring(epoch=40, sensitivities=scores[0], existing=scores[1])],
        seconds=2.0,
        programs=2,
    )


def write_run(folder: Path, records: Sequence[CellRecord]) -> None:
    """A complete run with these records."""
    store = Store(folder)
    write_atomically(store.sealed_path(CELLS), sealed.encode(records))
    cells = [record.id for record in records]
    data = {"mnist": "made up", "spirals": "made up"}
    store.write_run(
        {"name": folder.name, "kind": records[0].kind, "config": {}, "cells": cells, "data": data}
    )


def measure(root: Path) -> dict[str, float]:
    """Seconds that the report takes, and bytes of the largest of its processes."""
    code = "import sys; from cbundles import cli; sys.argv[0] = 'cbundles'; cli.main()"
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, "report", str(root)], check=True, stdout=subprocess.DEVNULL
    )
    seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(seconds, 2),
        "core_seconds": round(used.ru_utime + used.ru_stime, 2),
        "bytes": 1024 * used.ru_maxrss,  # Linux counts in kilobytes
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="where to keep the numbers")
    options = parser.parse_args()
    few = options.records // 10
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_run(root / "swept", list(islice(swept(), options.records - 3 * few)))
        write_run(root / "grown", list(islice(grown(), 2 * few)))
        write_run(root / "tuned", list(islice(tuned(), few)))
        size = sum(path.stat().st_size for path in root.glob("*/*.jsonl*"))
        found = {"records": options.records, "bytes_on_disk": size, **measure(root)}
    found["cores"] = os.cpu_count() or 1
    text = json.dumps(found, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    good = found["seconds"] <= WANTED_SECONDS and found["bytes"] <= WANTED_BYTES
    print("within" if good else "NOT within", f"{WANTED_SECONDS} s and {WANTED_BYTES / 1e9:g} GB")


if __name__ == "__main__":
    main()
