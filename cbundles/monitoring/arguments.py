"""What a monitor is given is looked at when it is made, not when the training has begun."""

from __future__ import annotations

import os
from pathlib import Path

from cbundles.monitoring.events import NAME


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
    if (path / NAME).exists() and not (path / NAME).is_file():
        raise ValueError(f"{path / NAME} is no file; give another folder=")
    return path


def _reason(error: Exception) -> str:
    """Of an error, without the path."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "a file is in its place"
    return getattr(error, "strerror", None) or str(error)


def check_function(argument: str, function: object) -> None:
    if function is not None and not callable(function):
        raise ValueError(f"{argument} must be a function or None, not {function!r}")
