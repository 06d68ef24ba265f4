"""What one record says in one row, and where the conflicting boundary lies.

The bundle entropy of a run is the mean of H^L(t) over its measurements after an epoch (paper, sec.
2.3), and the test accuracy the mean over its last epochs (sec. 3.1), but never over more than a
quarter of the training: see `epochs_averaged`. The boundary of figure 1 is
found after the first epoch, from the deepest network of each width alone (sec. 3.3).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import Any, NamedTuple

import msgspec

from cbundles.config import FOLDER_PREFIX, SECTIONS, layers_of_block
from cbundles.criterion import CLEAR_RATE
from cbundles.readings import HIDDEN, POOLED
from cbundles.records import (
    MeasuredRecord,
    NetworkRecord,
    Number,
    Record,
    SweepHistory,
    SweepRecord,
)
from cbundles.report import select
from cbundles.report.words import lowest_to_highest

MOST_SETTINGS = 5  # whose figures stand beside one another; of 48 they would fill an album
BUILD = "build"  # the column of a user's function
OF_ARCHITECTURE = f"{BUILD}."  # what columns of its keywords begin with, and of its source


def _settings_by_column() -> dict[str, str]:
    """What defines a network besides data set, size, epochs and seed: column -> key path."""
    paths = [
        f"{section}.{field.name}"
        for section in ("data", "training", "probe")
        for field in dataclasses.fields(SECTIONS[section])
    ]
    # What these ask for has columns of its own.
    further = ("probe.readings", "probe.steps", "probe.headroom", "probe.peers")
    for path in ("data.name", "training.epochs", "training.seed", *further):
        paths.remove(path)
    built = ("model.block", "model.normalisation", "model.gain")
    return {select.label_of(path): path for path in (*paths, *built)}


SETTINGS = _settings_by_column()


def summary_of(record: SweepRecord) -> dict[str, Any]:
    """The table row of a completion record. None stands for "does not exist".

    test_accuracy: mean over the last `epochs_averaged`; test_accuracy_last: after the last.
    bundle_entropy, num_bundles: of the last hidden layer, means over the epochs; the column
    bundle_entropy_initial is before training, bundle_entropy_first after epoch 1,
    bundle_entropy_last after the last. conflict_rate: likewise, of records that have it.
    first_conflicting_layer: with H > 0 after epoch 1; first_clear_layer: with a conflict rate above
    `CLEAR_RATE` then, and first_clear_layer_last: after the last epoch. Columns
    with a name in brackets say the same of the last layer in that further reading; those with a
    step in brackets what was measured after that step of the first epoch. headroom_last: the least
    of all layers after the last epoch, in bits, and headroom_layer_last which layer has it; where
    that was measured. A diverged network (NaN or infinity in a measured layer) has no entropy from
    there on.
    """
    history = record.history
    initial, *entropies = history.last("entropy")
    bundles = [measured[-1] for measured in history.num_bundles[1:]]
    settings = select.settings_that_matter(record)
    return {
        "dataset": record.dataset,
        "model": record.family,
        "depth": record.depth,
        "width": record.width or None,
        "seed": record.seed,
        "epochs": record.epochs_trained,
        "test_accuracy": accuracy_of(record),
        "epochs_averaged": epochs_averaged(record),
        "test_accuracy_last": history.test_accuracy[-1],
        "train_loss": history.train_loss[-1],
        "bundle_entropy": entropy_of(record),
        "bundle_entropy_initial": initial,
        "bundle_entropy_first": entropies[0],
        "bundle_entropy_last": entropies[-1],
        "conflict_rate": _mean_of_known(history.last("conflict_rate")[1:]),
        "conflict_rate_last": _mean_of_known(history.last("conflict_rate")[-1:]),
        "num_bundles": round(fmean(bundles), 1),
        **_first_conflict(record),
        "diverged": is_diverged(record),
        "parameters": record.parameters,
        "bytes": record.bytes,
        **{column: settings[path] for column, path in SETTINGS.items()},
        **keywords_of_build(record),
        "cell": record.id,
        "seconds": round(sum(record.seconds), 3),
        "seconds_per_epoch": round(median(record.seconds[1:]), 3),
        "seconds_probing": round(sum(record.probe_seconds), 3),
        "seconds_compiling": record.compile_seconds,
        **_further_readings(record),
        **_early_steps(record),
        **_headroom_columns(record),
    }


def accuracy_of(record: SweepRecord) -> float:
    """Test accuracy, mean over the last `epochs_averaged` of training."""
    last = epochs_averaged(record)
    return round(fmean(record.history.test_accuracy[-last:]), 6)


def epochs_averaged(record: SweepRecord) -> int:
    """Over how many of the last epochs accuracy is a mean: as many as the network's settings say,
    the paper's 5 by default, but no more than a quarter of the training. In a short training the
    accuracy still rises, and a longer mean would tell of networks that were not there at the end.
    """
    return min(record.cell.training.accuracy_epochs, max(1, record.epochs_trained // 4))


def accuracy_epochs_text(records: Sequence[SweepRecord]) -> str:
    """Which epochs `accuracy_of` is about, in words: ``after epoch 5``, ``mean of the last 2
    epochs``."""
    numbers = sorted({epochs_averaged(record) for record in records})
    if numbers != [1]:
        return f"mean of the last {lowest_to_highest(numbers)} epochs"
    epochs = {record.epochs_trained for record in records}
    return f"after epoch {epochs.pop()}" if len(epochs) == 1 else "after the last epoch"


def is_diverged(record: SweepRecord) -> bool:
    """Whether the last layer had a NaN or infinity after some epoch."""
    return None in record.history.last("entropy")[1:]


def entropy_of(record: SweepRecord) -> float | None:
    """Bundle entropy H^L, mean over the epochs in which it was finite; None without any."""
    entropies = record.history.last("entropy")[1:]
    finite = [entropy for entropy in entropies if entropy is not None]
    return round(fmean(finite), 6) if finite else None


def largest_entropy(records: Sequence[SweepRecord]) -> float:
    """The most that H can be in any of these networks, nats."""
    return max(record.largest_entropy for record in records)


def _mean_of_known(values: Sequence[Number]) -> float | None:
    """Of those that are finite, and were measured, to six digits: one pair among many samples is a
    rate of 1e-9."""
    known = [value for value in values if value is not None]
    return float(f"{fmean(known):.6g}") if known else None


def _further_readings(record: SweepRecord) -> dict[str, float | None]:
    columns = {}
    for name, layers in record.history.readings.items():
        for column, quantity in (("bundle_entropy", "entropy"), ("conflict_rate", "conflict_rate")):
            values = layers.last(quantity)[1:]
            columns[f"{column}[{name}]"] = _mean_of_known(values)
    return columns


def _early_steps(record: SweepRecord) -> dict[str, float | None]:
    """What was measured within the first epoch, where it was asked for."""
    early = record.first_epoch
    columns: dict[str, float | None] = {}
    if early is None:
        return columns
    for evaluation, step in enumerate(early.step):
        columns[f"test_accuracy[step {step}]"] = early.test_accuracy[evaluation]
        columns[f"bundle_entropy[step {step}]"] = early.entropy[evaluation][-1]
        columns[f"conflict_rate[step {step}]"] = early.conflict_rate[evaluation][-1]
    return columns


def _headroom_columns(record: SweepRecord) -> dict[str, float | str | None]:
    """How far the network is from conflicting, where it was asked for."""
    if record.history.headroom is None:
        return {}
    least = least_headroom(record.history, -1)
    if least is None:
        return {"headroom_last": None, "headroom_layer_last": None}
    layer = _layer_at(least.place, record)
    return {"headroom_last": least.bits, "headroom_layer_last": layer}


def keywords_of_build(record: NetworkRecord) -> dict[str, Any]:
    """Of a user's architecture its function, and what that was called with; but for a width, which
    has a column already. Its depth is as its author counts."""
    model = record.cell.model
    if not model.is_own:
        return {}
    keywords = model.keywords_of_build.items()
    return {
        BUILD: model.build,
        f"{OF_ARCHITECTURE}source": model.source,
        **{f"{OF_ARCHITECTURE}{key}": str(value) for key, value in keywords if key != "width"},
    }


def is_of_build(column: str) -> bool:
    """Whether a column is one of `keywords_of_build`."""
    return column == BUILD or column.startswith(OF_ARCHITECTURE)


class Least(NamedTuple):
    """The least headroom of all layers.

    bits: how much that is
    place: the first layer, or block of a VGG or ResNet, that has no more, counted from 1
    """

    bits: float
    place: int


def least_headroom(history: SweepHistory, evaluation: int) -> Least | None:
    """After an evaluation; None where it was not measured, or a layer was not finite."""
    measured = history.headroom[evaluation] if history.headroom else None
    known = [found for found in measured or () if found is not None]
    if measured is None or len(known) < len(measured):
        return None
    return Least(min(known), known.index(min(known)) + 1)


def _first_conflict(record: SweepRecord) -> dict[str, int | str | None]:
    """Where conflicts begin. Of a VGG or ResNet the outputs of blocks are measured, so the layer is
    the first of its block."""
    place = first_conflicting_place(record)
    rates = record.history.conflict_rate
    is_block = record.is_convolutional and not is_pooled(place, record)
    return {
        "first_conflicting_layer": _layer_at(place, record),
        "first_conflicting_block": place if is_block else None,
        "first_clear_layer": _layer_at(first_above(CLEAR_RATE, rates[1]), record),
        "first_clear_layer_last": _layer_at(first_above(CLEAR_RATE, rates[-1]), record),
    }


def _layer_at(place: int | None, record: SweepRecord) -> int | str | None:
    """The layer at a measured place: a layer, the first of a block of a VGG or ResNet, or
    ``pooled``."""
    if place is None or not record.is_convolutional:
        return place
    return POOLED if is_pooled(place, record) else layers_of_block(place)[0]


def place_in_words(place: float, record: SweepRecord) -> str:
    """``layer 12``, ``block 3``, ``the pooled features``."""
    if is_pooled(place, record):
        return "the pooled features"
    return f"{'block' if record.is_convolutional else 'layer'} {place:g}"


def width_in_words(record: SweepRecord) -> str:
    """``width 64``; the name of a user's architecture that has none."""
    return f"width {record.width}" if record.width else str(record.cell.model.build)


