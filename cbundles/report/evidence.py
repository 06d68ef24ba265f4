"""What claims are judged on: records grouped by scale, and a few statistics over them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cbundles import identity
from cbundles.config import PAPER_BLOCKS, Cell
from cbundles.report import summary
from cbundles.report.runs import AUTOTUNE, SWEEP, TOY, Run

Record = dict[str, Any]
RESAMPLES = 2000
# Settings of the networks that claims are judged on. They are named here, so that neither a changed
# default nor a new setting changes what is judged, or how.
BUILT_AND_MEASURED = {
    "model.block": "plain-relu",
    "probe.equality": "weight_amplitude",
    "probe.resolution": "float32",
    "probe.batch_norm": "batch",
}
# ... and of those that stand for the paper's own, which differ in nothing else than FREE settings.
AS_THE_PAPER_TRAINS = {
    **BUILT_AND_MEASURED,
    "data.augmentation": "original",
    "data.pipeline": "auto",
    "training.batch_size": 64,
    "training.learning_rate": 1e-3,
    "training.weight_decay": 1e-2,
    "training.accuracy_epochs": 5,
    "probe.samples": 2048,
    "probe.selection": "uniform",
    "probe.images": "plain",
    "probe.seed": 0,
}
FREE = ("data.name", "model.family", "model.depth", "model.blocks", "model.base_filters",
        "training.epochs", "training.seed", "training.conflict_checks",
        "probe.readings")  # fmt: skip
# Settings that vary within a group, or that its run is known for.
UNNAMED = ("model.blocks", "probe.resolution", "training.conflict_checks", "probe.readings")


@dataclass(frozen=True)
class Group:
    """Networks of one complete run that differ in depth, width and seed only, trained to the end.
    diverged: how many had a NaN or infinity in a layer; they are not among the records."""

    run: str
    records: list[Record]
    diverged: int = 0

    @property
    def classes(self) -> int:
        return int(self.records[0]["num_classes"])

    @property
    def family(self) -> str:
        return str(self.records[0]["config"]["model"]["family"])

    @property
    def dataset(self) -> str:
        return str(self.records[0]["config"]["data"]["name"])

    def only(self, **model: int) -> list[Record]:
        """The networks of this width, depth, or both."""
        return [r for r in self.records if model.items() <= r["config"]["model"].items()]

    @property
    def depths(self) -> list[int]:
        return sorted({depth(r) for r in self.records})

    @property
    def widths(self) -> list[int]:
        return sorted({summary.width_of(r) for r in self.records})


def scale(records: Sequence[Record]) -> str:
    """What the caption of a result has to name: data set, networks, epochs, seeds, and every
    setting that is unusual."""
    cell = Cell.fromdict(records[0]["config"])
    networks = {(summary.width_of(r), r["config"]["model"].get("blocks"), depth(r), seed(r))
                for r in records}  # fmt: skip
    size = "" if cell.model.family == "fc" else f", {cell.model.base_filters} filters"
    unusual = [f", {path.split('.')[1]}={value}" for path, value in cell.unusual.items()
               if path not in UNNAMED]  # fmt: skip
    return (
        f"{cell.data.name}, {cell.model.family}{size}{''.join(unusual)}, "
        f"{counted(cell.training.epochs, 'epoch')}, {counted(len(networks), 'network')}, "
        f"{counted(seeds(records), 'seed')}"
    )


def seeds(records: Sequence[Record]) -> int:
    return len({seed(record) for record in records})


def counted(number: int, noun: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def depth(record: Record) -> int:
    return int(record["config"]["model"]["depth"])


def seed(record: Record) -> int:
    return int(record["config"]["training"]["seed"])


def last_entropy(record: Record, epoch: int) -> float:
    """H^L after an epoch, 0 for the initial weights, of a network that did not diverge."""
    return float(record["history"][epoch]["entropy"][-1])


def toys(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.kind == TOY and not run.unfinished]


def tunings(runs: Sequence[Run]) -> list[Run]:
    """Auto-tunings as in the paper: from 120 layers, with its rule and its settings."""
    return [
        run
        for run in runs
        if run.kind == AUTOTUNE and not run.unfinished and run.description.get("rule") == "stage"
        and run.records and _starts_as_in_the_paper(run)
    ]  # fmt: skip


def _starts_as_in_the_paper(run: Run) -> bool:
    known = {record["cell"]: record for record in run.records}
    first = [known.get(chain[0]) for chain in run.description["attempts"]]
    return all(
        record is not None
        and depth(record) == max(PAPER_BLOCKS)
        and is_as_the_paper_trains(Cell.fromdict(record["config"]))
        and Cell.fromdict(record["config"]).blocks == PAPER_BLOCKS[max(PAPER_BLOCKS)]
        for record in first
    )


def groups(runs: Sequence[Run], *, resolutions: bool = False) -> list[Group]:
    """The networks of every complete sweep, built and measured as claims are judged; with
    resolutions those measured at another floating-point resolution are in one group with the same
    at float32."""
    settings = dict(BUILT_AND_MEASURED)
    if resolutions:
        del settings["probe.resolution"]
    found: dict[str, list[Record]] = {}
    for run in runs:
        if run.kind != SWEEP or run.unfinished:
            continue
        for record in run.records:
            cell = Cell.fromdict(record["config"])
            whole = len(record["history"]) == cell.training.epochs + 1
            if whole and has(cell, settings):
                found.setdefault(f"{run.name} {_scale_key(cell)}", []).append(record)
    result = []
    for key, records in found.items():
        sound = [r for r in records if all(None not in e["entropy"] for e in r["history"])]
        if sound:
            result.append(Group(key.split(" ")[0], sound, len(records) - len(sound)))
    return result


def has(cell: Cell, settings: Mapping[str, Any]) -> bool:
    """Whether a cell has these values, by key path."""
    for path, value in settings.items():
        section, key = path.split(".")
        if getattr(getattr(cell, section), key) != value:
            return False
    return True


def is_as_the_paper_trains(cell: Cell) -> bool:
    """Whether a VGG or ResNet is built, trained and measured in every respect as the paper's."""
    others = identity.differences(cell.asdict()).keys() - AS_THE_PAPER_TRAINS.keys() - set(FREE)
    return has(cell, AS_THE_PAPER_TRAINS) and not others


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
