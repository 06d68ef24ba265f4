"""The file of a monitor's measurements: a JSON object on each line, in the order of the steps.

The system has a line when `EventsFile.add` returns; a process that is killed while it writes leaves
the beginning of one line, which the next process removes. That one goes on with the file. Where its
training went back to an earlier step, as from a checkpoint, or begins anew, what the file has from
there on is no part of this training any more: those lines move to ``replaced.jsonl``, so that no
step is there twice and nothing is lost.

The file belongs to the monitor that began to write last; one before it notices that the file is not
as it left it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cbundles.files import write_atomically
from cbundles.monitoring.measurement import KEYS

NAME, REPLACED = "events.jsonl", "replaced.jsonl"
KEYS_OF_LAYERS = {"name", "kind", "conflicting", "diverged", "entropy", "conflict_rate"}
BEFORE_STEP, BEHIND_STEP = b'{"step": ', b', "time": '


class WrittenByAnother(ValueError):
    """Another monitor has written to the file."""


class _Left(NamedTuple):
    """How a file was left: how many bytes it had, and the last line of it."""

    size: int
    line: bytes


class EventsFile:
    """The events in a folder, to which this process adds."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError where the folder has another file of this name."""
        self.path = folder / NAME
        self.last_step = max((line["step"] for line in self.lines()), default=None)
        self._left: _Left | None = None  # None: the file is to be read before more is written

    def lines(self) -> list[dict[str, Any]]:
        """All events. Raises ValueError for a line that is none."""
        if not self.path.exists():
            return []
        # Behind the last end of a line: nothing, or what a killed process has begun to write.
        *whole, rest = self.path.read_bytes().split(b"\n")
        events = [self._event(number, line) for number, line in enumerate(whole, start=1)]
        if not _begins_as_an_event(rest):
            raise self._foreign(len(whole) + 1)
        return events

    def add(self, event: Mapping[str, Any]) -> int:
        """Append an event. Returns how many events of this step and later ones it replaces. Raises
        WrittenByAnother where another monitor has written there since the last one."""
        if self._left is not None:
            self._check_as_left(self._left)
        replaced = 0
        step = event["step"]
        goes_back = self.last_step is not None and step <= self.last_step
        if self._left is None or goes_back or not self.path.exists():
            replaced = self._go_on_at(step)
        self._left = None  # should this fail, there may be a part of the line
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = _text([event]).encode()
        with self.path.open("ab") as file:
            file.write(line)
            size = file.tell()
        self._left = _Left(size, line)
        self.last_step = step
        return replaced

    def _check_as_left(self, left: _Left) -> None:
        """Raises WrittenByAnother where the file has other lines. One that is gone begins anew."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(max(0, left.size - len(left.line)))
            if file.read() != left.line:
                raise WrittenByAnother(
                    f"{self.path} is not as this monitor left it: another one has written there. "
                    "A folder belongs to one monitor; give each another folder="
                )

    def _go_on_at(self, step: int) -> int:
        """Leave whole lines of earlier steps only. Returns how many others were set aside."""
        events = self.lines()
        later = [event for event in events if event["step"] >= step]
        if later:
            # First there, then no more here: a kill in between leaves both.
            with self.path.with_name(REPLACED).open("ab+") as file:
                file.seek(max(0, file.tell() - 1))
                if file.read() not in (b"", b"\n"):  # a kill has left a part of a line
                    file.write(b"\n")
                file.write(_text(later).encode())
        if self.path.exists():
            earlier = [event for event in events if event["step"] < step]
            write_atomically(self.path, _text(earlier))
        return len(later)

    def _event(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or not _is_event(event):
            raise self._foreign(number)
        return event

    def _foreign(self, number: int) -> ValueError:
        return ValueError(
            f"{self.path}, line {number}: it is no event of a monitor; give another folder="
        )


def _is_event(line: Mapping[str, Any]) -> bool:
    """Whether a line is one that a monitor wrote, and not of something else that counts steps."""
    return (
        line.keys() >= set(KEYS)
        and type(line["step"]) is int
        and isinstance(line["layers"], list)
        and all(isinstance(one, dict) and one.keys() >= KEYS_OF_LAYERS for one in line["layers"])
    )


def _begins_as_an_event(rest: bytes) -> bool:
    """Whether this may be the beginning of an event, of whatever length."""
    if not _begin_alike(rest, BEFORE_STEP):
        return False
    behind = rest[len(BEFORE_STEP) :].lstrip(b"0123456789")
    return _begin_alike(behind, BEHIND_STEP)


def _begin_alike(one: bytes, other: bytes) -> bool:
    return one.startswith(other) or other.startswith(one)


def _text(events: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(event, allow_nan=False) + "\n" for event in events)
