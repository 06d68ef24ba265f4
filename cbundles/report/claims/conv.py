"""Claims C12 to C14: VGGs and ResNets by depth (sec. 3.5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from cbundles.records import SweepRecord
from cbundles.report import evidence, select
from cbundles.report.claims.finding import Finding, finding_on
from cbundles.report.evidence import Evidence, last_entropies, last_entropy
from cbundles.report.runs import Run
from cbundles.report.statistics import finite
from cbundles.report.summary import accuracy_of, entropy_of


def vggs(runs: Sequence[Run]) -> list[Evidence[SweepRecord]]:
    """All VGGs, by scale."""
    return [group for group in evidence.collect(runs) if group.family == "vgg"]


def resnets(runs: Sequence[Run]) -> list[Evidence[SweepRecord]]:
    """All ResNets, by scale."""
    return [group for group in evidence.collect(runs) if group.family == "resnet"]


def _by_depth(
    group: Evidence[SweepRecord], value_of: Callable[[SweepRecord], float]
) -> dict[int, float]:
    """Means over seeds."""
    return {depth: fmean(map(value_of, group.only(depth=depth))) for depth in group.depths}


def best_vgg_is_not_deep(group: Evidence[SweepRecord]) -> Finding | None:
    if group.records[0].num_classes != 10 or not {4, 50, 100, 120} <= set(group.depths):
        return None
    accuracy = _by_depth(group, accuracy_of)
    entropy = _by_depth(group, lambda record: finite(entropy_of(record)))
    best = max(accuracy, key=lambda depth: accuracy[depth])
    deepest_good = 60 if group.dataset == "imagenette" else 40
    shallow = max(entropy[depth] for depth in group.depths if depth <= 30)
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
    return finding_on(group, ours, reached)


def conflicts_appear_during_training(group: Evidence[SweepRecord]) -> Finding | None:
    records = group.only(depth=100)
    if select.seeds(records) < 3:
        return None
    at_first = sum(last_entropy(record, 0) == 0 for record in records)
    later = sum(max(last_entropies(record)[:10]) > 0 for record in records)
    reading = records[0].cell.probe.batch_norm
    ours = (
        f"H^L = 0 at initialisation in {at_first} of {len(records)} seeds, above 0 at some "
        f"epoch up to 10 in {later} (BatchNorm reading: {reading} statistics)"
    )
    enough = 2 / 3 * len(records)
    return finding_on(group, ours, min(at_first, later) >= enough, records)


def resnets_do_not_conflict(group: Evidence[SweepRecord]) -> Finding | None:
    depths = [depth for depth in group.depths if 10 <= depth <= 120]
    if len(depths) < 3 or not {10, 120} <= set(depths):
        return None
    records = [record for depth in depths for record in group.only(depth=depth)]
    highest = max(entropy for record in records for entropy in last_entropies(record))
    accuracy = _by_depth(group, accuracy_of)
    text = ", ".join(f"{depth}: {100 * accuracy[depth]:.1f}" for depth in depths)
    of_depths = [accuracy[depth] for depth in depths]
    ours = f"largest H^L {highest:.3f}; accuracy [%] by depth {text}"
    reached = highest == 0 and max(of_depths) - min(of_depths) <= 0.03
    return finding_on(group, ours, reached, records)
