"""Claim N8: does what is said of a network depend on how many samples it is measured with?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from cbundles.criterion import CLEAR_RATE
from cbundles.records import MeasuredRecord
from cbundles.report.claims import plans
from cbundles.report.claims.finding import Finding, finding_on, trial_of
from cbundles.report.claims.sizes import EPOCH, layers_with
from cbundles.report.evidence import Evidence
from cbundles.report.runs import Run
from cbundles.report.statistics import binomial_interval, finite, median_estimate

FEW, USUAL, MANY = "512", "2048", "8192"  # samples
FEWEST = 40  # networks that conflict
LOW, HIGH = 0.8, 1.25  # a ratio between these counts as independent
FEW_CHANGE = 0.05  # of networks


def measured_with_several(runs: Sequence[Run]) -> list[Evidence[MeasuredRecord]]:
    """Networks of grids on new seeds, kept after the first epoch and measured with several probe
    sets."""
    evidence: list[Evidence[MeasuredRecord]] = []
    for run in runs:
        again = {record.id: record for record in run.measured if _has_all_sizes(record)}
        # Several readings of a grid are the same networks, each measured again once.
        by_networks: dict[tuple[str, ...], Evidence[MeasuredRecord]] = {}
        for group in plans.grids_on_new_seeds([run]):
            known = [again[record.id] for record in group.records if record.id in again]
            if known:
                networks = tuple(record.id for record in known)
                by_networks.setdefault(networks, Evidence(run.name, known, group.diverged))
        evidence += by_networks.values()
    return evidence


def _has_all_sizes(record: MeasuredRecord) -> bool:
    if EPOCH not in record.epochs_trained:
        return False
    return all(layers_with(record, size) is not None for size in (FEW, USUAL, MANY))


def _last_layer_with(record: MeasuredRecord, size: str, quantity: str) -> float:
    """A quantity of the last layer after the first epoch."""
    layers = layers_with(record, size)
    assert layers is not None  # `_has_all_sizes` looks
    return finite(layers.last(quantity)[record.epochs_trained.index(EPOCH)])


def only_the_rate_is_independent(group: Evidence[MeasuredRecord]) -> Finding:
    records = group.records
    conflicting = [
        record
        for record in records
        if _last_layer_with(record, USUAL, "conflict_rate") > CLEAR_RATE
    ]
    lacking = f"{len(conflicting)} of {len(records)} conflict"
    if len(conflicting) >= FEWEST:
        lacking = ""
    if not conflicting:
        return finding_on(group, "no network conflicts", False, trial_of([], "network", lacking))
    ratios = {
        quantity: [_ratio(record, quantity) for record in conflicting]
        for quantity in ("conflict_rate", "entropy")
    }
    changed_by_rate = _changed(records, "conflict_rate", CLEAR_RATE)
    changed_by_entropy = _changed(records, "entropy", 0.0)
    ours = (
        f"median ratio between {FEW} and {MANY} samples of {len(conflicting)} conflicting "
        f"networks: conflict rate {median_estimate(ratios['conflict_rate']).text()}, H "
        f"{median_estimate(ratios['entropy']).text()}; on the other side of their threshold when "
        f"the probe changes: by the rate {_share(changed_by_rate)}, by H "
        f"{_share(changed_by_entropy)}"
    )
    holds = (
        _is_alike(median(ratios["conflict_rate"]))
        and not _is_alike(median(ratios["entropy"]))
        and sum(changed_by_rate) <= FEW_CHANGE * len(records)
        and sum(changed_by_entropy) > FEW_CHANGE * len(records)
    )
    held = [
        _is_alike(of_rate) and not _is_alike(of_entropy)
        for of_rate, of_entropy in zip(ratios["conflict_rate"], ratios["entropy"], strict=True)
    ]
    return finding_on(
        group,
        ours,
        not lacking and holds,
        trial_of(held, "conflicting network", lacking),
        details=[_how_many_conflict(records), _ratios_by_any_pair(records)],
    )


def _ratios_by_any_pair(records: Sequence[MeasuredRecord]) -> str:
    """The plan does not say what a conflicting network is; by the rate above they are judged."""
    conflicting = [r for r in records if _last_layer_with(r, USUAL, "entropy") > 0]
    texts = [
        f"{name} {median_estimate([_ratio(record, quantity) for record in conflicting]).text()}"
        for name, quantity in (("conflict rate", "conflict_rate"), ("H", "entropy"))
    ]
    return (
        f"the same median ratios of the {len(conflicting)} networks that conflict by H > 0: "
        f"{', '.join(texts)}; the verdict hangs on what a conflicting network is"
    )


def _ratio(record: MeasuredRecord, quantity: str) -> float:
    """Between the fewest and the most samples; infinite where the most find nothing."""
    few, many = (_last_layer_with(record, size, quantity) for size in (FEW, MANY))
    return few / many if many else math.inf


def _is_alike(ratio: float) -> bool:
    return LOW <= ratio <= HIGH


def _changed(records: Sequence[MeasuredRecord], quantity: str, threshold: float) -> list[bool]:
    """Whether each network is above the threshold with some of the probe sets only."""
    above = [
        {_last_layer_with(record, size, quantity) > threshold for size in (FEW, USUAL, MANY)}
        for record in records
    ]
    return [len(sides) > 1 for sides in above]


def _share(changed: Sequence[bool]) -> str:
    low, high = binomial_interval(sum(changed), len(changed))
    return (
        f"{sum(changed)} of {len(changed)} ({100 * sum(changed) / len(changed):.1f} %, 95 % "
        f"interval {100 * low:.0f} to {100 * high:.0f} %)"
    )


def _how_many_conflict(records: Sequence[MeasuredRecord]) -> str:
    texts = []
    for name, quantity, threshold in (
        (f"a rate above {CLEAR_RATE:g}", "conflict_rate", CLEAR_RATE),
        ("H > 0", "entropy", 0.0),
    ):
        numbers = [
            sum(_last_layer_with(record, size, quantity) > threshold for record in records)
            for size in (FEW, USUAL, MANY)
        ]
        texts.append(f"by {name} {', '.join(map(str, numbers))}")
    return (
        f"networks of {len(records)} that conflict with {FEW}, {USUAL} and {MANY} samples: "
        f"{'; '.join(texts)}"
    )
