"""Claims C12 to C14: VGGs and ResNets by depth (sec. 3.5)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from cbundles.report import evidence, summary
from cbundles.report.claims.finding import Finding, of_group
from cbundles.report.evidence import Group, Record, last_entropy
from cbundles.report.runs import Run


def _by_depth(group: Group, value: Callable[[Record], float]) -> dict[int, float]:
    """Means over seeds."""
    return {d: statistics.fmean(value(r) for r in group.only(depth=d)) for d in group.depths}


def best_depth(runs: Sequence[Run]) -> list[Finding]:
    found = []
    for group in evidence.groups(runs):
        if (
            group.family != "vgg"
            or not {4, 50, 100, 120} <= set(group.depths)
            or group.classes != 10
        ):
            continue
        accuracy = _by_depth(group, lambda r: summary.row(r)["test_accuracy"])
        entropy = _by_depth(group, lambda r: summary.row(r)["bundle_entropy"])
        best = max(accuracy, key=lambda d: accuracy[d])
        deepest_good = 60 if group.dataset == "imagenette" else 40
        shallow = max(entropy[d] for d in group.depths if d <= 30)
        ours = (
            f"best at {best} layers ({100 * accuracy[best]:.1f} %), 4 layers "
            f"{100 * accuracy[4]:.1f} %; H^L up to 30 layers {shallow:.3f}, at 50 "
            f"{entropy[50]:.3f}, at 100 {entropy[100]:.3f}, at 120 {entropy[120]:.3f} "
            f"(accuracy {100 * accuracy[120]:.1f} %)"
        )
        reached = (
            10 <= best <= deepest_good
            and accuracy[4] < accuracy[best]
            and shallow == 0
            and entropy[100] > entropy[50]
            and entropy[120] >= 0.95 * math.log(10)
            and accuracy[120] <= 0.15
        )
        found.append(of_group(group, ours, reached, group.records))
    return found


def during_training(runs: Sequence[Run]) -> list[Finding]:
    found = []
    for group in evidence.groups(runs):
        records = group.only(depth=100)
        if group.family != "vgg" or evidence.seeds(records) < 3:
            continue
        at_first = sum(last_entropy(record, 0) == 0 for record in records)
        later = sum(
            any(last_entropy(r, e) > 0 for e in range(1, min(11, len(r["history"]))))
            for r in records
        )
        reading = records[0]["config"]["probe"]["batch_norm"]
        ours = (
            f"H^L = 0 at initialisation in {at_first} of {len(records)} seeds, above 0 at some "
            f"epoch up to 10 in {later} (BatchNorm reading: {reading} statistics)"
        )
        enough = 2 / 3 * len(records)
        found.append(of_group(group, ours, min(at_first, later) >= enough, records))
    return found


def residual(runs: Sequence[Run]) -> list[Finding]:
    found = []
    for group in evidence.groups(runs):
        depths = [d for d in group.depths if 10 <= d <= 120]
        if group.family != "resnet" or len(depths) < 3 or not {10, 120} <= set(depths):
            continue
        records = [record for d in depths for record in group.only(depth=d)]
        highest = max(last_entropy(r, e) for r in records for e in range(1, len(r["history"])))
        accuracy = _by_depth(group, lambda r: summary.row(r)["test_accuracy"])
        text = ", ".join(f"{d}: {100 * accuracy[d]:.1f}" for d in depths)
        worst = max(accuracy[d] for d in depths) - min(accuracy[d] for d in depths)
        ours = f"largest H^L {highest:.3f}; accuracy [%] by depth {text}"
        found.append(of_group(group, ours, highest == 0 and worst <= 0.03, records))
    return found
