"""`cbundles measure`: other readings, headroom and other probe sets, of networks that a run has
kept; nothing is trained."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cbundles import bits, probe_sizes, readings
from cbundles.commands.output import (
    list_files,
    say,
    say_failures,
    say_whose_times,
    show_what_fits,
)
from cbundles.commands.running import (
    Options,
    describe_data,
    devices,
    expected_seconds,
    prepare_data,
    run_jobs,
)
from cbundles.config import MEASURE, SWEEP, Cell, Images
from cbundles.console import duration
from cbundles.data.dataset import Facts
from cbundles.errors import InputError
from cbundles.executor import planner
from cbundles.executor.planner import Study
from cbundles.records import MeasuredRecord, NetworkRecord
from cbundles.report import remeasured, runs
from cbundles.store import MEASURED, Store


@dataclass(frozen=True)
class Measure:
    """Networks that were kept, and what is wanted of them."""

    cells: tuple[Cell, ...]
    names: str  # of readings, in the form of `readings.canonical`
    headroom: bool
    sizes: tuple[str, ...]  # of further probe sets, in the form of `probe_sizes.parse`
    name: str  # of the run

    @classmethod
    def of_run(cls, folder: Path, names: str, headroom: bool, samples: str) -> Measure:
        """Raises InputError where no network was kept, for a reading that one does not have, for
        more samples than there are, and where nothing is wanted."""
        run = runs.read(folder)
        cells = [record.cell for record in run.records if isinstance(record, NetworkRecord)]
        kept = [cell for cell in cells if cell.kind == SWEEP and run.store.kept_epochs(cell.id)]
        if not kept:
            raise InputError(
                f"{folder}: no network was kept; train with cbundles sweep CONFIG.yaml "
                f"--keep-weights 0,1,last --out {folder}"
            )
        checked = _checked_names(names, kept)
        sizes = _checked_sizes(samples, kept)
        if checked == readings.NONE and not headroom and not sizes:
            raise InputError(
                f"--readings {names}: name at least one, such as {readings.PAPER}, or --headroom, "
                "or --samples 512,8192"
            )
        return cls(tuple(kept), checked, headroom, sizes, run.name)

    def show_plan(self, options: Options, console: Console) -> None:
        """Print which networks would be measured, and the cost; measure nothing."""
        store, facts = Store(options.out), describe_data(self.cells)
        todo = self._todo(store, options, fingerprints=None)
        studies = [self._study(cell, store, facts[cell.data.images]) for cell in todo]
        of_each = [expected_seconds(study, facts, options) for study in studies]
        seconds = planner.wall_seconds(of_each, options.workers)
        if options.as_json:
            listing = [
                {"cell": study.cell.id, "core_seconds": round(one, 1)}
                for study, one in zip(studies, of_each, strict=True)
            ]
            print(json.dumps({"to_measure": listing, "seconds": seconds}))
            return
        for study, one in zip(studies, of_each, strict=True):
            epochs = ", ".join(store.kept_epochs(study.cell.id))
            say(console, f"{study.cell.label}: epochs {epochs}, about {duration(one)}")
        say(
            console,
            f"\n{len(self.cells) - len(todo)} finished already. On {devices(options)}: about "
            f"{duration(seconds)}.\nNothing was measured; leave out --plan to start.",
        )
        say_whose_times(console, options, self.cells)

    def execute(self, options: Options, console: Console) -> int:
        """Measure what is not measured yet, and write the table. Returns the exit code."""
        facts, fingerprints = prepare_data(self.cells, options)
        store, failed = Store(options.out), 0
        with store.locked():
            todo = self._todo(store, options, fingerprints)
            _require_readable(todo, store, fingerprints)
            if todo:
                studies = [self._study(cell, store, facts[cell.data.images]) for cell in todo]
                done = len(self.cells) - len(todo)
                # A record stays until its successor is there, which has what it had.
                as_ever = dataclasses.replace(options, fresh=False)
                failed = run_jobs(studies, done, facts, store, as_ever, console, what="to measure")
            if not failed:
                store.seal()
            table = remeasured.write_readings(runs.read(store.folder))
        if options.as_json:
            counts = {"networks": len(table.rows), "failed": failed, "rows": table.rows}
            print(json.dumps({"event": "done", **counts, "folder": str(store.folder)}))
        else:
            show_what_fits(table, console)
            console.print()
            list_files(console, "table", remeasured.tables_of(store.folder))
            say_failures(console, failed, store, fresh=options.fresh)
        return 1 if failed else 0

    def _todo(
        self, store: Store, options: Options, fingerprints: dict[Images, str] | None
    ) -> list[Cell]:
        """The cells of which something that is wanted has not been measured."""
        if options.fresh:
            return list(self.cells)
        todo = []
        for cell in self.cells:
            fingerprint = fingerprints[cell.data.images] if fingerprints else None
            record = _record_of_kept(store, cell, fingerprint)
            if record is None or not self._is_known(record):
                todo.append(cell)
        return todo

    def _is_known(self, record: MeasuredRecord) -> bool:
        headroom = record.history.headroom is not None or not self.headroom
        sizes = set(self.sizes) <= record.by_samples.keys()
        return headroom and sizes and _set_of(self.names) <= _set_of(record.readings)

    def _study(self, cell: Cell, store: Store, facts: Facts) -> Study:
        """What a worker is told. What is known already is measured with what is new: a record holds
        all of it."""
        record = _record_of_kept(store, cell, None)
        known = _set_of(record.readings) if record else set()
        wanted = readings.canonical(sorted(_set_of(self.names) | known))
        headroom = self.headroom or (record is not None and record.history.headroom is not None)
        sizes = probe_sizes.in_order({*self.sizes, *(record.by_samples if record else ())})
        when = bits.ALL if headroom else bits.OFF
        probe = dataclasses.replace(cell.probe, readings=wanted, headroom=when)
        asking = dataclasses.replace(cell, probe=probe)
        once = planner.measuring_seconds(asking, facts)
        if headroom:
            once += planner.headroom_seconds(asking, facts)
        for size in sizes:
            sized = dataclasses.replace(cell, probe=probe_sizes.probe_of(cell.probe, size))
            once += planner.measuring_seconds(sized, facts)
        networks = len(store.kept_epochs(cell.id))
        seconds = planner.compile_seconds(cell) * (1 + len(sizes)) + networks * once
        settings = (("readings", wanted), ("headroom", headroom), ("samples", sizes))
        return Study(cell, MEASURE, settings, seconds)


def _checked_names(names: str, cells: list[Cell]) -> str:
    try:
        canonical = readings.canonical(names)
    except ValueError as error:
        raise InputError(f"--readings {names}: {error}") from None
    if canonical == readings.NONE:
        return canonical
    for cell in cells:
        impossible = readings.why_impossible(canonical, cell.model.family, cell.probe.equality)
        if impossible is not None:
            raise InputError(f"--readings {names}: {impossible}")
    return canonical


def _checked_sizes(samples: str, cells: list[Cell]) -> tuple[str, ...]:
    """InputError for what is no number of samples, and for more than a data set has."""
    try:
        sizes = probe_sizes.parse(samples)
    except ValueError as error:
        raise InputError(f"--samples {samples}: {error}") from None
    for images, facts in describe_data(cells).items():
        for size in sizes:
            if size != probe_sizes.ALL and int(size) > facts.train:
                raise InputError(
                    f"--samples {samples}: {size}: {images} has {facts.train} training images; "
                    f"nearest valid: {probe_sizes.ALL}"
                )
    return sizes


def _record_of_kept(store: Store, cell: Cell, fingerprint: str | None) -> MeasuredRecord | None:
    """The record of the networks that are there now, measured on these data."""
    if not store.has(cell.id, MEASURED):
        return None
    record = store.record(cell.id, MEASURED)
    same_networks = record.networks == store.network_digests(cell.id)
    same_data = fingerprint in (None, record.origin.data_fingerprint)
    return record if same_networks and same_data else None


def _set_of(names: str) -> set[str]:
    return set(names.split(",")) - {readings.NONE}


def _require_readable(cells: list[Cell], store: Store, fingerprints: dict[Images, str]) -> None:
    """InputError for a file that is damaged or not the network that its name says, before any is
    measured."""
    from cbundles.networks import saved

    for cell in cells:
        for epoch in store.kept_epochs(cell.id):
            path = store.weights_path(cell.id, epoch)
            saved.read_of_cell(path, cell.id, fingerprints[cell.data.images], or_diverged=True)
