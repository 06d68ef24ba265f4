"""A worked study in sentences, which follow from its numbers."""

from __future__ import annotations

from cbundles.decisions.paired import SIGNIFICANT, fewest_lost, rises, smallest_rise
from cbundles.records.worked import WorkedStudy
from cbundles.report.words import counted, listed
from cbundles.report.worked_study import (
    answers_of,
    best_order,
    blocks_in,
    controls,
    order_of_smaller,
    orders_chosen,
)


def study_sentences(study: WorkedStudy) -> list[str]:
    """What was done, what came out, and what the tests could not have seen."""
    return [
        _about_training(study),
        _about_orders(study),
        f"{_most_that_can_go(study, anew=False)} {_most_that_can_go(study, anew=True)} With the "
        f"latter the whole network has {_percent(study.correct_anew, study)}.",
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
        f"{counted(study.threads, 'thread')} of a machine with other work to do. Time: after / "
        "before, where both networks took turns."
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
        "test images, which had no part in the choice. Controls know nothing of the network."
    )
    without = [f"{words!r} ({why})" for words, why in study.no_order.items()]
    return f"{text} There is no order {listed(without)}." if without else text


def _most_that_can_go(study: WorkedStudy, *, anew: bool) -> str:
    among, beside = orders_chosen(study), controls(study)
    words, number = best_order(among, anew=anew)
    control, by_control = best_order(beside, anew=anew)
    how = "As the network is"
    if anew:
        how = (
            f"With statistics of batch normalisation taken anew, on {study.recalibrated:,} images "
            "of training"
        )
    return (
        f"{how}, {number} of {blocks_in(study)} blocks go before the first significant rise of the "
        f"error by the best of {counted(len(among), 'order')} ({words}), {by_control} by the best "
        f"of {counted(len(beside), 'control')} ({control})."
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
    unseen = [(lost - gained, lost + gained) for lost, gained in answers if not rises(lost, gained)]
    if unseen:
        largest, changed = max(unseen)
        seen = smallest_rise(changed) or fewest_lost()
        text += (
            f"; of {_points(seen, study)} where {changed} images change their answer, as in the "
            f"case of the largest surplus that it called none ({_points(largest, study)} points)"
        )
    return f"{text}."


def _percent(correct: int, study: WorkedStudy) -> str:
    return f"{100 * correct / study.images:.1f} %"


def _points(images: int, study: WorkedStudy) -> str:
    return f"{100 * images / study.images:.2g}"
