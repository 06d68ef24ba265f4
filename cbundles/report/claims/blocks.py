"""Plans N5 and N6, and the second reading of claim C17: which score predicts what a block costs,
and how many can go, once statistics of batch normalisation are taken anew without them.

The plans name questions, not thresholds, so both are told as measured. Beside them stand two
differences with 95 % intervals over seeds: how much better than depth alone the best score predicts
(N5), and how many more blocks it lets go than chance does (N6). The best score is chosen on the
networks that it is judged on, which flatters it; the text says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median_low

from cbundles.decisions import orders, removal
from cbundles.decisions.paired import fewest_lost, smallest_rise
from cbundles.records import LesionRecord
from cbundles.report import fair_lesions, lesions
from cbundles.report.claims.finding import SECOND_READING, Finding, finding_on, trial_of
from cbundles.report.evidence import Evidence
from cbundles.report.fair_lesions import NAMES, NOT_MEASURED, SCORES, FairLesion
from cbundles.report.statistics import Estimate, estimate, spearman
from cbundles.report.words import listed
from cbundles.wording import counted

CHOSEN_HERE = (
    "the best of {number} scores is chosen on the networks that it is judged on, without a "
    "correction"
)


def a_score_predicts_the_cost(group: Evidence[LesionRecord]) -> Finding:
    """Plan N5: Spearman of every score with the cost of each block after statistics were taken
    anew, beside depth alone and the greedy order."""
    studies = fair_lesions.fair_lesions(group.records)
    found = {of: fair_lesions.predictions_anew(studies, of) for of in SCORES}
    defined = {of: rank for of, rank in found.items() if rank.n == len(studies)}
    depth = max(orders.BY_PLACE, key=lambda of: fair_lesions.predictions_anew(studies, of).mean)
    ours = (
        "Spearman with the cost of each block alone after statistics were taken anew, mean over "
        f"{counted(len(studies), 'seed')}: {_ranks_text(found)}; depth alone: "
        f"{_ranks_text({of: fair_lesions.predictions_anew(studies, of) for of in orders.BY_PLACE})}"
        f"; found by trying: {_ranks_text({orders.GREEDY: _greedy(studies)})}"
    )
    if not defined:
        lacking = "no score differs between the blocks of every network"
        return finding_on(group, ours, False, trial_of([], "seed", lacking))
    best = max(defined, key=lambda of: defined[of].mean)
    gains = [s.predicts(best, s.cost_anew) - s.predicts(depth, s.cost_anew) for s in studies]
    difference = estimate(gains)
    ours += (
        f"; the best score is: {NAMES[best]}, beside depth alone ({NAMES[depth]}) "
        f"{difference.text(signed=True)}"
    )
    details = [
        _as_it_is_text(studies),
        _coarser_entropies_text(studies),
        CHOSEN_HERE.format(number=len(defined)),
    ]
    trial = trial_of([gain > 0 for gain in gains], "seed")
    return finding_on(group, ours, difference.low > 0, trial, details=details)


def _greedy(studies: Sequence[FairLesion]) -> Estimate:
    return fair_lesions.predictions_anew(studies, orders.GREEDY)


def _ranks_text(found: Mapping[str, Estimate]) -> str:
    """The highest correlation first, then what is not defined in any network."""
    ordered = sorted(found, key=lambda of: -math.inf if _is_nan(found[of]) else found[of].mean)
    texts = []
    for of in reversed(ordered):
        value = "not defined" if _is_nan(found[of]) else found[of].text()
        texts.append(f"{NAMES[of]} {value}")
    return ", ".join(texts)


def _is_nan(rank: Estimate) -> bool:
    return math.isnan(rank.mean)


def _as_it_is_text(studies: Sequence[FairLesion]) -> str:
    """The same before statistics were taken anew, and how much the costs themselves agree."""
    own = [spearman(lesions.cost(study.record), study.cost_anew) for study in studies]
    found = {
        of: estimate([study.predicts(of, lesions.cost(study.record)) for study in studies])
        for of in (*SCORES, *orders.BY_PLACE)
    }
    return (
        f"with the statistics of the whole network: {_ranks_text(found)}; costs before and after "
        f"statistics were taken anew: {estimate(own).text()}"
    )


def _coarser_entropies_text(studies: Sequence[FairLesion]) -> str:
    """How well H of the branches predicts at each batch size at which some branch conflicts."""
    told = []
    conflicting = fair_lesions.conflicting_by_batch_size(studies, fair_lesions.BRANCHES)
    for size, numbers in conflicting.items():
        if any(numbers):
            ranks = [study.predicts_by_entropy(size) for study in studies]
            told.append(f"{estimate(ranks).text()} at {size:,}")
    if not told:
        return "H of the branches at other batch sizes: it is 0 at all of them"
    return (
        "not among the planned scores, highest H of the branches first when the metric is told "
        f"another batch size, where some conflict: {', '.join(told)}"
    )


def blocks_can_go(group: Evidence[LesionRecord]) -> Finding:
    """Plan N6: the largest share of blocks without a significant rise, once statistics are taken
    anew, by the best score and by greedy removal, beside random blocks."""
    studies = fair_lesions.fair_lesions(group.records)
    best = _best_score(studies)
    if best is None:
        lacking = "no score differs between the blocks of every network"
        return finding_on(group, "no score has an order", False, trial_of([], "seed", lacking))
    gains = [
        study.removable_percent(study.anew(best)) - study.removable_percent(study.anew(removal.ALL))
        for study in studies
    ]
    difference = estimate(gains)
    ours = (
        f"{removable_text(studies)}; best score - random: {difference.text(signed=True)} points of "
        "the share"
    )
    details = [
        _smallest_rise_text(studies, best),
        _other_orders_text(studies),
        *fair_lesions.fair_lines(studies),
        CHOSEN_HERE.format(number=len(_ranked(studies))),
    ]
    trial = trial_of([gain > 0 for gain in gains], "seed")
    return finding_on(group, ours, difference.low > 0, trial, details=details)


def second_reading(records: Sequence[LesionRecord]) -> str:
    """What stands beside claim C17: how much can go once statistics are taken anew."""
    studies = fair_lesions.fair_lesions(records)
    if len(studies) < len(records):
        return f"{SECOND_READING}{NOT_MEASURED}"
    conflicting = [len(lesions.branch_groups(record)[removal.CONFLICTING]) for record in records]
    told = [] if any(conflicting) else ["no branch conflicts, so the claim is not testable here"]
    told.append(removable_text(studies))
    return f"{SECOND_READING}{'; '.join(told)}"


def removable_text(studies: Sequence[FairLesion]) -> str:
    """The largest shares without a significant rise of each network, with statistics taken anew."""
    best = _best_score(studies)
    by_score = "" if best is None else f"{_shares(studies, best)} by the best score ({NAMES[best]})"
    parts = [
        by_score,
        f"{_shares(studies, orders.GREEDY)} greedily",
        f"{_shares(studies, removal.ALL)} drawn at random",
    ]
    return (
        "with statistics taken anew and no weight touched, without a significant rise of the error "
        "beside the whole network with statistics taken anew, too, "
        f"{', '.join(part for part in parts if part)}"
    )


def _ranked(studies: Sequence[FairLesion]) -> list[str]:
    """The scores that order the blocks of every network."""
    return [of for of in SCORES if all(study.anew(of) for study in studies)]


def _best_score(studies: Sequence[FairLesion]) -> str | None:
    """The score by which most blocks can go, mean over the networks."""

    def mean_share(of: str) -> float:
        return estimate([study.removable_percent(study.anew(of)) for study in studies]).mean

    return max(_ranked(studies), key=mean_share, default=None)


def _shares(studies: Sequence[FairLesion], of: str) -> str:
    """``17, 25 and 8 %``."""
    shares = [f"{study.removable_percent(study.anew(of)):.0f}" for study in studies]
    return f"{listed(shares)} %"


def _other_orders_text(studies: Sequence[FairLesion]) -> str:
    others = [of for of in (*_ranked(studies), *orders.BY_PLACE) if studies[0].anew(of)]
    anew = ", ".join(f"{NAMES[of]} {_shares(studies, of)}" for of in others)
    tried = sorted(studies[0].anew(orders.GREEDY))
    return f"by each order: {anew}; numbers of blocks that were tried: {listed(tried)}"


def _smallest_rise_text(studies: Sequence[FairLesion], best: str) -> str:
    """The smallest rise that the test could have seen where the best score stops."""
    images = studies[0].record.images
    seen = [smallest_rise(_changed_answers(study, best)) for study in studies]
    points = [f"{100 * (surplus or fewest_lost()) / images:.2g}" for surplus in seen]
    return (
        f"on {images:,} test images the test sees a rise of {100 * fewest_lost() / images:.2g} "
        f"points at best, and of {listed(points)} with as many changed answers as the most blocks "
        "that the best score lets go make; no correction for the number of tests"
    )


def _changed_answers(study: FairLesion, of: str) -> int:
    """By the most blocks that can go, or by the fewest that were tried where none can."""
    course = study.anew(of)
    largest = lesions.removable(course) or min(course)
    return median_low([lost + gained for lost, gained in course[largest]])
