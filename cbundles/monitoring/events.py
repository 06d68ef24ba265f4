"""The file of a monitor's measurements: a JSON object on each line, in the order of the steps.

A line is on the disk when `EventsFile.add` returns; a process that is killed while it writes leaves
the beginning of one line, which the next process removes. That one goes on with the file. Where its
training went back to an earlier step, as from a checkpoint, or begins anew, what the file has from
there on is no part of this training any more: those lines move to ``replaced.jsonl``, so that no
step is there twice and nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cbundles.files import write_atomically

NAME, REPLACED = "events.jsonl", "replaced.jsonl"


class EventsFile:
    """The events in a folder, to which this process adds."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError where the folder has another file of this name."""
        self.path = folder / NAME
        self.last_step = max((line["step"] for line in self.lines()), default=None)
        self._continued = False

    def lines(self) -> list[dict[str, Any]]:
        """All events. Raises ValueError for a line that is none."""
        if not self.path.exists():
            return []
        *whole, _ = self.path.read_bytes().split(b"\n")  # behind the last end of a line: nothing,
        # or what a killed process has begun to write
        return [self._event(number, line) for number, line in enumerate(whole, start=1)]

    def add(self, event: Mapping[str, Any]) -> int:
        """Append an event. Returns how many events of this step and later ones it replaces."""
        replaced = 0
        step = event["step"]
        if not self._continued or (self.last_step is not None and step <= self.last_step):
            replaced = self._go_on_at(step)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(_text([event]))
        self.last_step = step
        return replaced

    def _go_on_at(self, step: int) -> int:
        """Leave whole lines of earlier steps only. Returns how many others were set aside."""
        events = self.lines()
        later = [event for event in events if event["step"] >= step]
        if later:
            # First there, then no more here: a kill in between leaves both.
            with self.path.with_name(REPLACED).open("a") as file:
                file.write(_text(later))
        if self.path.exists():
            earlier = [event for event in events if event["step"] < step]
            write_atomically(self.path, _text(earlier))
        self._continued = True
        return len(later)

    def _event(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("step"), int):
            raise ValueError(
                f"{self.path}, line {number}: it is no event of a monitor; give another folder="
            )
        return event


def _text(events: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(event, allow_nan=False) + "\n" for event in events)
