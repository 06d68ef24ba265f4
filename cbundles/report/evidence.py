"""What claims are judged on: records grouped by scale, and a few statistics over them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cbundles.config import Cell, Probe
from cbundles.report import summary
from cbundles.report.runs import AUTOTUNE, TOY, Run

Record = dict[str, Any]
RESAMPLES = 2000


@dataclass(frozen=True)
class Group:
    """Networks of one run that differ in depth, width and seed only, all epochs trained."""

    run: str
    records: list[Record]

    @property
    def classes(self) -> int:
        return int(self.records[0]["num_classes"])

    @property
    def family(self) -> str:
        return str(self.records[0]["config"]["model"]["family"])

    @property
    def scale(self) -> str:
        """Data set, networks, epochs, seeds: what the caption of a result has to name."""
        config = self.records[0]["config"]
        epochs, seeds = config["training"]["epochs"], len({seed(r) for r in self.records})
        size = "" if self.family == "fc" else f", {config['model']['base_filters']} filters"
        return (
            f"{config['data']['name']}, {self.family}{size}, {_count(epochs, 'epoch')}, "
            f"{_count(len(self.records), 'network')}, {_count(seeds, 'seed')}"
        )

    def only(self, **model: int) -> list[Record]:
        """The networks of this width, depth, or both."""
        return [r for r in self.records if model.items() <= r["config"]["model"].items()]

    @property
    def depths(self) -> list[int]:
        return sorted({depth(r) for r in self.records})

    @property
    def widths(self) -> list[int]:
        return sorted({summary.width_of(r) for r in self.records})


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def depth(record: Record) -> int:
    return int(record["config"]["model"]["depth"])


def seed(record: Record) -> int:
    return int(record["config"]["training"]["seed"])


def last_entropy(record: Record, epoch: int) -> float:
    """H^L after an epoch, 0 for the initial weights; NaN when the network diverged."""
    entropy = record["history"][epoch]["entropy"][-1]
    return math.nan if entropy is None else float(entropy)


def toys(runs: Sequence[Run]) -> list[Record]:
    return [record for run in runs if run.kind == TOY for record in run.records]


def tunings(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.kind == AUTOTUNE]


def groups(runs: Sequence[Run], *, resolutions: bool = False) -> list[Group]:
    """The networks of every sweep, measured in the default way; with resolutions those measured
    at another floating-point resolution are in one group with the same networks at float32."""
    found: dict[str, Group] = {}
    for run in runs:
        if run.kind in (TOY, AUTOTUNE):
            continue
        for record in run.records:
            cell = Cell.fromdict(record["config"])
            default = dataclasses.replace(
                Probe(), samples=cell.probe.samples, selection=cell.probe.selection,
                images=cell.probe.images, seed=cell.probe.seed,
            )  # fmt: skip
            if resolutions:
                default = dataclasses.replace(default, resolution=cell.probe.resolution)
            if cell.probe == default:
                group = found.setdefault(f"{run.name} {_scale_key(cell)}", Group(run.name, []))
                group.records.append(record)
    return list(found.values())


def _scale_key(cell: Cell) -> str:
    content = cell.asdict()
    for section, names in (("model", ("depth", "width", "blocks")), ("training", ("seed",)),
                           ("probe", ("resolution",))):  # fmt: skip
        for name in names:
            del content[section][name]
    return json.dumps(content, sort_keys=True)


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation; NaN when it is not defined."""
    from scipy import stats

    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(stats.spearmanr(x, y).statistic)


def spearman_interval(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the rank correlation: percentiles of 2,000 resamples of pairs."""
    from scipy import stats

    draws = np.random.default_rng(0).integers(0, len(x), (RESAMPLES, len(x)))
    a, b = (stats.rankdata(np.asarray(values, float)[draws], axis=1) for values in (x, y))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    with np.errstate(invalid="ignore"):  # a resample of one value has no correlation
        values = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def area_under_curve(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Probability that a positive example scores above a negative one; NaN without both."""
    positive = np.array([s for s, label in zip(scores, labels, strict=True) if label])
    negative = np.array([s for s, label in zip(scores, labels, strict=True) if not label])
    if not len(positive) or not len(negative):
        return math.nan
    above = (positive[:, None] > negative).mean() + (positive[:, None] == negative).mean() / 2
    return float(above)


def balanced_accuracy(predicted: Sequence[bool], actual: Sequence[bool]) -> float:
    """Mean of the shares of both classes that are predicted right; NaN without both."""
    guess, truth = np.array(predicted, bool), np.array(actual, bool)
    if truth.all() or not truth.any():
        return math.nan
    return float(
        ((guess & truth).sum() / truth.sum() + (~guess & ~truth).sum() / (~truth).sum()) / 2
    )
