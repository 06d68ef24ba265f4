"""Which part of a model's output are the class scores, of which lesions and insertions need the
largest, or the loss."""

from __future__ import annotations

from collections.abc import Mapping
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
        output: of a tuple which one, of a dictionary its key; None: the only array that fits.
        classes: how many there are.
        label_shape: of the labels of all samples.

    It raises NoScores, or UnknownOutput.
    """

    def scores(made: PyTree) -> Any:
        candidates = jax.tree.leaves(made if output is None else _picked(made, output))
        fitting = [one for one in candidates if _fits(one, classes, label_shape)]
        exactly = [one for one in fitting if one.shape[-1] == classes]
        chosen = exactly or fitting
        if len(chosen) == 1:
            return chosen[0]
        axes = ", ".join(["batch", *map(str, label_shape[1:]), "classes"])
        wanted = f"class scores ({axes}) of at least {classes} classes"
        if chosen:
            raise NoScores(
                f"{len(chosen)} outputs of the model could be the {wanted}; say which one, such as "
                f"output={_key_of(made, chosen[-1])!r}"
            )
        given = ", ".join(map(_in_words, candidates)) or "nothing"
        raise NoScores(f"no output of the model can be {wanted}: there is {given}")

    return scores


def _picked(made: PyTree, output: str | int) -> PyTree:
    """Raises UnknownOutput."""
    if isinstance(made, Mapping):
        parts = {str(key): value for key, value in made.items()}
    elif isinstance(made, (tuple, list)):
        parts = {str(place): made[place] for place in range(-len(made), len(made))}
    else:
        raise UnknownOutput(f"output={output!r}, but the model returns one array; leave it out")
    if str(output) not in parts:
        raise UnknownOutput(f"output={output!r}: {did_you_mean(str(output), list(parts))}")
    return parts[str(output)]


def _fits(array: Any, classes: int, label_shape: tuple[int, ...]) -> bool:
    shape = tuple(getattr(array, "shape", ()))
    return (
        len(shape) == len(label_shape) + 1
        and shape[1:-1] == label_shape[1:]
        and shape[-1] >= classes
        and "float" in str(array.dtype)
    )


def _key_of(made: PyTree, part: Any) -> str | int:
    """By which `output` a part of an output is meant."""
    items = made.items() if isinstance(made, Mapping) else enumerate(made)
    return next(key for key, value in items if any(one is part for one in jax.tree.leaves(value)))


def _in_words(array: Any) -> str:
    if not hasattr(array, "shape"):
        return f"a {type(array).__name__}"
    return f"{str(array.dtype).removeprefix('torch.')}{list(array.shape)}"
