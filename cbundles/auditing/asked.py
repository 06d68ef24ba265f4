"""What is asked of a model: how its layers are judged, which label each row has, and in which
folder what is found is kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from cbundles.auditing import weights
from cbundles.auditing.batches import nearest_labels
from cbundles.auditing.measuring import Setting
from cbundles.auditing.signing import ROWS
from cbundles.bits import HIGHEST
from cbundles.bundles.result import MIN_NORMAL, checked_number, checked_whole
from cbundles.errors import did_you_mean

BATCH_NORMS = ("running", "batch")


def checked_setting(
    learning_rate: float, batch_size: int, batch_norm: str, rows: str, amplitude: str | float
) -> Setting:
    """How layers are judged. Raises ValueError, in a sentence, for what makes no sense."""
    for name, value, valid in (("batch_norm", batch_norm, BATCH_NORMS), ("rows", rows, ROWS)):
        if value not in valid:
            raise ValueError(f"{name} = {value!r}: {did_you_mean(value, valid)}")
    if callable(learning_rate):
        raise ValueError(
            "learning_rate is a schedule: say which step is meant, learning_rate=schedule(step)"
        )
    rate = checked_number("learning_rate", learning_rate, at_least=MIN_NORMAL * 2**HIGHEST)
    size = checked_whole("batch_size", batch_size)
    choice = weights.checked_choice(amplitude)
    return Setting(rate, size, batch_norm == "batch", rows, choice)


def check_names(argument: str, names: object) -> None:
    """Raises ValueError for what is neither a name nor several."""
    if names is None or isinstance(names, str):
        return
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{argument} must be a name, a list of names or None, not {names!r}")


def made_folder(folder: str | Path) -> Path:
    """The folder, which is there now. Raises ValueError where none can be."""
    if not isinstance(folder, str | os.PathLike):
        raise ValueError(f"folder must be a path or None, not {folder!r}")
    try:
        path = Path(folder).expanduser()
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError, ValueError) as error:  # no such user; a NUL in the name
        raise ValueError(f"folder = {str(folder)!r} cannot be made: {_reason(error)}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValueError(f"folder = {str(folder)!r}: nothing may be written there")
    return path


def _reason(error: Exception) -> str:
    """Of an error, without the path."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "a file is in its place"
    return getattr(error, "strerror", None) or str(error)


def labels_of_rows(
    labels: Int32[np.ndarray, "samples ..."], tokens: int | None
) -> Int32[np.ndarray, " rows"]:
    """A label for each row. Raises ValueError where there is none."""
    if labels.ndim == 1:
        return labels if tokens is None else np.repeat(labels, tokens)
    if tokens is None or labels.shape[1:] != (tokens,):
        expected = "(samples,)" if tokens is None else f"(samples,) or (samples, {tokens})"
        raise ValueError(f"labels must be {expected}, not {labels.shape}{nearest_labels(labels)}")
    return labels.reshape(-1)
