"""Claims C10, C11 and C20: what H says of a grid of widths and depths (fig. 1 and 5).

An effect on a grid is worth as much as it says beyond what costs nothing. So beside each of them
stands what depth alone, depth / width alone, and accuracy and loss after the first epoch say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from cbundles.criterion import CLEAR_RATE
from cbundles.records import SweepRecord
from cbundles.report import select
from cbundles.report.claims.boundaries import FREE, beside_what_is_free, predicted_by_boundary
from cbundles.report.claims.fc import BY_RATE, NO_RATES, fully_connected
from cbundles.report.claims.finding import Finding, Trial, finding_on, trial_by_seed, trial_of
from cbundles.report.claims.sizes import over_probe_sizes
from cbundles.report.evidence import Evidence, last_entropies, last_entropy
from cbundles.report.runs import Run
from cbundles.report.signals import are_near_the_best
from cbundles.report.statistics import (
    Estimate,
    area_under_curve,
    balanced_accuracy,
    finite,
    spearman_difference,
    spearman_estimate,
    spearman_text,
)
from cbundles.report.summary import (
    FirstLayers,
    accuracy_epochs_text,
    accuracy_of,
    boundary,
    entropy_of,
    first_clear_layers,
    first_conflicting_layers,
    has_rates,
)


def grids(runs: Sequence[Run]) -> list[Evidence[SweepRecord]]:
    """Groups that are a grid of widths and depths, not a few networks."""
    return [group for group in fully_connected(runs) if _is_grid(group)]


def _is_grid(group: Evidence[SweepRecord]) -> bool:
    is_large = len(group.records) >= 20 and group.records[0].epochs_trained > 1
    return is_large and len(group.widths) >= 3 and len(group.depths) >= 3


def _accuracy_after_epoch_1(record: SweepRecord) -> float:
    return record.history.test_accuracy[1]


def _loss_of_epoch_1(record: SweepRecord) -> float:
    return finite(record.history.train_loss[1])


def _entropy_after_epoch_1(record: SweepRecord) -> float:
    return last_entropy(record, 1)


Score = Callable[[SweepRecord], float]
# Rules that cost nothing more: by which number the lowest are stopped first.
STOPPED_FIRST: dict[str, Score] = {
    "the largest depth / width": lambda record: -record.depth / record.width,
    "the lowest accuracy after epoch 1": _accuracy_after_epoch_1,
}
# What is known after the first epoch, as H is.
EARLY: dict[str, Score] = {
    "H^L after epoch 1": _entropy_after_epoch_1,
    **FREE,
    "test accuracy after epoch 1": _accuracy_after_epoch_1,
    "training loss of epoch 1": _loss_of_epoch_1,
}


def trial_on_grid(
    group: Evidence[SweepRecord],
    holds: Callable[[list[SweepRecord]], bool | None],
    lacking: str,
) -> Trial:
    """By seed; by width where there is one seed."""
    if select.seeds(group.records) > 1:
        return trial_by_seed(group.records, holds, lacking)
    judged = [holds(group.only(width=width)) for width in group.widths]
    return trial_of([held for held in judged if held is not None], "width", lacking)


class Prediction(NamedTuple):
    """How well the boundary of figure 1 predicts.

    balanced: accuracy of saying which networks conflict, mean of those that do and do not
    right: share of all networks on the right side
    area: under the curve, of saying which are near the best of their width
    cost: share of the grid's FLOPs
    """

    balanced: float
    right: float
    area: float
    cost: float

    @property
    def is_defined(self) -> bool:
        return not math.isnan(self.balanced) and not math.isnan(self.area)

    @property
    def reached(self) -> bool:
        """The criterion of C10."""
        return self.balanced >= 0.9 and self.area >= 0.8 and self.cost <= 0.05

    @property
    def text(self) -> str:
        return (
            f"balanced accuracy {self.balanced:.3f} ({100 * self.right:.1f} % of networks on the "
            f"right side); AUC {self.area:.3f}"
        )


def _conflicts_ever(record: SweepRecord) -> bool:
    """Whether H^L > 0 after some epoch."""
    return max(last_entropies(record)) > 0


def _conflicts_clearly(record: SweepRecord) -> bool:
    """Whether the last layer's conflict rate is above `CLEAR_RATE` after some epoch."""
    return max(map(finite, record.history.last("conflict_rate")[1:])) > CLEAR_RATE


