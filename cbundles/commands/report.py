"""`cbundles report`: tables, figures and claims, from records alone."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rich.console import Console

from cbundles.commands.output import list_files, say
from cbundles.errors import InputError
from cbundles.report import claims, claims_table, page, runs, table1, views
from cbundles.report.table import Column

COLUMNS = (
    Column("id", "claim"),
    Column("verdict", "verdict"),
    Column("scale", "scale"),
    Column("ours", "ours"),
)


def write_report(root: Path, console: Console) -> int:
    """Write every view of every run under a results folder. Returns the exit code."""
    loaded = runs.read_all(root)
    if not loaded:
        raise InputError(
            f"{root}: no run with records here; make one, e.g. with "
            "cbundles sweep configs/quickstart.yaml"
        )
    for run in loaded:
        if run.unfinished:
            text = f"{run.name}: {run.unfinished} not finished; no claim is judged on this run"
            say(console, text)
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        figures = [path for paths in pool.map(views.write, loaded) for path in paths]
    list_files(console, "figure", figures)
    groups = [group for run in loaded for group in table1.of_run(run)]
    judged = claims.judge(loaded)
    written = [
        *table1.write_table1(groups, root),
        *claims_table.write_claims(judged, root),
        page.write_page(judged, loaded, figures, root),
    ]
    console.print(claims_table.claims_table(judged, COLUMNS).terminal(), highlight=False)
    console.print(f"\n{claims_table.counted_verdicts(judged)}", highlight=False)
    list_files(console, "written", written)
    return 0
