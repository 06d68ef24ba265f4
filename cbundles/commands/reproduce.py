"""`cbundles reproduce`: the steps of a profile, one after the other, and the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from cbundles import config
from cbundles.commands import autotune, lesion
from cbundles.commands.autotune import Autotune
from cbundles.commands.grow import Editing
from cbundles.commands.lesion import Lesion
from cbundles.commands.output import say, say_whose_times
from cbundles.commands.report import write_report
from cbundles.commands.running import Command, Options
from cbundles.commands.sweep import Sweep
from cbundles.commands.toy import Toy
from cbundles.console import duration
from cbundles.decisions import removal
from cbundles.errors import InputError, did_you_mean, quoted
from cbundles.report.table import Column, Table

# What each step may say, besides the settings of an experiment behind `set`.
KEYS: dict[str, dict[str, type]] = {
    "toy": {},
    "sweep": {
        "config": str,
        "set": list,
    },
    "autotune": {
        "dataset": str,
        "blocks": str,
        "seeds": int,
        "baseline": str,
        "rule": str,
        "set": list,
    },
    "lesion": {
        "config": str,
        "dataset": str,
        "depth": int,
        "draws": int,
        "every": int,
        "set": list,
    },
    "grow": {
        "config": str,
        "set": list,
    },
    "tune": {
        "config": str,
        "set": list,
    },
}


class Predictable(Command, Protocol):
    """A command that can be a step: it knows what is left to do."""

    def seconds_left(self, options: Options) -> float:
        """Predicted time of what is not finished."""


@dataclass(frozen=True)
class Step:
    title: str  # how it is called
    command: Predictable
    folder: Path  # of its results

    def seconds_left(self, options: Options) -> float | None:
        """None when its input is missing."""
        try:
            return self.command.seconds_left(dataclasses.replace(options, out=self.folder))
        except InputError:
            return None

    def execute(self, options: Options, console: Console) -> int:
        return self.command.execute(dataclasses.replace(options, out=self.folder), console)


@dataclass(frozen=True)
class Profile:
    name: str
    results: Path
    steps: list[Step]

    @classmethod
    def of_file(cls, path: Path) -> Profile:
        """Raises InputError with the file, the place and what would be valid."""
        content = _read(path)
        results = Path(content["results"])
        steps: list[Step] = []
        for number, entry in enumerate(content["steps"], start=1):
            step = _step(entry, path, results, f"{path}: step {number}")
            if step.folder in [earlier.folder for earlier in steps]:
                raise InputError(
                    f"{path}: step {number}: {step.folder} is an earlier step's folder; "
                    "give it another name with set: [name=...]"
                )
            steps.append(step)
        return cls(path.stem, results, steps)

    def show_plan(self, options: Options, console: Console) -> None:
        """Print the steps and what is left of each; run nothing."""
        rows, total = [], 0.0
        for step in self.steps:
            seconds = step.seconds_left(options)
            if seconds is None:
                left = "cannot run"
            elif seconds == 0:
                left = "finished"
            else:
                left = f"about {duration(seconds)}"
                total += seconds
            rows.append({"step": step.title, "time left": left, "results": step.folder})
        titles = ("step", "time left", "results")
        table = Table(rows, [Column(title, title) for title in titles])
        console.print(table.terminal())
        say(
            console,
            f"\nProfile {self.name}: about {duration(total)} left in all, then the report in "
            f"{self.results}.",
        )
        say_whose_times(console, options)

    def execute(self, options: Options, console: Console) -> int:
        """Run what is not finished, then the report. A step whose input is missing is named and
        left out. Returns the exit code: that of the worst step."""
        self.show_plan(options, console)
        missing, worst = [], 0
        for number, step in enumerate(self.steps, start=1):
            left = sum(later.seconds_left(options) or 0.0 for later in self.steps[number - 1 :])
            console.print(
                f"\nstep {number} of {len(self.steps)}: {step.title}; "
                f"about {duration(left)} left in all",
                style="bold",
                highlight=False,
            )
            try:
                worst = max(worst, step.execute(options, console))
            except InputError as error:
                missing.append(f"{step.title}: {error}")
                console.print(f"left out: {error}", style="red", highlight=False, markup=False)
        console.print("\nreport", style="bold")
        write_report(self.results, console)
        for line in missing:
            console.print(f"not run: {line}", style="red", highlight=False, markup=False)
        return 2 if missing else worst


def _read(path: Path) -> dict[str, Any]:
    try:
        text = config.text_of(path)
    except FileNotFoundError:
        profiles = sorted(str(p) for p in path.parent.glob("*.yaml"))
        nearest = did_you_mean(str(path), profiles) if profiles else "run it where configs/ is"
        raise InputError(f"{path}: no such profile; {nearest}") from None
    content: dict[str, Any] = config.parse_yaml(text, str(path))
    _check_keys(content, {"results": str, "steps": list}, f"{path}")
    for key in ("results", "steps"):
        if key not in content:
            raise InputError(f"{path}: {key} is missing")
    return content


def _check_keys(content: object, keys: Mapping[str, type], place: str) -> None:
    if not isinstance(content, dict):
        raise InputError(f"{place}: must be a mapping with {', '.join(keys) or 'nothing in it'}")
    for key, value in content.items():
        if key not in keys:
            raise InputError(f"{place}: {key}: {did_you_mean(str(key), keys)}")
        if not isinstance(value, keys[key]) or isinstance(value, bool):
            raise InputError(f"{place}: {key} = {quoted(value)}: must be a {keys[key].__name__}")
        if isinstance(value, str) and not config.can_be_written(value):
            raise InputError(f"{place}: {key} = {quoted(value)}: {config.CHARACTERS}")


def _step(entry: object, path: Path, results: Path, place: str) -> Step:
    """One entry of the list of steps; place: how messages call it."""
    if not isinstance(entry, dict) or len(entry) != 1:
        raise InputError(f"{place}: must be one of {', '.join(KEYS)}, with its settings")
    ((verb, given),) = entry.items()
    if verb not in KEYS:
        raise InputError(f"{place}: {verb}: {did_you_mean(str(verb), KEYS)}")
    _check_keys(given, KEYS[verb], f"{place}, {verb}")
    command = _command(verb, given, path.parent, f"{place}: {verb}")
    if verb == "toy":
        title = "toy"
    elif verb == "autotune":
        title = f"autotune {given['dataset']}"
    else:
        title = f"{verb} {command.name}"
    return Step(title, command, results / command.name)


def _command(verb: str, given: dict[str, Any], folder: Path, place: str) -> Predictable:
    """folder: where the configuration files are."""
    overrides = [str(value) for value in given.get("set", [])]
    if verb == "toy":
        return Toy()
    if verb == "lesion":
        return _lesion(given, folder, overrides, place)
    if verb == "autotune":
        if "dataset" not in given:
            raise InputError(f"{place}: dataset is missing")
        return Autotune.of_choices(
            given["dataset"],
            given.get("blocks", autotune.BLOCKS),
            given.get("seeds", autotune.SEEDS),
            given.get("baseline"),
            given.get("rule", autotune.RULE),
            overrides,
        )
    if "config" not in given:
        raise InputError(f"{place}: config is missing")
    path = folder / given["config"]
    if verb == "sweep":
        return Sweep.of_file(path, overrides)
    return Editing.of_file(path, overrides, config.GROW if verb == "grow" else config.TUNE)


def _lesion(given: dict[str, Any], folder: Path, overrides: list[str], place: str) -> Lesion:
    if ("config" in given) == ("dataset" in given):
        raise InputError(f"{place}: needs config, or dataset")
    if "config" in given and "depth" in given:
        raise InputError(f"{place}: depth has no effect with config")
    try:
        settings = removal.Settings(**{k: given[k] for k in ("draws", "every") if k in given})
    except ValueError as error:
        raise InputError(f"{place}: {error}") from None
    if "config" in given:
        return Lesion.of_file(folder / given["config"], settings, overrides)
    depth = given.get("depth", lesion.DEPTH)
    return Lesion.of_dataset(given["dataset"], depth, settings, overrides)
