"""What an auto-tuning is asked for: checked before anything is trained, and told from others by
plain data, which its folder keeps."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from cbundles import criterion as criteria
from cbundles.auditing import audit
from cbundles.auditing.asked import check_names, checked_setting
from cbundles.auditing.batches import at_hand, batches_of, checked_labels
from cbundles.auditing.tensors import as_array
from cbundles.decisions.own_blocks import StageOf
from cbundles.errors import InputError, did_you_mean
from cbundles.user_functions import source_digest

Build = Callable[[tuple[int, ...]], Any]
Train = Callable[[Any, int], Any]
# Those that are given further: what is measured, and on which numbers, is said otherwise here.
ARGUMENTS_OF_AUDIT = {
    name: parameter.default
    for name, parameter in inspect.signature(audit).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY and name != "params"
}
CRITERIA = (criteria.ENTROPY, criteria.CONFLICT_RATE)


def checked_blocks(start: Sequence[int]) -> tuple[int, ...]:
    try:
        given = list(start)
    except TypeError:  # a number alone, as 5
        given = []
    if not all(_is_whole(count) and count >= 0 for count in given) or not sum(given):
        raise ValueError(f"start = {start}: must be numbers of blocks, one a stage, as (2, 3, 2)")
    return tuple(map(int, given))


def _is_whole(value: Any) -> bool:
    """Whether this is an integer, of NumPy too. True and False are none here."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def probe_at_hand(probe: tuple[PyTree, Any]) -> tuple[PyTree, Any]:
    """As arrays, which every network can be measured on. Raises ValueError for what is no probe."""
    if not isinstance(probe, tuple | list) or len(probe) != 2:
        raise ValueError(
            f"probe = a {type(probe).__name__}: must be a pair, inputs and their labels"
        )
    inputs, labels = probe
    batches = batches_of(inputs, len(as_array(labels)), whole=False)
    return at_hand(batches).inputs, labels


def _is_of_arrays(probe: tuple[PyTree, Any]) -> bool:
    """Whether its numbers can be looked at as they were given, more than once."""
    leaves = jax.tree.leaves(probe, is_leaf=lambda leaf: isinstance(leaf, Iterator))
    return all(hasattr(as_array(leaf), "dtype") for leaf in leaves)


def numbers_asked_for(check_epochs: int, epochs: int | None, criterion: str) -> dict[str, Any]:
    """How long, and by what is judged, as plain data. Raises ValueError for what cannot be."""
    if not _is_whole(check_epochs) or check_epochs < 1:
        raise ValueError(f"check_epochs = {check_epochs!r}: must be a whole number, at least 1")
    total = check_epochs if epochs is None else epochs
    if not _is_whole(total):
        raise ValueError(f"epochs = {epochs!r}: must be a whole number")
    if total < check_epochs:
        raise ValueError(
            f"epochs = {epochs}: fewer than check_epochs; nearest valid: {check_epochs}"
        )
    if criterion not in CRITERIA:
        raise ValueError(f"criterion = {criterion!r}: {did_you_mean(criterion, CRITERIA)}")
    return {"check_epochs": int(check_epochs), "epochs": int(total), "criterion": criterion}


def check_audited(audited: dict[str, Any], labels: Any) -> None:
    """Raises ValueError for what an audit would refuse after the first epoch of training."""
    for name in audited:
        if name not in ARGUMENTS_OF_AUDIT:
            near = did_you_mean(name, list(ARGUMENTS_OF_AUDIT))
            raise ValueError(f"{name}: no argument: {near}")
    asked = {**ARGUMENTS_OF_AUDIT, **audited}
    for name in ("layers", "trainable"):
        check_names(name, asked[name])
    setting = ("learning_rate", "batch_size", "batch_norm", "rows", "amplitude")
    checked_setting(*(asked[name] for name in setting))
    checked_labels(as_array(labels), asked["num_classes"])


def known_functions(build: Build, train: Train, stage_of: StageOf, call: Any) -> dict[str, str]:
    """What tells functions from others, as plain data: names, where they have one, and of ``build``
    the digest of the file that defines it, where there is one."""
    functions = {"build": build, "train": train, "stage_of": stage_of, "call": call}
    named = {name: _name_of(function) for name, function in functions.items()}
    known = {name: told for name, told in named.items() if told is not None}
    while isinstance(build, functools.partial):
        build = build.func
    with contextlib.suppress(InputError):
        known["source of build"] = source_digest(build, "build")
    return known


def _name_of(function: Any) -> str | None:
    """Of a partial with what it holds, as far as that is plain data: other objects are told by
    their types, since what they say of themselves may be an address."""
    if isinstance(function, functools.partial):
        held = [*function.args, *sorted(function.keywords.items())]
        return f"{_name_of(function.func)}({', '.join(map(_plainly, held))})"
    if hasattr(function, "__qualname__"):
        return f"{function.__module__}.{function.__qualname__}"
    return None


def _plainly(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_plainly, value))})"
    is_plain = value is None or isinstance(value, bool | int | float | str)
    return repr(value) if is_plain else type(value).__qualname__


def digest_of_probe(given: tuple[PyTree, Any], kept: tuple[PyTree, Any]) -> str:
    """12 hex digits of all numbers of a probe set: as it was given, where these can be looked at
    more than once."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(given if _is_of_arrays(given) else kept):
        array = np.ascontiguousarray(as_array(leaf))
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:12]