def axis_of_places(record: SweepRecord) -> str:
    """What an axis along all that is measured of a network is called."""
    if not record.is_convolutional:
        return "layer"
    last = len(record.history.entropy[0])
    return "block (last: pooled features)" if is_pooled(last, record) else "block"


def is_pooled(place: float | None, record: SweepRecord | MeasuredRecord) -> bool:
    """Whether a measured place, counted from 1, is that of the features behind the last block."""
    return place is not None and record.is_convolutional and place > select.blocks_of(record)


def first_conflicting_place(record: SweepRecord) -> int | None:
    """The first measured layer, or block of a VGG or ResNet, counted from 1, with H^l > 0 after the
    first epoch; None when none conflicts."""
    return first_above(0.0, record.history.entropy[1])


def first_above(limit: float, layers: Sequence[Number]) -> int | None:
    """The number, from 1, of the first layer with more than that; None without any."""
    for place, value in enumerate(layers, start=1):
        if value is not None and value > limit:
            return place
    return None


def first_conflicting_layers(records: Sequence[SweepRecord]) -> list[float]:
    """First conflicting layers after the first epoch; infinite where no layer conflicts."""
    return [first_conflicting_place(record) or math.inf for record in records]


def first_clear_layers(records: Sequence[SweepRecord]) -> list[float]:
    """The same by the conflict rate: first layers with more than `CLEAR_RATE`."""
    rates = [record.history.conflict_rate[1] for record in records]
    return [first_above(CLEAR_RATE, rate) or math.inf for rate in rates]


