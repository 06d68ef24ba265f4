"""`cbundles report`: tables, figures and claims, from records alone."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from cbundles import stopping
from cbundles.commands.output import list_files, say, warn
from cbundles.errors import InputError
from cbundles.executor.local import usable_cores
from cbundles.files import clear_staging_files
from cbundles.report import (
    claims,
    claims_table,
    event_files,
    gathering,
    page,
    table1,
    table1_small,
    views,
)
from cbundles.report.claims.finding import Claim
from cbundles.report.fixed_depths import page_beside_fixed_depths
from cbundles.report.gathering import Gathered
from cbundles.report.runs import Run
from cbundles.report.table import Column
from cbundles.report.worked_study import StudyFolder
from cbundles.store import Store

if TYPE_CHECKING:
    from cbundles.report.drawing import DrawnPicture

COLUMNS = (
    Column("id", "claim"),
    Column("verdict", "verdict", claims_table.show_verdict),
    Column("scale", "scale"),
    Column("outcome", "ours"),
)


def write_report(
    root: Path, console: Console, named: Collection[str], *, as_json: bool = False
) -> Gathered:
    """Write every view of every run under a results folder; returns the runs.

    named: the names of the runs that profiles name, on which claims are judged
    as_json: print the claims for machines, and nothing but them
    """
    clear_staging_files(root)
    gathered = gathering.gather(root, named)
    loaded = [*gathered.presented, *gathered.own]
    if not loaded:
        raise InputError(_why_nothing_can_be_read(root, gathered.damaged))
    for run in loaded:
        if run.unfinished:
            text = f"{run.name}: {run.unfinished} not finished; no claim is judged on this run"
            if as_json:
                print(text, file=sys.stderr)
            else:
                say(console, text)
        else:
            _seal(run)
    with _helpers() as pool:
        figures_to_come = _start_views(pool, loaded, gathered.studies)
        # Claims are judged meanwhile, which takes about as long.
        judged, planned = claims.judge(gathered.judged), claims.judge_plans(gathered.judged)
        of_own = [*claims.judge(gathered.own), *claims.judge_plans(gathered.own)]
        figures = _drawn(figures_to_come, gathered.damaged)
    of_table1 = table1_small.left_for_table1(gathered.judged)
    written = [
        *table1.write_table1(of_table1, root, page_beside_fixed_depths(gathered.judged)),
        *table1_small.write_small_tables(gathered.judged, root),
        *claims_table.write_claims(judged, planned, root),
        page.write_page(judged, planned, of_own, gathered, figures, root),
    ]
    if as_json:
        print_claims([*judged, *planned])
        for text in gathered.damaged:
            print(f"left out: {text}", file=sys.stderr)
        return gathered
    drawn = [picture.path for pictures in figures.values() for picture in pictures]
    list_files(console, "figure", drawn)
    console.print(claims_table.claims_table(judged, COLUMNS).terminal(), highlight=False)
    console.print(f"\n{claims_table.counted_verdicts(judged)}", highlight=False)
    console.print(f"\n{claims_table.PLANS_TITLE}", highlight=False)
    console.print(claims_table.claims_table(planned, COLUMNS).terminal(), highlight=False)
    console.print(f"\n{claims_table.counted_verdicts(planned)}", highlight=False)
    list_files(console, "written", written)
    for text in gathered.damaged:
        warn(console, f"left out: {text}")
    return gathered


def write_event_files(found: Sequence[Run], console: Console, *, as_json: bool) -> None:
    """Write event files for TensorBoard of runs, and say where."""
    for run in found:
        folder = event_files.write_event_files(run)
        text = f"{run.name}: no network has a record, and so no events"
        if folder is not None:
            text = f"events for TensorBoard: {folder}"
        if as_json:
            print(text, file=sys.stderr)
        else:
            say(console, text)


def _seal(run: Run) -> None:
    """Put the records of a complete run into one file, as its command would: shards leave that to
    whoever comes last. Published runs are left alone, those on which a process is at work, those
    that cannot be written, and those with a damaged record, which somebody may want to repair."""
    store = Store(run.store.folder)  # which does not leave out what is damaged, as the run's does
    if store.has_loose_records() and not run.is_published:
        with contextlib.suppress(InputError, OSError), store.locked():
            store.seal()


def print_claims(judged: Sequence[Claim]) -> None:
    """For machines: an object a line for each finding, and for each claim without one."""
    for row in claims_table.claims_table(judged).rows:
        print(json.dumps({"event": "claim", **row}))


@contextlib.contextmanager
def _helpers() -> Iterator[ProcessPoolExecutor]:
    """Processes that draw. They end at once where this one is stopped, and after it was killed."""
    pool = ProcessPoolExecutor(
        max_workers=len(usable_cores()),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_as_helper,
    )
    try:
        yield pool
    except BaseException as error:
        helpers = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for helper in helpers:
            helper.kill()
        if isinstance(error, BrokenProcessPool):
            raise InputError(
                "a process that draws figures was killed, perhaps for lack of memory; "
                "the same command begins again"
            ) from None
        raise
    pool.shutdown()


def _begin_as_helper() -> None:
    stopping.ignore_in_worker()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _start_views(
    pool: ProcessPoolExecutor, loaded: Sequence[Run], studies: Sequence[StudyFolder]
) -> dict[str, Future[list[DrawnPicture]]]:
    """Have tables and figures of each run and worked study written; its figures by its name."""
    of_runs = {run.name: pool.submit(views.write, run) for run in loaded}
    of_studies = {worked.name: pool.submit(views.write_worked, worked) for worked in studies}
    return {**of_runs, **of_studies}


def _drawn(
    to_come: dict[str, Future[list[DrawnPicture]]], damaged: list[str]
) -> dict[str, list[DrawnPicture]]:
    """The figures of each run and study. Those whose views cannot be written are told in damaged,
    and the report goes on without their figures."""
    figures: dict[str, list[DrawnPicture]] = {}
    for name, drawing in to_come.items():
        try:
            figures[name] = drawing.result()
        except (InputError, OSError) as error:
            figures[name] = []
            damaged.append(f"tables and figures of {name}: {error}")
    return figures


def _why_nothing_can_be_read(root: Path, damaged: Sequence[str]) -> str:
    if (root / "run.json").is_file():
        around = root.resolve().parent
        return f"{root}: is a run itself; the report is of the folder around it, {around}"
    if not damaged:
        return f"{root}: no run with records here; make one, e.g. with cbundles sweep quickstart"
    more = f"; {len(damaged) - 1} more are damaged" if len(damaged) > 1 else ""
    return f"{damaged[0]}{more}; no run is left to report"
