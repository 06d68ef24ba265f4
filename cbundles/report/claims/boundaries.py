"""The boundary of figure 1 as a predictor, and the second reading of claim C10: what it says beyond
predictors that cost nothing.

Two things are predicted of each network: whether it ever conflicts, which balanced accuracy judges,
and whether it ends near the best of its width, which the area under the curve judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cbundles.records import SweepRecord
from cbundles.report.claims.finding import SECOND_READING
from cbundles.report.signals import are_near_the_best
from cbundles.report.statistics import (
    Estimate,
    area_difference,
    area_under_curve,
    balanced_accuracy,
    balanced_accuracy_difference,
)
from cbundles.report.summary import (
    FirstLayers,
    boundary,
    first_above,
    first_conflicting_layers,
)

SEVERAL_PAIRS = 0.02  # nats; a single pair among 2,048 samples makes 0.0007
FREE: dict[str, Callable[[SweepRecord], float]] = {
    "depth": lambda record: record.depth,
    "depth / width": lambda record: record.depth / record.width,
}


@dataclass(frozen=True)
class Predictor:
    """What something says of each network of a grid.

    conflicts: whether it is going to conflict
    margins: how far it is from that; more is better
    remark: how it came about, where that favours it
    """

    name: str
    conflicts: Sequence[bool]
    margins: Sequence[float]
    remark: str = ""


def predicted_by_boundary(
    name: str, records: Sequence[SweepRecord], first_layers: FirstLayers
) -> Predictor:
    """By the depth from which networks of each width conflict."""
    limits = {
        width: math.inf if depth is None else depth
        for width, depth in boundary(records, first_layers).items()
    }
    return Predictor(
        name,
        conflicts=[record.depth >= limits[record.width] for record in records],
        margins=[limits[record.width] - record.depth for record in records],
    )


def _first_layers_with_several_pairs(records: Sequence[SweepRecord]) -> list[float]:
    """First layers with more entropy than a few pairs of samples make, after the first epoch."""
    layers = [record.history.entropy[1] for record in records]
    return [first_above(SEVERAL_PAIRS, entropies) or math.inf for entropies in layers]


def _predicted_by_score(
    name: str, scores: Sequence[float], actual: Sequence[bool], seeds: Sequence[int]
) -> Predictor:
    """By a score that is large where networks conflict, from the threshold on that separates these
    best: nobody could have known it, so this favours the score. How well the thresholds do that
    separate the networks of all other seeds best is told, too."""
    best = _best_threshold(scores, actual)
    remark = ", threshold chosen afterwards"
    if len(set(seeds)) > 1:
        predicted = _predicted_from_other_seeds(scores, actual, seeds)
        remark += f" (from other seeds: {balanced_accuracy(predicted, actual):.3f})"
    return Predictor(
        name,
        conflicts=[score >= best for score in scores],
        margins=[-score for score in scores],
        remark=remark,
    )


def _best_threshold(scores: Sequence[float], actual: Sequence[bool]) -> float:
    def separation(threshold: float) -> float:
        return balanced_accuracy([score >= threshold for score in scores], actual)

    return max(sorted(set(scores)), key=separation)


def _predicted_from_other_seeds(
    scores: Sequence[float], actual: Sequence[bool], seeds: Sequence[int]
) -> list[bool]:
    networks = list(zip(scores, actual, seeds, strict=True))
    thresholds = {}
    for seed in set(seeds):
        others = [(score, conflicts) for score, conflicts, of in networks if of != seed]
        thresholds[seed] = _best_threshold(*zip(*others, strict=True))
    return [score >= thresholds[seed] for score, _, seed in networks]


def beside_what_is_free(records: Sequence[SweepRecord], actual: Sequence[bool]) -> list[str]:
    """The second reading of C10, a sentence for each rival, and whether the boundary is useful.

    actual: whether each network ever conflicts
    """
    ours = predicted_by_boundary("boundary", records, first_conflicting_layers)
    coarser = f"a boundary of H > {SEVERAL_PAIRS:g}"
    rivals = [
        predicted_by_boundary(coarser, records, _first_layers_with_several_pairs),
        *(
            _predicted_by_score(
                name,
                [score_of(record) for record in records],
                actual,
                [record.seed for record in records],
            )
            for name, score_of in FREE.items()
        ),
    ]
    near = are_near_the_best(records)
    texts, of_balanced, of_area = [], [], []
    for rival in rivals:
        balanced = balanced_accuracy_difference(ours.conflicts, rival.conflicts, actual)
        area = area_difference(ours.margins, rival.margins, near)
        of_balanced.append(balanced)
        of_area.append(area)
        texts.append(
            f"{rival.name}: balanced accuracy {balanced_accuracy(rival.conflicts, actual):.3f}"
            f"{rival.remark} (boundary minus this: {balanced.text(signed=True)}); AUC "
            f"{area_under_curve(rival.margins, near):.3f} ({area.text(signed=True)})"
        )
    useful = (
        "useful, which is to beat each of these by more than the 95 % bootstrap interval of the "
        f"difference: by balanced accuracy {_beats_all(of_balanced)}, by AUC {_beats_all(of_area)}"
    )
    return [f"{SECOND_READING}{text}" for text in (*texts, useful)]


def _beats_all(differences: Sequence[Estimate]) -> str:
    if any(math.isnan(difference.low) for difference in differences):
        return "not defined"
    return "yes" if all(difference.low > 0 for difference in differences) else "no"
