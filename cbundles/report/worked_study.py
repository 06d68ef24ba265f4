"""What a worked study says: how many blocks of one network can go by which order, and what is left.

All orders are judged on the same test images, which had no part in choosing them, beside the whole
network as it is (McNemar's exact test, see `decisions.paired`). There is one network, so nothing
here says what another seed would give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cbundles.decisions.paired import rises
from cbundles.errors import InputError
from cbundles.records.worked import BY_NOTHING, FILE, JudgedOrder, WorkedStudy, read_study

SHARES = (0.25, 0.5, 0.75)
Answers = Sequence[tuple[int, int]]  # lost and gained without the first 1, 2, ... blocks


@dataclass(frozen=True)
class StudyFolder:
    """A worked study, and the folder in which it lies."""

    folder: Path
    study: WorkedStudy

    @property
    def name(self) -> str:
        return self.folder.name


def studies_under(root: Path, damaged: list[str]) -> list[StudyFolder]:
    """Every worked study under a results folder, by name. What is damaged is told, and left out."""
    found = []
    for path in sorted(root.glob(f"*/{FILE}")):
        try:
            found.append(StudyFolder(path.parent, read_study(path)))
        except InputError as error:
            damaged.append(str(error))
    return found


def answers_of(order: JudgedOrder, *, anew: bool) -> Answers:
    """anew: with statistics taken anew."""
    if anew:
        return list(zip(order.lost_anew, order.gained_anew, strict=True))
    return list(zip(order.lost, order.gained, strict=True))


def blocks_before_a_rise(answers: Answers) -> int:
    """How many blocks can go until the error rises significantly for the first time."""
    for k, (lost, gained) in enumerate(answers):
        if rises(lost, gained):
            return k
    return len(answers)


def accuracies_of(study: WorkedStudy, order: JudgedOrder, *, anew: bool) -> list[float]:
    """Without the first 0, 1, 2, ... blocks, between 0 and 1."""
    first = study.correct_anew if anew else study.correct
    rest = [study.correct - lost + gained for lost, gained in answers_of(order, anew=anew)]
    return [right / study.images for right in (first, *rest)]


def orders_chosen(study: WorkedStudy) -> list[JudgedOrder]:
    """Those that something about the network has chosen."""
    return [order for order in study.orders if order.chosen != BY_NOTHING]


def controls(study: WorkedStudy) -> list[JudgedOrder]:
    """Those that know nothing of the network."""
    return [order for order in study.orders if order.chosen == BY_NOTHING]


def order_of_smaller(study: WorkedStudy) -> JudgedOrder:
    """The order whose first blocks the smaller networks lack."""
    return next(order for order in study.orders if order.by == study.removed_by)


def blocks_in(study: WorkedStudy) -> int:
    """How many blocks the whole network has."""
    return len(study.orders[0].order)


def longest_orders(orders: Sequence[JudgedOrder], *, anew: bool) -> tuple[list[str], int]:
    """By which of these orders most blocks can go before a significant rise, in words, and how
    many."""
    removable = {
        order.words: blocks_before_a_rise(answers_of(order, anew=anew)) for order in orders
    }
    most = max(removable.values())
    return [words for words, number in removable.items() if number == most], most


def most_accurate(
    study: WorkedStudy, orders: Sequence[JudgedOrder], k: int, *, anew: bool
) -> tuple[list[str], float]:
    """Which of these orders have the highest accuracy without their first k blocks, in words, and
    that accuracy."""
    accuracies = {order.words: accuracies_of(study, order, anew=anew)[k] for order in orders}
    highest = max(accuracies.values())
    return [words for words, accuracy in accuracies.items() if accuracy == highest], highest


def counts_told(study: WorkedStudy) -> list[int]:
    """Without how many blocks accuracies are told: a quarter of all, half, and three quarters."""
    return sorted({math.ceil(share * blocks_in(study)) for share in SHARES})
