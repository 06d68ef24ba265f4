"""`cbundles config`: every setting of an experiment, its default, what is valid, and why."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from rich.console import Console

from cbundles.commands.output import say, say_indented
from cbundles.config import SECTIONS
from cbundles.errors import InputError, did_you_mean


class Setting(NamedTuple):
    """One key of a configuration file."""

    path: str  # section.key
    default: Any  # None: there is none that serves all networks
    valid: str
    why: str


def settings() -> Iterator[Setting]:
    """All of them, in the order of the sections."""
    for section, kind in SECTIONS.items():
        for field in dataclasses.fields(kind):
            yield Setting(
                f"{section}.{field.name}",
                field.default,
                _valid_values(field.metadata),
                field.metadata["why"],
            )


def _valid_values(metadata: Any) -> str:
    """In words: the choices, or the bounds of a number."""
    parts = []
    if metadata["choices"]:
        parts.append(f"one of {', '.join(metadata['choices'])}")
    if metadata["prefix"]:
        parts.append(f"{metadata['prefix']}PATH")
    if metadata["set_of"]:
        parts.append("a list of names")
    lower = [f"at least {metadata['low']:g}"] if metadata["low"] is not None else []
    above = [f"more than {metadata['above']:g}"] if metadata["above"] is not None else []
    upper = [f"at most {metadata['high']:g}"] if metadata["high"] is not None else []
    if bounds := [*lower, *above, *upper]:
        parts.append(", ".join(bounds))
    if metadata["word"]:
        parts.append(metadata["word"])
    return " or ".join(parts) or "text"


def show_settings(wanted: str | None, as_json: bool, console: Console) -> None:
    """Print the settings of a section, one setting, or all. InputError for an unknown name."""
    everything = list(settings())
    chosen = [each for each in everything if _is_wanted(each, wanted)]
    if not chosen:
        known = [*SECTIONS, *(each.path for each in everything)]
        raise InputError(f"config {wanted}: no such setting; {did_you_mean(wanted, known)}")
    if as_json:
        print(json.dumps([each._asdict() for each in chosen], indent=1))
        return
    for each in chosen:
        default = "(none)" if each.default is None else each.default
        say(console, f"{each.path} = {default}")
        for text in (each.valid, each.why):
            say_indented(console, text)
    say(console, "")
    say(console, "Every setting may be a list, which makes it an axis of the grid.")


def _is_wanted(setting: Setting, wanted: str | None) -> bool:
    section, _, key = setting.path.partition(".")
    return wanted is None or wanted in (section, key, setting.path)
