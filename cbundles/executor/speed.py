"""How long networks take on this machine beside what the planner predicts, learned from what was
trained here.

The planner's constants were measured on one core of one processor; others take from half to three
times as long, a GPU a small part. Whatever a command has trained for a minute or more is noted in
the cache, and the times that later commands tell are scaled by it. Nothing else depends on it:
shards deal by the predictions alone, which are the same on every machine.
"""

from __future__ import annotations

import contextlib
import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cbundles.config import SWEEP, Cell
from cbundles.data.sources import cache_root
from cbundles.errors import InputError
from cbundles.executor.local import host_key
from cbundles.files import write_atomically

SHORTEST_SECONDS = 60.0  # of training that tells something: before, it is mostly starting
KEPT = 9  # of the latest jobs of a kind; their median counts
KINDS = {
    "fc": "fully connected networks",
    "conv": "VGGs and ResNets",
    "own": "architectures of your own",
    "grow": "networks that grow",
    "tune": "networks that tune their depth",
}


def kind_of(cell: Cell) -> str:
    """Networks of a kind are predicted by the same constants."""
    if cell.model.is_convolutional:
        return "conv"
    if cell.model.is_own:
        return "own"
    return "fc" if cell.kind == SWEEP else cell.kind


@dataclass(frozen=True)
class Speed:
    """ratios: seconds over predicted seconds of the latest jobs of each kind, on one device of this
    machine; empty where nothing is known"""

    device: str = "cpu"
    ratios: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def known(cls, device: str) -> Speed:
        """What was noted. A note that cannot be read is none."""
        of_kinds = _notes().get(_machine(device))
        found = {}
        for kind in KINDS:
            ratios = of_kinds.get(kind) if isinstance(of_kinds, dict) else None
            sound = filter(_is_ratio, ratios if isinstance(ratios, list) else ())
            if latest := tuple(sound)[-KEPT:]:
                found[kind] = latest
        return cls(device, found)

    def ratio(self, cell: Cell) -> float:
        """By which a predicted time is multiplied; 1 where nothing is known."""
        return statistics.median(self.ratios.get(kind_of(cell), (1.0,)))

    def scaled(self, cell: Cell, predicted: float) -> float:
        """Seconds that are to be expected here."""
        return self.ratio(cell) * predicted

    def known_of(self, cells: Iterable[Cell] | None = None) -> dict[str, tuple[float, int]]:
        """The ratio of each kind of these networks, by default of all kinds, of which something is
        known, under its name, and of how many jobs it is the median."""
        kinds = set(KINDS) if cells is None else set(map(kind_of, cells))
        return {
            KINDS[kind]: (statistics.median(ratios), len(ratios))
            for kind, ratios in self.ratios.items()
            if kind in kinds
        }

    def learn(self, cell: Cell, seconds: float, expected: float) -> None:
        """Note what a job took that this speed expected to take so long. A cache that cannot be
        written costs the note only."""
        if seconds < SHORTEST_SECONDS or expected <= 0:
            return
        kind, machine = kind_of(cell), _machine(self.device)
        notes = _notes()
        latest = self.ratio(cell) * seconds / expected
        ratios = (*Speed.known(self.device).ratios.get(kind, ()), latest)
        of_kinds = notes.get(machine)
        notes[machine] = {
            **(of_kinds if isinstance(of_kinds, dict) else {}),
            kind: [float(f"{ratio:.4g}") for ratio in ratios[-KEPT:]],
        }
        with contextlib.suppress(OSError, InputError):
            write_atomically(_path(), json.dumps(notes, indent=1) + "\n")


def _path() -> Path:
    return cache_root() / "speed.json"


def _machine(device: str) -> str:
    """Caches may be shared by machines."""
    return f"{host_key()} {device}"


def _notes() -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, InputError):
        notes = json.loads(_path().read_text(encoding="utf-8"))
        if isinstance(notes, dict):
            return notes
    return {}


def _is_ratio(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf
