"""`cbundles report`: tables, figures and claims, from records alone."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cbundles.errors import InputError
from cbundles.report import claims, page, runs, table1, views


def run(root: Path, console: Console) -> int:
    """Write every view of every run under a results folder. Returns the exit code."""
    found = runs.load(root)
    if not found:
        raise InputError(
            f"{root}: no run with records here; make one, e.g. with "
            "cbundles sweep configs/quickstart.yaml"
        )
    for one in found:
        if one.unfinished:
            text = f"{one.name}: {one.unfinished} not finished; no claim is judged on this run"
            console.print(text, highlight=False, soft_wrap=True)
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        figures = [path for paths in pool.map(views.write, found) for path in paths]
    for path in figures:
        console.print(f"figure   {path}", highlight=False, soft_wrap=True)
    paths = table1.write([group for one in found for group in table1.of_run(one)], root)
    judged = claims.judge(found)
    paths += page.write(judged, found, figures, root)

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("claim", "verdict", "scale", "ours"):
        table.add_column(title)
    for row in page.rows(judged):
        table.add_row(row["id"], row["verdict"], row["scale"], row["ours"])
    console.print(table, highlight=False)
    console.print(f"\n{page.counts(judged)}", highlight=False)
    for path in paths:
        console.print(f"written  {path}", highlight=False, soft_wrap=True)
    return 0
