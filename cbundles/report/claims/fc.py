"""Claims C6 to C11 and C20: fully connected networks (sec. 3.3 and 3.4)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import fmean, median

from cbundles.records import SweepRecord
from cbundles.report import evidence, select
from cbundles.report.claims.finding import Finding, finding_on
from cbundles.report.evidence import Evidence, last_entropies, last_entropy
from cbundles.report.runs import Run
from cbundles.report.statistics import (
    area_under_curve,
    balanced_accuracy,
    finite,
    spearman,
    spearman_interval,
)
from cbundles.report.summary import (
    accuracy_of,
    boundary,
    entropy_of,
    first_conflicting_layers,
    first_conflicting_place,
)
from cbundles.report.words import lowest_to_highest


def fully_connected(runs: Sequence[Run]) -> list[Evidence[SweepRecord]]:
    """All fully connected networks, by scale."""
    return [group for group in evidence.collect(runs) if group.family == "fc"]


def grids(runs: Sequence[Run]) -> list[Evidence[SweepRecord]]:
    """Groups that are a grid of widths and depths, not a few networks."""
    return [group for group in fully_connected(runs) if _is_grid(group)]


def _is_grid(group: Evidence[SweepRecord]) -> bool:
    is_large = len(group.records) >= 20 and group.records[0].epochs_trained > 1
    return is_large and len(group.widths) >= 3 and len(group.depths) >= 3


def conflicts_earlier_when_narrow(group: Evidence[SweepRecord]) -> Finding | None:
    columns = {width: group.only(width=width, depth=150) for width in (10, 25, 50)}
    if min(map(select.seeds, columns.values())) < 3:
        return None
    medians, ranks, parts = [], [], []
    for width, records in columns.items():
        middle = median(first_conflicting_layers(records))
        medians.append(middle)
        part = f"width {width}: {_median_layer(records)}"
        if not math.isinf(middle):
            conflicting = [r for r in records if first_conflicting_place(r)]
            rank = median(_rank_of_layer_and_entropy(record) for record in conflicting)
            ranks.append(rank)
            part += f", Spearman(layer, H) {rank:.2f}"
        parts.append(part)
    increases = all(narrow < wide for narrow, wide in itertools.pairwise(medians))
    records = [record for column in columns.values() for record in column]
    ours = "first conflicting layer at L = 150 after epoch 1 (medians): " + "; ".join(parts)
    reached = increases and min(ranks, default=0) >= 0.8
    return finding_on(group, ours, reached, records)


def _rank_of_layer_and_entropy(record: SweepRecord) -> float:
    entropies = [finite(entropy) for entropy in record.history.entropy[1]]
    return spearman(range(len(entropies)), entropies)


def _median_layer(records: Sequence[SweepRecord]) -> str:
    """The median of the first conflicting layers; where that is none, how many conflict."""
    layers = first_conflicting_layers(records)
    if not math.isinf(median(layers)):
        return f"{median(layers):g}"
    conflicting = sum(not math.isinf(layer) for layer in layers)
    return f"none ({conflicting} of {len(layers)} conflict)" if conflicting else "none"


def conflicts_in_the_same_layer(group: Evidence[SweepRecord]) -> Finding | None:
    short, long = group.only(width=25, depth=25), group.only(width=25, depth=150)
    if min(select.seeds(short), select.seeds(long)) < 5:
        return None
    a, b = (median(first_conflicting_layers(records)) for records in (short, long))
    ours = (
        f"first conflicting layer: {_median_layer(short)} at L = 25, {_median_layer(long)} at "
        "L = 150 (medians)"
    )
    same = not math.isinf(a) and abs(a - b) <= 5
    return finding_on(group, ours, same, short + long)


def conflicts_fully(group: Evidence[SweepRecord]) -> Finding | None:
    records = group.only(width=10, depth=150)
    if select.seeds(records) < 3 or group.records[0].num_classes != 10:
        return None
    lowest = min(entropy for record in records for entropy in last_entropies(record))
    accuracy = [accuracy_of(record) for record in records]
    ours = (
        f"H^L at least {lowest:.4f} after every epoch; accuracy "
        f"{lowest_to_highest(accuracy, '.3f')}"
    )
    reached = lowest >= 0.98 * math.log(10) and max(accuracy) <= 0.15
    return finding_on(group, ours, reached, records)


def conflicts_resolve_slowly(group: Evidence[SweepRecord]) -> Finding | None:
    limit = 0.9 * math.log(group.records[0].num_classes)
    trained = [record for record in group.records if record.epochs_trained >= 5]
    records = [record for record in trained if 0 < last_entropy(record, 1) < limit]
    if len(records) < 3:
        return None
    ranks = [_rank_of_epoch_and_entropy(record) for record in records]
    still = [last_entropy(record, 5) > 0 for record in records]
    ours = (
        f"{len(records)} networks: median Spearman(epoch, H) {median(ranks):.2f}; "
        f"{sum(still)} still conflict at epoch 5"
    )
    reached = median(ranks) < 0 and sum(still) >= len(still) / 2
    return finding_on(group, ours, reached, records)


def _rank_of_epoch_and_entropy(record: SweepRecord) -> float:
    entropies = last_entropies(record)
    rank = spearman(range(len(entropies)), entropies)
    return 0.0 if math.isnan(rank) else rank  # H stays as it was


def boundary_predicts(group: Evidence[SweepRecord]) -> Finding:
    limits = {
        width: math.inf if depth is None else depth
        for width, depth in boundary(group.records).items()
    }
    best = {width: max(map(accuracy_of, group.only(width=width))) for width in group.widths}
    predicted, conflicts, margins, good = [], [], [], []
    for record in group.records:
        width, depth = record.width, record.depth
        predicted.append(depth >= limits[width])
        conflicts.append(max(last_entropies(record)) > 0)
        margins.append(limits[width] - depth)
        good.append(accuracy_of(record) >= best[width] - 0.03)
    deepest = group.only(depth=max(group.depths))
    spent = sum(record.flops for record in deepest)  # one epoch
    whole = sum(record.flops * record.epochs_trained for record in group.records)
    accuracy = balanced_accuracy(predicted, conflicts)
    area = area_under_curve(margins, good)
    right = fmean(a == b for a, b in zip(predicted, conflicts, strict=True))
    ours = (
        f"balanced accuracy {accuracy:.3f} ({100 * right:.1f} % of networks on the right "
        f"side); AUC {area:.3f}; cost {100 * spent / whole:.1f} % of the grid's FLOPs"
    )
    reached = accuracy >= 0.9 and area >= 0.8 and spent <= 0.05 * whole
    return finding_on(group, ours, reached)


def entropy_predicts_accuracy(group: Evidence[SweepRecord]) -> Finding:
    entropy = [finite(entropy_of(record)) for record in group.records]
    accuracy = [accuracy_of(record) for record in group.records]
    rank = spearman(entropy, accuracy)
    low, high = spearman_interval(entropy, accuracy)
    ours = f"Spearman {rank:.2f}, 95 % interval {low:.2f} to {high:.2f}, n = {len(accuracy)}"
    return finding_on(group, ours, rank <= -0.5 and high < 0)


def stopped_networks_are_not_the_best(group: Evidence[SweepRecord]) -> Finding | None:
    near = 0.98 * math.log(group.records[0].num_classes)
    stopped = [record for record in group.records if last_entropy(record, 1) >= near]
    if not stopped:
        return None
    best = max(map(accuracy_of, group.records))
    closest = max(map(accuracy_of, stopped))
    whole = sum(record.flops * record.epochs_trained for record in group.records)
    saved = sum(record.flops * (record.epochs_trained - 1) for record in stopped)
    ours = (
        f"{len(stopped)} of {len(group.records)} networks would be stopped; the best of them "
        f"ends at {100 * closest:.1f} %, the best of all at {100 * best:.1f} %; "
        f"saved: {100 * saved / whole:.0f} % of the grid's FLOPs"
    )
    return finding_on(group, ours, closest < best - 0.05, stopped)
