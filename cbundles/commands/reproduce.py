"""`cbundles reproduce`: the steps of a profile, one after the other, and the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cbundles import config
from cbundles.commands import autotune, grow, lesion, report, sweep, toy
from cbundles.commands.running import Options, require
from cbundles.console import duration
from cbundles.errors import InputError, did_you_mean
from cbundles.experiments import removal
from cbundles.store import Store

TOY_SECONDS = 20.0
# Steps that run the experiment of a configuration file: what its networks must be for, and how.
EXPERIMENTS = {
    "sweep": (config.TRAIN, sweep.run_sweep),
    "grow": (config.GROW, grow.run),
    "tune": (config.TUNE, grow.run),
}
# What each step may say, besides the settings of an experiment behind `set`.
KEYS: dict[str, dict[str, type]] = {
    "toy": {},
    "sweep": {"config": str, "set": list},
    "autotune": {"dataset": str, "blocks": str, "seeds": int, "baseline": str, "rule": str,
                 "set": list},
    "lesion": {"config": str, "dataset": str, "depth": int, "draws": int, "every": int,
               "set": list},
    "grow": {"config": str, "set": list},
    "tune": {"config": str, "set": list},
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """title: how it is called; out: its folder; seconds: predicted, of what is not finished."""

    title: str
    out: Path
    seconds: Callable[[Options], float]
    run: Callable[[Options, Console], int]


@dataclass(frozen=True)
class Profile:
    name: str
    results: Path
    steps: list[Step]


def load(path: Path) -> Profile:
    """Read a profile. Raises InputError with the file, the place and what would be valid."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        profiles = sorted(str(p) for p in path.parent.glob("*.yaml"))
        nearest = did_you_mean(str(path), profiles) if profiles else "run it where configs/ is"
        raise InputError(f"{path}: no such profile; {nearest}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    content = config.parse_yaml(text, str(path))
    _check(content, {"results": str, "steps": list}, f"{path}")
    for key in ("results", "steps"):
        if key not in content:
            raise InputError(f"{path}: {key} is missing")
    results = Path(content["results"])
    steps = []
    for number, entry in enumerate(content["steps"], start=1):
        place = f"{path}: step {number}"
        if not isinstance(entry, dict) or len(entry) != 1:
            raise InputError(f"{place}: must be one of {', '.join(KEYS)}, with its settings")
        (verb, given), *_ = entry.items()
        if verb not in KEYS:
            raise InputError(f"{place}: {verb}: {did_you_mean(str(verb), KEYS)}")
        _check(given, KEYS[verb], f"{place}, {verb}")
        steps.append(_step(verb, given, path, results, place))
    for number, step in enumerate(steps):
        if step.out in [earlier.out for earlier in steps[:number]]:
            raise InputError(f"{path}: step {number + 1}: {step.out} is an earlier step's folder; "
                             "give it another name with set: [name=...]")  # fmt: skip
    return Profile(path.stem, results, steps)


def _check(content: Any, keys: Mapping[str, type], place: str) -> None:
    if not isinstance(content, dict):
        raise InputError(f"{place}: must be a mapping with {', '.join(keys) or 'nothing in it'}")
    for key, value in content.items():
        if key not in keys:
            raise InputError(f"{place}: {key}: {did_you_mean(str(key), keys)}")
        if not isinstance(value, keys[key]) or isinstance(value, bool):
            raise InputError(f"{place}: {key} = {value!r}: must be a {keys[key].__name__}")


def _step(verb: str, given: dict[str, Any], path: Path, results: Path, place: str) -> Step:
    overrides = [str(value) for value in given.get("set", [])]
    if verb == "toy":
        out = results / "toy"
        return Step("toy", out, lambda options: _toy_seconds(out), toy.run)
    if verb in EXPERIMENTS:
        if "config" not in given:
            raise InputError(f"{place}: {verb}: config is missing")
        experiment = config.load(path.parent / given["config"], overrides)
        kind, command = EXPERIMENTS[verb]
        require(experiment, kind)
        return Step(
            f"{verb} {experiment.name}",
            results / experiment.name,
            lambda options: sweep.seconds_left(experiment, options),
            lambda options, console: command(experiment, options, console),
        )
    if verb == "lesion":
        return _lesion(given, path, results, place, overrides)
    if "dataset" not in given:
        raise InputError(f"{place}: autotune: dataset is missing")
    tuning = autotune.describe(
        given["dataset"], given.get("blocks", autotune.BLOCKS), given.get("seeds", autotune.SEEDS),
        given.get("baseline"), given.get("rule", autotune.RULE), overrides,
    )  # fmt: skip
    return Step(
        f"autotune {given['dataset']}",
        results / tuning.experiment.name,
        lambda options: autotune.seconds_left(tuning, options),
        lambda options, console: autotune.run(tuning, options, console),
    )


def _lesion(
    given: dict[str, Any], path: Path, results: Path, place: str, overrides: list[str]
) -> Step:
    if ("config" in given) == ("dataset" in given):
        raise InputError(f"{place}: lesion: needs config, or dataset")
    if "config" in given and "depth" in given:
        raise InputError(f"{place}: lesion: depth has no effect with config")
    if "config" in given:
        experiment = lesion.of_file(path.parent / given["config"], overrides)
    else:
        depth = given.get("depth", lesion.DEPTH)
        experiment = lesion.of_flags(given["dataset"], depth, overrides)
    try:
        settings = removal.Settings(**{k: given[k] for k in ("draws", "every") if k in given})
    except ValueError as error:
        raise InputError(f"{place}: lesion: {error}") from None
    return Step(
        f"lesion {experiment.name}",
        results / experiment.name,
        lambda options: lesion.seconds_left(experiment, settings, options),
        lambda options, console: lesion.run(experiment, settings, True, options, console),
    )


def _toy_seconds(out: Path) -> float:
    store = Store(out)
    return 0.0 if all(store.record_path(name).is_file() for name in toy.cells()) else TOY_SECONDS


def _left(step: Step, options: Options) -> float | None:
    """Predicted seconds of what is not finished; None when its input is missing."""
    try:
        return step.seconds(dataclasses.replace(options, out=step.out))
    except InputError:
        return None


def plan(profile: Profile, options: Options, console: Console) -> None:
    """Print the steps and what is left of each; run nothing."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("step", "time left", "results"):
        table.add_column(title)
    total = 0.0
    for step in profile.steps:
        seconds = _left(step, options)
        total += seconds or 0.0
        left = "cannot run" if seconds is None else f"about {duration(seconds)}"
        table.add_row(step.title, left if seconds != 0 else "finished", str(step.out))
    console.print(table)
    console.print(
        f"\nProfile {profile.name}: about {duration(total)} left in all, then the report in "
        f"{profile.results}.",
        highlight=False,
        soft_wrap=True,
    )
    if options.device == "gpu":
        console.print("The times are those of a CPU; none has been measured on this GPU yet.")


def run(profile: Profile, options: Options, console: Console) -> int:
    """Run what is not finished, then the report. A step whose input is missing is named and left
    out. Returns the exit code: that of the worst step."""
    plan(profile, options, console)
    missing, worst = [], 0
    for number, step in enumerate(profile.steps, start=1):
        left = sum(_left(later, options) or 0.0 for later in profile.steps[number - 1 :])
        console.print(
            f"\nstep {number} of {len(profile.steps)}: {step.title}; "
            f"about {duration(left)} left in all",
            style="bold",
            highlight=False,
        )
        try:
            worst = max(worst, step.run(dataclasses.replace(options, out=step.out), console))
        except InputError as error:
            missing.append(f"{step.title}: {error}")
            console.print(f"left out: {error}", style="red", highlight=False, markup=False)
    console.print("\nreport", style="bold")
    report.run(profile.results, console)
    for line in missing:
        console.print(f"not run: {line}", style="red", highlight=False, markup=False)
    return 2 if missing else worst
