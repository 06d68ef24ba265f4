"""Claims C6 to C11 and C20: fully connected networks (sec. 3.3 and 3.4)."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

import numpy as np

from cbundles.report import evidence, summary
from cbundles.report.claims.finding import Finding, of_group, span
from cbundles.report.evidence import Group, Record, depth, last_entropy
from cbundles.report.runs import Run


def _fc(runs: Sequence[Run]) -> list[Group]:
    return [group for group in evidence.groups(runs) if group.family == "fc"]


def _first_layers(records: Sequence[Record]) -> list[float]:
    """First conflicting layers after epoch 1; infinite where no layer conflicts."""
    return [summary.first_conflicting_place(record["history"][1]) or math.inf for record in records]


def earlier_when_narrow(runs: Sequence[Run]) -> list[Finding]:
    found = []
    for group in _fc(runs):
        columns = {w: group.only(width=w, depth=150) for w in (10, 25, 50)}
        if min(map(evidence.seeds, columns.values())) < 3:
            continue
        medians, rising = [], []
        parts = []
        for width, records in columns.items():
            middle = statistics.median(_first_layers(records))
            medians.append(middle)
            text = f"width {width}: {_layer(middle)}"
            if not math.isinf(middle):
                rank = statistics.median(
                    _layer_correlation(record)
                    for record in records
                    if summary.first_conflicting_place(record["history"][1])
                )
                rising.append(rank)
                text += f", Spearman(layer, H) {rank:.2f}"
            parts.append(text)
        increases = all(a < b for a, b in itertools.pairwise(medians))
        records = [record for column in columns.values() for record in column]
        ours = "first conflicting layer at L = 150 after epoch 1 (medians): " + "; ".join(parts)
        found.append(of_group(group, ours, increases and min(rising, default=0) >= 0.8, records))
    return found


def _layer_correlation(record: Record) -> float:
    entropy = record["history"][1]["entropy"]
    return evidence.spearman(range(len(entropy)), entropy)


def _layer(number: float) -> str:
    return "none" if math.isinf(number) else f"{number:g}"


def same_layer(runs: Sequence[Run]) -> list[Finding]:
    found = []
    for group in _fc(runs):
        short, long = group.only(width=25, depth=25), group.only(width=25, depth=150)
        if min(evidence.seeds(short), evidence.seeds(long)) < 5:
            continue
        a, b = (statistics.median(_first_layers(records)) for records in (short, long))
        ours = f"first conflicting layer: {_layer(a)} at L = 25, {_layer(b)} at L = 150 (medians)"
        same = not math.isinf(a) and abs(a - b) <= 5
        found.append(of_group(group, ours, same, short + long))
    return found


def fully_conflicting(runs: Sequence[Run]) -> list[Finding]:
    found = []
    for group in _fc(runs):
        records = group.only(width=10, depth=150)
        if evidence.seeds(records) < 3 or group.classes != 10:
            continue
        lowest = min(last_entropy(r, e) for r in records for e in range(1, len(r["history"])))
        accuracy = [summary.row(record)["test_accuracy"] for record in records]
        ours = f"H^L at least {lowest:.4f} after every epoch; accuracy {span(accuracy)}"
        reached = lowest >= 0.98 * math.log(10) and max(accuracy) <= 0.15
        found.append(of_group(group, ours, reached, records))
    return found


def slowly_resolved(runs: Sequence[Run]) -> list[Finding]:
    found = []
    for group in _fc(runs):
        limit = 0.9 * math.log(group.classes)
        records = [r for r in group.records
                   if len(r["history"]) > 5 and 0 < last_entropy(r, 1) < limit]  # fmt: skip
        if len(records) < 3:
            continue
        ranks = []
        for record in records:
            course = [last_entropy(record, e) for e in range(1, len(record["history"]))]
            ranks.append(evidence.spearman(range(len(course)), course))
        ranks = [0.0 if math.isnan(rank) else rank for rank in ranks]  # H stays as it was
        still = [last_entropy(record, 5) > 0 for record in records]
        rank = statistics.median(ranks)
        ours = (
            f"{len(records)} networks: median Spearman(epoch, H) {rank:.2f}; "
            f"{sum(still)} still conflict at epoch 5"
        )
        reached = rank < 0 and sum(still) >= len(still) / 2
        found.append(of_group(group, ours, reached, records))
    return found


def _grids(runs: Sequence[Run]) -> list[Group]:
    """Groups that are a grid of widths and depths, not a few networks."""
    return [g for g in _fc(runs) if len(g.widths) >= 3 and len(g.depths) >= 3
            and len(g.records) >= 20 and len(g.records[0]["history"]) > 2]  # fmt: skip


def boundary(runs: Sequence[Run]) -> list[Finding]:
    found = []
    for group in _grids(runs):
        boundary = summary.boundary(group.records)
        predicted, conflicts, margin, good = [], [], [], []
        best = {
            width: max(summary.row(r)["test_accuracy"] for r in group.only(width=width))
            for width in group.widths
        }
        for record in group.records:
            width = summary.width_of(record)
            limit = boundary[width]
            limit = math.inf if limit is None else limit
            predicted.append(depth(record) >= limit)
            conflicts.append(
                any(last_entropy(record, e) > 0 for e in range(1, len(record["history"])))
            )
            margin.append(limit - depth(record))
            good.append(summary.row(record)["test_accuracy"] >= best[width] - 0.03)
        deepest = max(group.depths)
        spent = sum(r["flops"] for r in group.records if depth(r) == deepest)
        whole = sum(r["flops"] * (len(r["history"]) - 1) for r in group.records)
        accuracy = evidence.balanced_accuracy(predicted, conflicts)
        area = evidence.area_under_curve(margin, good)
        right = np.mean(np.array(predicted) == np.array(conflicts))
        ours = (
            f"balanced accuracy {accuracy:.3f} ({100 * right:.1f} % of networks on the right "
            f"side); AUC {area:.3f}; cost {100 * spent / whole:.1f} % of the grid's FLOPs"
        )
        reached = accuracy >= 0.9 and area >= 0.8 and spent <= 0.05 * whole
        found.append(of_group(group, ours, reached, group.records))
    return found


def correlated(runs: Sequence[Run]) -> list[Finding]:
    found = []
    for group in _grids(runs):
        rows = [summary.row(record) for record in group.records]
        entropy = [row["bundle_entropy"] for row in rows]
        accuracy = [row["test_accuracy"] for row in rows]
        rank = evidence.spearman(entropy, accuracy)
        low, high = evidence.spearman_interval(entropy, accuracy)
        ours = f"Spearman {rank:.2f}, 95 % interval {low:.2f} to {high:.2f}, n = {len(rows)}"
        found.append(of_group(group, ours, rank <= -0.5 and high < 0, group.records))
    return found


def stopped(runs: Sequence[Run]) -> list[Finding]:
    found = []
    for group in _grids(runs):
        near = 0.98 * math.log(group.classes)
        stopped = [record for record in group.records if last_entropy(record, 1) >= near]
        if not stopped:
            continue
        best = max(summary.row(record)["test_accuracy"] for record in group.records)
        closest = max(summary.row(record)["test_accuracy"] for record in stopped)
        work = {r["cell"]: r["flops"] * (len(r["history"]) - 1) for r in group.records}
        saved = sum(r["flops"] * (len(r["history"]) - 2) for r in stopped) / sum(work.values())
        ours = (
            f"{len(stopped)} of {len(group.records)} networks would be stopped; the best of them "
            f"ends at {100 * closest:.1f} %, the best of all at {100 * best:.1f} %; "
            f"saved: {100 * saved:.0f} % of the grid's FLOPs"
        )
        found.append(of_group(group, ours, closest < best - 0.05, stopped))
    return found
