"""`cbundles sweep`: plan a grid, run it, and turn its records into tables and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from cbundles.commands.checks import check_against_data, require_epochs, require_kind
from cbundles.commands.fresh import NOTHING_NEW, say_what_is_replaced, start_over
from cbundles.commands.output import (
    NOTHING_WAS_RUN,
    list_files,
    say,
    say_beside_results,
    say_failures,
    say_what_was_done,
    say_what_was_found,
    say_whose_times,
    show_what_fits,
)
from cbundles.commands.running import (
    Options,
    PreparedData,
    describe_data,
    description,
    devices,
    prepare_data,
    run_jobs,
)
from cbundles.commands.sharing import ShareOutcome, held, share_of
from cbundles.config import SWEEP, Cell, Experiment, Images, load
from cbundles.console import duration
from cbundles.executor import planner
from cbundles.executor.planner import Needs, PopulationJob
from cbundles.report import answer, runs, summary, sweep_tables, views
from cbundles.report.runs import Run
from cbundles.report.table import Column, Table
from cbundles.store import Store
from cbundles.wording import counted

TABLE_ROWS_SHOWN = 60
PLAN_ROWS_SHOWN = 500
PLAN_COLUMNS = (
    Column("cell", "cell"),
    Column("network", "network"),
    Column("parameters", "parameters", to_the_right=True),
    Column("core time", "core time", to_the_right=True),
    Column("state", "state"),
)


@dataclass(frozen=True)
class Sweep:
    """A grid of networks to train and measure."""

    experiment: Experiment

    @classmethod
    def of_file(cls, path: Path, overrides: list[str]) -> Sweep:
        experiment = load(path, overrides)
        require_kind(experiment, SWEEP)
        return cls(experiment)

    @property
    def name(self) -> str:
        return self.experiment.name

    def populations(self, options: Options) -> list[PopulationJob]:
        """Of the whole grid: what shards share out."""
        return planner.populations(self.experiment.cells, options.device)

    def seconds_left(self, options: Options) -> float:
        """Predicted time of the networks that have no record."""
        return forecast(self.experiment, options).seconds

    def show_plan(self, options: Options, console: Console) -> None:
        """Print the cells and what they will cost; run nothing."""
        require_epochs(self.experiment.cells, options.keep)
        check_against_data(self.experiment.cells, describe_data(self.experiment.cells))
        say_what_was_found(self.experiment.cells, options, console)
        expected = forecast(self.experiment, options)
        if options.fresh:
            cells = [cell.id for cell in self.experiment.cells]
            say_what_is_replaced(cells, Store(options.out), options, console)
        if options.as_json:
            of_shard = {} if options.shard is None else {"shard": str(options.shard)}
            plan = {"name": self.name, **of_shard, **_plan_as_data(expected)}
            # Not by json, which takes six times as long: a second for the largest grid.
            print(msgspec.json.encode(plan).decode())
        else:
            _show_forecast(expected, options, console)

    def execute(self, options: Options, console: Console) -> int:
        """Train what is not finished, then write tables and figures. Returns the exit code."""
        if options.shard is not None:
            outcome_of_share = train_share(self.experiment, options, console)
            return outcome_of_share.tell(Store(options.out), options, console)
        outcome = complete(self.experiment, options, console)
        if options.as_json:
            outcome.print_as_data()
        else:
            show_outcome(outcome, options, console)
        return outcome.exit_code


@dataclass(frozen=True)
class Forecast:
    """What a grid, or the share of it that a shard does, is going to need."""

    populations: list[PopulationJob]
    cells: list[Cell]  # in the order in which they are trained
    finished: set[str]  # identities of the cells that have all that is wanted
    needs: dict[str, Needs]  # of each cell, by its identity
    core_seconds: dict[str, float]  # of each cell, to be expected here
    seconds: float  # for what is not finished, with all workers
    memory: int  # bytes, of all workers together
    disk: int  # bytes


def forecast(experiment: Experiment, options: Options) -> Forecast:
    facts = describe_data(experiment.cells)
    store = Store(options.out)
    everything = planner.populations(experiment.cells, options.device)
    populations = share_of(everything, facts, options)
    cells = [cell for population in populations for cell in population.cells]
    known = set() if options.fresh else set(store.ids())  # one look at the folder, not one a cell
    finished = {cell.id for cell in cells if cell.id in known and options.has(store, cell, None)}
    left = _unfinished(populations, finished)
    # A shard may have no population.
    largest = planner.largest_worker_bytes(populations, facts)
    needs = planner.needs_of(cells, facts)
    checkpoint = max((need.checkpoint_bytes for need in needs.values()), default=0)
    disk = sum(need.record_bytes for need in needs.values()) + options.workers * checkpoint
    disk += sum(planner.kept_bytes(cell, options.keep, facts[cell.data.images]) for cell in cells)
    return Forecast(
        populations=populations,
        cells=cells,
        finished=finished,
        needs=needs,
        core_seconds={
            cell.id: options.speed.ratio(cell) * needs[cell.id].seconds for cell in cells
        },
        seconds=planner.wall_seconds(
            [options.speed.expected(p, planner.population_seconds(p, needs)) for p in left],
            options.workers,
        ),
        memory=min(options.workers, max(len(left), 1)) * largest,
        disk=disk,
    )


def _unfinished(populations: list[PopulationJob], finished: set[str]) -> list[PopulationJob]:
    """Populations with a member that is not finished: they are trained, whole, again."""
    return [p for p in populations if not all(cell.id in finished for cell in p.cells)]


def _plan_as_data(expected: Forecast) -> dict[str, Any]:
    listing = []
    for cell in expected.cells:
        needs = expected.needs[cell.id]
        listing.append(
            {
                "cell": cell.id,
                "config": cell.settings,
                "parameters": needs.parameters,
                "core_seconds": round(expected.core_seconds[cell.id], 1),
                "finished": cell.id in expected.finished,
            }
        )
    total = {
        "seconds": expected.seconds,
        "memory_bytes": expected.memory,
        "disk_bytes": expected.disk,
    }
    return {"cells": listing, "total": total}


def _show_forecast(expected: Forecast, options: Options, console: Console) -> None:
    rows = []
    for cell in expected.cells[:PLAN_ROWS_SHOWN]:
        needs = expected.needs[cell.id]
        state = "finished" if cell.id in expected.finished else "to do"
        rows.append(
            {
                "cell": cell.id,
                "network": cell.label,
                "parameters": f"{needs.parameters:,}",
                "core time": duration(expected.core_seconds[cell.id]),
                "state": state,
            }
        )
    console.print(Table(rows, PLAN_COLUMNS).terminal())
    if len(expected.cells) > len(rows):
        say(console, f"... {len(expected.cells) - len(rows):,} more; --json lists all")
    whose = "" if options.shard is None else f"shard {options.shard}: "
    say(
        console,
        f"\n{whose}{len(expected.cells)} networks in {len(expected.populations)} programs, "
        f"{len(expected.finished)} finished already."
        f"\nOn {devices(options)}: about {duration(expected.seconds)}, "
        f"{expected.memory / 1e9:.1f} GB of memory, {expected.disk / 1e6:.0f} MB of disk in "
        f"{options.out}."
        f"\n{NOTHING_WAS_RUN}",
    )
    say_whose_times(console, options, expected.cells)


@dataclass(frozen=True)
class Outcome:
    """What there is after a grid has been run."""

    run: Run  # the finished cells, in the order of the grid
    figures: list[Path]  # PNG
    failed: int  # how many networks

    @property
    def exit_code(self) -> int:
        return 1 if self.failed else 0

    def print_as_data(self) -> None:
        done = {
            "event": "done",
            "networks": len(self.run.records),
            "failed": self.failed,
            "folder": str(self.run.store.folder),
            "figures": [str(path) for path in self.figures],
        }
        print(json.dumps(done))


def train_share(experiment: Experiment, options: Options, console: Console) -> ShareOutcome:
    """Train what is not finished of the share of a shard."""
    facts, fingerprints = prepared_for(experiment.cells, options, console)
    store = Store(options.out)
    everything = planner.populations(experiment.cells, options.device)
    share = share_of(everything, facts, options)
    cells = [cell for population in share for cell in population.cells]
    with held(store, options):
        finished = _finished(cells, store, fingerprints, options)
        _say_what_is_replaced(store, experiment, options, console)
        # Every shard writes it, and all write the same but for the moment.
        store.write_run(description(experiment, fingerprints, options))
        todo = _unfinished(share, finished)
        failed = 0
        if todo:
            failed = run_jobs(todo, len(finished), facts, store, options, console)
            finished = _finished(cells, store, fingerprints, options)
        if len(finished) == len(cells):
            drop_spent_checkpoints(store, share, fingerprints)
        known = set(store.ids())
    left = sum(cell.id not in known for cell in experiment.cells)
    return ShareOutcome(len(cells), len(finished), failed, left)


def complete(experiment: Experiment, options: Options, console: Console) -> Outcome:
    """Train what is not finished and write the views of the run."""
    facts, fingerprints = prepared_for(experiment.cells, options, console)
    store = Store(options.out)
    with store.locked():
        if options.fresh:
            expected = forecast(experiment, options)
            cells = [cell.id for cell in experiment.cells]
            keys = [population.key for population in expected.populations]
            start_over(cells, keys, store, options, expected.disk, console)
        run = description(experiment, fingerprints, options)
        finished = _finished(experiment.cells, store, fingerprints, options)
        _say_what_is_replaced(store, experiment, options, console)
        unfinished = [cell for cell in experiment.cells if cell.id not in finished]
        _say_which_images_changed(store, unfinished, fingerprints, options, console)
        store.write_run({**run, "finished": len(finished)})
        populations = planner.populations(experiment.cells, options.device)
        todo = _unfinished(populations, finished)
        failed = 0
        if todo:
            failed = run_jobs(todo, len(finished), facts, store, options, console)
            if store.settle():
                say_beside_results(NOTHING_NEW, options, console)
                return Outcome(Run(store, run, []), [], failed)
            finished = _finished(experiment.cells, store, fingerprints, options)
        records = [store.record(cell.id) for cell in experiment.cells if cell.id in finished]
        if len(records) == len(experiment.cells):
            drop_spent_checkpoints(store, populations, fingerprints)
            store.seal()
        made_by = summary.origins(records)
        store.write_run({**run, "finished": len(records), "made_by": made_by})
        figures = []
        if records:
            store.clear_views()  # those of another grid stood here until now
            figures = [drawn.path for drawn in views.write(runs.read(store.folder))]
    return Outcome(Run(store, run, records), figures, failed)


def prepared_for(cells: Sequence[Cell], options: Options, console: Console) -> PreparedData:
    """The data sets of these networks, on disk and fit for them."""
    require_epochs(cells, options.keep)
    say_what_was_found(cells, options, console)
    prepared = prepare_data(cells, options)
    say_what_was_done(cells, prepared.facts, options, console)
    check_against_data(cells, prepared.facts)
    return prepared


def _say_what_is_replaced(
    store: Store, experiment: Experiment, options: Options, console: Console
) -> None:
    """Tables and figures of a folder are those of the last grid: say so before they change."""
    before = store.cells_of_last_command()
    others = before - {cell.id for cell in experiment.cells}
    if others and not options.as_json:
        say(
            console,
            f"{store.folder} holds {counted(len(others), 'network')} that this command does not "
            "name: their records stay, but tables and figures will be those of this command; "
            "--out keeps both",
        )


def _say_which_images_changed(
    store: Store,
    cells: Sequence[Cell],
    fingerprints: Mapping[Images, str],
    options: Options,
    console: Console,
) -> None:
    """Records of other images do not count, and are written over: say so before."""
    stale = [
        cell
        for cell in cells
        if store.is_finished(cell.id, None)
        and not store.is_finished(cell.id, fingerprints[cell.data.images])
    ]
    if stale and not options.as_json:
        say(
            console,
            f"{store.folder} holds {counted(len(stale), 'network')} trained on other images than "
            "those that are there now: trained anew, records and kept weights are written over; "
            "stop now, and name another folder with --out, to keep both",
        )


def drop_spent_checkpoints(
    store: Store, populations: Sequence[PopulationJob], fingerprints: Mapping[Images, str]
) -> None:
    """Remove what a process left that was killed after its last record and before it could."""
    for population in populations:
        fingerprint = fingerprints[population.cells[0].data.images]
        store.drop_checkpoint(planner.checkpoint_of(population, fingerprint))


def _finished(
    cells: Sequence[Cell], store: Store, fingerprints: dict[Images, str], options: Options
) -> set[str]:
    """Identities of the cells that have all that is wanted of them."""
    return {cell.id for cell in cells if options.has(store, cell, fingerprints[cell.data.images])}


def show_outcome(outcome: Outcome, options: Options, console: Console) -> None:
    networks, store = outcome.run.sweeps, outcome.run.store
    rows = [summary.summary_of(record) for record in networks]
    if rows:
        table = sweep_tables.network_table(rows, narrow=True).first(TABLE_ROWS_SHOWN)
        show_what_fits(table, console)
    if len(rows) > TABLE_ROWS_SHOWN:
        console.print(f"... {len(rows) - TABLE_ROWS_SHOWN} more rows in the file")
    console.print()
    for line in answer.lines(networks):
        say(console, line)
    if networks:
        console.print()
        list_files(console, "table", [store.folder / "table.csv"])
    list_files(console, "figure", outcome.figures)
    say_failures(console, outcome.failed, store, fresh=options.fresh)
