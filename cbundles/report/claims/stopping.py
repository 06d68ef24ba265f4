"""Claim N1: what is saved, and what is lost, by stopping every network that conflicts after one
epoch?

A rule is worth what it saves beyond rules that cost nothing. So beside it stand two of these, as
they are, and as far as they save as much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cbundles.records import SweepRecord
from cbundles.report import signals
from cbundles.report.claims.finding import Finding, finding_on
from cbundles.report.claims.grid import (
    STOPPED_FIRST,
    stopped_flops,
    trial_on_grid,
    whole_flops,
)
from cbundles.report.evidence import Evidence, last_entropy
from cbundles.report.statistics import Estimate, binomial_interval, ratio_estimate
from cbundles.report.summary import accuracy_epochs_text

SAVED_FROM, LOST_UP_TO = 0.4, 0.05
LOW_ACCURACY = 0.15

Rule = Callable[[SweepRecord], bool]
RULES: dict[str, Rule] = {
    "depth > width": lambda record: record.depth > record.width,
    "accuracy <= 15 % after epoch 1": lambda record: (
        record.history.test_accuracy[1] <= LOW_ACCURACY
    ),
}


def stopping_saves_and_keeps(group: Evidence[SweepRecord]) -> Finding:
    records = group.records
    stopped = [_conflicts_after_one_epoch(record) for record in records]
    lacking = "" if any(stopped) else "none conflicts after epoch 1"
    details = [
        *(
            f"stopping by {name} instead: {_outcome(records, list(map(rule, records)))}"
            for name, rule in RULES.items()
        ),
        *(
            f"as much saved by stopping {name}: "
            f"{_outcome(records, _as_much_stopped(records, stopped, first))}"
            for name, first in STOPPED_FIRST.items()
        ),
        _counted_within_seeds(records, stopped),
    ]
    return finding_on(
        group,
        f"stopping {sum(stopped)} of {len(records)} networks with H^L > 0 after epoch 1 "
        f"{_outcome(records, stopped)} (accuracy: {accuracy_epochs_text(records)})",
        not lacking and bool(_saves_and_keeps(records)),
        trial_on_grid(group, _saves_and_keeps, lacking),
        details=details,
    )


def _conflicts_after_one_epoch(record: SweepRecord) -> bool:
    return last_entropy(record, 1) > 0


def _saves_and_keeps(records: Sequence[SweepRecord]) -> bool:
    """The criterion of N1."""
    stopped = [_conflicts_after_one_epoch(record) for record in records]
    lost, good = _lost(records, stopped)
    return _saved_flops(records, stopped).mean >= SAVED_FROM and lost <= LOST_UP_TO * good


def _saved_flops(records: Sequence[SweepRecord], stopped: Sequence[bool]) -> Estimate:
    """The share of the grid's FLOPs that is saved."""
    saved = [
        stopped_flops(record) if stops else 0.0
        for record, stops in zip(records, stopped, strict=True)
    ]
    return ratio_estimate(saved, [whole_flops(record) for record in records])


def _lost(records: Sequence[SweepRecord], stopped: Sequence[bool]) -> tuple[int, int]:
    """How many networks near the best of their width are stopped, and how many there are."""
    near = signals.are_near_the_best(records)
    lost = sum(good and stops for good, stops in zip(near, stopped, strict=True))
    return lost, sum(near)


def _counted_within_seeds(records: Sequence[SweepRecord], stopped: Sequence[bool]) -> str:
    """The best of a width over all seeds is one lucky network: beside it the best of each seed."""
    order, first = next(iter(STOPPED_FIRST.items()))
    near: set[str] = set()
    for seed in {record.seed for record in records}:
        of_seed = [record for record in records if record.seed == seed]
        near_in_seed = signals.are_near_the_best(of_seed)
        near.update(one.id for one, good in zip(of_seed, near_in_seed, strict=True) if good)

    def lost(stopped: Sequence[bool]) -> str:
        number = sum(one.id in near and stops for one, stops in zip(records, stopped, strict=True))
        return f"{number} of {len(near)}"

    return (
        "counted afterwards, within 3 points of the best of their width and seed: loses "
        f"{lost(stopped)} networks; as much saved by stopping {order}: "
        f"{lost(_as_much_stopped(records, stopped, first))}"
    )


def _outcome(records: Sequence[SweepRecord], stopped: Sequence[bool]) -> str:
    lost, good = _lost(records, stopped)
    low, high = binomial_interval(lost, good)
    saved = _saved_flops(records, stopped).text(percent=True)
    return (
        f"saves {saved} % of the grid's FLOPs and loses "
        f"{lost} of {good} networks within 3 points of the best of their width "
        f"({100 * lost / good:.1f} %, 95 % interval {100 * low:.0f} to {100 * high:.0f} %)"
    )


def _as_much_stopped(
    records: Sequence[SweepRecord],
    stopped: Sequence[bool],
    first: Callable[[SweepRecord], float],
) -> list[bool]:
    """Which networks another order stops until at least as much is saved."""
    wanted = sum(stopped_flops(r) for r, stops in zip(records, stopped, strict=True) if stops)
    chosen, saved = set(), 0.0
    for record in sorted(records, key=first):
        if saved >= wanted:
            break
        chosen.add(record.id)
        saved += stopped_flops(record)
    return [record.id in chosen for record in records]
