"""`cbundles grow` and `cbundles tune`: networks that change their depth while they are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cbundles.commands.checks import require_kind
from cbundles.commands.output import list_files, say_failures
from cbundles.commands.running import Options
from cbundles.commands.sweep import Outcome, Sweep, complete
from cbundles.config import Experiment, load
from cbundles.console import duration
from cbundles.executor.planner import PopulationJob
from cbundles.records import EditedRecord
from cbundles.report import arm_tables, arms


@dataclass(frozen=True)
class Editing:
    """Networks that insert layers (`grow`), or also remove some (`tune`)."""

    experiment: Experiment

    @classmethod
    def of_file(cls, path: Path, overrides: list[str], kind: str) -> Editing:
        """kind: GROW or TUNE."""
        experiment = load(path, overrides)
        require_kind(experiment, kind)
        return cls(experiment)

    @property
    def name(self) -> str:
        return self.experiment.name

    def populations(self, options: Options) -> list[PopulationJob]:
        """Of the whole grid: what shards share out."""
        return Sweep(self.experiment).populations(options)

    def seconds_left(self, options: Options) -> float:
        """Predicted time of the networks that have no record."""
        return Sweep(self.experiment).seconds_left(options)

    def show_plan(self, options: Options, console: Console) -> None:
        """Print the networks and what they will cost; run nothing."""
        Sweep(self.experiment).show_plan(options, console)

    def execute(self, options: Options, console: Console) -> int:
        """Train what is not finished, then write tables and figures. Returns the exit code."""
        if options.shard is not None:
            return Sweep(self.experiment).execute(options, console)
        outcome = complete(self.experiment, options, console)
        if options.as_json:
            outcome.print_as_data()
        else:
            _show_outcome(outcome, self.experiment.cells[0].kind, options, console)
        return outcome.exit_code


def _show_outcome(outcome: Outcome, kind: str, options: Options, console: Console) -> None:
    """kind: GROW or TUNE."""
    study = arm_tables.study_of(kind)
    networks, store = outcome.run.edited, outcome.run.store
    for setting in arms.settings_of(networks):
        console.print(arm_tables.arms_table(setting).terminal(setting.about), highlight=False)
        console.print()
    if networks:
        console.print(study.about, style="dim", highlight=False)
        console.print(_time_of_training_and_compiling(networks), highlight=False)
        paths = [store.folder / f"{study.stem}.{suffix}" for suffix in ("csv", "md")]
        list_files(console, "table", paths)
    list_files(console, "figure", outcome.figures)
    say_failures(console, outcome.failed, store, fresh=options.fresh)


def _time_of_training_and_compiling(records: Sequence[EditedRecord]) -> str:
    seconds = sum(record.seconds for record in records)
    compiling = sum(record.compile_seconds for record in records)
    programs = max(record.programs for record in records)
    return (
        f"{len(records)} networks took {duration(seconds)} of a core, and {duration(compiling)} to "
        f"compile, at most {programs} programs for a population"
    )
