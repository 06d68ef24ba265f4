"""Runs of `grow` and `tune`: networks that change their depth while they train, by arm and seed.

A setting holds the networks of one run that differ in their arm and seed alone; of tuned networks
also in the depth that they start from, since every depth is compared with arms that start there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cbundles.config import GROW, GROWTH_ARMS, INSERTING, TUNE, TUNING_ARMS, Cell
from cbundles.records import EditedRecord
from cbundles.report import select
from cbundles.report.statistics import Estimate, estimate, finite, paired, paired_p, six_digits
from cbundles.report.table import Row
from cbundles.wording import counted

MAX, SMALL, MATCHED, LARGE = "max", "small", "matched", "large"
FIXED, RANDOM = "fixed", "both-random"
ARMS = {GROW: GROWTH_ARMS[1:], TUNE: TUNING_ARMS[1:]}
CONTROLS = INSERTING[1:]  # insert elsewhere than max does
# Settings of one run are called by these only where they differ in them.
SCHEDULE = (
    "training.epochs",
    "growth.first_epoch",
    "growth.every",
    "growth.insertions",
    "growth.large_depth",
    "tuning.budget_depth",
    "tuning.every",
    "tuning.trial",
    "tuning.cooldown",
    "tuning.memory",
    "tuning.max_depth",
)
UNNAMED = (*SCHEDULE, "growth.arm", "tuning.arm", "model.block")


@dataclass(frozen=True)
class Arm:
    """The networks of a setting that change their depth in the same way.

    start: how many layers tuned ones start with; None of those that grow
    networks: by seed
    """

    name: str
    start: int | None
    networks: dict[int, EditedRecord]

    @property
    def records(self) -> list[EditedRecord]:
        return list(self.networks.values())

    def finals(self, quantity: str) -> dict[int, float]:
        """A quantity when training is over, by seed; see `final`."""
        return {seed: final(record, quantity) for seed, record in self.networks.items()}


@dataclass(frozen=True)
class Setting:
    """Networks that are compared with each other.

    parts: of its name, such as ``spirals``, ``plain-relu``, ``width 5``, ``depth 2``
    """

    parts: tuple[str, ...]
    records: list[EditedRecord]

    @property
    def name(self) -> str:
        return ", ".join(self.parts)

    @property
    def cell(self) -> Cell:
        """The configuration of one of its networks."""
        return self.records[0].cell

    @property
    def kind(self) -> str:
        """GROW or TUNE."""
        return self.records[0].kind

    @property
    def seeds(self) -> int:
        return select.seeds(self.records)

    @property
    def starts(self) -> list[int]:
        """Depths that its networks start from: one, unless they are tuned."""
        return select.depths(self.records)

    @property
    def about(self) -> str:
        """Its name, what its networks were trained for, and its seeds."""
        cell = self.cell
        trained = counted(cell.training.epochs, "epoch")
        if self.kind == TUNE:
            trained = f"compute of {trained} at depth {cell.tuning.budget_depth}"
        return f"{self.name}, {trained}, {counted(self.seeds, 'seed')}"

    def arm(self, name: str, start: int | None = None) -> Arm:
        """The networks of an arm, or those of them that start with so many layers."""
        networks = {
            record.seed: record
            for record in self._by_arm.get(name, [])
            if start in (None, record.depth)
        }
        return Arm(name, start, networks)

    @functools.cached_property
    def _by_arm(self) -> dict[str, list[EditedRecord]]:
        records: dict[str, list[EditedRecord]] = {}
        for record in self.records:
            records.setdefault(record.arm, []).append(record)
        return records

    @property
    def arms(self) -> list[Arm]:
        """The arms that it has, for each depth at the start."""
        starts = self.starts if self.kind == TUNE else [None]
        arms = [self.arm(name, start) for start in starts for name in ARMS[self.kind]]
        return [arm for arm in arms if arm.networks]

    @property
    def arm_names(self) -> list[str]:
        """The names of the arms that it has."""
        return list(dict.fromkeys(arm.name for arm in self.arms))


def settings_of(records: Sequence[EditedRecord]) -> list[Setting]:
    """The settings of one run, in the order of its records."""
    across = [select.SEED, "growth.arm", "tuning.arm"]
    if any(record.kind == TUNE for record in records):
        across.append("model.depth")
        if _is_largest_depth_given_by_start(records):
            across.append("tuning.max_depth")
    groups = select.groups(records, across)
    return [Setting(_parts_of_name(group), group.records) for group in groups]


def _is_largest_depth_given_by_start(records: Sequence[EditedRecord]) -> bool:
    """Whether the largest depth is one for each depth at the start, as when it is left out in the
    configuration; it does not tell settings apart then."""
    pairs = {(record.depth, record.cell.tuning.max_depth) for record in records}
    return len(pairs) == len({start for start, _ in pairs})


def _parts_of_name(group: select.Group[EditedRecord]) -> tuple[str, ...]:
    cell, model = group.cell, group.cell.model
    parts = [cell.data.name]
    if model.family == "fc":
        parts += [model.block, f"width {model.width}"]
    else:
        parts += [model.family, f"{model.base_filters} filters"]
    if cell.kind != TUNE:
        parts.append(f"depth {model.depth}")
    named = {path: value for path, value in cell.unusual.items() if path not in UNNAMED}
    named |= {path: value for path, value in group.apart.items() if path in SCHEDULE}
    parts += [f"{path.split('.')[1]}={value}" for path, value in named.items()]
    return tuple(parts)


def told_apart(settings: Sequence[Setting]) -> tuple[list[str], str]:
    """Of the names of settings: what tells each from the others, and what they share."""
    shared = [
        part for part in settings[0].parts if all(part in setting.parts for setting in settings)
    ]
    names = [
        ", ".join(part for part in setting.parts if part not in shared) for setting in settings
    ]
    return names, ", ".join(shared)


def final(record: EditedRecord, quantity: str) -> float:
    """When training is over; NaN for a network that diverged, or grew and did not get there."""
    return math.nan if has_no_end(record) else finite(record.course(quantity)[-1])


def has_no_end(record: EditedRecord) -> bool:
    """Whether a network has no final loss."""
    history = record.history
    if record.kind == GROW and history.epoch[-1] < record.epochs:
        return True
    losses = (history.train_loss[-1], history.test_loss[-1])
    return any(math.isnan(finite(loss)) for loss in losses)


def final_depth(record: EditedRecord) -> int:
    """Layers when training is over."""
    return record.history.depth[-1]


def spent(record: EditedRecord) -> float:
    """FLOPs in all."""
    return record.history.flops[-1]


def at_compute(record: EditedRecord, flops: ArrayLike, quantity: str) -> NDArray[np.float64]:
    """A quantity at the last evaluation before more than so many FLOPs were spent; NaN before the
    first one. flops: a number, or several."""
    values = [math.nan, *map(finite, record.course(quantity))]
    evaluated = np.searchsorted(record.history.flops, flops, side="right")
    return np.array(values)[evaluated]


def difference(
    setting: Setting, arm: str, reference: str, quantity: str, start: int | None = None
) -> Estimate:
    """Of an arm's final value from a reference's, paired by seed."""
    ours, theirs = setting.arm(arm, start), setting.arm(reference, start)
    return paired(ours.finals(quantity), theirs.finals(quantity))


def train_loss_p(setting: Setting, arm: str, reference: str) -> float:
    """p of the paired t-test whether the final training losses of two arms differ."""
    ours, theirs = setting.arm(arm), setting.arm(reference)
    return paired_p(ours.finals("train_loss"), theirs.finals("train_loss"))


def difference_at_equal_compute(setting: Setting, arm: str) -> Estimate:
    """Of an arm's training loss, when it had spent as much as small in all, from small's."""
    small = setting.arm(SMALL)
    ours = {}
    for seed, record in setting.arm(arm).networks.items():
        if seed in small.networks:
            loss = at_compute(record, spent(small.networks[seed]), "train_loss")
            ours[seed] = math.nan if has_no_end(record) else float(loss)
    return paired(ours, small.finals("train_loss"))


@dataclass(frozen=True)
class Reach:
    """How soon an arm gets to the final training loss of a fixed network, of large for instance.

    ratios: for each seed the FLOPs until then, as a share of what that network itself takes;
        infinite where the arm never gets there. Seeds whose fixed network diverged have none.
    """

    ratios: tuple[float, ...]

    @property
    def reached(self) -> int:
        """In how many seeds it gets there."""
        return sum(map(math.isfinite, self.ratios))

    def fields(self, name: str) -> Row:
        """As columns of a table for machines."""
        has_any = bool(self.ratios)
        return {
            f"{name}_reached": self.reached if has_any else None,
            f"{name}_compared": len(self.ratios),
            f"{name}_flops_ratio": six_digits(median(self.ratios)) if has_any else None,
        }

    def text(self) -> str:
        """``reached by 18 of 20, median ratio 0.63``."""
        if not self.ratios:
            return "-"
        middle = median(self.ratios)
        ratio = "infinite" if math.isinf(middle) else f"{middle:.3g}"
        return f"reached by {self.reached} of {len(self.ratios)}, median ratio {ratio}"


def reach(setting: Setting, arm: str, reference: str = LARGE) -> Reach:
    """How soon an arm gets to the final training loss of a fixed one."""
    fixed, ratios = setting.arm(reference).networks, []
    for seed, record in setting.arm(arm).networks.items():
        target = final(fixed[seed], "train_loss") if seed in fixed else math.nan
        if not math.isnan(target):
            ratios.append(flops_to(record, target) / flops_to(fixed[seed], target))
    return Reach(tuple(ratios))


def best_fixed(setting: Setting) -> Arm | None:
    """Of tuned networks: the fixed ones of the depth that ends with the best mean test accuracy,
    which whoever knew the right depth would have trained; None without any."""
    fixed = [setting.arm(FIXED, start) for start in setting.starts]
    trained = [arm for arm in fixed if estimate(_final_accuracies(arm)).n]
    return max(trained, key=lambda arm: estimate(_final_accuracies(arm)).mean, default=None)


def _final_accuracies(arm: Arm) -> list[float]:
    return list(arm.finals("test_accuracy").values())


def flops_to(record: EditedRecord, loss: float) -> float:
    """Spent at the first evaluation after some training with a training loss no higher than this;
    infinite when there is none."""
    history = record.history
    evaluated = zip(history.epoch, history.train_loss, history.flops, strict=True)
    for epoch, reached, flops in evaluated:
        if epoch > 0 and finite(reached) <= loss:
            return flops
    return math.inf