def _prediction(
    records: Sequence[SweepRecord], first_layers: FirstLayers, conflicts: Callable[..., bool]
) -> Prediction:
    predicted = predicted_by_boundary("boundary", records, first_layers)
    actual = [conflicts(record) for record in records]
    deepest = select.only(records, depth=max(select.depths(records)))
    spent = sum(record.flops for record in deepest)  # one epoch
    return Prediction(
        balanced=balanced_accuracy(predicted.conflicts, actual),
        right=fmean(a == b for a, b in zip(predicted.conflicts, actual, strict=True)),
        area=area_under_curve(predicted.margins, are_near_the_best(records)),
        cost=spent / sum(map(whole_flops, records)),
    )


def _prediction_by_any_pair(records: Sequence[SweepRecord]) -> Prediction:
    return _prediction(records, first_conflicting_layers, _conflicts_ever)


def boundary_predicts(group: Evidence[SweepRecord]) -> Finding:
    records = group.records
    found = _prediction_by_any_pair(records)
    ours = f"{found.text}; cost {100 * found.cost:.1f} % of the grid's FLOPs"
    lacking = ""
    if not found.is_defined:
        lacking = "these are all alike in one of the two"
    details = [_prediction_by_rate(records), _early_signals(records)]
    if found.is_defined:
        details += beside_what_is_free(records, list(map(_conflicts_ever, records)))
        details += over_probe_sizes(group, records, _boundary_in_words)
    trial = trial_on_grid(group, _is_predicted, lacking)
    return finding_on(group, ours, found.reached, trial, details=details)


def _boundary_in_words(records: Sequence[SweepRecord]) -> str:
    """The depth from which networks of each width conflict, and how well it predicts."""
    depths = ", ".join(
        f"{width}: {'none' if depth is None else f'{depth:g}'}"
        for width, depth in boundary(records).items()
    )
    return f"boundary by width {depths}, {_prediction_by_any_pair(records).text}"


def _is_predicted(records: Sequence[SweepRecord]) -> bool | None:
    found = _prediction_by_any_pair(records)
    return found.reached if found.is_defined else None


def _prediction_by_rate(records: Sequence[SweepRecord]) -> str:
    if not all(map(has_rates, records)):
        return f"{BY_RATE}: {NO_RATES}"
    return f"{BY_RATE}: {_prediction(records, first_clear_layers, _conflicts_clearly).text}"


def _early_signals(records: Sequence[SweepRecord]) -> str:
    """How what is known early goes with the accuracy at the end."""
    final = [accuracy_of(record) for record in records]
    texts = [
        f"{name} {spearman_text([value_of(record) for record in records], final)}"
        for name, value_of in EARLY.items()
    ]
    return (
        f"Spearman with the accuracy at the end ({accuracy_epochs_text(records)}), 95 % interval, "
        f"n = {len(records)}: {', '.join(texts)}"
    )


def entropy_predicts_accuracy(group: Evidence[SweepRecord]) -> Finding:
    entropy, accuracy = _entropies_and_accuracies(group.records)
    found = spearman_estimate(entropy, accuracy)
    lacking = "these all have the same" if math.isnan(found.mean) else ""
    trial = trial_on_grid(group, _are_correlated, lacking)
    if lacking:
        return finding_on(group, "H^L is the same everywhere", False, trial)
    ours = (
        f"Spearman {found.mean:.2f}, 95 % interval {found.low:.2f} to {found.high:.2f}, "
        f"n = {len(accuracy)} "
        f"(H^L: mean over all epochs; accuracy: {accuracy_epochs_text(group.records)})"
    )
    reached = _is_clearly_negative(found)
    details = [_at_other_times(group.records), _without_measuring(group.records)]
    return finding_on(group, ours, reached, trial, details=details)


