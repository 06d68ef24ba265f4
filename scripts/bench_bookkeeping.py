"""What large grids cost before and after any network is trained: plans, resuming, tables, reports.

    python scripts/bench_bookkeeping.py [--cells N] [--records N] [--json FILE]

Three questions, each answered by the real command as a process of its own:

    plan      `cbundles sweep --plan --json` of a grid of 100,000 cells. Wanted: 5 s and 500 MB.
    resume    what is left of 10,000 cells, each of which has a record in a file of its own, as
              workers leave them. Wanted, as of the next one: 30 s and 1 GB.
    report    tables, figures, claims and the page of these 10,000.

The records are made up (`bench_report`); nothing is trained. A machine that is busy takes longer:
the seconds of its cores say more than those of the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import bench_report

from cbundles.records import SweepRecord
from cbundles.store import Store

WIDTHS, DEPTHS = range(10, 110, 10), range(1, 101)  # times as many seeds as cells are asked for


class Limits(NamedTuple):
    """What is wanted of one command."""

    seconds: float
    megabytes: float


PLAN, RECORDS = Limits(5, 500), Limits(30, 1000)


def grid_of(widths: Sequence[int], depths: Sequence[int], seeds: int, epochs: int) -> str:
    """A configuration file; JSON is YAML."""
    model = {"family": "fc", "width": list(widths), "depth": list(depths)}
    training = {"epochs": epochs, "seed": list(range(seeds))}
    return json.dumps({"data": {"name": "mnist"}, "model": model, "training": training})


def write_loose_run(folder: Path, records: Sequence[SweepRecord]) -> None:
    """A run as workers leave it: a file for each record."""
    store = Store(folder)
    for record in records:
        store.finish(record)
    cells = [record.id for record in records]
    data = {"mnist": bench_report.ORIGIN.data_fingerprint}
    store.write_run(
        {"name": folder.name, "kind": "sweep", "config": {}, "cells": cells, "data": data}
    )


def measure(*arguments: str) -> dict[str, float]:
    """Seconds of the clock and of all cores that a command takes, and the memory of the largest of
    its processes."""
    code = "import sys; from cbundles import cli; sys.argv[0] = 'cbundles'; cli.main()"
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL, text=True
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"cbundles {' '.join(arguments)}: failed")
    return {
        "seconds": round(seconds, 2),
        "core_seconds": round(used.ru_utime + used.ru_stime, 2),
        "megabytes": round(used.ru_maxrss / 1000),  # Linux counts in kilobytes
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="where to keep the numbers")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan, run = folder / "plan.yaml", folder / "run.yaml"
        seeds = -(-options.cells // (len(WIDTHS) * len(DEPTHS)))
        plan.write_text(grid_of(WIDTHS, DEPTHS, seeds, epochs=50))
        found["plan"] = measure("sweep", str(plan), "--plan", "--json", "--out", f"{folder}/none")
        records = list(islice(bench_report.swept(), options.records))
        widths, depths = bench_report.WIDTHS, bench_report.DEPTHS
        seeds = -(-options.records // (len(widths) * len(depths)))
        run.write_text(grid_of(widths, depths, seeds, bench_report.EPOCHS))
        write_loose_run(folder / "runs" / "loose", records)
        out = f"{folder}/runs/loose"
        found["resume"] = measure("sweep", str(run), "--plan", "--json", "--out", out)
        found["report"] = measure("report", f"{folder}/runs")
    limits = {"plan": PLAN, "resume": RECORDS, "report": RECORDS}
    for what, numbers in found.items():
        wanted = limits[what]
        is_good = numbers["seconds"] <= wanted.seconds and numbers["megabytes"] <= wanted.megabytes
        print(
            f"{what:<7} {numbers['seconds']:6.1f} s ({numbers['core_seconds']:.1f} of cores), "
            f"{numbers['megabytes']:5.0f} MB: {'within' if is_good else 'NOT within'} "
            f"{wanted.seconds:g} s and {wanted.megabytes:g} MB"
        )
    if options.json:
        asked = {"cells": options.cells, "records": options.records, "cores": os.cpu_count()}
        options.json.write_text(json.dumps({**asked, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
