"""Records of earlier formats, brought into today's form before they are read.

    1   without a number: a history is a list of entries, one for each measurement, or in a file of
        a complete run ``{"columns": ...}``; where the record comes from stands among its own keys;
        its kind is said of networks that change their depth and of the toy alone, as ``experiment``
    2   likewise; later ones also say the largest entropy and conflict rates
    3   today's, see `origin` and the modules beside it

Here alone stands what is known of the first two.
"""

from __future__ import annotations

import math
from typing import Any

from cbundles.config import LESION, MEASURE, PRUNE, SWEEP, TOY
from cbundles.records.columns import by_columns
from cbundles.records.origin import Origin
from cbundles.records.studies import HASH_OF_FILE, Comparison
from cbundles.records.toy import PlainNetwork, ToyTraining

Content = dict[str, Any]


def in_todays_form(content: Content, number: int, kind: str) -> Content:
    """The content of a record of an earlier format. ValueError where it is not laid out so.

    number: of its format
    kind: of records that do not say it
    """
    try:
        return _lifted(dict(content), number, kind)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"not laid out as format {number}: {_told(error)}") from None


def _told(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)


def _lifted(content: Content, number: int, kind: str) -> Content:
    content["kind"] = kind = content.pop("experiment", kind)
    if "origin" not in content:  # in a file of a complete run it has been put there
        keys = [key for key in Origin.__struct_fields__ if key in content]
        content["origin"] = origin_of({key: content.pop(key) for key in keys})
    if "history" in content:
        content["history"] = _columns_of_history(content["history"])
    if kind == TOY:
        return _lifted_toy(content)
    if kind == PRUNE:
        keys = [key for key in Comparison.__struct_fields__ if key in content]
        content["compared"] = {key: content.pop(key) for key in keys}
    if kind == LESION:
        add_conflict_rates(content["blocks"])
    if kind in (SWEEP, MEASURE) and isinstance(content["history"], dict):
        add_conflict_rates(content["history"])
    if kind == SWEEP:
        content.setdefault("largest_entropy", math.log(content["num_classes"]))
        content.setdefault("probe_seconds", [])
    if number == 1 and kind in (LESION, PRUNE):
        content["network"] = f"{HASH_OF_FILE}{content['network']}"
    return content


def origin_of(content: Content) -> Content:
    """Where a record comes from; the first ones do not say what the images were."""
    return {"data_fingerprint": None, **content}


def _columns_of_history(history: Any) -> Any:
    """Of a list of measurements, or of columns with their mark; anything else stays as it is."""
    if not isinstance(history, list):
        return _without_mark(history)
    if not all(isinstance(entry, dict) for entry in history):
        return history
    for entry in history:
        add_conflict_rates(entry)
    return by_columns(history)


def _without_mark(columns: Any) -> Any:
    """``{"columns": {...}}`` as what is inside, also inside of that."""
    if not isinstance(columns, dict):
        return columns
    return {key: _without_mark(values) for key, values in columns["columns"].items()}


def add_conflict_rates(measured: Content) -> None:
    """None in the place of each rate that was not measured yet, in one measurement or in columns of
    several: training that continues from an old checkpoint measures rates from there on."""
    for entropy, rate in (
        ("entropy", "conflict_rate"),
        ("scaled_branch_entropy", "scaled_branch_conflict_rate"),
    ):
        values = measured.get(entropy)
        if isinstance(values, list) and rate not in measured:
            measured[rate] = [
                [None] * len(value) if isinstance(value, list) else None for value in values
            ]


def _lifted_toy(content: Content) -> Content:
    """What a toy was trained with, the size of a network that it is compared with, and gradients,
    each apart."""
    content["gradients"] = {
        "inputs": content.pop("gradient_inputs"),
        "values": content.pop("gradients"),
        "autocorrelation": content.pop("autocorrelation"),
    }
    for name, kind in (("trained", ToyTraining), ("plain", PlainNetwork)):
        keys = [key for key in kind.__struct_fields__ if key in content]
        if keys:
            content[name] = {key: content.pop(key) for key in keys}
    return content
