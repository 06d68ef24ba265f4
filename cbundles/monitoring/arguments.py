"""What a monitor is given is looked at when it is made, not when the training has begun."""

from __future__ import annotations

from pathlib import Path

from cbundles.auditing.asked import made_folder
from cbundles.monitoring.events import NAME


def folder_of_events(folder: str | Path) -> Path:
    """The folder, which is there now. Raises ValueError where none can be, or no events in it."""
    path = made_folder(folder)
    if (path / NAME).exists() and not (path / NAME).is_file():
        raise ValueError(f"{path / NAME} is no file; give another folder=")
    return path


def check_function(argument: str, function: object) -> None:
    if function is not None and not callable(function):
        raise ValueError(f"{argument} must be a function or None, not {function!r}")
