"""The tables and figures of one run, computed from its records alone."""

from __future__ import annotations

from pathlib import Path

from cbundles.config import AUTOTUNE, GROW, TOY, TUNE
from cbundles.files import write_atomically
from cbundles.report import arm_tables, lesions, remeasured, summary, sweep_tables, table1
from cbundles.report.runs import Run
from cbundles.report.table import Table
from cbundles.store import PRUNED, Store


def write(run: Run) -> list[Path]:
    """Write everything that the records of a run show; returns the paths of its figures."""
    from cbundles.report import arm_figures, lesion_figures, sweep_figures, toy_figures

    folder = run.store.figures
    if run.kind == TOY:
        return [] if run.unfinished else toy_figures.draw_toy(run.records, folder)
    if run.kind == AUTOTUNE:
        table1.write_table1(table1.of_run(run), run.store.folder)
        return []
    if run.kind in (GROW, TUNE):
        arm_tables.write_arms(run.name, run.records, run.store.folder)
        return arm_figures.draw_arms(run.records, folder)
    _write_networks(run)
    paths = sweep_figures.draw_sweep(run.records, folder)
    if run.lesions:
        _write_lesions(run)
        paths += lesion_figures.draw_lesions(run.lesions, folder)
    write_pruned(run.store)
    remeasured.write_readings(run)
    return paths


def _write_lesions(run: Run) -> None:
    """The tables of lesion studies: lesion.*."""
    groups, folder = lesions.alike(run.lesions), run.store.folder
    Table(lesions.removal_rows(run.lesions)).write_csv(folder / "lesion.csv")
    write_atomically(folder / "lesion.md", lesions.study_page(run.name, groups))


def write_pruned(store: Store) -> None:
    """The table of a run's pruned networks, when there are any."""
    if records := store.records(PRUNED):
        rows = [lesions.pruned_row(record) for record in records]
        Table(rows).write_csv(store.folder / "pruned.csv")


def _write_networks(run: Run) -> None:
    """The tables of a sweep: table.* and layers.csv."""
    rows = [summary.summary_of(record) for record in run.records]
    named = run.description.get("data", {})
    data = ", ".join(f"{name} ({fingerprint})" for name, fingerprint in named.items())
    notes = [
        f"{len(rows)} networks; data {data}",
        *summary.origin_lines(run.records),
        *sorted({summary.probe_of(record) for record in run.records}),
        *sweep_tables.boundary_lines(run.records),
    ]
    folder, name = run.store.folder, run.description.get("name", run.name)
    Table(rows).write_csv(folder / "table.csv")
    write_atomically(folder / "table.md", sweep_tables.network_page(name, rows, notes))
    layers = [row for record in run.records for row in sweep_tables.layer_rows(record)]
    Table(layers).write_csv(folder / "layers.csv")
