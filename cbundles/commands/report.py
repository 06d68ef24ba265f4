"""`cbundles report`: tables, figures and claims, from records alone."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rich.console import Console

from cbundles.commands.output import list_files, say, table_of
from cbundles.errors import InputError
from cbundles.report import claims, page, runs, table1, views


def write_report(root: Path, console: Console) -> int:
    """Write every view of every run under a results folder. Returns the exit code."""
    found = runs.load(root)
    if not found:
        raise InputError(
            f"{root}: no run with records here; make one, e.g. with "
            "cbundles sweep configs/quickstart.yaml"
        )
    for run in found:
        if run.unfinished:
            text = f"{run.name}: {run.unfinished} not finished; no claim is judged on this run"
            say(console, text)
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        figures = [path for paths in pool.map(views.write, found) for path in paths]
    list_files(console, "figure", figures)
    written = table1.write([group for run in found for group in table1.of_run(run)], root)
    judged = claims.judge(found)
    written += page.write(judged, found, figures, root)

    rows = [(r["id"], r["verdict"], r["scale"], r["ours"]) for r in page.rows(judged)]
    table = table_of(("claim", "verdict", "scale", "ours"), rows)
    console.print(table, highlight=False)
    console.print(f"\n{page.counts(judged)}", highlight=False)
    list_files(console, "written", written)
    return 0
