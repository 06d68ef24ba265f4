"""Numbers for dashboards: what they are called, and event files of TensorBoard.

TensorBoard reads files of events, each of which is a step and some named numbers. They are written
through `tensorboardX`, which needs no TensorFlow and is imported only here, when a file is wanted.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MISSING = (
    "TensorBoard's event files are written by tensorboardX, which is not installed: "
    "pip install 'cbundles[tensorboard]'"
)
# Letters that every dashboard takes in a name; MLflow refuses others.
NO_LETTER = re.compile(r"[^-/\w.]+", re.ASCII)
_numbers_of_files = itertools.count()


def scalar_name(what: str, layer: str) -> str:
    """The name of one number of a layer. What stands before the first slash becomes a group of
    charts.

    >>> scalar_name("bundle_entropy", "Model/relu#2"), scalar_name("headroom", "stack/relu[0, 3]")
    ('bundle_entropy/Model/relu.2', 'headroom/stack/relu.0.3')
    """
    return f"{what}/{NO_LETTER.sub('.', layer).rstrip('.')}"


class EventWriter:
    """Writes one event file into a folder."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """first_step: events of earlier files from this step on are not shown any more, since the
        training went back to it. Raises ValueError where tensorboardX is not installed."""
        check_installed()
        # Not its SummaryWriter, which hands events to a thread: its flush does not wait for those
        # on their way, and a kill would lose them.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        self._events: Any = event_pb2
        folder.mkdir(parents=True, exist_ok=True)
        # The name has the time in seconds only, and two files must not have the same one.
        suffix = f".{os.getpid()}.{next(_numbers_of_files)}"
        self._file = EventsWriter(str(folder / "events"), suffix)
        self._finalizer = weakref.finalize(self, self._file.close)
        start = self._events.SessionLog(status=self._events.SessionLog.START)
        self._file.write_event(self._events.Event(step=first_step, session_log=start))

    def write(self, step: int, time: float, scalars: Mapping[str, float]) -> None:
        """Add one event. time: in seconds since 1970; or, where nobody knows when a training began,
        since then, and dashboards show it by relative time."""
        event = self._events.Event(step=step, wall_time=time)
        for name, number in scalars.items():
            event.summary.value.add(tag=name, simple_value=number)
        self._file.write_event(event)

    def flush(self) -> None:
        """Put everything onto the disk, which takes some milliseconds."""
        self._file.flush()

    def close(self) -> None:
        """Close the file, as happens by itself when nobody has this writer any more."""
        self._finalizer()


def check_installed() -> None:
    """Raises ValueError where event files cannot be written."""
    try:
        import tensorboardX  # noqa: F401
    except ModuleNotFoundError:
        raise ValueError(MISSING) from None


def known(scalars: Mapping[str, float | None]) -> dict[str, float]:
    """Those that are numbers: a dashboard shows a gap where nothing could be measured."""
    return {
        name: float(number)
        for name, number in scalars.items()
        if number is not None and math.isfinite(number)
    }
