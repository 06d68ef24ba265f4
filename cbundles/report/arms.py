"""Runs that compare arms: networks grouped into settings, and compared seed by seed.

A setting holds the networks of one run that differ in their arm and seed alone; of tuned networks
also in the depth that they start from.
"""

from __future__ import annotations

import bisect
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cbundles.config import TUNE, Cell
from cbundles.report import evidence
from cbundles.report.evidence import Record, depth, seed

# Settings of one run are called by these only where they differ in them.
SCHEDULE = (
    "training.epochs", "growth.first_epoch", "growth.every", "growth.insertions",
    "growth.large_depth", "tuning.budget_depth", "tuning.every", "tuning.trial", "tuning.cooldown",
    "tuning.memory", "tuning.max_depth",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """name: what tells it from others, such as ``spirals, plain-relu, width 5, depth 2``."""

    name: str
    records: list[Record]

    def of(self, arm: str, start: int | None = None) -> dict[int, Record]:
        """The networks of an arm by seed, or those of them that start with so many layers."""
        return {
            seed(r): r
            for r in self.records
            if arm_of(r) == arm and (start is None or depth(r) == start)
        }

    @property
    def starts(self) -> list[int]:
        """Depths that networks start from."""
        return sorted({depth(record) for record in self.records})

    @property
    def cell(self) -> Cell:
        """The configuration of one of its networks."""
        return Cell.fromdict(self.records[0]["config"])

    @property
    def seeds(self) -> int:
        return evidence.seeds(self.records)


@dataclass(frozen=True)
class Estimate:
    """mean: of n values, NaN for none; low, high: its 95 % t-interval, NaN for fewer than two.
    left_out: values, or pairs, that are not among them because a network diverged."""

    mean: float
    low: float
    high: float
    n: int
    left_out: int = 0

    def row(self, name: str) -> dict[str, float | None]:
        """As columns NAME, NAME_low and NAME_high."""
        values = {name: self.mean, f"{name}_low": self.low, f"{name}_high": self.high}
        return {key: number(value) for key, value in values.items()}

    def text(self, *, factor: float = 1.0, form: str = ".3g", signed: bool = False) -> str:
        """``mean (low to high)``; a dash without values."""
        if math.isnan(self.mean):
            return "-"
        mean = f"{factor * self.mean:{'+' if signed else ''}{form}}"
        if math.isnan(self.low):
            return mean
        return f"{mean} ({factor * self.low:{form}} to {factor * self.high:{form}})"


def told_apart(names: Sequence[str]) -> tuple[list[str], str]:
    """Of names of settings: what tells each from the others, and what they share."""
    parts = [name.split(", ") for name in names]
    shared = [part for part in parts[0] if all(part in other for other in parts)]
    rest = [", ".join(part for part in one if part not in shared) for one in parts]
    return rest, ", ".join(shared)


def arm_of(record: Record) -> str:
    section = "tuning" if record["experiment"] == TUNE else "growth"
    return str(record["config"][section]["arm"])


def settings(records: Sequence[Record]) -> list[Setting]:
    """The settings of one run, in the order of its records."""
    common = _given_by_depth(records)
    found: dict[str, list[Record]] = {}
    for record in records:
        content = Cell.fromdict(record["config"]).asdict()
        del content["training"]["seed"], content["growth"]["arm"], content["tuning"]["arm"]
        if record["experiment"] == TUNE:
            del content["model"]["depth"]
            if common:
                del content["tuning"]["max_depth"]
        found.setdefault(json.dumps(content, sort_keys=True), []).append(record)
    groups = list(found.values())
    cells = [Cell.fromdict(group[0]["config"]) for group in groups]
    differing = [path for path in SCHEDULE if len({_value(cell, path) for cell in cells}) > 1]
    if common:
        differing = [path for path in differing if path != "tuning.max_depth"]
    return [Setting(_name(cell, differing), group)
            for cell, group in zip(cells, groups, strict=True)]  # fmt: skip


def _given_by_depth(records: Sequence[Record]) -> bool:
    """Whether the largest depth is one for each depth at the start, as when it is left out in the
    configuration; it does not tell settings apart then."""
    pairs = {(depth(r), r["config"].get("tuning", {}).get("max_depth")) for r in records}
    return len(pairs) == len({start for start, _ in pairs})


def _value(cell: Cell, path: str) -> Any:
    section, key = path.split(".")
    return getattr(getattr(cell, section), key)


def _name(cell: Cell, differing: Sequence[str]) -> str:
    model = cell.model
    parts = [cell.data.name]
    if model.family == "fc":
        parts += [model.block, f"width {model.width}"]
    else:
        parts += [model.family, f"{model.base_filters} filters"]
    if cell.kind != TUNE:
        parts.append(f"depth {model.depth}")
    unnamed = {*SCHEDULE, "growth.arm", "tuning.arm", "model.block"}
    parts += [f"{path.split('.')[1]}={value}" for path, value in cell.unusual.items()
              if path not in unnamed]  # fmt: skip
    parts += [f"{path.split('.')[1]}={_value(cell, path)}" for path in differing]
    return ", ".join(parts)


def finite(value: float | None) -> float:
    """The value; NaN where a record has null, because it was not finite."""
    return math.nan if value is None else float(value)


def number(value: float) -> float | None:
    """A value for a table, to six digits; None for NaN."""
    return None if math.isnan(value) else float(f"{value:.6g}")


def last(record: Record, key: str) -> float:
    """A value of the last evaluation; NaN when the network has diverged."""
    return finite(record["history"][-1][key])


def final_depth(record: Record) -> int:
    return int(record["history"][-1]["depth"])


def spent(record: Record) -> float:
    """FLOPs in all."""
    return float(record["history"][-1]["flops"])


def at_compute(record: Record, flops: float, key: str) -> float:
    """A value of the last evaluation before more than so many FLOPs were spent."""
    history = record["history"]
    index = bisect.bisect_right(history, flops, key=lambda entry: float(entry["flops"]))
    return finite(history[index - 1][key]) if index else math.nan


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95 % t-interval; NaNs are left out and counted."""
    from scipy import stats

    sound = [value for value in values if not math.isnan(value)]
    n, left_out = len(sound), len(values) - len(sound)
    mean = statistics.fmean(sound) if sound else math.nan
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n, left_out)
    half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(sound) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n, left_out)


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Estimate:
    """Of the difference ours - theirs, by seed; a pair with a NaN is left out and counted."""
    return estimate([ours[s] - theirs[s] for s in ours if s in theirs])


def devices(records: Sequence[Record]) -> str:
    return ", ".join(sorted({f"{r['device']} ({r['processor']})" for r in records}))