def first_layers_in_the_mean(records: Sequence[SweepRecord]) -> list[float]:
    """First layers whose mean H over all epochs is above 0, that is, which conflict after any."""
    firsts = []
    for record in records:
        by_layer = zip(*record.history.entropy[1:], strict=True)
        most = [max(entropy or 0.0 for entropy in layer) for layer in by_layer]
        firsts.append(first_above(0.0, most) or math.inf)
    return firsts


def has_rates(record: SweepRecord) -> bool:
    """Whether the conflict rate was measured after every epoch; the first version did not, and
    there is none of a layer that diverged."""
    return not any(None in rates for rates in record.history.conflict_rate[1:])


FirstLayers = Callable[[Sequence[SweepRecord]], list[float]]


def boundary(
    records: Sequence[SweepRecord], first_layers: FirstLayers = first_conflicting_layers
) -> dict[int, float | None]:
    """For each width, the depth from which fully connected networks conflict; None when even the
    deepest does not. first_layers: by what a layer conflicts.

    It is the first conflicting layer of the deepest network after one epoch; the median over seeds,
    where a seed without a conflict counts as infinitely deep. Networks that diverged in that epoch
    do not count.
    """
    result: dict[int, float | None] = {}
    for width in select.widths(records):
        column = select.only(records, width=width)
        deepest = select.only(column, depth=max(record.depth for record in column))
        sound = [record for record in deepest if None not in record.history.entropy[1]]
        middle = median(first_layers(sound)) if sound else math.inf
        result[width] = None if math.isinf(middle) else middle
    return result


