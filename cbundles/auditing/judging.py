"""Orders in which residual branches go, judged on samples by which nobody has chosen them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Integer, PyTree

from cbundles.arrays import Numbers
from cbundles.auditing.batches import CutArrays, at_hand, batches_of, checked_labels, length_of
from cbundles.auditing.lesion_findings import RemovalCurve
from cbundles.auditing.lesions import branches_in
from cbundles.auditing.models import Call, subject_of
from cbundles.auditing.output import scores_in
from cbundles.auditing.subject import Subject
from cbundles.auditing.tensors import as_array
from cbundles.auditing.trials import Trials
from cbundles.errors import did_you_mean


@dataclass(frozen=True)
class JudgedOrders:
    """What switching off the first k branches of given orders costs, k = 1, 2, ...

    samples: on which all is judged.
    accuracy: of the whole model, between 0 and 1.
    curves: by the names of the orders.
    accuracy_anew: of the whole model with statistics of batch normalisation taken anew; None where
        that was not wanted.
    curves_anew: the same with statistics taken anew each time, beside the whole model as it is.
    """

    samples: int
    accuracy: float
    curves: Mapping[str, RemovalCurve]
    accuracy_anew: float | None = None
    curves_anew: Mapping[str, RemovalCurve] = field(default_factory=dict)


def judge_orders(
    model: Any,
    orders: Mapping[str, Sequence[str]],
    inputs: Any,
    labels: Integer[Numbers, "samples ..."] | Sequence[int],
    *,
    recalibrate: PyTree | None = None,
    params: PyTree | None = None,
    call: Call | None = None,
    num_classes: int | None = None,
    output: str | int | None = None,
) -> JudgedOrders:
    """Switch off the first branches of each order, more and more of them.

    An audit chooses by its samples, so what it finds flatters itself there; other samples tell what
    its choice is worth. Nothing is trained, and the model is not changed.

    Args:
        model: see `cbundles.audit`, for the other arguments too.
        orders: names of branches, as an audit has them, by any name; not all need be there.
        inputs: on which the orders are judged.
        labels: of these.
        recalibrate: inputs on which statistics of batch normalisation are taken anew for each
            model without branches, such as images of training.

    Raises:
        ValueError: what was given cannot work; the message says why, in a sentence.
    """
    array, classes = checked_labels(as_array(labels), num_classes)
    subject = subject_of(model, params=params, call=call, trainable=None, batch_norm="running")
    batches = at_hand(batches_of(inputs, len(array), whole=False))
    branches = branches_in(subject.sites(batches.first))
    fitting = None if recalibrate is None else _batches_to_fit(subject, recalibrate)
    scores = scores_in(output, classes, array.shape)
    trials = Trials(subject, branches, batches, array, scores, fitting)
    numbered = {by: _numbers(by, order, trials.names) for by, order in orders.items()}
    judged = {by: trials.curve(by, order) for by, order in numbered.items()}
    accuracy = float(trials.whole.mean())
    if fitting is None:
        return JudgedOrders(array.size, accuracy, judged)
    return JudgedOrders(
        samples=array.size,
        accuracy=accuracy,
        curves=judged,
        accuracy_anew=float(trials.whole_anew.mean()),
        curves_anew={by: trials.curve(by, order, anew=True) for by, order in numbered.items()},
    )


def _batches_to_fit(subject: Subject, inputs: PyTree) -> CutArrays:
    """Raises ValueError where the model has no statistics to take anew."""
    if subject.no_statistics is not None:
        raise ValueError(f"recalibrate: {subject.no_statistics}")
    return at_hand(batches_of(inputs, length_of(inputs), whole=False))


def _numbers(by: str, order: Sequence[str], names: Sequence[str]) -> list[int]:
    """The branches of an order, by their numbers. Raises ValueError for one that is not there, and
    for one that goes twice."""
    numbers: list[int] = []
    for name in order:
        if name not in names:
            raise ValueError(f"orders[{by!r}]: no branch {name!r}: {did_you_mean(name, names)}")
        if names.index(name) in numbers:
            raise ValueError(f"orders[{by!r}]: {name} goes twice")
        numbers.append(names.index(name))
    return numbers
