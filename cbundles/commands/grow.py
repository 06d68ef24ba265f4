"""`cbundles grow` and `cbundles tune`: networks that change their depth while they are trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from cbundles.commands.checks import require_kind
from cbundles.commands.output import list_files, say_failures, table_of
from cbundles.commands.running import Options
from cbundles.commands.sweep import Outcome, Sweep, complete
from cbundles.config import GROW, Experiment, load
from cbundles.console import duration
from cbundles.report import arms, growth, tuning


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

    def seconds_left(self, options: Options) -> float:
        """Predicted time of the networks that have no record."""
        return Sweep(self.experiment).seconds_left(options)

    def show_plan(self, options: Options, console: Console) -> None:
        """Print the networks and what they will cost; run nothing."""
        Sweep(self.experiment).show_plan(options, console)

    def execute(self, options: Options, console: Console) -> int:
        """Train what is not finished, then write tables and figures. Returns the exit code."""
        outcome = complete(self.experiment, options, console)
        if options.as_json:
            outcome.print_as_data()
        elif self.experiment.cells[0].kind == GROW:
            _show_outcome(outcome, "growth", growth, console)
        else:
            _show_outcome(outcome, "tuning", tuning, console)
        return outcome.exit_code


def _show_outcome(outcome: Outcome, stem: str, told: ModuleType, console: Console) -> None:
    """stem: of the tables' files; told: the module of the report that tells of such networks."""
    for setting in arms.settings(outcome.records):
        titles = list(told.COLUMNS.values())
        table = table_of(titles, told.shown(setting), title=told.about(setting))
        table.title_justify = "left"
        console.print(table, highlight=False)
        console.print()
    if outcome.records:
        console.print(told.ABOUT, style="dim", highlight=False)
        console.print(_time_of_training_and_compiling(outcome.records), highlight=False)
        paths = [outcome.store.folder / f"{stem}.{suffix}" for suffix in ("csv", "md")]
        list_files(console, "table", paths)
    list_files(console, "figure", outcome.figures)
    say_failures(console, outcome.failed, outcome.store)


def _time_of_training_and_compiling(records: list[dict[str, Any]]) -> str:
    seconds = sum(record["seconds"] for record in records)
    compiling = sum(record["compile_seconds"] for record in records)
    programs = max(record["programs"] for record in records)
    return (
        f"{len(records)} networks took {duration(seconds)} of a core, and {duration(compiling)} to "
        f"compile, at most {programs} programs for a population"
    )