def devices(records: Sequence[Record]) -> str:
    """Where networks were trained, as captions name it."""
    return ", ".join(sorted({f"{r.origin.device} ({r.origin.processor})" for r in records}))


def origins(records: Sequence[Record]) -> list[dict[str, Any]]:
    """On what and with what the records were made, each combination once, and how many records."""
    networks: dict[str, int] = {}
    for record in records:
        origin = msgspec.structs.asdict(record.origin)
        del origin["data_fingerprint"]  # told apart from this
        text = json.dumps(origin, sort_keys=True)
        networks[text] = networks.get(text, 0) + 1
    return [{"networks": count, **json.loads(text)} for text, count in networks.items()]


def origin_line(origin: dict[str, Any]) -> str:
    """What made so many records, in a sentence."""
    machine = ", ".join(dict.fromkeys(origin[key] for key in ("platform", "device", "processor")))
    return (
        f"{origin['networks']} trained on {machine}, jax {origin['versions']['jax']}, "
        f"commit {origin['commit']}"
    )


def origin_lines(records: Sequence[Record]) -> list[str]:
    """What made the records, a sentence for each combination of machine and versions."""
    return [origin_line(origin) for origin in origins(records)]


def probe_of(record: NetworkRecord) -> str:
    """How bundles were measured, in a few words for captions."""
    probe = record.cell.probe
    equality = f"within gamma {probe.gamma:g}"
    if probe.equality == "weight_amplitude":
        equality = f"by {probe.resolution} weight update"
        if probe.amplitude == HIDDEN:
            where = "stem's normalisation" if record.is_convolutional else "output layer"
            equality += f" of the largest weight outside the {where}"
    if record.is_convolutional:
        equality += f", {probe.batch_norm} statistics in batch normalisation"
        if probe.last == POOLED:
            equality += ", H^L of the pooled features"
    # How many images there were in a folder is not in the record; all of them is the most.
    most = "at most " if record.dataset.startswith(FOLDER_PREFIX) else ""
    return f"probe of {most}{probe.samples} samples, equality {equality}"


def variants(records: Sequence[SweepRecord]) -> list[select.Group[SweepRecord]]:
    """Records grouped by everything except depth, width and seed."""
    return select.groups(records, across=("model.depth", "model.width", select.SEED))
