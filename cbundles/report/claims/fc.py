"""Claims C6 to C9: fully connected networks, layer by layer and epoch by epoch (sec. 3.3).

By the paper's word a layer conflicts when H > 0, which a single pair of samples can cause. Claims
are judged so; beside it stands what the conflict rate says, where records hold it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import median

from cbundles.criterion import CLEAR_RATE
from cbundles.records import SweepRecord
from cbundles.report import evidence, select
from cbundles.report.claims.finding import (
    SECOND_READING,
    Finding,
    finding_on,
    trial_by_seed,
    trial_of,
)
from cbundles.report.claims.sizes import over_probe_sizes
from cbundles.report.evidence import Evidence, last_entropies, last_entropy
from cbundles.report.runs import Run
from cbundles.report.statistics import finite, spearman
from cbundles.report.summary import (
    FirstLayers,
    accuracy_epochs_text,
    accuracy_of,
    first_clear_layers,
    first_conflicting_layers,
    first_conflicting_place,
    first_layers_in_the_mean,
    has_rates,
)
from cbundles.report.words import lowest_to_highest
from cbundles.wording import counted

WIDTHS, DEEP = (10, 25, 50), 150  # of claim C6
SHORT = 25  # of claim C7, beside DEEP
BY_RATE = f"by a conflict rate above {CLEAR_RATE:g} instead of H > 0"
NO_RATES = "not measured in these records"


def fully_connected(runs: Sequence[Run]) -> list[Evidence[SweepRecord]]:
    """All fully connected networks, by scale and reading."""
    return [
        in_reading
        for group in fully_connected_among(evidence.collect(runs))
        for in_reading in evidence.in_every_reading(group)
    ]


def fully_connected_among(groups: Sequence[Evidence[SweepRecord]]) -> list[Evidence[SweepRecord]]:
    """The groups of fully connected networks."""
    return [group for group in groups if group.family == "fc"]


def conflicts_earlier_when_narrow(group: Evidence[SweepRecord]) -> Finding | None:
    columns = _columns_of(group.records)
    if min(map(select.seeds, columns.values())) < 3:
        return None
    records = [record for column in columns.values() for record in column]
    parts = []
    for width, column in columns.items():
        part = f"width {width}: {_median_layer(column, first_conflicting_layers)}"
        if not math.isinf(median(first_conflicting_layers(column))):
            part += f", Spearman(layer, H) {_median_rank(column):.2f}"
        parts.append(part)
    ours = "first conflicting layer at L = 150 after epoch 1 (medians): " + "; ".join(parts)
    lacking = ""
    if all(math.isinf(median(first_conflicting_layers(column))) for column in columns.values()):
        lacking = "most networks of every width have none"
    by_rate = NO_RATES
    if all(map(has_rates, records)):
        by_rate = _layers_of_widths(records, first_clear_layers)
    return finding_on(
        group,
        ours,
        bool(_conflict_earlier_when_narrow(records)),
        trial_by_seed(records, _conflict_earlier_when_narrow, lacking),
        records,
        [
            f"{BY_RATE}: {by_rate}",
            *_layers_of_other_widths(group),
            *over_probe_sizes(group, records, _layers_of_widths),
        ],
    )


def _layers_of_other_widths(group: Evidence[SweepRecord]) -> list[str]:
    """Of widths that the criterion does not name."""
    others = {
        width: group.only(width=width, depth=DEEP) for width in group.widths if width not in WIDTHS
    }
    texts = [
        f"width {width}: {_median_layer(column, first_conflicting_layers)}"
        for width, column in others.items()
        if column
    ]
    return [f"other widths: {', '.join(texts)}"] if texts else []


def _layers_of_widths(
    records: Sequence[SweepRecord], first_layers: FirstLayers = first_conflicting_layers
) -> str:
    """Medians of the first conflicting layers at L = 150."""
    return ", ".join(
        f"width {width}: {_median_layer(column, first_layers)}"
        for width, column in _columns_of(records).items()
    )


def _columns_of(records: Sequence[SweepRecord]) -> dict[int, list[SweepRecord]]:
    """The deep networks of each width that claim C6 is about."""
    return {width: select.only(records, width=width, depth=DEEP) for width in WIDTHS}


def _conflict_earlier_when_narrow(records: Sequence[SweepRecord]) -> bool | None:
    """The criterion of C6; None where a width is missing."""
    columns = _columns_of(records).values()
    if not all(columns):
        return None
    medians = [median(first_conflicting_layers(column)) for column in columns]
    increases = all(narrow < wide for narrow, wide in itertools.pairwise(medians))
    ranks = [
        _median_rank(column)
        for column, middle in zip(columns, medians, strict=True)
        if not math.isinf(middle)
    ]
    return increases and min(ranks, default=0) >= 0.8


def _median_rank(records: Sequence[SweepRecord]) -> float:
    """How H follows the layer in those of the networks that conflict."""
    conflicting = [record for record in records if first_conflicting_place(record)]
    return median(_rank_of_layer_and_entropy(record) for record in conflicting)


def _rank_of_layer_and_entropy(record: SweepRecord) -> float:
    entropies = [finite(entropy) for entropy in record.history.entropy[1]]
    return spearman(range(len(entropies)), entropies)


def _median_layer(records: Sequence[SweepRecord], first_layers: FirstLayers) -> str:
    """The median of the first conflicting layers, and how many networks conflict at all where some
    do not, which counts as infinitely deep."""
    layers = first_layers(records)
    middle = median(layers)
    text = "none" if math.isinf(middle) else f"{middle:g}"
    conflicting = sum(not math.isinf(layer) for layer in layers)
    if conflicting in (0, len(layers)):
        return text
    return f"{text} ({conflicting} of {len(layers)} conflict)"


def conflicts_in_the_same_layer(group: Evidence[SweepRecord]) -> Finding | None:
    short, long = (group.only(width=25, depth=depth) for depth in (SHORT, DEEP))
    if min(select.seeds(short), select.seeds(long)) < 5:
        return None
    records = short + long
    firsts = [median(first_conflicting_layers(some)) for some in (short, long)]
    lacking = ""
    if min(firsts) > SHORT:
        lacking = f"most networks of both depths have none up to layer {SHORT}"
    by_rate = NO_RATES
    if all(map(has_rates, records)):
        by_rate = _layers_of_both(short, long, first_clear_layers)
    epochs = records[0].epochs_trained
    in_the_mean = (
        f"{SECOND_READING}first layer whose mean H over {counted(epochs, 'epoch')} is "
        f"above 0: {_layers_of_both(short, long, first_layers_in_the_mean)} (medians)"
    )
    further = [in_the_mean] if epochs > 1 else []
    return finding_on(
        group,
        f"first conflicting layer: {_layers_of_both(short, long, first_conflicting_layers)} "
        "(medians)",
        bool(_conflict_in_the_same_layer(records)),
        trial_by_seed(records, _conflict_in_the_same_layer, lacking),
        records,
        [f"{BY_RATE}: {by_rate}", *further, *over_probe_sizes(group, records, _layers_of_depths)],
    )


def _layers_of_depths(records: Sequence[SweepRecord]) -> str:
    short, long = (select.only(records, width=25, depth=depth) for depth in (SHORT, DEEP))
    return _layers_of_both(short, long, first_conflicting_layers)


def _layers_of_both(
    short: Sequence[SweepRecord], long: Sequence[SweepRecord], first_layers: FirstLayers
) -> str:
    return (
        f"{_median_layer(short, first_layers)} at L = {SHORT}, "
        f"{_median_layer(long, first_layers)} at L = {DEEP}"
    )


def _conflict_in_the_same_layer(records: Sequence[SweepRecord]) -> bool | None:
    """The criterion of C7; None where a depth is missing."""
    columns = [select.only(records, width=25, depth=depth) for depth in (SHORT, DEEP)]
    if not all(columns):
        return None
    short, long = (median(first_conflicting_layers(column)) for column in columns)
    return not math.isinf(short) and abs(short - long) <= 5


def conflicts_fully(group: Evidence[SweepRecord]) -> Finding | None:
    records = group.only(width=10, depth=DEEP)
    if select.seeds(records) < 3 or group.records[0].num_classes != 10:
        return None
    accuracy = [accuracy_of(record) for record in records]
    ours = (
        f"H^L at least {_lowest_entropy(records):.4f} after every epoch; accuracy "
        f"{lowest_to_highest(accuracy, '.3f')} ({accuracy_epochs_text(records)})"
    )
    trial = trial_by_seed(records, _conflict_fully)
    return finding_on(group, ours, _conflict_fully(records), trial, records)


def _lowest_entropy(records: Sequence[SweepRecord]) -> float:
    """The lowest H^L of any of the networks after any epoch."""
    return min(entropy for record in records for entropy in last_entropies(record))


def _conflict_fully(records: Sequence[SweepRecord]) -> bool:
    """The criterion of C8."""
    is_full = _lowest_entropy(records) >= 0.98 * math.log(10)
    return is_full and max(map(accuracy_of, records)) <= 0.15


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
    held = [rank < 0 and conflicts for rank, conflicts in zip(ranks, still, strict=True)]
    return finding_on(group, ours, reached, trial_of(held, "network"), records)


def _rank_of_epoch_and_entropy(record: SweepRecord) -> float:
    entropies = last_entropies(record)
    rank = spearman(range(len(entropies)), entropies)
    return 0.0 if math.isnan(rank) else rank  # H stays as it was
