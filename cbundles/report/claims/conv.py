"""Claims C12 to C14: VGGs and ResNets by depth (sec. 3.5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from cbundles import readings
from cbundles.records import SweepRecord
from cbundles.report import evidence, select
from cbundles.report.answer import CHANCE_MARGIN, is_at_chance
from cbundles.report.claims.finding import SECOND_READING, Finding, finding_on, trial_by_seed
from cbundles.report.evidence import Evidence, last_entropies, last_entropy
from cbundles.report.runs import Run
from cbundles.report.statistics import finite
from cbundles.report.summary import accuracy_epochs_text, accuracy_of, entropy_of
from cbundles.report.words import listed
from cbundles.wording import counted

TOLERANCE = 0.03  # within which the accuracies of claim C14 have to be
# Networks that are alike in all else are set beside each other: they need not be of one run.
ACROSS = (
    "model.depth",
    "model.blocks",
    "training.seed",
    "probe.readings",
    "probe.steps",
    "probe.headroom",
)


@dataclass(frozen=True)
class Vggs:
    """VGGs of one scale, by depth.

    group: those that are judged
    alike: of other runs, trained and measured in the same way
    """

    group: Evidence[SweepRecord]
    alike: list[Evidence[SweepRecord]]


def vggs(runs: Sequence[Run]) -> list[Evidence[SweepRecord]]:
    """All VGGs, by scale and reading."""
    return _of_family("vgg", runs)


def _of_family(family: str, runs: Sequence[Run]) -> list[Evidence[SweepRecord]]:
    return [
        in_reading
        for group in evidence.collect(runs)
        if group.family == family
        for in_reading in evidence.in_every_reading(group)
    ]


def vggs_beside_others(runs: Sequence[Run]) -> list[Vggs]:
    """All VGGs, by scale and reading, each with those of other runs that are alike but for the
    run."""
    every = vggs(runs)
    return [
        Vggs(group, [other for other in every if other is not group and _are_alike(group, other)])
        for group in every
    ]


def _are_alike(one: Evidence[SweepRecord], other: Evidence[SweepRecord]) -> bool:
    return len(select.groups([*one.records, *other.records], across=ACROSS)) == 1


def resnets(runs: Sequence[Run]) -> list[Evidence[SweepRecord]]:
    """All ResNets, by scale and reading."""
    return _of_family("resnet", runs)


def _by_depth(
    records: Sequence[SweepRecord], value_of: Callable[[SweepRecord], float]
) -> dict[int, float]:
    """Means over seeds."""
    return {
        depth: fmean(map(value_of, select.only(records, depth=depth)))
        for depth in select.depths(records)
    }


def _mean_entropy(record: SweepRecord) -> float:
    return finite(entropy_of(record))


def reading_of(record: SweepRecord) -> str:
    """In which reading H^L of a VGG or ResNet is judged, in words."""
    reading = record.cell.own_reading
    text = f"reading: {readings.in_words(reading, convolutional=True)}"
    if reading.settings == readings.PAPER_WORDS:
        return f"{text}, as in the paper's revision of the code"
    return text


def best_vgg_is_not_deep(vggs: Vggs) -> Finding | None:
    group = vggs.group
    if group.records[0].num_classes != 10 or not {4, 50, 100, 120} <= set(group.depths):
        return None
    accuracy = _by_depth(group.records, accuracy_of)
    entropy = _by_depth(group.records, _mean_entropy)
    best = max(accuracy, key=lambda depth: accuracy[depth])
    shallow = max(entropy[depth] for depth in group.depths if depth <= 30)
    ours = (
        f"accuracy {accuracy_epochs_text(group.records)}: best at {best} layers "
        f"({100 * accuracy[best]:.1f} %), 4 layers {100 * accuracy[4]:.1f} %; H^L up to 30 layers "
        f"{shallow:.3f}, at 50 {entropy[50]:.3f}, at 100 {entropy[100]:.3f}, at 120 "
        f"{entropy[120]:.3f} (accuracy {100 * accuracy[120]:.1f} %)"
    )
    details = [
        reading_of(group.records[0]),
        f"{SECOND_READING}{_at_chance_without_conflict(group.records)}",
    ]
    if 30 in accuracy:
        below = 100 * (accuracy[best] - accuracy[30])
        details.append(
            f"{SECOND_READING}30 layers (H^L {entropy[30]:.3f}) end {below:.1f} points below the "
            "best depth"
        )
    for other in vggs.alike:
        details.append(f"in {other.run}: {_at_chance_without_conflict(other.records)}")
    lacking = ""
    if accuracy[best] < 2 / group.records[0].num_classes:
        lacking = f"the best depth is at {100 * accuracy[best]:.1f} %"
    trial = trial_by_seed(group.records, _is_best_when_not_deep, lacking)
    reached = bool(_is_best_when_not_deep(group.records))
    return finding_on(group, ours, reached, trial, details=details)


def _is_best_when_not_deep(records: Sequence[SweepRecord]) -> bool | None:
    """The criterion of C12; None where a depth is missing."""
    accuracy, entropy = _by_depth(records, accuracy_of), _by_depth(records, _mean_entropy)
    if not {4, 50, 100, 120} <= set(accuracy):
        return None
    best = max(accuracy, key=lambda depth: accuracy[depth])
    deepest_good = 60 if records[0].dataset == "imagenette" else 40
    return (
        10 <= best <= deepest_good
        and accuracy[4] < accuracy[best]
        and max(entropy[depth] for depth in entropy if depth <= 30) == 0
        and entropy[100] > entropy[50]
        and entropy[120] >= 0.95 * math.log(10)
        and accuracy[120] <= 0.15
    )


def _at_chance_without_conflict(records: Sequence[SweepRecord]) -> str:
    """Which depths fail although H sees nothing: conflicts do not explain those."""
    accuracy = _by_depth(records, lambda record: record.history.test_accuracy[-1])
    failing = [depth for depth in accuracy if is_at_chance(accuracy[depth], records[0])]
    conflicts = {
        depth: [last_entropies(record) for record in select.only(records, depth=depth)]
        for depth in failing
    }
    unexplained = [
        depth
        for depth in failing
        if 2 * sum(entropies[-1] == 0 for entropies in conflicts[depth]) > len(conflicts[depth])
    ]
    chance = f"at chance (no more than {100 * CHANCE_MARGIN:g} points above) after the last epoch"
    if not failing:
        return f"no depth is {chance}"
    if not unexplained:
        return f"every depth that is {chance} has H^L > 0 then in half of its networks at least"
    accuracies = listed([f"{100 * accuracy[depth]:.1f} %" for depth in unexplained])
    seeds = min(select.seeds(select.only(records, depth=depth)) for depth in unexplained)
    highest = max(max(entropies) for depth in unexplained for entropies in conflicts[depth])
    earlier = f" (after any epoch {highest:.2g} nats at most)" if highest else ""
    return (
        f"{chance} although H^L = 0 then in most networks{earlier}: {listed(unexplained)} layers "
        f"({accuracies}, means over {counted(seeds, 'seed')}), so being at chance then does not "
        "need a conflict"
    )


def conflicts_appear_during_training(group: Evidence[SweepRecord]) -> Finding | None:
    records = group.only(depth=100)
    if select.seeds(records) < 3:
        return None
    at_first = sum(map(_starts_without_conflict, records))
    later = sum(map(_conflicts_within_ten_epochs, records))
    ours = (
        f"H^L = 0 at initialisation in {at_first} of {len(records)} seeds, above 0 at some "
        f"epoch up to 10 in {later} ({records[0].cell.probe.batch_norm} statistics)"
    )
    enough = 2 / 3 * len(records)
    trial = trial_by_seed(
        records,
        lambda some: all(
            _starts_without_conflict(record) and _conflicts_within_ten_epochs(record)
            for record in some
        ),
    )
    reached = min(at_first, later) >= enough
    return finding_on(group, ours, reached, trial, records, [reading_of(records[0])])


def _starts_without_conflict(record: SweepRecord) -> bool:
    return last_entropy(record, 0) == 0


def _conflicts_within_ten_epochs(record: SweepRecord) -> bool:
    return max(last_entropies(record)[:10]) > 0


def resnets_do_not_conflict(group: Evidence[SweepRecord]) -> Finding | None:
    depths = [depth for depth in group.depths if 10 <= depth <= 120]
    if len(depths) < 3 or not {10, 120} <= set(depths):
        return None
    records = [record for depth in depths for record in group.only(depth=depth)]
    highest = _highest_entropy(records)
    accuracy = _by_depth(records, accuracy_of)
    text = ", ".join(f"{depth}: {100 * accuracy[depth]:.1f}" for depth in depths)
    ours = (
        f"largest H^L {highest:.3f}; accuracy [%] {accuracy_epochs_text(records)} by depth {text}"
    )
    rise = max(_by_depth(records, _last_rise).values())
    lacking = ""
    if highest == 0 and rise > TOLERANCE:
        lacking = (
            f"at some depth it still rises by {100 * rise:.1f} in the last epoch of "
            f"{records[0].epochs_trained}; the other half of the claim, H^L = 0, does hold here"
        )
    if group.diverged:  # nothing says here of which depth they were
        lacking = f"{counted(group.diverged, 'network')} diverged"
    trial = trial_by_seed(records, _are_alike_without_conflict, lacking)
    reached = not group.diverged and _are_alike_without_conflict(records)
    return finding_on(group, ours, reached, trial, records, [reading_of(records[0])])


def _highest_entropy(records: Sequence[SweepRecord]) -> float:
    return max(entropy for record in records for entropy in last_entropies(record))


def _last_rise(record: SweepRecord) -> float:
    """Of the test accuracy, in the last epoch."""
    before, after = record.history.test_accuracy[-2:]
    return after - before


def _are_alike_without_conflict(records: Sequence[SweepRecord]) -> bool:
    """The criterion of C14."""
    accuracy = _by_depth(records, accuracy_of).values()
    return _highest_entropy(records) == 0 and max(accuracy) - min(accuracy) <= TOLERANCE
