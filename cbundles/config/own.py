"""A user's architecture as settings: ``model.build`` names a function, and its keywords are keys.

``build`` is imported here, as Python would, so that a mistake is answered before anything is
trained: a keyword that it has not is an unknown key, one without a default has to be given, and
every one of them may be an axis. In a cell ``depth`` and ``width`` are the settings that all
networks have; all other keywords stand together in ``model.keywords``, and ``model.source`` is the
digest of the program in the file that defines the function. So a cell, and a record, say what was
built without the function at hand.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cbundles import user_functions
from cbundles.config.rules import CHARACTERS, Origins, can_be_written, valid_value
from cbundles.config.schema import OF_BUILD, OWN, SIZES_OF_OWN
from cbundles.errors import InputError, did_you_mean, quoted

RESERVED = ("family", *OF_BUILD)  # keys of the section that are no keywords
NONE_GIVEN = object()
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
# What people write for a truth value, in small letters.
NO, YES = ("no", "off", "n", "0", "0.0", "false"), ("yes", "on", "y", "1", "1.0", "true")


class Architecture(NamedTuple):
    """What is known of a function of a user that makes networks.

    target: its name
    source: the digest of the file that defines it
    defaults: its keywords, and the value of each; `NONE_GIVEN` where there is none
    """

    target: str
    source: str
    defaults: Mapping[str, Any]


SIZE_OR_NONE = (int, type(None))


def axes_of_architecture(
    given: dict[str, Any], fields: Mapping[str, Any], origins: Origins
) -> dict[str, list[Any]]:
    """The values of every keyword of ``model.build``, and of what identifies the function, by key:
    those of the section ``model`` of such a network. fields: of the schema, by key."""
    architecture = _imported(given, origins)
    _reject_unknown_keywords(given, architecture, origins)
    axes = {
        "family": [OWN],
        "build": [architecture.target],
        "source": [architecture.source],
    }
    for keyword, default in architecture.defaults.items():
        path = f"model.{keyword}"
        value = given.get(keyword, default)
        if value is NONE_GIVEN:
            problem = f"missing; a keyword of {architecture.target} without a default"
            raise InputError(f"{origins.place_of(path)}: {problem}")
        if keyword not in given and not _is_plain(value):
            continue  # of its own kind, as a function is: the source says which
        if keyword in SIZES_OF_OWN and keyword not in given and type(value) not in SIZE_OR_NONE:
            problem = f"the default of its keyword {keyword} is {quoted(value)}: a {keyword} is a "
            problem += f"whole number; call the keyword otherwise, or give {path}"
            raise origins.error("model.build", architecture.target, problem)
        values = value if keyword in given and isinstance(value, list) else [value]
        if not values:
            raise origins.error(path, value, "an axis needs at least one value")
        checked = [_valid(keyword, each, default, fields, origins) for each in values]
        if len(set(map(json.dumps, checked))) < len(checked):
            raise origins.error(path, value, "an axis must not repeat a value")
        axes[keyword] = checked
    return axes


def _imported(given: dict[str, Any], origins: Origins) -> Architecture:
    """What ``model.build`` names. InputError for anything else than a function with a source."""
    target = given["build"]
    if isinstance(target, list):
        problem = "one function a run, whose keywords may be axes; nearest valid: the first"
        raise origins.error("model.build", target, problem)
    if not isinstance(target, str) or not user_functions.is_name_of_function(target):
        raise origins.error("model.build", target, f"must be {user_functions.FORM}")
    if given.get("family", OWN) != OWN:
        problem = f"model.build says which network it is; nearest valid: {OWN}"
        raise origins.error("model.family", given["family"], problem)
    place = f"{origins.place_of('model.build')} = {quoted(target)}"
    user_functions.trust(target)
    function = user_functions.function_of_name(target, place)
    source = user_functions.source_digest(function, place)
    defaults = _keywords_of(function, place)
    for name in RESERVED:
        if name in defaults:
            problem = f"its keyword {name} is a setting of every model; call it otherwise"
            raise origins.error("model.build", target, problem)
    return Architecture(target, source, defaults)


def _keywords_of(function: Callable[..., Any], place: str) -> dict[str, Any]:
    """What a function can be given by name, and the defaults. Of a Flax module itself its fields;
    those that every module has are Flax's own. InputError where a function does not say it."""
    try:
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError):
        raise InputError(f"{place}: Python cannot tell its keywords; write a function") from None
    flax_fields = ("parent", "name") if {"parent", "name"} <= parameters.keys() else ()
    for parameter in parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            problem = f"its {parameter} is given by position alone, so it cannot be a setting"
            raise InputError(f"{place}: {problem}; let it be given by name")
    return {
        name: NONE_GIVEN if parameter.default is parameter.empty else parameter.default
        for name, parameter in parameters.items()
        if parameter.kind in NAMED and name not in flax_fields
    }


def _reject_unknown_keywords(
    given: dict[str, Any], architecture: Architecture, origins: Origins
) -> None:
    for key, value in given.items():
        if key not in architecture.defaults and key not in ("family", "build"):
            known = did_you_mean(key, architecture.defaults)
            if not architecture.defaults:
                known = "it names none; what stands behind * or ** cannot be a setting"
            problem = f"no keyword of {architecture.target}; {known}"
            raise origins.error(f"model.{key}", value, problem)


def _valid(
    keyword: str, value: Any, default: Any, fields: Mapping[str, Any], origins: Origins
) -> Any:
    """A value as the function gets it: a number or a list where its default is one, and sizes
    within their bounds."""
    path = f"model.{keyword}"
    if keyword in SIZES_OF_OWN and value is not None:
        return valid_value(value, int, fields[keyword].metadata, path, origins)
    if not _is_plain(value):
        problem = "must be text, a finite number, true, false, null, or a list of them"
        raise origins.error(path, value, problem)
    if isinstance(value, str) and not can_be_written(value):
        raise origins.error(path, value, CHARACTERS)
    if isinstance(default, list | tuple) and not isinstance(value, list | tuple):
        problem = "must be a list, as its default is: [[1, 2]] is one, [[1, 2], [3, 4]] are two"
        raise origins.error(path, value, problem)
    if isinstance(default, bool | int | float):
        return _of_type_of_default(value, default, path, origins)
    return value


def _of_type_of_default(value: Any, default: Any, path: str, origins: Origins) -> Any:
    """A truth value or a number, as the default is. Any text would count as true."""
    if type(default) is float and type(value) in (int, str):
        try:
            value = float(value)  # YAML reads 1e-3 (no dot) as text
        except (ValueError, OverflowError):
            raise origins.error(path, value, "must be a number, as its default is") from None
    if type(value) is type(default) and _is_plain(value):
        return value
    if isinstance(default, bool):
        word = str(value).lower()
        nearest = "false" if word in NO else "true" if word in YES else "false or true"
        problem = f"must be true or false, as its default is; nearest valid: {nearest}"
    elif isinstance(default, int):
        whole = round(value) if type(value) is float and math.isfinite(value) else default
        problem = f"must be a whole number, as its default is; nearest valid: {whole}"
    else:
        problem = f"must be a finite number, as its default is; nearest valid: {default}"
    raise origins.error(path, value, problem)


def _is_plain(value: Any) -> bool:
    """Whether YAML can say it."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int | float | bool)