def _entropies_and_accuracies(records: Sequence[SweepRecord]) -> tuple[list[float], list[float]]:
    entropies = [finite(entropy_of(record)) for record in records]
    return entropies, [accuracy_of(record) for record in records]


def _are_correlated(records: Sequence[SweepRecord]) -> bool | None:
    """The criterion of C11; None where it is not defined."""
    entropy, accuracy = _entropies_and_accuracies(records)
    found = spearman_estimate(entropy, accuracy)
    return None if math.isnan(found.mean) else _is_clearly_negative(found)


def _is_clearly_negative(correlation: Estimate) -> bool:
    return correlation.mean <= -0.5 and correlation.high < 0


def _at_other_times(records: Sequence[SweepRecord]) -> str:
    """The correlation of figure 5 for H^L at one time alone, and what its mean adds."""
    final = [accuracy_of(record) for record in records]
    mean, _ = _entropies_and_accuracies(records)
    by_shape = [record.depth / record.width for record in records]
    texts = [
        f"after {time} {spearman_text([last_entropy(r, epoch) for r in records], final)}"
        for time, epoch in (("epoch 1", 1), ("the last epoch", -1))
    ]
    more = spearman_difference([-entropy for entropy in mean], [-s for s in by_shape], final)
    return (
        f"H^L {', '.join(texts)}; its mean over the epochs correlates more than depth / width by "
        f"{more.text(signed=True)}, bootstrap over networks"
    )


def _without_measuring(records: Sequence[SweepRecord]) -> str:
    """The correlation of figure 5 for what is known before any training."""
    accuracy = [accuracy_of(record) for record in records]
    texts = [
        f"{name} {spearman_text([value_of(record) for record in records], accuracy)}"
        for name, value_of in FREE.items()
    ]
    return f"a correlation, no cause; what costs nothing: {', '.join(texts)}"


def stopped_networks_are_not_the_best(group: Evidence[SweepRecord]) -> Finding | None:
    near = 0.98 * math.log(group.records[0].num_classes)
    stopped = [record for record in group.records if last_entropy(record, 1) >= near]
    if not stopped:
        return None
    best = max(map(accuracy_of, group.records))
    closest = max(map(accuracy_of, stopped))
    ours = (
        f"{len(stopped)} of {len(group.records)} networks would be stopped; the best of them "
        f"ends at {100 * closest:.1f} %, the best of all at {100 * best:.1f} %; "
        f"saved: {100 * _saved_share(stopped, group.records):.0f} % of the grid's FLOPs "
        f"(accuracy: {accuracy_epochs_text(group.records)})"
    )
    held = [accuracy_of(record) < best - 0.05 for record in stopped]
    trial = trial_of(held, "stopped network")
    details = [_stopped_otherwise(group.records, len(stopped))]
    return finding_on(group, ours, closest < best - 0.05, trial, stopped, details)


def _saved_share(stopped: Sequence[SweepRecord], records: Sequence[SweepRecord]) -> float:
    """Of the grid's FLOPs, by stopping these after their first epoch."""
    return sum(map(stopped_flops, stopped)) / sum(map(whole_flops, records))


def whole_flops(record: SweepRecord) -> float:
    """Of the whole training, up to a factor that is the same for all networks."""
    return record.flops * record.epochs_trained


def stopped_flops(record: SweepRecord) -> float:
    """Of these, what is saved by stopping after the first epoch."""
    return record.flops * (record.epochs_trained - 1)


def _stopped_otherwise(records: Sequence[SweepRecord], number: int) -> str:
    """What as many networks would be, stopped by what costs nothing more."""
    texts = []
    for name, value_of in STOPPED_FIRST.items():
        stopped = sorted(records, key=value_of)[:number]
        closest = max(map(accuracy_of, stopped))
        saved = _saved_share(stopped, records)
        texts.append(f"those of {name}: best {100 * closest:.1f} %, saved {100 * saved:.0f} %")
    return f"as many stopped by other rules: {'; '.join(texts)}"
