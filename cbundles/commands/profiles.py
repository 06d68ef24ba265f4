"""Profiles: which experiments `cbundles reproduce` makes, read from `configs/reproduce/`.

Claims of the paper are judged on the runs that a profile names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cbundles import config, data
from cbundles.commands import autotune, lesion
from cbundles.commands.autotune import Autotune
from cbundles.commands.grow import Editing
from cbundles.commands.lesion import Lesion
from cbundles.commands.places import reproduction_of
from cbundles.commands.running import Command, Options
from cbundles.commands.sweep import Sweep
from cbundles.commands.toy import Toy
from cbundles.config import FOLDER_PREFIX, Images
from cbundles.decisions import removal
from cbundles.errors import InputError, did_you_mean, in_one_line, quoted

PROFILES = Path("configs/reproduce")
CAN_BE_FOLDERS = ("mnist", "cifar10", "svhn_cropped", "imagenette")
Folders = Mapping[str, str]  # by the data set whose images they hold
# What each step may say, besides the settings of an experiment behind `set`.
KEYS: dict[str, dict[str, type]] = {
    "toy": {"precision": str},
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
        "fair": bool,
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
    """One command of a profile.

    title: how it is called
    data_sets: whose images it trains on
    """

    title: str
    command: Predictable
    data_sets: frozenset[Images] = frozenset()

    @property
    def folder_name(self) -> str:
        """Of its results, beside those of the other steps."""
        return self.command.name


@dataclass(frozen=True)
class Profile:
    name: str
    results: Path  # where its published runs lie
    steps: list[Step]

    @classmethod
    def of_file(cls, path: Path, folders: Folders | None = None) -> Profile:
        """Raises InputError with the file, the place and what would be valid.

        folders: of images that stand for data sets of the paper
        """
        content = _read(path)
        steps: list[Step] = []
        for number, entry in enumerate(content["steps"], start=1):
            step = _step(entry, path, f"{path}: step {number}", folders or {})
            if step.folder_name in [earlier.folder_name for earlier in steps]:
                raise InputError(
                    f"{path}: step {number}: {step.folder_name} is an earlier step's folder; "
                    "give it another name with set: [name=...]"
                )
            steps.append(step)
        _refuse_unused(folders or {}, steps, path)
        return cls(path.stem, Path(content["results"]), steps)

    @property
    def run_names(self) -> set[str]:
        return {step.folder_name for step in self.steps}


def folders_of(flags: Sequence[str]) -> dict[str, str]:
    """Of ``--images cifar10=FOLDER``, as often as it was given: the folder of each data set."""
    folders = {}
    for text in flags:
        dataset, equals, folder = text.partition("=")
        if not equals or not folder:
            raise InputError(f"--images {in_one_line(text)}: expected DATASET=FOLDER")
        if dataset not in CAN_BE_FOLDERS:
            raise InputError(
                f"--images {in_one_line(text)}: {did_you_mean(dataset, CAN_BE_FOLDERS)}"
            )
        if not Path(folder).expanduser().is_dir():
            raise InputError(f"--images {in_one_line(text)}: {in_one_line(folder)} is not a folder")
        if dataset in folders:
            raise InputError(f"--images {in_one_line(text)}: {dataset} was given twice")
        here, there = data.describe(f"{FOLDER_PREFIX}{folder}"), data.describe(dataset)
        if here.num_classes != there.num_classes:
            raise InputError(
                f"--images {in_one_line(text)}: it has {here.num_classes} classes, but {dataset} "
                f"has {there.num_classes}"
            )
        folders[dataset] = folder
    return folders


def _refuse_unused(folders: Folders, steps: Sequence[Step], path: Path) -> None:
    """InputError for a folder that no step would train on."""
    used = {images.name for step in steps for images in step.data_sets}
    for dataset, folder in folders.items():
        if f"{FOLDER_PREFIX}{folder}" not in used:
            raise InputError(
                f"--images {dataset}={folder}: no step of {path} trains on {dataset} alone"
            )


def runs_named_for(root: Path) -> set[str]:
    """The names of the runs under a results folder that profiles of its repository name."""
    for folder in root.resolve().parents:
        profiles: list[Profile] = []
        others: list[InputError] = []
        for path in sorted(folder.glob(f"{PROFILES}/*.yaml")):
            try:
                profiles.append(Profile.of_file(path))
            except InputError as error:
                others.append(error)
        if profiles and others:  # one of ours is damaged, and what it names would be missed
            raise others[0]
        if profiles:
            names: set[str] = set()
            for profile in profiles:
                places = (profile.results, reproduction_of(profile.results))
                if root.resolve() in [(folder / place).resolve() for place in places]:
                    names |= profile.run_names
            return names
    return set()


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
        # True is a whole number in Python, though not here.
        if not isinstance(value, keys[key]) or isinstance(value, bool) != (keys[key] is bool):
            raise InputError(f"{place}: {key} = {quoted(value)}: must be a {keys[key].__name__}")
        if isinstance(value, str) and not config.can_be_written(value):
            raise InputError(f"{place}: {key} = {quoted(value)}: {config.CHARACTERS}")


def _step(entry: object, path: Path, place: str, folders: Folders) -> Step:
    """One entry of the list of steps; place: how messages call it."""
    if not isinstance(entry, dict) or len(entry) != 1:
        raise InputError(f"{place}: must be one of {', '.join(KEYS)}, with its settings")
    ((verb, given),) = entry.items()
    if verb not in KEYS:
        raise InputError(f"{place}: {verb}: {did_you_mean(str(verb), KEYS)}")
    _check_keys(given, KEYS[verb], f"{place}, {verb}")
    command = _command(verb, given, path.parent, f"{place}: {verb}", [])
    data_sets = _data_sets_of(command)
    if len(data_sets) == 1:
        (images,) = data_sets
        if images.name in folders:
            instead = [
                f"data.name={FOLDER_PREFIX}{folders[images.name]}",
                f"data.pipeline={images.name}",
            ]
            command = _command(verb, given, path.parent, f"{place}: {verb}", instead)
    if verb == "toy":
        title = command.name
    elif verb == "autotune":
        title = f"autotune {given['dataset']}"
    else:
        title = f"{verb} {command.name}"
    return Step(title, command, _data_sets_of(command))


def _data_sets_of(command: Predictable) -> frozenset[Images]:
    """Whose images a step trains on: those of its experiment, if it has one."""
    if isinstance(command, Autotune | Editing | Lesion | Sweep):
        return frozenset(cell.data.images for cell in command.experiment.cells)
    return frozenset()


def _command(
    verb: str, given: dict[str, Any], folder: Path, place: str, more: Sequence[str]
) -> Predictable:
    """folder: where the configuration files are; more: settings after those of the step."""
    overrides = [*map(str, given.get("set", [])), *more]
    if verb == "toy":
        return Toy.in_precision(given.get("precision", config.FLOAT32), f"{place}: precision")
    if verb == "lesion":
        return _lesion(given, folder, overrides, place)
    if verb == "autotune":
        if "dataset" not in given:
            raise InputError(f"{place}: dataset is missing")
        return Autotune.of_choices(
            given["dataset"],
            given.get("blocks", autotune.BLOCKS),
            given.get("seeds"),
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
    asked = {key: given[key] for key in ("draws", "every", "fair") if key in given}
    try:
        settings = removal.Settings(**asked)
    except ValueError as error:
        raise InputError(f"{place}: {error}") from None
    if "config" in given:
        return Lesion.of_file(folder / given["config"], settings, overrides)
    depth = given.get("depth", lesion.DEPTH)
    return Lesion.of_dataset(given["dataset"], depth, settings, overrides)
