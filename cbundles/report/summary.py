"""What one record says in one row, and where the conflicting boundary lies.

The bundle entropy of a run is the mean of H^L(t) over its measurements after an epoch (paper, sec.
2.3), and the test accuracy the mean over its last epochs (sec. 3.1). The boundary of figure 1 is
found after the first epoch, from the deepest network of each width alone (sec. 3.3).
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from typing import Any

from cbundles.config import SECTIONS, Cell, layers_of_block

TIMING_COLUMNS = ("seconds", "seconds_per_epoch", "seconds_probing", "seconds_compiling")

SETTINGS = {
    f"probe_{field.name}" if section == "probe" else field.name: (section, field.name)
    for section, kind in SECTIONS.items()
    for field in dataclasses.fields(kind)
    if section not in ("model", "growth", "tuning")
    and field.name not in ("name", "epochs", "readings")  # which change no network
    and (section, field.name) != ("training", "seed")
} | {"block": ("model", "block")}  # fmt: skip


def row(record: dict[str, Any]) -> dict[str, Any]:
    """The table row of a completion record. None stands for "does not exist".

    bundle_entropy, num_bundles: of the last hidden layer, means over the epochs; the column
    bundle_entropy_initial is before training, bundle_entropy_first after epoch 1,
    bundle_entropy_last after the last. conflict_rate: likewise, of records that have it. Columns
    with a name in brackets say the same of the last layer in that further reading. A diverged
    network (NaN or infinity in a measured layer) has no entropy from there on.
    """
    config, history = record["config"], record["history"]
    model, training = config["model"], config["training"]
    after = history[1:]
    entropies = [entry["entropy"][-1] for entry in after]
    measured = [h for h in entropies if h is not None]
    tail = after[-training["accuracy_epochs"] :]
    return {
        "dataset": config["data"]["name"],
        "model": model["family"],
        "depth": model["depth"],
        "width": width_of(record),
        "seed": training["seed"],
        "epochs": len(after),
        "test_accuracy": round(statistics.fmean(e["test_accuracy"] for e in tail), 6),
        "train_loss": after[-1]["train_loss"],
        "bundle_entropy": _mean(measured, 6),
        "bundle_entropy_initial": history[0]["entropy"][-1],
        "bundle_entropy_first": entropies[0],
        "bundle_entropy_last": entropies[-1],
        "conflict_rate": _mean(_last_values(after, "conflict_rate"), 6),
        "num_bundles": _mean([e["num_bundles"][-1] for e in after], 1),
        **_first_conflict(model["family"], after[0]),
        "diverged": len(measured) < len(entropies),
        "parameters": record["parameters"],
        "bytes": record["bytes"],
        **settings(record),
        "cell": record["cell"],
        "seconds": round(sum(record["seconds"]), 3),
        "seconds_per_epoch": round(statistics.median(record["seconds"][1:]), 3),
        "seconds_probing": round(sum(record.get("probe_seconds", [])), 3),
        "seconds_compiling": record["compile_seconds"],
        **_further_readings(after),
    }


def width_of(record: dict[str, Any]) -> int:
    """Neurons of a hidden layer, or filters of the first stage of a VGG or ResNet."""
    model = record["config"]["model"]
    return int(model["width"] if model["family"] == "fc" else model["base_filters"])


def largest_entropy(records: Sequence[dict[str, Any]]) -> float:
    """The most that H can be in any of these networks, nats: the entropy of the probe set's class
    shares, or, of records that were written without it, ln(classes)."""
    return max(r.get("largest_entropy", math.log(r["num_classes"])) for r in records)


def _mean(values: Sequence[float], digits: int) -> float | None:
    return round(statistics.fmean(values), digits) if values else None


def _last_values(entries: Sequence[dict[str, Any]], quantity: str) -> list[float]:
    """A quantity of the last measured layer, where it is known and finite."""
    values = [entry[quantity][-1] for entry in entries if quantity in entry]
    return [value for value in values if value is not None]


def _further_readings(entries: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    columns = {}
    for name in entries[-1].get("readings", {}):
        measured = [entry["readings"][name] for entry in entries]
        for column, quantity in (("bundle_entropy", "entropy"), ("conflict_rate", "conflict_rate")):
            columns[f"{column}[{name}]"] = _mean(_last_values(measured, quantity), 6)
    return columns


def _first_conflict(family: str, entry: dict[str, Any]) -> dict[str, int | None]:
    """Where conflicts begin. Of a VGG or ResNet the outputs of blocks are measured, so the layer is
    the first of its block."""
    place = first_conflicting_place(entry)
    if family == "fc":
        return {"first_conflicting_layer": place, "first_conflicting_block": None}
    layer = None if place is None else layers_of_block(place)[0]
    return {"first_conflicting_layer": layer, "first_conflicting_block": place}


def first_conflicting_place(entry: dict[str, Any]) -> int | None:
    """The first measured layer, or block of a VGG or ResNet, counted from 1, with H^l > 0; None
    when none conflicts."""
    for number, entropy in enumerate(entry["entropy"], start=1):
        if entropy is not None and entropy > 0:
            return number
    return None


def boundary(records: Sequence[dict[str, Any]]) -> dict[int, float | None]:
    """For each width, the depth from which fully connected networks conflict; None when even the
    deepest does not.

    It is the first conflicting layer of the deepest network after one epoch; the median over seeds,
    where a seed without a conflict counts as infinitely deep. Networks that diverged in that epoch
    do not count.
    """
    result: dict[int, float | None] = {}
    for width in sorted({width_of(r) for r in records}):
        column = [r for r in records if width_of(r) == width]
        deepest = max(r["config"]["model"]["depth"] for r in column)
        first = [
            first_conflicting_place(r["history"][1]) or math.inf
            for r in column
            if r["config"]["model"]["depth"] == deepest and None not in r["history"][1]["entropy"]
        ]
        middle = statistics.median(first) if first else math.inf
        result[width] = None if math.isinf(middle) else middle
    return result


def origins(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """On what and with what the records were made, each combination once, and how many records."""
    counted: dict[str, int] = {}
    for record in records:
        keys = ("platform", "device", "processor", "versions", "commit")
        origin = json.dumps({key: record[key] for key in keys}, sort_keys=True)
        counted[origin] = counted.get(origin, 0) + 1
    return [{"networks": count, **json.loads(origin)} for origin, count in counted.items()]


def settings(record: dict[str, Any]) -> dict[str, Any]:
    """What else defines a network, besides data set, depth, width, epochs and seed, as columns."""
    cell = Cell.fromdict(record["config"])
    config = cell.asdict()
    values = {column: config[section][key] for column, (section, key) in SETTINGS.items()}
    values["probe_batch_norm" if cell.model.family == "fc" else "block"] = None
    useless = "probe_resolution" if cell.probe.equality == "gamma" else "probe_gamma"
    return {**values, useless: None}


def probe(record: dict[str, Any]) -> str:
    """How bundles were measured, in a few words for captions."""
    chosen = Cell.fromdict(record["config"]).probe
    equal = f"within gamma {chosen.gamma:g}"
    if chosen.equality == "weight_amplitude":
        equal = f"by {chosen.resolution} weight update"
    if record["config"]["model"]["family"] != "fc":
        equal += f", {chosen.batch_norm} statistics in batch normalisation"
    return f"probe of {chosen.samples} samples, equality {equal}"


def variants(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Records grouped by everything except depth, width and seed, by what tells the groups apart.

    A single group has the name "". Otherwise a name is like ``learning_rate=0.01, epochs=5``.
    """
    everything = [
        {
            "dataset": record["config"]["data"]["name"],
            "model": record["config"]["model"]["family"],
            "epochs": record["config"]["training"]["epochs"],
            "filters": record["config"]["model"].get("base_filters", 64),
            "blocks": Cell.fromdict(record["config"]).unusual.get("model.blocks"),
            **settings(record),
        }
        for record in records
    ]
    differing = [k for k in (everything or [{}])[0] if len({e[k] for e in everything}) > 1]
    groups: dict[str, list[dict[str, Any]]] = {}
    for record, values in zip(records, everything, strict=True):
        given = [key for key in differing if values[key] is not None]
        name = ", ".join(f"{key}={values[key]}" for key in given)
        groups.setdefault(name, []).append(record)
    return groups
