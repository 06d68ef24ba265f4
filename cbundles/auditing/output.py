"""Which part of a model's output are the class scores, of which lesions and insertions need the
largest, or the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import PyTree

from cbundles.auditing.subject import Scores
from cbundles.errors import did_you_mean


def scores_in(
    output: str | int | None, classes: int, label_shape: tuple[int, ...], *, asked_by: str
) -> Scores:
    """A function from the output of a model to its class scores.

    Args:
        output: of a tuple which one, of a dictionary its key; None: the output itself.
        classes: how many there are.
        label_shape: of the labels of all samples.
        asked_by: what needs the scores, for messages.
    """

    def scores(made: PyTree) -> Any:
        found = _picked(made, output, asked_by)
        shape = tuple(getattr(found, "shape", ()))
        fits = len(shape) == len(label_shape) + 1 and shape[1:-1] == label_shape[1:]
        if not fits or shape[-1] < classes or not _is_real(found):
            axes = ", ".join(["batch", *map(str, label_shape[1:]), "classes"])
            what = f"{_dtype(found)}{list(shape)}" if shape else f"a {type(found).__name__}"
            raise ValueError(
                f"{asked_by}: needs class scores ({axes}) of at least {classes} classes; the "
                f"model's output is {what}"
            )
        return found

    return scores


def _picked(made: PyTree, output: str | int | None, asked_by: str) -> Any:
    """Raises ValueError where it is not clear which part is meant, or there is no such part."""
    if isinstance(made, Mapping):
        valid: list[str] = [str(key) for key in made]
    elif isinstance(made, (tuple, list)):
        valid = [str(place) for place in range(len(made))]
        valid += [f"-{place + 1}" for place in range(len(made))]
    else:
        valid = []
    if output is None:
        if not valid:
            return made
        shown = ", ".join(f"output={key!r}" for key in (made if isinstance(made, Mapping) else [0]))
        raise ValueError(
            f"{asked_by}: the model returns a {type(made).__name__}; say which part are the class "
            f"scores, such as {shown}"
        )
    if not valid:
        raise ValueError(
            f"{asked_by}: output={output!r}, but the model returns one array; leave it out"
        )
    if str(output) not in valid:
        raise ValueError(f"{asked_by}: output={output!r}: {did_you_mean(str(output), valid)}")
    if isinstance(made, Mapping):
        return next(value for key, value in made.items() if str(key) == str(output))
    return made[int(output)]


def _dtype(array: Any) -> str:
    return str(getattr(array, "dtype", "")).removeprefix("torch.")


def _is_real(array: Any) -> bool:
    return "float" in _dtype(array)
