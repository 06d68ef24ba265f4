"""Lesions: every residual branch of a model switched off, alone and many at once.

A branch that is off is zero, so that its skip alone remains. Which branches are on is an argument
of one compiled program, in which branches that are off cost nothing; modules of PyTorch run as they
are. The lesioned model is compared with the whole one on the same samples (`trials`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int32

from cbundles.auditing.batches import Batches
from cbundles.auditing.branch_scores import scores_of_branches
from cbundles.auditing.findings import BRANCH, Layer
from cbundles.auditing.lesion_findings import (
    GREEDY,
    RANKINGS,
    Difference,
    Lesion,
    Lesions,
    RemovalCurve,
    corrected,
)
from cbundles.auditing.subject import NoGradient, Scores, Subject
from cbundles.auditing.trials import Trials
from cbundles.decisions.orders import GreedySoFar, one_more_gone
from cbundles.decisions.paired import fewest_lost
from cbundles.decisions.removal import ranking
from cbundles.observe import Site
from cbundles.observe.layers import Sites

SLOPED = ("norm", "first_order")  # the scores that `scores_of_branches` finds, in this order


def branches_in(sites: Sites) -> list[Site]:
    """The branches that can be switched off. Raises ValueError where there is none."""
    found = [site for site in sites.found if site.kind == BRANCH]
    if not found:
        inside = {one.reason for one in sites.skipped if one.kind == BRANCH}
        why = f"; what looks like one is {'; '.join(sorted(inside))}" if inside else ""
        raise ValueError(f"the model has no residual branch to switch off{why}")
    return found


def lesions_of(
    subject: Subject,
    sites: Sites,
    batches: Batches,
    labels: Int32[np.ndarray, "samples ..."],
    scores: Scores,
    layers: Sequence[Layer],
    *,
    by_batch: bool,
) -> Lesions:
    """Switch off each branch, alone and in the order of every ranking.

    layers: that were measured; the entropy and so on of branches among them are scores.
    by_batch: whether the model is normalised by the statistics of the batch anyway.
    """
    if labels.size < fewest_lost():
        raise ValueError(
            f"lesion=True: {labels.size} labels; of fewer than {fewest_lost()} samples no test can "
            "tell what a branch costs"
        )
    branches = branches_in(sites)
    trials = Trials(subject, branches, batches, labels, scores)
    names = trials.names
    alone = trials.differences([(number,) for number in range(len(names))])

    no_anew = subject.no_statistics
    if by_batch:
        no_anew = "each lesion is normalised by its own statistics already"
    anew: list[Difference | None] = [None] * len(names)
    accuracy_anew = None
    if no_anew is None:
        try:
            accuracy_anew = float(trials.whole_anew.mean())
            anew = [trials.difference_anew_from_whole((number,)) for number in range(len(names))]
        except ValueError as error:
            no_anew = str(error)

    known = _known_scores(names, layers)
    no_gradient = None
    try:
        found = scores_of_branches(subject, sites, branches, batches, labels, scores)
        known |= _measured_scores(found, branches)
    except NoGradient as error:
        no_gradient = str(error)
        known |= dict.fromkeys(SLOPED, [None] * len(names))
    single = [
        Lesion(
            name=name,
            difference=alone[number],
            anew=anew[number],
            p_corrected=p,
            scores={score: known[score][number] for score in known},
        )
        for number, (name, p) in enumerate(zip(names, corrected(alone), strict=True))
    ]
    known["cost"] = [difference.points for difference in alone]
    curves, no_curve = _curves(trials, known)
    if no_gradient is not None:
        no_curve |= dict.fromkeys(SLOPED, no_gradient)
    return Lesions(
        samples=labels.size,
        accuracy=float(trials.whole.mean()),
        branches=tuple(single),
        curves=curves,
        no_curve=no_curve,
        accuracy_anew=accuracy_anew,
        no_anew=no_anew,
    )


Known = dict[str, list[float | None]]  # a value for each branch, by the name of the score


def _known_scores(names: Sequence[str], layers: Sequence[Layer]) -> Known:
    """What was measured of branches as layers."""
    by_name = {layer.name: layer for layer in layers}
    measured = [by_name.get(name) for name in names]
    known: Known = {"entropy": [], "conflict_rate": [], "headroom": []}
    for layer in measured:
        known["entropy"].append(None if layer is None else layer.entropy)
        known["conflict_rate"].append(None if layer is None else layer.conflict_rate)
        headroom = None if layer is None else layer.headroom
        known["headroom"].append(None if headroom is None else headroom.bits)
    return known


def _measured_scores(found: Mapping[str, np.ndarray], branches: Sequence[Site]) -> Known:
    """Norms and first-order scores in the order of the branches."""
    values = np.concatenate([found[site.name] for site in branches], axis=1)
    return dict(zip(SLOPED, map(_finite, values), strict=True))


def _finite(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _curves(trials: Trials, known: Known) -> tuple[dict[str, RemovalCurve], dict[str, str]]:
    """A curve by every score that tells branches apart, and a greedy one; and why there is none by
    the others."""
    curves, no_curve = {}, {}
    for name, high_first in RANKINGS.items():
        if len(set(known[name])) > 1 or len(trials.names) == 1:
            curves[name] = trials.curve(name, ranking(known[name], high_first))
        elif known[name][0] is None:
            no_curve[name] = "it was not measured, or is not finite in any branch"
        else:
            no_curve[name] = f"it is {known[name][0]:.3g} in all branches"
    curves[GREEDY] = trials.curve(GREEDY, _greedy_order(trials))
    return curves, no_curve


def _greedy_order(trials: Trials) -> tuple[int, ...]:
    """Each time the branch goes without which, besides those that are gone, the accuracy is the
    highest."""

    def points_lost(variants: Sequence[tuple[int, ...]]) -> list[float]:
        return [difference.points for difference in trials.differences(variants)]

    so_far = GreedySoFar()
    while len(so_far.gone) < len(trials.names):
        so_far = one_more_gone(so_far, len(trials.names), points_lost)
    return so_far.gone
