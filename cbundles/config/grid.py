"""From a YAML file to cells: reading, overrides, and lists as axes.

A configuration file describes a grid. Every setting may be given as a list and then becomes an
axis; a *cell* is one point of the grid, that is, one network trained once.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbundles.config import own, rules, shipped
from cbundles.config.schema import OF_BUILD, SECTIONS, Cell
from cbundles.config.strict_yaml import parse_yaml, text_of
from cbundles.errors import InputError, did_you_mean, in_one_line, quoted

# A plan of so many takes 4 seconds and 300 MB, and a year of one core to train at 5 minutes each.
LARGEST_GRID = 100_000
LONGEST_NAME = 200  # bytes; file systems allow 255


@dataclass(frozen=True)
class Experiment:
    """A named grid of cells."""

    name: str
    cells: tuple[Cell, ...]
    grid: dict[str, Any]  # every setting by section and key, lists where they are axes


def load(path: Path, overrides: list[str]) -> Experiment:
    """Read a YAML file, apply ``key.path=value`` overrides, validate, and expand the grid. path:
    may also be the name of an experiment that comes with the package, see `shipped`."""
    if not path.exists():
        path = shipped.file_of(str(path)) or path
    try:
        text = text_of(path)
    except FileNotFoundError:
        nearby = sorted(str(p) for p in path.parent.glob("[!.]*.yaml"))
        choices = nearby if path.suffix else [*nearby, *shipped.names()]
        hint = f"; {did_you_mean(path, choices)}" if choices else ""
        raise InputError(f"{path}: no such file{hint}") from None
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: expected sections ({', '.join(SECTIONS)}), found {quoted(content)}"
        )
    return override(content, overrides, default_name=path.stem, file=str(path))


def override(
    content: dict[str, Any], overrides: list[str], *, default_name: str, file: str
) -> Experiment:
    """Apply ``key.path=value`` overrides to a nested mapping, then `build` it. file: its name."""
    places = dict.fromkeys(_key_paths(content), file)
    for text in overrides:
        key_path = _apply_override(content, text)
        for above in _with_parents(key_path):
            places[above] = f"{file} with --set {in_one_line(text)}"
    return build(content, default_name=default_name, places=places, file=file)


def build(
    content: dict[str, Any],
    *,
    default_name: str,
    places: dict[str, str] | None = None,
    file: str = "config",
) -> Experiment:
    """Validate a nested mapping and expand it.

    places: where each key path came from, for messages
    """
    origins = rules.Origins(file, places or {})
    rules.reject_unknown_keys(content, {"name", *SECTIONS}, "", origins)
    name = content.get("name", default_name)
    if not _can_be_a_folder(name):
        raise origins.error("name", name, "must be a plain name that can be a folder")

    axes: dict[str, list[Any]] = {}  # by key path; a single value is an axis of length one
    grid: dict[str, Any] = {"name": name}
    for section in SECTIONS:
        given = content.get(section)
        if given is None:  # also a section that is named and left empty
            given = {}
        if not isinstance(given, dict):
            raise origins.error(section, given, "must be a section with keys")
        grid[section] = {}
        for key, values in _axes_of_section(section, given, origins).items():
            axes[f"{section}.{key}"] = values
            # A list that is one value of a user's keyword is written as an axis of length one.
            is_axis = isinstance(given.get(key), list) or isinstance(values[0], (list, tuple))
            grid[section][key] = values if is_axis else values[0]

    _refuse_too_large(axes, file)
    # Cells that differ only in settings without effect are equal: each is kept once, in order.
    cells = dict.fromkeys(rules.valid_cell(point, origins) for point in _points(axes))
    rules.reject_settings_without_effect(content, cells, origins)
    return Experiment(name=name, cells=tuple(cells), grid=grid)


def _can_be_a_folder(name: object) -> bool:
    if not isinstance(name, str) or not rules.can_be_written(name):
        return False
    return 0 < len(name.encode()) <= LONGEST_NAME and "/" not in name and name[0] != "."


def _axes_of_section(
    section: str, given: dict[str, Any], origins: rules.Origins
) -> dict[str, list[Any]]:
    """The values of every setting of a section, checked one by one."""
    kind = SECTIONS[section]
    annotations = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if section == "model":
        if given.get("build") is not None:
            return own.axes_of_architecture(given, fields, origins)
        for key in OF_BUILD:  # other networks have none of these, and a plan is faster without
            del fields[key]
        given = {key: value for key, value in given.items() if (key, value) != ("build", None)}
    rules.reject_unknown_keys(given, fields, f"{section}.", origins)
    axes: dict[str, list[Any]] = {}
    for key, field in fields.items():
        path = f"{section}.{key}"
        value = given.get(key, field.default)
        if field.metadata["set_of"] is not None:
            value = rules.valid_set(value, field.metadata["set_of"], path, origins)
        values = value if isinstance(value, list) else [value]
        if not values:
            raise origins.error(path, value, "an axis needs at least one value")
        axes[key] = []
        for each in values:
            not_given = each is None and field.default is None
            if not not_given:
                each = rules.valid_value(each, annotations[key], field.metadata, path, origins)
            axes[key].append(each)
        if len(set(axes[key])) < len(values):
            raise origins.error(path, value, "an axis must not repeat a value")
    return axes


def _points(axes: dict[str, list[Any]]) -> Iterator[dict[str, dict[str, Any]]]:
    """Every combination of values, by section and key; the last axis changes fastest."""
    first: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for path, values in axes.items():
        section, key = path.split(".")
        first[section][key] = values[0]
    changing = [path for path, values in axes.items() if len(values) > 1]
    places = [path.split(".") for path in changing]
    for combination in itertools.product(*(axes[path] for path in changing)):
        point = {section: dict(keys) for section, keys in first.items()}
        for (section, key), value in zip(places, combination, strict=True):
            point[section][key] = value
        yield point


def _refuse_too_large(axes: dict[str, list[Any]], file: str) -> None:
    """InputError for a grid of more than `LARGEST_GRID` points, before any of them is made."""
    points = math.prod(len(values) for values in axes.values())
    if points > LARGEST_GRID:
        longest = sorted(axes, key=lambda path: -len(axes[path]))[:3]
        of_which = " x ".join(f"{path}: {len(axes[path]):,}" for path in longest)
        raise InputError(
            f"{file}: a grid of {points:,} networks ({of_which}); at most {LARGEST_GRID:,} fit "
            "into one run: shorten an axis, or make several runs of it with --set and --out"
        )


def _key_paths(content: dict[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for key, value in content.items():
        paths.append(f"{prefix}{key}")
        if isinstance(value, dict):
            paths += _key_paths(value, f"{prefix}{key}.")
    return paths


def _with_parents(path: str) -> list[str]:
    """``a``, ``a.b`` and ``a.b.c`` of ``a.b.c``."""
    return list(itertools.accumulate(path.split("."), lambda above, key: f"{above}.{key}"))


def _apply_override(content: dict[str, Any], text: str) -> str:
    """Set one ``section.key=value`` in place; returns the key path."""
    path, equals, value = text.partition("=")
    flag = f"--set {in_one_line(text)}"
    path = path.strip()
    if not equals or not path:
        raise InputError(f"{flag}: expected section.key=value")
    *parents, last = path.split(".")
    target = content
    for parent in parents:
        child = target.get(parent)
        if child is None:
            child = target[parent] = {}
        if not isinstance(child, dict):
            raise InputError(f"{flag}: {parent} is not a section")
        target = child
    target[last] = parse_yaml(value, flag)
    return path
