"""`cbundles lesion`: remove blocks of trained ResNets, and see what it costs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from cbundles import config, keeping
from cbundles.commands.checks import (
    check_against_data,
    require_kept,
    require_kind,
    require_trained,
)
from cbundles.commands.fresh import NOTHING_NEW, say_what_is_replaced, study_again
from cbundles.commands.output import (
    NOTHING_WAS_RUN,
    list_files,
    say,
    say_beside_results,
    say_failures,
    say_what_was_found,
    say_whose_times,
)
from cbundles.commands.running import (
    Options,
    describe_data,
    devices,
    expected_seconds,
    expected_training_seconds,
    prepare_data,
    run_jobs,
)
from cbundles.commands.sharing import ShareOutcome, held, share_of
from cbundles.commands.sweep import (
    Sweep,
    complete,
    drop_spent_checkpoints,
    show_outcome,
    train_share,
)
from cbundles.config import LESION, SWEEP, Cell, Experiment, Images
from cbundles.console import duration
from cbundles.data.dataset import Facts
from cbundles.decisions import orders
from cbundles.decisions.removal import Settings
from cbundles.errors import InputError, quoted
from cbundles.executor import planner
from cbundles.executor.planner import PopulationJob, Study
from cbundles.records import NetworkRecord
from cbundles.report import fair_lesions, lesions, runs, views
from cbundles.report.fair_lesions import FairLesion
from cbundles.store import LESIONS, Store

COMPUTED = 0.8  # of a forward pass a lesioned network takes, over all counts (bench_lesion.py)
# Of a fair study, in forward passes of as many images without anything removed: taking statistics,
# which removed blocks do not shorten; trying a set of blocks greedily; and, of the probe set, the
# scores of others and H at other batch sizes.
FITTING, TRYING, MEASURING = 1.9, 0.8, 45.0
DEPTH = 120


@dataclass(frozen=True)
class Lesion:
    """Trained ResNets, and which of their blocks are removed."""

    experiment: Experiment
    settings: Settings
    trains: bool  # networks that are not there are trained first; otherwise they are an error

    @classmethod
    def of_run(cls, folder: Path, settings: Settings) -> Lesion:
        """Of the networks that a sweep has kept."""
        return cls(trained_resnets(folder), settings, trains=False)

    @classmethod
    def of_dataset(
        cls, dataset: str, depth: int, settings: Settings, overrides: list[str]
    ) -> Lesion:
        """Three ResNets of a depth, to be trained first."""
        if depth not in config.PAPER_BLOCKS:
            nearest = min(config.PAPER_BLOCKS, key=lambda known: abs(known - depth))
            valid = ", ".join(map(str, config.PAPER_BLOCKS))
            raise InputError(
                f"lesion: depth = {quoted(depth)}: no ResNet of the paper has so many layers; "
                f"nearest valid: {nearest} (valid: {valid})"
            )
        content: dict[str, Any] = {
            "data": {"name": dataset},
            "model": {"family": "resnet", "depth": depth},
            "training": {
                "epochs": config.conv_epochs(dataset),
                "seed": [0, 1, 2],
            },
        }
        default_name = f"lesion_{config.short_name(dataset)}_{depth}"
        experiment = config.override(content, overrides, default_name=default_name, file="lesion")
        return cls._to_be_trained(experiment, settings)

    @classmethod
    def of_file(cls, path: Path, settings: Settings, overrides: list[str]) -> Lesion:
        """The ResNets of a configuration file, to be trained first."""
        return cls._to_be_trained(config.load(path, overrides), settings)

    @classmethod
    def _to_be_trained(cls, experiment: Experiment, settings: Settings) -> Lesion:
        require_kind(experiment, SWEEP)
        for cell in experiment.cells:
            if cell.model.family != "resnet":
                raise InputError(
                    f"model.family = {cell.model.family}: only blocks with a skip can be removed "
                    "from a trained network; nearest valid: resnet"
                )
        return cls(experiment, settings, trains=True)

    @property
    def name(self) -> str:
        return self.experiment.name

    def populations(self, options: Options) -> list[PopulationJob]:
        """Of the whole grid: what shards share out. A shard studies the networks that it trains."""
        return Sweep(self.experiment).populations(options)

    def _share(self, facts: Mapping[Images, Facts], options: Options) -> list[Cell]:
        """The cells that this command studies, in the order of the grid: all without a shard."""
        share = share_of(self.populations(options), facts, options)
        mine = {cell for population in share for cell in population.cells}
        return [cell for cell in self.experiment.cells if cell in mine]

    def seconds_left(self, options: Options) -> float:
        """Predicted time of what has no record, training included."""
        facts = describe_data(self.experiment.cells)
        todo = self._not_studied(self._share(facts, options), options, None)
        if not todo:
            return 0.0
        studies = self._studies(todo, facts)
        studying = planner.wall_seconds(
            [expected_seconds(study, facts, options) for study in studies], options.workers
        )
        if not self.trains:
            return studying
        return Sweep(self.experiment).seconds_left(keeping_weights(options)) + studying

    def show_plan(self, options: Options, console: Console) -> None:
        """Print what would be trained and evaluated, and its cost; run nothing."""
        facts, store = describe_data(self.experiment.cells), Store(options.out)
        if self.trains:
            check_against_data(self.experiment.cells, facts)
        todo = self._not_studied(self._share(facts, options), options, None)
        keep = keeping_weights(options)
        trains_all = options.fresh and self.trains
        if not self.trains:
            require_kept(store, todo)
        untrained = [cell for cell in todo if trains_all or not keep.has(store, cell, None)]
        studies = self._studies(todo, facts)
        seconds = self.seconds_left(options)
        say_what_was_found(self.experiment.cells, options, console)
        if trains_all:
            cells = [cell.id for cell in self.experiment.cells]
            say_what_is_replaced(cells, store, options, console)
        if options.as_json:
            print(json.dumps(self._plan_as_data(studies, untrained, seconds, facts, options)))
            return
        for cell in untrained:
            whole = expected_training_seconds(cell, facts, options)
            say(console, f"{cell.label}: to be trained, about {duration(whole)}")
        for study in studies:
            cell, blocks = study.cell, sum(study.cell.blocks)
            say(
                console,
                f"{cell.label}: up to {self.settings.most(blocks)} networks with some of its "
                f"{blocks} blocks removed, on {facts[cell.data.images].test} test images, "
                f"about {duration(expected_seconds(study, facts, options))}",
            )
        say(
            console,
            f"\nOn {devices(options)}: about {duration(seconds)} in all, "
            f"results in {options.out}.\n{NOTHING_WAS_RUN}",
        )
        say_whose_times(console, options, self.experiment.cells)

    def _plan_as_data(
        self,
        studies: list[Study],
        untrained: list[Cell],
        seconds: float,
        facts: Mapping[Images, Facts],
        options: Options,
    ) -> dict[str, Any]:
        listing = [
            {
                "cell": study.cell.id,
                "networks": self.settings.most(sum(study.cell.blocks)),
                "core_seconds": round(expected_seconds(study, facts, options), 1),
            }
            for study in studies
        ]
        to_train = [cell.id for cell in untrained]
        return {"studies": listing, "to_train": to_train, "seconds": seconds}

    def execute(self, options: Options, console: Console) -> int:
        """Study what is not studied, write tables and figures. Returns the exit code."""
        facts, fingerprints = prepare_data(self.experiment.cells, options)
        store, failed = Store(options.out), 0
        keep = keeping_weights(options)

        def is_trained(cell: Cell) -> bool:
            return keep.has(store, cell, fingerprints[cell.data.images])

        share = self._share(facts, options)
        todo = self._not_studied(share, options, fingerprints)
        if self.trains and (options.fresh or not all(map(is_trained, todo))):
            failed = self._train(keep, console)
        with held(store, options):
            todo = self._not_studied(share, options, fingerprints)
            if self.trains:  # what failed to train has been told
                todo = [cell for cell in todo if is_trained(cell)]
            require_trained(store, todo, fingerprints)
            if options.fresh:
                study_again([cell.id for cell in todo], LESIONS, store, options, console)
                for cell in todo:
                    store.drop_checkpoints(f"{cell.id}-{LESION}")
            if todo:
                studies = self._studies(todo, facts)
                done = len(share) - len(todo)
                failed += run_jobs(studies, done, facts, store, options, console, what="to study")
                if store.settle():
                    say_beside_results(NOTHING_NEW, options, console)
            if not failed:
                # What a process left that was killed before it could: of a ResNet in training,
                # which is a population of its own, and of a study.
                populations = [PopulationJob((cell,)) for cell in share]
                drop_spent_checkpoints(store, populations, fingerprints)
                for cell in share:
                    store.drop_checkpoints(f"{cell.id}-{LESION}")
            if options.shard is not None:
                missing = self._not_studied(share, options, fingerprints)
                left = self._not_studied(self.experiment.cells, options, fingerprints)
                done = len(share) - len(missing)
                outcome = ShareOutcome(len(share), done, failed, len(left))
                return outcome.tell(store, options, console)
            if not failed:
                store.seal()
            run = runs.read(store.folder)
            figures = [drawn.path for drawn in views.write(run)] if run.records else []
        if options.as_json:
            _print_as_data(run, failed)
        else:
            _show_run(run, figures, console)
            say_failures(console, failed, store, fresh=options.fresh)
        return 1 if failed else 0

    def _train(self, options: Options, console: Console) -> int:
        """Train the networks that this command studies; returns how many failed."""
        if options.shard is not None:
            return train_share(self.experiment, options, console).failed
        outcome = complete(self.experiment, options, console)
        if not options.as_json:  # of which the study prints the one event
            show_outcome(outcome, options, console)
        return outcome.failed

    def _not_studied(
        self, cells: Sequence[Cell], options: Options, fingerprints: Mapping[Images, str] | None
    ) -> list[Cell]:
        """fingerprints: of the data that studies must be of, by name; None: of any."""
        if options.fresh:
            return list(cells)
        todo = []
        for cell in cells:
            fingerprint = fingerprints[cell.data.images] if fingerprints else None
            if not _is_studied(Store(options.out), cell, self.settings, fingerprint):
                todo.append(cell)
        return todo

    def _studies(self, cells: Sequence[Cell], facts: Mapping[Images, Facts]) -> list[Study]:
        studies = []
        for cell in cells:
            seconds = self._seconds_of_study(cell, facts[cell.data.images])
            settings = (("settings", dataclasses.asdict(self.settings)),)
            studies.append(Study(cell, LESION, settings, seconds))
        return studies

    def _seconds_of_study(self, cell: Cell, facts: Facts) -> float:
        """Predicted seconds of one CPU core, compiling included."""
        blocks = sum(cell.blocks)

        def forward(images: int) -> float:
            return planner.forward_seconds(cell, facts, images)

        evaluating = COMPUTED * forward(facts.test)
        networks = self.settings.most(blocks)
        seconds = 2 * planner.CONV_COMPILE_SECONDS + networks * evaluating
        if not self.settings.fair:
            return seconds
        further = len(self.settings.counts(blocks, blocks)) * len(orders.FURTHER)
        anew = (networks + further) * (evaluating + FITTING * forward(orders.FITTED_ON))
        tried = orders.tried_by_greedy(blocks, orders.GREEDY_CANDIDATES)
        greedily = tried * TRYING * forward(orders.GREEDY_IMAGES)
        measuring = MEASURING * forward(cell.probe.count(facts.train))
        one_more_epoch = planner.training_seconds(cell, facts) / cell.training.epochs
        compiling = 4 * planner.CONV_COMPILE_SECONDS
        seconds += further * evaluating + anew + greedily + measuring + one_more_epoch
        return seconds + compiling


def trained_resnets(folder: Path) -> Experiment:
    """The trained ResNets of a run. Raises InputError where there are none."""
    run = runs.read(folder)
    cells = [record.cell for record in run.records if isinstance(record, NetworkRecord)]
    cells = [cell for cell in cells if cell.model.family == "resnet"]
    if not cells or "attempts" in run.description:
        raise InputError(f"{folder}: no sweep with trained ResNets; lesions need one")
    name, grid = run.description.get("name", run.name), run.description.get("config", {})
    return Experiment(name, tuple(cells), grid)


def keeping_weights(options: Options) -> Options:
    """A network is studied when its record and its weights are there."""
    return dataclasses.replace(options, keep=(keeping.LAST,))


def _is_studied(store: Store, cell: Cell, settings: Settings, fingerprint: str | None) -> bool:
    """Whether there is a study with these settings, of the network that is there, if one is."""
    if not store.has(cell.id, LESIONS):
        return False
    record = store.record(cell.id, LESIONS)
    same_data = fingerprint in (None, record.origin.data_fingerprint)
    same_network = store.is_network_of(record, cell.id)
    return same_data and same_network and record.settings.cover(settings)


def _print_as_data(run: runs.Run, failed: int) -> None:
    done = {
        "event": "done",
        "studies": len(run.lesions),
        "failed": failed,
        "folder": str(run.store.folder),
        "rows": lesions.removal_rows(run.lesions),
        "fair_rows": fair_lesions.order_rows(run.lesions),
    }
    print(json.dumps(done))


def _show_run(run: runs.Run, figures: list[Path], console: Console) -> None:
    say_what_is_not_trained(run, console)
    for group in lesions.alike(run.lesions):
        for text in lesions.group_lines(group):
            say(console, text)
        course = "mean change of the test accuracy in points, by the share of blocks removed"
        console.print(lesions.course_table(group).terminal(course))
        console.print(lesions.removal_table(group).terminal("what can go"))
        studies = fair_lesions.fair_lesions(group)
        if studies:
            _show_fair_part(studies, console)
    if run.lesions:
        console.print(lesions.ABOUT, highlight=False, style="dim")
        console.print()
        tables = [run.store.folder / name for name in ("lesion.csv", "lesion_fair.csv")]
        list_files(console, "table", [path for path in tables if path.is_file()])
    list_files(console, "figure", figures)


def _show_fair_part(studies: Sequence[FairLesion], console: Console) -> None:
    for text in fair_lesions.fair_lines(studies):
        say(console, text)
    console.print(fair_lesions.order_table(studies).terminal("statistics as they are, and anew"))
    console.print(fair_lesions.ABOUT, highlight=False, style="dim")
    console.print()


def say_what_is_not_trained(run: runs.Run, console: Console) -> None:
    if run.unfinished:
        folder = run.store.folder
        say(console, f"{run.unfinished} networks of {folder} are not trained; left out")
