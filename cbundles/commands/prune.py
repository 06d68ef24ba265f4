"""`cbundles prune`: write networks without some of their blocks, and measure them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cbundles.commands.checks import require_kept, require_trained
from cbundles.commands.fresh import NOTHING_NEW, study_again
from cbundles.commands.lesion import say_what_is_not_trained, trained_resnets
from cbundles.commands.output import (
    NOTHING_WAS_RUN,
    list_files,
    say,
    say_beside_results,
    say_failures,
    say_whose_times,
)
from cbundles.commands.running import (
    Options,
    describe_data,
    expected_seconds,
    prepare_data,
    run_jobs,
)
from cbundles.config import PRUNE, Cell, Experiment
from cbundles.console import duration
from cbundles.data.dataset import Facts
from cbundles.decisions import removal
from cbundles.errors import InputError
from cbundles.executor import planner
from cbundles.executor.planner import Study
from cbundles.records import PrunedRecord
from cbundles.report import lesions, runs, views
from cbundles.store import LESIONS, PRUNED, Store


@dataclass(frozen=True)
class Prune:
    """Networks of a lesion study that lose some blocks."""

    experiment: Experiment
    blocks: str  # which ones, as typed: see `removal.choose`
    epochs: int  # of the fine-tune afterwards

    @classmethod
    def of_run(cls, folder: Path, blocks: str, epochs: int) -> Prune:
        return cls(trained_resnets(folder), blocks, epochs)

    @property
    def name(self) -> str:
        return self.experiment.name

    def show_plan(self, options: Options, console: Console) -> None:
        """Print which blocks would go, and the cost; run nothing."""
        facts, store = describe_data(self.experiment.cells), Store(options.out)
        wanted = self._wanted(store, options, console)
        todo = [p for p in wanted if options.fresh or not _is_pruned(store, p)]
        require_kept(store, [pruning.cell for pruning in todo])
        studies = [pruning.study(facts[pruning.cell.data.images]) for pruning in todo]
        seconds = sum(expected_seconds(study, facts, options) for study in studies)
        if options.as_json:
            listing = [{"cell": p.cell.id, "blocks": p.numbers, "name": p.name} for p in todo]
            print(json.dumps({"to_prune": listing, "seconds": seconds}))
            return
        for pruning in todo:
            numbers = ", ".join(map(str, pruning.numbers))
            say(console, f"{pruning.cell.label}: blocks {numbers} would go")
        say(
            console,
            f"\n{len(todo)} of {len(wanted)} networks to prune, about {duration(seconds)}, "
            f"results in {options.out}.\n{NOTHING_WAS_RUN}",
        )
        say_whose_times(console, options, self.experiment.cells)

    def _wanted(self, store: Store, options: Options, console: Console) -> list[Pruning]:
        """What is to become of each network that loses a block; of the others it is said why."""
        chosen = {cell: _chosen_blocks(store, cell, self.blocks) for cell in self.experiment.cells}
        for cell, removed in chosen.items():
            if not removed:
                say_beside_results(_why_nothing_is_removed(store, cell), options, console)
        return [self._pruning(cell, removed) for cell, removed in chosen.items() if removed]

    def execute(self, options: Options, console: Console) -> int:
        """Prune every network of a run; write the table. Returns the exit code."""
        facts, fingerprints = prepare_data(self.experiment.cells, options)
        store = Store(options.out)
        with store.locked():
            wanted = self._wanted(store, options, console)
            todo = [p for p in wanted if options.fresh or not _is_pruned(store, p)]
            require_trained(store, [pruning.cell for pruning in todo], fingerprints)
            failed = 0
            if todo:
                if options.fresh:
                    study_again([p.name for p in todo], PRUNED, store, options, console)
                studies = [pruning.study(facts[pruning.cell.data.images]) for pruning in todo]
                alone = dataclasses.replace(options, workers=1)  # or latencies would be of two
                finished = len(wanted) - len(todo)
                failed = run_jobs(studies, finished, facts, store, alone, console, what="to prune")
                if store.settle():
                    say_beside_results(NOTHING_NEW, options, console)
            made = [p.name for p in wanted if store.has(p.name, PRUNED)]
            records = [store.record(name, PRUNED) for name in made]
            if not failed:
                store.seal()
            views.write_pruned(store.records(PRUNED), store.folder)
        if options.as_json:
            rows = [lesions.pruned_row(record) for record in records]
            done = {"event": "done", "failed": failed, "folder": str(store.folder), "rows": rows}
            print(json.dumps(done))
            return 1 if failed else 0
        say_what_is_not_trained(runs.read(store.folder), console)
        if records:
            _show_records(records, store, console)
        say_failures(console, failed, store, fresh=options.fresh)
        return 1 if failed else 0

    def _pruning(self, cell: Cell, removed: tuple[int, ...]) -> Pruning:
        """The name that a pruned network is kept under says who, how, and what exactly."""
        by_number = self.blocks[:1].isdigit()
        how = "blocks" if by_number else re.sub(r"[^a-z0-9]+", "-", self.blocks.lower())
        exact = hashlib.sha256(repr((removed, self.epochs)).encode()).hexdigest()[:6]
        return Pruning(cell, removed, f"{cell.id}-{how}-{exact}", self.blocks, self.epochs)


@dataclass(frozen=True)
class Pruning:
    """One network, and what becomes of it."""

    cell: Cell
    removed: tuple[int, ...]  # blocks, counted from 0
    name: str  # that the result is kept under
    blocks: str
    epochs: int

    @property
    def numbers(self) -> list[int]:
        """Of the blocks that go, as people count them."""
        return [block + 1 for block in self.removed]

    def study(self, facts: Facts) -> Study:
        epoch = planner.training_seconds(self.cell, facts) / self.cell.training.epochs
        seconds = 3 * planner.CONV_COMPILE_SECONDS + self.epochs * epoch
        settings = {
            "removed": list(self.removed),
            "epochs": self.epochs,
            "blocks": self.blocks,
            "name": self.name,
        }
        return Study(self.cell, PRUNE, tuple(settings.items()), seconds)


def _chosen_blocks(store: Store, cell: Cell, blocks: str) -> tuple[int, ...]:
    if not store.has(cell.id, LESIONS):
        raise InputError(
            f"{store.folder}: nothing is known of its blocks yet; run "
            f"cbundles lesion {store.folder} first"
        )
    try:
        return removal.choose(blocks, store.record(cell.id, LESIONS).blocks.by_ranking)
    except ValueError as error:
        raise InputError(f"--blocks {blocks}: {error}") from None


def _why_nothing_is_removed(store: Store, cell: Cell) -> str:
    """What to tell of a network of which no block conflicts; also what else could go."""
    record = store.record(cell.id, LESIONS)
    most, ranking = 0, "norm"
    for of in removal.RANKINGS:
        course = lesions.curve(record, of)
        if course:
            most, ranking = max((most, ranking), (lesions.removable(course), of))
    text = f"{cell.label}: no block conflicts, so none is removed"
    if most:
        how = f"{ranking}:{most}".replace("_", "-")
        text += f"; without a significant rise of its error {most} can go: --blocks {how}"
        text += f" ({lesions.smallest_rise_text([record])})"
    return text


def _is_pruned(store: Store, pruning: Pruning) -> bool:
    """Whether the network that is there was pruned so; where none is, whether one has been."""
    cell, name = pruning.cell, pruning.name
    if not store.has(name, PRUNED):
        return False
    if not store.weights_path(cell.id).is_file():
        return True
    files = all(path.is_file() for path in store.pruned_paths(name))
    return files and store.is_network_of(store.record(name, PRUNED), cell.id)


def _show_records(records: Sequence[PrunedRecord], store: Store, console: Console) -> None:
    for record in records:
        say(console, _what_became_of_it(record))
    for record in records:
        made = [path for path in store.pruned_paths(record.id) if path.is_file()]
        list_files(console, "network", made)
    list_files(console, "table", [store.folder / "pruned.csv"])


def _what_became_of_it(record: PrunedRecord) -> str:
    one = lesions.pruned_row(record)
    time = one["latency_seconds_pruned"] / one["latency_seconds"]
    return (
        f"{record.cell.label}: {one['removed']} blocks removed, "
        f"{one['layers']} -> {one['layers_pruned']} layers"
        f"\n  accuracy {100 * one['accuracy']:.1f} -> {100 * one['accuracy_pruned']:.1f} % "
        f"(p = {one['p_pruned']:.2g}); with its own statistics of batch normalisation "
        f"{100 * one['accuracy_recalibrated']:.1f} % (p = {one['p_recalibrated']:.2g}); "
        f"trained for {one['epochs_tuned']} more: {100 * one['accuracy_tuned']:.1f} % "
        f"(p = {one['p_tuned']:.2g})"
        f"\n  {one['bytes'] / 1e6:.2f} -> {one['bytes_pruned'] / 1e6:.2f} MB, "
        f"{one['flops'] / 1e6:.1f} -> {one['flops_pruned'] / 1e6:.1f} MFLOP an image, "
        f"{1e3 * one['latency_seconds']:.1f} -> {1e3 * one['latency_seconds_pruned']:.1f} ms a "
        f"batch: {time:.2f} of the time at {one['flops_pruned'] / one['flops']:.2f} of the FLOPs"
    )
