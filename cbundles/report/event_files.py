"""Event files of TensorBoard, from records: a folder for each network, which TensorBoard shows as a
run of its own beside the others.

The names of the charts are those of a monitor (`monitoring.measurement`), and so is the step: that
of the optimizer. Only of records that do not say how many steps an epoch had it is the epoch.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cbundles import criterion
from cbundles.dashboards import EventWriter, known, scalar_name
from cbundles.records import TRAINED_CASES, EditedRecord, SweepRecord, ToyRecord
from cbundles.records.columns import Number
from cbundles.records.trained import SweepHistory
from cbundles.report import summary
from cbundles.report.runs import Run
from cbundles.store import EVENTS

# What `_folder_name` makes; other folders of events beside these are somebody else's.
OF_A_NETWORK = re.compile(rf".+-[0-9a-f]{{12}}|({'|'.join(TRAINED_CASES)})-\d+(-float64)?")
NO_NAME = re.compile(r"[^\w.=+-]+", re.ASCII)  # what stands for a "-" in names of folders
LONGEST_LABEL = 200  # letters: a name of 255 is the longest; the identity tells networks apart
# What is told of a network that changes its depth, as `EditedHistory` names it.
EVALUATED = (
    "depth",
    "flops",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "held_out_loss",
)


class Point(NamedTuple):
    """What is known of a network in one step of its training.

    seconds: since the training began, as far as that is known.
    """

    step: int
    seconds: float
    scalars: dict[str, Number]


def write_event_files(run: Run) -> Path | None:
    """Write those of all networks of a run in place of earlier ones; returns their folder, None
    where no network has a record."""
    folder = run.store.folder / EVENTS
    _clear(folder)
    wrote = False
    for record in run.records:
        points = _points_of(record)
        if points:
            writer = EventWriter(folder / _folder_name(record), first_step=0)
            for point in points:
                writer.write(point.step, point.seconds, known(point.scalars))
            writer.close()
            wrote = True
    return folder if wrote else None


def _clear(folder: Path) -> None:
    """Remove the event files of earlier times, and the folders that hold nothing else."""
    for stale in list(folder.glob("*/events.out.tfevents.*")):
        if OF_A_NETWORK.fullmatch(stale.parent.name):
            stale.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # something else is there, or another process writes
                stale.parent.rmdir()


def _folder_name(record: object) -> str:
    """Of a network's folder: how people call it, and its identity."""
    if isinstance(record, SweepRecord | EditedRecord):
        label = NO_NAME.sub("-", record.cell.label)[:LONGEST_LABEL]
        return f"{label}-{record.id}"
    assert isinstance(record, ToyRecord)
    return record.id


def _points_of(record: object) -> list[Point]:
    if isinstance(record, SweepRecord):
        return sorted(_of_sweep(record), key=lambda point: point.step)
    if isinstance(record, EditedRecord):
        return sorted(_of_edited(record), key=lambda point: point.step)
    if isinstance(record, ToyRecord) and record.trained is not None:
        return list(_of_toy(record))
    return []


def _of_sweep(record: SweepRecord) -> Iterator[Point]:
    seconds = 0.0
    for epoch, of_epoch in enumerate(record.seconds):
        seconds += of_epoch
        step = epoch * (record.steps_per_epoch or 1)
        yield Point(step, seconds, _scalars(record, record.history, epoch))
    early = record.first_epoch
    if early is not None and record.steps_per_epoch is not None:
        initial, first_epoch = record.seconds[:2]
        for evaluation, step in enumerate(early.step):
            # When exactly was not written down: steps are about equally long.
            then = initial + first_epoch * step / record.steps_per_epoch
            if step < record.steps_per_epoch:  # the last one is that of the epoch
                yield Point(step, then, _scalars(record, early, evaluation))


def _scalars(record: SweepRecord, history: SweepHistory, evaluation: int) -> dict[str, Number]:
    """What one measurement says of a network."""
    rates, entropies = history.conflict_rate[evaluation], history.entropy[evaluation]
    # A layer that diverged has a bundle for each sample, which says nothing.
    bundles = [
        None if entropy is None else number
        for entropy, number in zip(entropies, history.num_bundles[evaluation], strict=True)
    ]
    scalars: dict[str, Number] = {
        "test_accuracy": history.test_accuracy[evaluation],
        "train_loss": history.train_loss[evaluation],
        "conflicting_layers": sum(_is_conflicting(rate) for rate in rates),
        "diverged_layers": entropies.count(None),
    }
    charts: dict[str, Sequence[Number] | None] = {
        "bundle_entropy": entropies,
        "conflict_rate": rates,
        "bundles": bundles,
        "headroom": None if history.headroom is None else history.headroom[evaluation],
    }
    for chart, numbers in charts.items():
        for place, number in enumerate(numbers or (), start=1):
            scalars[scalar_name(chart, _name_of_layer(record, place))] = number
    return scalars


def _is_conflicting(rate: Number) -> bool:
    return rate is not None and criterion.conflicts(criterion.CONFLICT_RATE, rate)


def _name_of_layer(record: SweepRecord, place: int) -> str:
    """``layer 012``, so that their order is that of the network; ``pooled``; of a user's
    architecture what the layer is called there."""
    if record.layers is not None:
        return record.layers[place - 1]
    if summary.is_pooled(place, record):
        return "pooled"
    return f"{'layer' if record.family == 'fc' else 'block'} {place:03}"


def _of_edited(record: EditedRecord) -> Iterator[Point]:
    """A network that changes its depth. Of its layers only those are known that were looked at for
    an edit, while it was tuned."""
    history = record.history
    each = record.seconds / max(1, history.epoch[-1])
    for evaluation, epoch in enumerate(history.epoch):
        scalars: dict[str, Number] = {
            quantity: getattr(history, quantity)[evaluation]
            for quantity in EVALUATED
            if getattr(history, quantity) is not None
        }
        yield Point(epoch * record.steps_per_epoch, epoch * each, scalars)
    for scoring in record.scores:
        entropies = enumerate(scoring.entropy or (), start=1)
        scalars = {scalar_name("bundle_entropy", f"layer {n:03}"): h for n, h in entropies}
        yield Point(scoring.epoch * record.steps_per_epoch, scoring.epoch * each, scalars)


def _of_toy(record: ToyRecord) -> Iterator[Point]:
    """A toy, whose records tell no time."""
    history = record.training.history
    steps = math.ceil(record.points / record.training.batch_size)
    for epoch, entropy in enumerate(history.entropy):
        scalars: dict[str, Number] = {
            "bundle_entropy/layer.001": entropy,
            "bundles/layer.001": history.num_bundles[epoch],
            "accuracy": history.accuracy[epoch],
            "gradient_norm": history.gradient_norm[epoch],
            "deviation": history.deviation[epoch],
        }
        yield Point(epoch * steps, 0.0, scalars)
