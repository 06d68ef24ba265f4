"""What is known of the networks of a grid early, and how that goes with how they end.

A *place* is a time in training at which all networks were measured; a *signal* is a number that
each has there, turned so that more is better. Claims and the figure of early signals use both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cbundles.records import Number, SweepHistory, SweepRecord
from cbundles.report import select
from cbundles.report.statistics import finite
from cbundles.report.summary import accuracy_of
from cbundles.wording import counted

NEAR_THE_BEST = 0.03  # accuracy below the best of a width


@dataclass(frozen=True)
class Place:
    """A time in training.

    steps: of the optimizer until then
    epoch: how many had ended; None within the first one
    evaluation: which of the measurements there, or within the first epoch, that is
    """

    steps: int
    epoch: int | None
    evaluation: int

    def history_of(self, record: SweepRecord) -> SweepHistory:
        """What holds the measurement."""
        if self.epoch is not None:
            return record.history
        assert record.first_epoch is not None  # `places_measured` looks
        return record.first_epoch

    @property
    def text(self) -> str:
        """``468 steps (epoch 3)``."""
        steps = counted(self.steps, "step")
        return f"{steps} (epoch {self.epoch})" if self.epoch else steps


def places_measured(records: Sequence[SweepRecord]) -> list[Place]:
    """When all of these networks were measured, from the initial weights on; none where records do
    not say how many steps an epoch has."""
    (first, *_) = records
    steps = first.steps_per_epoch
    if steps is None or any(record.steps_per_epoch != steps for record in records):
        return []
    epochs = min(record.epochs_trained for record in records)
    after_epochs = [Place(epoch * steps, epoch, epoch) for epoch in range(epochs + 1)]
    within = first.first_epoch.step if first.first_epoch else []
    if any((record.first_epoch.step if record.first_epoch else []) != within for record in records):
        within = []
    after_steps = [Place(step, None, number) for number, step in enumerate(within)]
    return sorted([*after_epochs, *after_steps], key=lambda place: place.steps)


def nearest_place(known: Sequence[Place], steps: int, within: float) -> Place | None:
    """The place nearest to so many steps; None where it is further away than by this factor."""
    trained = [place for place in known if place.steps]
    nearest = min(trained, key=lambda place: abs(place.steps - steps), default=None)
    if nearest is None or not steps / within <= nearest.steps <= steps * within:
        return None
    return nearest


def place_after_epoch(known: Sequence[Place], epoch: int) -> Place | None:
    """The end of an epoch."""
    return next((place for place in known if place.epoch == epoch), None)


@dataclass(frozen=True)
class Signal:
    """What one may look at.

    read: of a network at a place, so that more is better; None where it was not measured
    """

    name: str
    read: Callable[[SweepRecord, Place], float | None]

    def values(self, records: Sequence[SweepRecord], place: Place) -> list[float] | None:
        """Of each network; None where some have none."""
        found = [self.read(record, place) for record in records]
        known = [value for value in found if value is not None]
        return known if len(known) == len(found) else None


def _less_entropy(record: SweepRecord, place: Place) -> float:
    return -finite(place.history_of(record).entropy[place.evaluation][-1])


def _less_conflict(record: SweepRecord, place: Place) -> float | None:
    rate = place.history_of(record).conflict_rate[place.evaluation][-1]
    return None if rate is None else -rate


def _headroom(record: SweepRecord, place: Place) -> float | None:
    """Of the last hidden layer, as the other signals."""
    measured = place.history_of(record).headroom
    layers = measured[place.evaluation] if measured else None
    return layers[-1] if layers else None


def _test_accuracy(record: SweepRecord, place: Place) -> float:
    return place.history_of(record).test_accuracy[place.evaluation]


def _less_loss(record: SweepRecord, place: Place) -> float | None:
    """None of the initial weights. A loss that is not finite is the worst."""
    if not place.steps:
        return None
    loss = place.history_of(record).train_loss[place.evaluation]
    return -math.inf if loss is None else -loss


# A network of which the last layer is 0 for every sample, or for all but one class, makes use of no
# direction and tells no classes apart.
NO_DIRECTION, NO_CLASSES_APART = 0.0, 1.0


def _effective_rank(record: SweepRecord, place: Place) -> float | None:
    peers = place.history_of(record).peers
    return None if peers is None else _or(peers.effective_rank[place.evaluation], NO_DIRECTION)


def _less_cosine(record: SweepRecord, place: Place) -> float | None:
    peers = place.history_of(record).peers
    return None if peers is None else -_or(peers.class_cosine[place.evaluation], NO_CLASSES_APART)


def _gradient(record: SweepRecord, place: Place) -> float | None:
    """Without any gradient nothing is learned; one that is not finite is as bad."""
    peers = place.history_of(record).peers
    return None if peers is None else _or(peers.gradient_norm[place.evaluation], 0.0)


def _or(value: Number, otherwise: float) -> float:
    return otherwise if value is None else value


def _less_depth(record: SweepRecord, place: Place) -> float:
    return -record.depth


def _less_depth_by_width(record: SweepRecord, place: Place) -> float:
    return -record.depth / record.width


ENTROPY = Signal("H", _less_entropy)
RATE = Signal("conflict rate", _less_conflict)
HEADROOM = Signal("headroom", _headroom)
ACCURACY = Signal("test accuracy", _test_accuracy)
LOSS = Signal("training loss", _less_loss)
RANK = Signal("effective rank", _effective_rank)
COSINE = Signal("cosine between classes", _less_cosine)
GRADIENT = Signal("gradient norm", _gradient)
DEPTH = Signal("depth", _less_depth)
DEPTH_BY_WIDTH = Signal("depth / width", _less_depth_by_width)
MEASURED_SIGNALS = (ENTROPY, RATE, HEADROOM, ACCURACY, LOSS, RANK, COSINE)
FREE_SIGNALS = (DEPTH, DEPTH_BY_WIDTH)  # which cost nothing, and are the same at every place


def are_near_the_best(records: Sequence[SweepRecord]) -> list[bool]:
    """Whether each network ends near the best of its width."""
    best = {
        width: max(map(accuracy_of, select.only(records, width=width)))
        for width in select.widths(records)
    }
    return [accuracy_of(record) >= best[record.width] - NEAR_THE_BEST for record in records]
