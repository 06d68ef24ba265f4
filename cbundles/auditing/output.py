"""Which part of a model's output are the class scores, of which lesions and insertions need the
largest, or the loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from jaxtyping import PyTree

from cbundles.auditing.subject import Scores
from cbundles.errors import did_you_mean


class NoScores(ValueError):
    """Nothing in a model's output can be class scores, or more than one array."""


class UnknownOutput(ValueError):
    """What was named is no part of a model's output."""


def scores_in(output: str | int | None, classes: int, label_shape: tuple[int, ...]) -> Scores:
    """A function from the output of a model to its class scores.

    Args:
        output: of a tuple which one, of a dictionary its key, of fields a name; None: the only
            array that fits.
        classes: how many there are.
        label_shape: of the labels of all samples.

    It raises NoScores, or UnknownOutput.
    """

    def scores(made: PyTree) -> Any:
        candidates = list(_arrays_in(made if output is None else _picked(made, output)))
        fitting = [one for one in candidates if _fits(one, classes, label_shape)]
        exactly = [one for one in fitting if one.shape[-1] == classes]
        chosen = exactly or fitting
        if len(chosen) == 1:
            return chosen[0]
        axes = ", ".join(["batch", *map(str, label_shape[1:]), "classes"])
        wanted = f"class scores ({axes}) of at least {classes} classes"
        if chosen:
            how = "let call= return one of them"
            key = None if output is not None else _key_of_one(made, chosen)
            if key is not None:
                how = f"say which one, such as output={key!r}"
            raise NoScores(f"{len(chosen)} outputs of the model could be the {wanted}; {how}")
        given = ", ".join(map(_in_words, candidates)) or "nothing"
        raise NoScores(f"no output of the model can be {wanted}: there is {given}")

    return scores


def _picked(made: PyTree, output: str | int) -> PyTree:
    """Raises UnknownOutput."""
    named = _parts_of(made)
    if named is None:
        raise UnknownOutput(f"output={output!r}, but the model returns one array; leave it out")
    parts = {str(key): value for key, value in named.items()}
    if isinstance(made, (tuple, list)):
        parts |= {str(place): made[place] for place in range(-len(made), len(made))}
    if str(output) not in parts:
        raise UnknownOutput(f"output={output!r}: {did_you_mean(str(output), list(parts))}")
    return parts[str(output)]


def _parts_of(made: PyTree) -> dict[str | int, Any] | None:
    """The parts of an output by their keys, names or places; None where it has none."""
    if isinstance(made, Mapping):  # of PyTorch also ones that JAX takes for a leaf
        return dict(made)
    if isinstance(made, (tuple, list)):
        return dict(zip(getattr(made, "_fields", range(len(made))), made, strict=True))
    if dataclasses.is_dataclass(made):
        return {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
    return None


def _arrays_in(made: PyTree) -> Iterator[Any]:
    """The arrays in an output, and whatever else is in it."""
    parts = _parts_of(made)
    if parts is None:
        yield from jax.tree.leaves(made)
    else:
        for part in parts.values():
            yield from _arrays_in(part)


def _fits(array: Any, classes: int, label_shape: tuple[int, ...]) -> bool:
    shape = tuple(getattr(array, "shape", ()))
    return (
        len(shape) == len(label_shape) + 1
        and shape[1:-1] == label_shape[1:]
        and shape[-1] >= classes
        and "float" in str(array.dtype)
    )


def _key_of_one(made: PyTree, chosen: Sequence[Any]) -> str | int | None:
    """By which `output` the last one of several arrays, and no other, is meant; None: by none."""
    for key, part in (_parts_of(made) or {}).items():
        inside = [one for one in _arrays_in(part) if any(one is other for other in chosen)]
        if len(inside) == 1 and inside[0] is chosen[-1]:
            return key
    return None


def _in_words(array: Any) -> str:
    if not hasattr(array, "shape"):
        return f"a {type(array).__name__}"
    return f"{str(array.dtype).removeprefix('torch.')}{list(array.shape)}"
