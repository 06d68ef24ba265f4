"""Claims N3 and N4: is resolution the mechanism, and what does H tell that a shape does not?

N3 compares networks that differ in the number format of their arithmetic, or of their weights, and
in nothing else: the same initial weights, the same batches. N4 looks at networks of one depth and
one width, where everything that is known of the shape alone is the same for all.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cbundles.config import AS_COMPUTED, FLOAT32, FLOAT64
from cbundles.records import SweepRecord
from cbundles.report import evidence, select, signals
from cbundles.report.claims import healthy, plans
from cbundles.report.claims.fc import fully_connected_among
from cbundles.report.claims.finding import Finding, finding_on, trial_by_seed, trial_of
from cbundles.report.evidence import Evidence, last_entropy
from cbundles.report.runs import Run
from cbundles.report.signals import Place
from cbundles.report.statistics import (
    Estimate,
    area_difference,
    area_estimate,
    estimate,
)
from cbundles.report.summary import accuracy_epochs_text, accuracy_of
from cbundles.wording import counted

NUMBER_FORMATS = ("training.precision", "training.storage")
WITHIN = 0.02  # of accuracy, around no difference
LEAST_SEEDS, LEAST_SIZES = 5, 4  # of claim N3
NEAR_CHANCE = 0.15  # accuracy; of ten classes
# What varies at a fixed shape.
BESIDE_SHAPE = (
    "model.block",
    "model.normalisation",
    "model.gain",
    "training.learning_rate",
)
LEAST_NETWORKS = 20  # of claim N4
LEARNED = 0.5  # accuracy at the end
KNOWING_NOTHING = 0.5  # area under the curve
BESIDE_ENTROPY = (
    signals.LOSS,
    signals.ACCURACY,
    signals.HEADROOM,
    signals.RANK,
    signals.COSINE,
    signals.GRADIENT,
)


class Format(NamedTuple):
    """In which a network was trained."""

    precision: str
    storage: str

    @property
    def text(self) -> str:
        """``float32``, ``float64, weights stored in float16``."""
        if self.storage == AS_COMPUTED:
            return self.precision
        return f"{self.precision}, weights stored in {self.storage}"


USUAL, WIDER = Format(FLOAT32, AS_COMPUTED), Format(FLOAT64, AS_COMPUTED)
Network = Mapping[Format, SweepRecord]  # one network, trained in several formats


def in_several_number_formats(runs: Sequence[Run]) -> list[Evidence[SweepRecord]]:
    """Fully connected networks, those trained in another number format in one group with the same
    in float32."""
    groups = fully_connected_among(evidence.collect(runs, free=NUMBER_FORMATS))
    return [group for group in groups if plans.are_on_new_seeds(group.records)]


def number_formats_end_alike(group: Evidence[SweepRecord]) -> Finding | None:
    networks = _conflicting(_in_both_precisions(group.records))
    if not networks:
        return None
    sizes = {_size_of(network) for network in networks}
    differences = _accuracy_differences(networks, WIDER)
    difference = estimate(differences)
    ours = (
        f"accuracy at the end, float64 - float32: {difference.text(percent=True, signed=True)} "
        f"points, mean of {counted(difference.n, 'pair')} and 95 % interval "
        f"({accuracy_epochs_text(group.records)})"
    )
    by_size = [
        [network for network in networks if _size_of(network) == size] for size in sorted(sizes)
    ]
    lacking = _what_is_lacking(by_size)
    held = [_is_within(estimate(_accuracy_differences(alike, WIDER))) for alike in by_size]
    trial = trial_of(held, "architecture", lacking)
    trial = dataclasses.replace(trial, leaves_open=_why_pairs_cannot_tell(difference))
    records = [record for network in networks for record in network.values()]
    details = [_by_size(by_size), _without_chance(networks), *_other_formats(networks)]
    reached = not lacking and _is_within(difference)
    return finding_on(group, ours, reached, trial, records, details)


def _in_both_precisions(records: Sequence[SweepRecord]) -> list[Network]:
    """Networks that were trained in float32 and in float64, with what else they were trained in."""
    networks: list[Network] = []
    for same in select.groups(records, across=NUMBER_FORMATS):
        network = {_format_of(record): record for record in same.records}
        if {USUAL, WIDER} <= network.keys():
            networks.append(network)
    return networks


def _format_of(record: SweepRecord) -> Format:
    training = record.cell.training
    return Format(training.precision, training.storage)


def _conflicting(networks: Sequence[Network]) -> list[Network]:
    """All networks of the sizes of which at least half have H^L > 0 at the end, in float32."""
    by_size: dict[tuple[int, int], list[Network]] = {}
    for network in networks:
        by_size.setdefault(_size_of(network), []).append(network)
    return [
        network
        for alike in by_size.values()
        if 2 * sum(last_entropy(one[USUAL], -1) > 0 for one in alike) >= len(alike)
        for network in alike
    ]


def _size_of(network: Network) -> tuple[int, int]:
    record = network[USUAL]
    return record.width, record.depth


def _accuracy_differences(networks: Sequence[Network], other: Format) -> list[float]:
    """Of the accuracy at the end from that in float32, of the networks trained in this format."""
    return [
        accuracy_of(network[other]) - accuracy_of(network[USUAL])
        for network in networks
        if other in network
    ]


def _is_within(difference: Estimate) -> bool:
    """The criterion of N3: with its interval."""
    return difference.low >= -WITHIN and difference.high <= WITHIN


def _why_pairs_cannot_tell(difference: Estimate) -> str:
    """Where the interval has room for a difference within the bounds and for one beyond them."""
    if _is_within(difference) or difference.low > WITHIN or difference.high < -WITHIN:
        return ""
    return (
        f"the interval reaches from within {100 * WITHIN:g} points of no difference to beyond "
        f"them, so {counted(difference.n, 'pair')} cannot tell"
    )


def _what_is_lacking(by_size: Sequence[Sequence[Network]]) -> str:
    if len(by_size) < LEAST_SIZES:
        return f"these are {counted(len(by_size), 'architecture')} with H^L > 0"
    seeds = sorted(select.seeds([network[USUAL] for network in alike]) for alike in by_size)
    of_those_needed = seeds[-LEAST_SIZES]
    return f"these have {counted(of_those_needed, 'seed')}" if of_those_needed < LEAST_SEEDS else ""


def _by_size(by_size: Sequence[Sequence[Network]]) -> str:
    texts = []
    for alike in by_size:
        width, depth = _size_of(alike[0])
        difference = estimate(_accuracy_differences(alike, WIDER))
        accuracy = estimate([accuracy_of(network[USUAL]) for network in alike])
        texts.append(
            f"{width} x {depth}: {difference.text(percent=True, signed=True)} "
            f"from {100 * accuracy.mean:.1f} %"
        )
    return f"by architecture (width x depth), points: {'; '.join(texts)}"


def _without_chance(networks: Sequence[Network]) -> str:
    """Networks that learn nothing in either format agree without saying much."""
    learning = [
        network
        for network in networks
        if max(accuracy_of(network[USUAL]), accuracy_of(network[WIDER])) > NEAR_CHANCE
    ]
    left_out = len(networks) - len(learning)
    difference = estimate(_accuracy_differences(learning, WIDER))
    return (
        f"{left_out} of {len(networks)} pairs end at {100 * NEAR_CHANCE:.0f} % or less in both; "
        f"without them: {difference.text(percent=True, signed=True)} points"
    )


def _other_formats(networks: Sequence[Network]) -> list[str]:
    """What other formats than float64 cost."""
    formats = {name for network in networks for name in network} - {USUAL, WIDER}
    texts = []
    for other in sorted(formats):
        difference = estimate(_accuracy_differences(networks, other))
        texts.append(
            f"{other.text} - float32: {difference.text(percent=True, signed=True)} points, "
            f"{counted(difference.n, 'pair')}"
        )
    return texts


def of_fixed_shape(runs: Sequence[Run]) -> list[Evidence[SweepRecord]]:
    """Fully connected networks of one depth and one width that differ in much else."""
    groups = fully_connected_among(evidence.collect(runs, free=BESIDE_SHAPE))
    return [
        group
        for group in groups
        if _is_of_fixed_shape(group) and plans.are_on_new_seeds(group.records)
    ]


def _is_of_fixed_shape(group: Evidence[SweepRecord]) -> bool:
    if len(group.records) < LEAST_NETWORKS or len(group.widths) > 1 or len(group.depths) > 1:
        return False
    settings = [tuple(r.settings_by_path[path] for path in BESIDE_SHAPE) for r in group.records]
    varying = sum(len(set(values)) > 1 for values in zip(*settings, strict=True))
    return varying > 1


def entropy_tells_what_shape_does_not(group: Evidence[SweepRecord]) -> Finding | None:
    """Depth and width are the same for all of these, so by them the area is one half."""
    records, labels = group.records, _have_learned(group.records)
    place = signals.place_after_epoch(signals.places_measured(records), 1)
    if place is None:
        return None
    entropies = _entropies(records, place)
    area = area_estimate(entropies, labels)
    lacking = ""
    if math.isnan(area.mean):
        lacking = f"these all end above {100 * LEARNED:.0f} %, or none does"
    trial = trial_by_seed(records, lambda some: _tells_something(some, place), lacking)
    if lacking:
        return finding_on(group, "AUC not defined", False, trial)
    ours = (
        f"AUC of H^L after epoch 1 for ending above {100 * LEARNED:.0f} %: {_area_text(area)}, "
        f"95 % interval, n = {len(records)}, of which {sum(labels)} do "
        f"({accuracy_epochs_text(records)})"
    )
    beside = [
        f"{signal.name} {_beside(entropies, values, labels)}"
        for signal in BESIDE_ENTROPY
        if (values := signal.values(records, place)) is not None
    ]
    details = [
        f"AUC of what else is known after epoch 1, and H^L - it: {'; '.join(beside)}",
        _by_conflict(records),
        *_headroom_at_one_shape(records, place),
    ]
    return finding_on(group, ours, area.low > KNOWING_NOTHING, trial, details=details)


def _headroom_at_one_shape(records: Sequence[SweepRecord], place: Place) -> list[str]:
    """What claim N7 asks for beside its own grid, where headroom was measured."""
    without = [record for record in records if last_entropy(record, 1) == 0]
    if len(without) < 3 or signals.HEADROOM.values(without, place) is None:
        return []
    return [healthy.headroom_beside_others(without, place)]


def _entropies(records: Sequence[SweepRecord], place: Place) -> list[float]:
    """Of the last layer, so that more is better."""
    values = signals.ENTROPY.values(records, place)
    assert values is not None  # every record has it
    return values


def _have_learned(records: Sequence[SweepRecord]) -> list[bool]:
    return [accuracy_of(record) > LEARNED for record in records]


def _tells_something(records: Sequence[SweepRecord], place: Place) -> bool | None:
    """The criterion of N4; None where it is not defined."""
    area = area_estimate(_entropies(records, place), _have_learned(records))
    return None if math.isnan(area.mean) else area.low > KNOWING_NOTHING


def _area_text(area: Estimate) -> str:
    """``0.912 (0.850 to 0.960)``."""
    return f"{area.mean:.3f} ({area.low:.3f} to {area.high:.3f})"


def _beside(ours: Sequence[float], others: Sequence[float], labels: Sequence[bool]) -> str:
    difference = area_difference(ours, others, labels)
    return f"{_area_text(area_estimate(others, labels))}, {difference.text(signed=True)}"


def _by_conflict(records: Sequence[SweepRecord]) -> str:
    """How many of those with and without conflicts after epoch 1 learn."""
    texts = []
    for name, conflicts in (("H^L > 0", True), ("H^L = 0", False)):
        some = [record for record in records if (last_entropy(record, 1) > 0) == conflicts]
        texts.append(f"{sum(_have_learned(some))} of {len(some)} with {name}")
    return f"above {100 * LEARNED:.0f} % at the end: {', '.join(texts)} after epoch 1"
