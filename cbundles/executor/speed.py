"""How long networks take on this machine beside what the planner predicts, learned from what was
trained here.

The planner's constants were measured on one core of one processor; others take from half to three
times as long, a GPU a small part. What all networks of a kind took in a command, together, is noted
in the cache once that is a minute or more (by the workers' own clocks, without compiling), and the
times that later commands tell are scaled by it. Nothing else depends on it: shards deal by the
predictions alone, which are the same on every machine.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cbundles.config import SWEEP, Cell
from cbundles.data.sources import cache_root
from cbundles.errors import InputError
from cbundles.executor.local import host_key
from cbundles.executor.planner import Job, PopulationJob, compile_seconds
from cbundles.files import write_atomically

SHORTEST_SECONDS = 60.0  # of training that tells something
KEPT = 9  # of the latest commands that trained networks of a kind; their median counts
BOUNDS = (1e-4, 1e3)  # beyond, a ratio is no measurement
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
    """ratios: seconds over predicted seconds of the latest commands, for each kind of network, on
    one device of this machine; empty where nothing is known"""

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

    def expected(self, job: Job, predicted: float) -> float:
        """Seconds that a job takes here of which so many are predicted: compiling, which is not
        known to be as slow or fast, and the rest."""
        compiling = 0.0
        if isinstance(job, PopulationJob):
            compiling = min(predicted, compile_seconds(job.cells[0]))
        return compiling + self.ratio(job.cells[0]) * (predicted - compiling)

    def known_of(self, cells: Iterable[Cell] | None = None) -> dict[str, tuple[float, int]]:
        """The ratio of each kind of these networks, by default of all kinds, of which something is
        known, under its name, and of how many commands it is the median."""
        kinds = set(KINDS) if cells is None else set(map(kind_of, cells))
        return {
            KINDS[kind]: (statistics.median(ratios), len(ratios))
            for kind, ratios in self.ratios.items()
            if kind in kinds
        }

    def learn(self, kind: str, seconds: float, predicted: float) -> None:
        """Note what the training of networks of a kind took, and what was predicted. A cache that
        cannot be written costs the note only."""
        if seconds < SHORTEST_SECONDS or predicted <= 0 or not _is_ratio(seconds / predicted):
            return
        machine, notes = _machine(self.device), _notes()
        ratios = (*Speed.known(self.device).ratios.get(kind, ()), seconds / predicted)
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
    """Caches may be shared by machines, with the same processors and other GPUs, too."""
    cards = Path("/proc/driver/nvidia/gpus").glob("*/information") if device == "gpu" else ()
    models = {line for card in cards for line in _lines_of(card) if line.startswith("Model")}
    return " ".join([host_key(), device, *sorted(models)])


def _lines_of(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").splitlines()
    return []


def _notes() -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError, InputError):
        notes = json.loads(_path().read_text(encoding="utf-8"))
        if isinstance(notes, dict):
            return notes
    return {}


def _is_ratio(value: object) -> bool:
    return isinstance(value, float) and BOUNDS[0] <= value <= BOUNDS[1]
