"""The tables and figures of one run, computed from its records alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cbundles.config import GROW, TUNE
from cbundles.report import arms, evidence, growth, lesions, summary, table1, tables, tuning
from cbundles.report.runs import AUTOTUNE, TOY, Run
from cbundles.store import PRUNED, Store, write_atomically


def write(run: Run) -> list[Path]:
    """Write everything that the records of a run show; returns the paths of its figures."""
    from cbundles.report import (
        figures,
        growth_figures,
        lesion_figures,
        toy_figures,
        tuning_figures,
    )

    if run.kind == TOY:
        if run.unfinished:
            return []
        return toy_figures.draw_all(run.records, run.store.figures)
    if run.kind == AUTOTUNE:
        table1.write(table1.of_run(run), run.store.folder)
        return []
    if run.kind in (GROW, TUNE):
        _write_arms(run)
        drawn = growth_figures if run.kind == GROW else tuning_figures
        return drawn.draw_all(run.records, run.store.figures)
    _write_tables(run)
    paths = figures.draw_all(run.records, run.store.figures)
    if run.lesions:
        _write_lesions(run)
        paths += lesion_figures.draw_all(run.lesions, run.store.figures)
    write_pruned(run.store)
    return paths


def _write_arms(run: Run) -> None:
    """The tables of a run that compares arms: growth.* or tuning.*."""
    stem, told = ("growth", growth) if run.kind == GROW else ("tuning", tuning)
    settings, folder = arms.settings(run.records), run.store.folder
    rows = [row for setting in settings for row in told.rows(setting)]
    write_atomically(folder / f"{stem}.csv", tables.csv_text(rows))
    origins = [f"- {origin_line(origin)}" for origin in summary.origins(run.records)]
    text = told.markdown(run.name, settings)
    write_atomically(folder / f"{stem}.md", "\n".join([text, *origins, ""]))


def _write_lesions(run: Run) -> None:
    groups, folder = lesions.alike(run.lesions), run.store.folder
    rows = [row for group in groups for row in lesions.rows(group)]
    write_atomically(folder / "lesion.csv", tables.csv_text(rows))
    lines = [f"# {run.name}: removing blocks"]
    for group in groups:
        lines += ["", f"{evidence.scale(group)}:", ""]
        lines += [f"- {line}" for line in lesions.group_lines(group)]
        lines += ["", tables.markdown_row(list(lesions.COLUMNS.values()))]
        lines += [tables.markdown_row(["---"] * len(lesions.COLUMNS))]
        lines += [tables.markdown_row(lesions.shown(row)) for row in lesions.rows(group)]
    write_atomically(folder / "lesion.md", "\n".join([*lines, "", lesions.ABOUT, ""]))


def write_pruned(store: Store) -> None:
    """The table of a run's pruned networks, when there are any."""
    records = store.records(PRUNED)
    if records:
        rows = [lesions.pruned_row(record) for record in records]
        write_atomically(store.folder / "pruned.csv", tables.csv_text(rows))


def _write_tables(run: Run) -> None:
    rows = [summary.row(record) for record in run.records]
    named = run.description.get("data", {})
    data = ", ".join(f"{name} ({print_})" for name, print_ in named.items())
    notes = [
        f"{len(rows)} networks; data {data}",
        *map(origin_line, summary.origins(run.records)),
        *sorted({summary.probe(record) for record in run.records}),
        *tables.boundary_lines(run.records),
    ]
    folder = run.store.folder
    write_atomically(folder / "table.csv", tables.csv_text(rows))
    name = run.description.get("name", run.name)
    write_atomically(folder / "table.md", tables.markdown_text(name, rows, notes))
    layers = [row for record in run.records for row in tables.layer_rows(record)]
    write_atomically(folder / "layers.csv", tables.csv_text(layers))


def origin_line(origin: dict[str, Any]) -> str:
    """What made so many records, in a sentence."""
    machine = ", ".join(dict.fromkeys(origin[key] for key in ("platform", "device", "processor")))
    return (
        f"{origin['networks']} trained on {machine}, jax {origin['versions']['jax']}, "
        f"commit {origin['commit']}"
    )
