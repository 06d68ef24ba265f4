"""The tables and figures of one run, computed from its records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cbundles.config import AUTOTUNE, GROW, TOY, TUNE
from cbundles.files import write_atomically
from cbundles.records import PrunedRecord
from cbundles.report import answer, arm_tables, lesions, remeasured, summary, sweep_tables, table1
from cbundles.report.runs import Run
from cbundles.report.table import Table, write_long_csv


def write(run: Run) -> list[Path]:
    """Write everything that the records of a run show; returns the paths of its figures."""
    from cbundles.report import arm_figures, lesion_figures, sweep_figures, toy_figures

    folder = run.store.figures
    if run.kind == TOY:
        return [] if run.unfinished else toy_figures.draw_toy(run.toys, folder)
    if run.kind == AUTOTUNE:
        table1.write_run(run)
        return []
    if run.kind in (GROW, TUNE):
        arm_tables.write_arms(run.name, run.edited, run.store.folder)
        return arm_figures.draw_arms(run.edited, folder)
    _write_networks(run)
    paths = sweep_figures.draw_sweep(run.sweeps, folder)
    if run.lesions:
        _write_lesions(run)
        paths += lesion_figures.draw_lesions(run.lesions, folder)
    write_pruned(run.pruned, run.store.folder)
    remeasured.write_readings(run)
    return paths


def _write_lesions(run: Run) -> None:
    """The tables of lesion studies: lesion.*."""
    groups, folder = lesions.alike(run.lesions), run.store.folder
    Table(lesions.removal_rows(run.lesions)).write_csv(folder / "lesion.csv")
    write_atomically(folder / "lesion.md", lesions.study_page(run.name, groups))


def write_pruned(records: Sequence[PrunedRecord], folder: Path) -> None:
    """The table of a run's pruned networks, when there are any."""
    if records:
        rows = [lesions.pruned_row(record) for record in records]
        Table(rows).write_csv(folder / "pruned.csv")


def _write_networks(run: Run) -> None:
    """The tables of a sweep: table.* and layers.csv."""
    rows = [summary.summary_of(record) for record in run.sweeps]
    named = run.description.get("data", {})
    data = ", ".join(f"{name} ({fingerprint})" for name, fingerprint in named.items())
    notes = [
        f"{len(rows)} networks; data {data}",
        *summary.origin_lines(run.records),
        *sorted({summary.probe_of(record) for record in run.sweeps}),
    ]
    folder, name = run.store.folder, run.description.get("name", run.name)
    Table(rows).write_csv(folder / "table.csv")
    page = sweep_tables.network_page(name, rows, notes, answer.page(run.sweeps))
    write_atomically(folder / "table.md", page)
    with_steps = any(record.first_epoch is not None for record in run.sweeps)
    with_headroom = any(record.history.headroom is not None for record in run.sweeps)
    layers = (sweep_tables.layer_rows(record, with_steps, with_headroom) for record in run.sweeps)
    write_long_csv(folder / "layers.csv", layers)
