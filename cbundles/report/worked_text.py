"""A worked study in sentences, which follow from its numbers."""

from __future__ import annotations

from cbundles.decisions.paired import SIGNIFICANT, fewest_lost, rises, smallest_rise
from cbundles.records.worked import WorkedStudy
from cbundles.report.words import listed
from cbundles.report.worked_study import (
    answers_of,
    blocks_in,
    controls,
    counts_told,
    longest_orders,
    most_accurate,
    order_of_smaller,
    orders_chosen,
)
from cbundles.wording import counted


def study_sentences(study: WorkedStudy) -> list[str]:
    """What was done, what came out, and what the tests could not have seen."""
    return [
        _about_training(study),
        _about_orders(study),
        _what_came_out(study, anew=False),
        _what_came_out(study, anew=True),
        _what_could_be_seen(study),
        "This is one network (n = 1): the tests say how far the choice of test images reaches, not "
        "what another seed would give. Orders are compared with the whole network, not with each "
        "other, and the best of several is the best on these images.",
    ]


def about_smaller(study: WorkedStudy) -> str:
    """What the table of smaller networks shows."""
    return (
        f"The network without the first blocks of the order {order_of_smaller(study).words!r}, for "
        "good (cbundles.remove). Anew: with statistics taken anew, and p of McNemar's exact test, "
        "two-sided, beside the whole network as it is. MB are those of weights and statistics; "
        f"GFLOPs and milliseconds those of a batch of {study.batch} images, on "
        f"{counted(study.threads, 'thread')} of a machine with other work to do. In each line the "
        "whole network and the smaller one took turns; time is their ratio."
    )


def _about_training(study: WorkedStudy) -> str:
    network = study.network
    return (
        f"The network: {network.description}, trained on all {network.train:,} images of "
        f"{network.data} for {counted(network.epochs, 'epoch')} in batches of {network.batch_size} "
        f"({network.rates}; seed {network.seed}; {network.seconds / 60:.0f} minutes, "
        f"{counted(study.threads, 'thread')} of {study.processor}). It classifies "
        f"{_percent(study.correct, study)} of the {study.images:,} test images correctly."
    )


def _about_orders(study: WorkedStudy) -> str:
    text = (
        f"The orders: blocks were ranked on {study.audited:,} images of training and judged on all "
        "test images, which had no part in the choice. Of blocks with the same score the later one "
        "goes first. Controls know nothing of the network."
    )
    without = [f"{words!r} ({why})" for words, why in study.no_order.items()]
    return f"{text} No order comes from {listed(without)}." if without else text


def _what_came_out(study: WorkedStudy, *, anew: bool) -> str:
    """How many blocks can go, and the accuracy without some."""
    how = f"As the network is ({_percent(study.correct, study)} with all blocks)"
    if anew:
        how = (
            "With statistics of batch normalisation taken anew on "
            f"{study.recalibrated:,} images of training "
            f"({_percent(study.correct_anew, study)} with all blocks)"
        )
    among, beside = orders_chosen(study), controls(study)
    accuracies = []
    for k in counts_told(study):
        words, accuracy = most_accurate(study, among, k, anew=anew)
        control, of_control = most_accurate(study, beside, k, anew=anew)
        by_order = f"{100 * accuracy:.1f} % ({listed(words)})"
        by_control = f"{100 * of_control:.1f} % ({listed(control)})"
        accuracies.append(f"without {k}, {by_order} and {by_control}")
    return (
        f"{how}: {_most_that_can_go(study, anew=anew)} The highest accuracies of an order and of a "
        f"control are, {'; '.join(accuracies)}."
    )


def _most_that_can_go(study: WorkedStudy, *, anew: bool) -> str:
    among, beside = orders_chosen(study), controls(study)
    words, number = longest_orders(among, anew=anew)
    control, by_control = longest_orders(beside, anew=anew)
    of = f"{counted(len(among), 'order')} and {counted(len(beside), 'control')}"
    if number == by_control == 0:
        return f"the error rises significantly without the first block alone, in all {of}."
    return (
        f"before the first significant rise of the error {number} of {blocks_in(study)} blocks go "
        f"at most ({listed(words)}), and {by_control} by a control ({listed(control)}), of {of}."
    )


def _what_could_be_seen(study: WorkedStudy) -> str:
    """How small a rise may be and still be seen, and the largest that was called none."""
    text = (
        f"Each test is McNemar's exact one, two-sided, p < {SIGNIFICANT:g}, not corrected for the "
        f"{blocks_in(study)} of an order. No significant rise is no proof of none: on "
        f"{study.images:,} images the test sees one of {_points(fewest_lost(), study)} points at "
        f"best ({fewest_lost()} lost, none gained)"
    )
    answers = [
        answer
        for order in study.orders
        for anew in (False, True)
        for answer in answers_of(order, anew=anew)
    ]
    unseen = [answer for answer in answers if not rises(*answer)]
    if unseen:
        lost, gained = max(unseen, key=lambda answer: (answer[0] - answer[1], sum(answer)))
        what = "the largest surplus that it called none"
    else:
        lost, gained = min(answers, key=lambda answer: (answer[0] - answer[1], sum(answer)))
        what = "the smallest surplus of all, which it saw"
    seen = smallest_rise(lost + gained) or fewest_lost()
    return (
        f"{text}; of {_points(seen, study)} where {lost + gained} images change their answer, as "
        f"with {what} ({_points(lost - gained, study)} points)."
    )


def _percent(correct: int, study: WorkedStudy) -> str:
    return f"{100 * correct / study.images:.1f} %"


def _points(images: int, study: WorkedStudy) -> str:
    return f"{100 * images / study.images:.2g}"
