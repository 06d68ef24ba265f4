"""What one record says in one row, and where the conflicting boundary lies.

The bundle entropy of a run is the mean of H^L(t) over its measurements after an epoch (paper, sec.
2.3), and the test accuracy the mean over its last epochs (sec. 3.1). The boundary of figure 1 is
found after the first epoch, from the deepest network of each width alone (sec. 3.3).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

from cbundles.config import SECTIONS, layers_of_block
from cbundles.report import select
from cbundles.report.records import (
    Record,
    cell_of,
    course,
    dataset_of,
    depth_of,
    epochs_trained,
    family_of,
    further_readings,
    last_layer_course,
    layers_at,
    seed_of,
    steps_measured,
    value_at,
    width_of,
    within_first_epoch,
)

TIMING_COLUMNS = ("seconds", "seconds_per_epoch", "seconds_probing", "seconds_compiling")


def _settings_by_column() -> dict[str, str]:
    """What defines a network besides data set, size, epochs and seed: column -> key path."""
    paths = [
        f"{section}.{field.name}"
        for section in ("data", "training", "probe")
        for field in dataclasses.fields(SECTIONS[section])
    ]
    further = ("probe.readings", "probe.steps")  # what they ask for has columns of its own
    for path in ("data.name", "training.epochs", "training.seed", *further):
        paths.remove(path)
    return {select.label_of(path): path for path in (*paths, "model.block")}


SETTINGS = _settings_by_column()


def summary_of(record: Record) -> dict[str, Any]:
    """The table row of a completion record. None stands for "does not exist".

    bundle_entropy, num_bundles: of the last hidden layer, means over the epochs; the column
    bundle_entropy_initial is before training, bundle_entropy_first after epoch 1,
    bundle_entropy_last after the last. conflict_rate: likewise, of records that have it. Columns
    with a name in brackets say the same of the last layer in that further reading; those with a
    step in brackets what was measured after that step of the first epoch. A diverged network (NaN
    or infinity in a measured layer) has no entropy from there on.
    """
    initial, *entropies = last_layer_course(record, "entropy")
    bundles = last_layer_course(record, "num_bundles")[1:]
    settings = select.settings_that_matter(record)
    return {
        "dataset": dataset_of(record),
        "model": family_of(record),
        "depth": depth_of(record),
        "width": width_of(record),
        "seed": seed_of(record),
        "epochs": epochs_trained(record),
        "test_accuracy": accuracy_of(record),
        "train_loss": value_at(record, "train_loss", -1),
        "bundle_entropy": entropy_of(record),
        "bundle_entropy_initial": initial,
        "bundle_entropy_first": entropies[0],
        "bundle_entropy_last": entropies[-1],
        "conflict_rate": _mean_of_known(last_layer_course(record, "conflict_rate")[1:]),
        "num_bundles": round(fmean(bundles), 1),
        **_first_conflict(record),
        "diverged": is_diverged(record),
        "parameters": record["parameters"],
        "bytes": record["bytes"],
        **{column: settings[path] for column, path in SETTINGS.items()},
        "cell": record["cell"],
        "seconds": round(sum(record["seconds"]), 3),
        "seconds_per_epoch": round(median(record["seconds"][1:]), 3),
        "seconds_probing": round(sum(record.get("probe_seconds", [])), 3),
        "seconds_compiling": record["compile_seconds"],
        **_further_readings(record),
        **_early_steps(record),
    }


def accuracy_of(record: Record) -> float:
    """Test accuracy, mean over the last epochs of training."""
    last = cell_of(record).training.accuracy_epochs
    return round(fmean(course(record, "test_accuracy")[1:][-last:]), 6)


def is_diverged(record: Record) -> bool:
    """Whether the last layer had a NaN or infinity after some epoch."""
    return None in last_layer_course(record, "entropy")[1:]


def entropy_of(record: Record) -> float | None:
    """Bundle entropy H^L, mean over the epochs in which it was finite; None without any."""
    entropies = last_layer_course(record, "entropy")[1:]
    finite = [entropy for entropy in entropies if entropy is not None]
    return round(fmean(finite), 6) if finite else None


def largest_entropy(records: Sequence[Record]) -> float:
    """The most that H can be in any of these networks, nats: the entropy of the probe set's class
    shares, or, of records that were written without it, ln(classes)."""
    return max(r.get("largest_entropy", math.log(r["num_classes"])) for r in records)


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    """Of those that are finite, and were measured, to six digits: one pair among many samples is a
    rate of 1e-9."""
    known = [value for value in values if value is not None]
    return float(f"{fmean(known):.6g}") if known else None


def _further_readings(record: Record) -> dict[str, float | None]:
    columns = {}
    for name in further_readings(record):
        for column, quantity in (("bundle_entropy", "entropy"), ("conflict_rate", "conflict_rate")):
            values = last_layer_course(record, quantity, name)[1:]
            columns[f"{column}[{name}]"] = _mean_of_known(values)
    return columns


def _early_steps(record: Record) -> dict[str, float | None]:
    """What was measured within the first epoch, where it was asked for."""
    columns = {}
    early = within_first_epoch(record)
    for evaluation, step in enumerate(steps_measured(record)):
        columns[f"test_accuracy[step {step}]"] = value_at(early, "test_accuracy", evaluation)
        for column, quantity in (("bundle_entropy", "entropy"), ("conflict_rate", "conflict_rate")):
            last_layer = layers_at(early, quantity, evaluation)[-1]
            columns[f"{column}[step {step}]"] = last_layer
    return columns


def _first_conflict(record: Record) -> dict[str, int | None]:
    """Where conflicts begin. Of a VGG or ResNet the outputs of blocks are measured, so the layer is
    the first of its block."""
    place = first_conflicting_place(record)
    if family_of(record) == "fc":
        return {"first_conflicting_layer": place, "first_conflicting_block": None}
    layer = None if place is None else layers_of_block(place)[0]
    return {"first_conflicting_layer": layer, "first_conflicting_block": place}


def first_conflicting_place(record: Record) -> int | None:
    """The first measured layer, or block of a VGG or ResNet, counted from 1, with H^l > 0 after the
    first epoch; None when none conflicts."""
    for place, entropy in enumerate(value_at(record, "entropy", 1), start=1):
        if entropy is not None and entropy > 0:
            return place
    return None


def first_conflicting_layers(records: Sequence[Record]) -> list[float]:
    """First conflicting layers after the first epoch; infinite where no layer conflicts."""
    return [first_conflicting_place(record) or math.inf for record in records]


def boundary(records: Sequence[Record]) -> dict[int, float | None]:
    """For each width, the depth from which fully connected networks conflict; None when even the
    deepest does not.

    It is the first conflicting layer of the deepest network after one epoch; the median over seeds,
    where a seed without a conflict counts as infinitely deep. Networks that diverged in that epoch
    do not count.
    """
    result: dict[int, float | None] = {}
    for width in select.distinct(records, width_of):
        column = select.only(records, width=width)
        deepest = select.only(column, depth=max(map(depth_of, column)))
        sound = [record for record in deepest if None not in value_at(record, "entropy", 1)]
        middle = median(first_conflicting_layers(sound)) if sound else math.inf
        result[width] = None if math.isinf(middle) else middle
    return result


def origins(records: Sequence[Record]) -> list[dict[str, Any]]:
    """On what and with what the records were made, each combination once, and how many records."""
    networks: dict[str, int] = {}
    for record in records:
        keys = ("platform", "device", "processor", "versions", "commit")
        origin = json.dumps({key: record[key] for key in keys}, sort_keys=True)
        networks[origin] = networks.get(origin, 0) + 1
    return [{"networks": count, **json.loads(origin)} for origin, count in networks.items()]


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


def probe_of(record: Record) -> str:
    """How bundles were measured, in a few words for captions."""
    probe = cell_of(record).probe
    equality = f"within gamma {probe.gamma:g}"
    if probe.equality == "weight_amplitude":
        equality = f"by {probe.resolution} weight update"
    if family_of(record) != "fc":
        equality += f", {probe.batch_norm} statistics in batch normalisation"
    return f"probe of {probe.samples} samples, equality {equality}"


def variants(records: Sequence[Record]) -> list[select.Group]:
    """Records grouped by everything except depth, width and seed."""
    return select.groups(records, across=("model.depth", "model.width", select.SEED))
