"""`cbundles sweep`: plan a grid, run it, and turn its records into tables and figures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cbundles import data
from cbundles.commands.running import (
    Options,
    check_against_data,
    costs,
    description,
    devices,
    train,
    wall_seconds,
)
from cbundles.config import GROW, Cell, Experiment
from cbundles.console import duration
from cbundles.data.dataset import Facts
from cbundles.executor import planner
from cbundles.experiments import edits
from cbundles.networks.shape import Shape, shape_of
from cbundles.report import runs, summary, sweep_tables, views
from cbundles.store import Store

TABLE_ROWS_SHOWN = 60


def plan_sweep(experiment: Experiment, options: Options, console: Console) -> None:
    """Print the cells and what they will cost; run nothing."""
    store = Store(options.out)
    facts = {cell.data.name: data.describe(cell.data.name) for cell in experiment.cells}
    for cell in experiment.cells:
        check_against_data(cell, facts[cell.data.name])
    populations = planner.populations(experiment.cells, options.device)
    cost = costs(populations, facts)
    cells = [cell for population in populations for cell in population.cells]
    finished = [cell.id for cell in cells if options.has(store, cell, None)]
    left = [p for p in populations if not all(c.id in finished for c in p.cells)]
    seconds = wall_seconds([cost[p.key] for p in left], options.workers)
    memory = options.workers * max(
        planner.memory(p, facts[p.cells[0].data.name]) for p in populations
    )
    checkpoint = max(planner.checkpoint(c, facts[c.data.name]) for c in cells)
    disk = sum(planner.disk(c) for c in cells) + options.workers * checkpoint
    if options.keep_weights:
        disk += sum(shape_of(c.model, facts[c.data.name]).bytes for c in cells)
    if options.as_json:
        listing = [
            {
                "cell": cell.id,
                "config": cell.asdict(),
                "parameters": _shape(cell, facts[cell.data.name]).parameters,
                "core_seconds": round(planner.seconds(cell, facts[cell.data.name]), 1),
                "finished": cell.id in finished,
            }
            for cell in cells
        ]
        total = {"seconds": seconds, "memory_bytes": memory, "disk_bytes": disk}
        print(json.dumps({"name": experiment.name, "cells": listing, "total": total}))
        return

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("cell", "network", "parameters", "core time", "state"):
        table.add_column(title, justify="right" if title in ("parameters", "core time") else "left")
    for cell in cells:
        shape = _shape(cell, facts[cell.data.name])
        predicted = duration(planner.seconds(cell, facts[cell.data.name]))
        state = "finished" if cell.id in finished else "to do"
        table.add_row(cell.id, cell.label, f"{shape.parameters:,}", predicted, state)
    console.print(table)
    console.print(
        f"\n{len(cells)} networks in {len(populations)} programs, {len(finished)} finished already."
        f"\nOn {devices(options)}: about {duration(seconds)}, {memory / 1e9:.1f} GB of memory, "
        f"{disk / 1e6:.0f} MB of disk in {options.out}."
        "\nNothing was run; leave out --plan to start.",
        highlight=False,
    )
    if options.device == "gpu":
        console.print("The time is that of a CPU; none has been measured on this GPU yet.")


def _shape(cell: Cell, facts: Facts) -> Shape:
    """Of a network at the start."""
    if cell.kind == GROW and cell.model.family == "fc":
        deep = dataclasses.replace(cell.model, depth=edits.start_depth(cell))
        return shape_of(deep, facts)
    return shape_of(cell.model, facts)


def seconds_left(experiment: Experiment, options: Options) -> float:
    """Predicted time of the networks that have no record."""
    store = Store(options.out)
    facts = {cell.data.name: data.describe(cell.data.name) for cell in experiment.cells}
    populations = planner.populations(experiment.cells, options.device)
    left = [p for p in populations if not all(options.has(store, c, None) for c in p.cells)]
    return wall_seconds(list(costs(left, facts).values()), options.workers)


def run_sweep(experiment: Experiment, options: Options, console: Console) -> int:
    """Train what is not finished, then write tables and figures. Returns the exit code."""
    records, store, figures, failed = complete(experiment, options, console)
    if options.as_json:
        done = {"event": "done", "networks": len(records), "failed": failed}
        print(json.dumps({**done, "folder": str(store.folder), "figures": list(map(str, figures))}))
    else:
        _show(records, store, figures, failed, console)
    return 1 if failed else 0


def complete(
    experiment: Experiment, options: Options, console: Console
) -> tuple[list[dict[str, Any]], Store, list[Path], int]:
    """Train what is not finished and write the views of the run. Returns all records, the store,
    the paths of the figures and how many networks failed."""
    datasets = {
        name: data.load(name, data_dir=options.data_dir, manual_dir=options.manual_dir)
        for name in dict.fromkeys(cell.data.name for cell in experiment.cells)
    }
    for cell in experiment.cells:
        check_against_data(cell, datasets[cell.data.name].facts)
    facts = {name: dataset.facts for name, dataset in datasets.items()}
    populations = planner.populations(experiment.cells, options.device)
    store = Store(options.out)
    with store.locked():
        if options.fresh:
            store.forget([cell.id for cell in experiment.cells])
        fingerprints = {name: dataset.fingerprint for name, dataset in datasets.items()}
        run = description(experiment, fingerprints)
        finished = _finished(experiment, store, fingerprints, options)
        store.clear_views()
        store.write_run({**run, "finished": len(finished)})
        todo = [p for p in populations if not all(c.id in finished for c in p.cells)]
        failed = 0
        if todo:
            failed = train(todo, len(finished), facts, store, options, console)
            finished = _finished(experiment, store, fingerprints, options)
        records = list(finished.values())
        whole = {**run, "finished": len(records), "made_by": summary.origins(records)}
        store.write_run(whole)
        figures = views.write(runs.read(store.folder)) if records else []
    return records, store, figures, failed


def _finished(
    experiment: Experiment, store: Store, fingerprints: dict[str, str], options: Options
) -> dict[str, dict[str, Any]]:
    """The records of the finished cells, in the order of the grid."""
    return {
        cell.id: store.record(cell.id)
        for cell in experiment.cells
        if options.has(store, cell, fingerprints[cell.data.name])
    }


def _show(
    records: list[dict[str, Any]],
    store: Store,
    figures: list[Path],
    failed: int,
    console: Console,
) -> None:
    rows = [summary.summary_of(record) for record in records]
    if rows:
        console.print(sweep_tables.network_table(rows).first(TABLE_ROWS_SHOWN).terminal())
    if len(rows) > TABLE_ROWS_SHOWN:
        console.print(f"... {len(rows) - TABLE_ROWS_SHOWN} more rows in the file")
    console.print()
    for line in sweep_tables.boundary_lines(records):
        console.print(line, highlight=False, markup=False)
    if records:
        console.print(f"\ntable    {store.folder / 'table.csv'}", highlight=False, soft_wrap=True)
    for path in figures:
        console.print(f"figure   {path}", highlight=False, soft_wrap=True)
    if failed:
        console.print(
            f"\n{failed} networks failed (tracebacks in {store.logs}); "
            "the same command tries them again",
            style="red",
            highlight=False,
        )
