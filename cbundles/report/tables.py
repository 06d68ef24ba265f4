"""Tables of a run: `table.csv`, `table.md` and `layers.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from cbundles.config import layers_of_block
from cbundles.report import summary

OWN_READING = "own"
POOLED_FEATURES = {"block": None, "layer": "pooled"}
MARKDOWN_COLUMNS = {
    "width": "width",
    "depth": "depth",
    "seed": "seed",
    "test_accuracy": "test accuracy",
    "bundle_entropy": "bundle entropy H^L",
    "conflict_rate": "conflict rate c^L",
    "num_bundles": "bundles",
    "first_conflicting_layer": "first conflicting layer",
    "first_conflicting_block": "first conflicting block",
    "parameters": "parameters",
    "seconds_per_epoch": "s/epoch",
}


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Comma-separated values with a header; None is an empty field, booleans are true/false. A row
    without some column of another row has an empty field there. Nothing at all for no rows."""
    text = io.StringIO()
    if not rows:
        return ""
    writer = csv.DictWriter(
        text,
        fieldnames=list(dict.fromkeys(key for row in rows for key in row)),
        lineterminator="\n",
    )
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _plain(value) for key, value in row.items()})
    return text.getvalue()


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else value


def layer_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each measurement of each layer; epoch 0 is the initial network. Of a VGG or
    ResNet the outputs of blocks are measured: there a row names a block and the layers in it."""
    rows = []
    for epoch, entry in enumerate(record["history"]):
        rows += measured_rows(record, epoch, entry)
    return rows


def measured_rows(
    record: dict[str, Any], epoch: int, entry: dict[str, Any]
) -> list[dict[str, Any]]:
    """What one measurement of a network says of each of its layers, in the run's own reading and
    in further ones."""
    network = {
        "cell": record["cell"],
        "width": summary.width_of(record),
        "depth": record["config"]["model"]["depth"],
        "seed": record["config"]["training"]["seed"],
        "epoch": epoch,
    }
    rows = []
    for reading, numbers in {OWN_READING: entry, **entry.get("readings", {})}.items():
        no_rates = [None] * len(numbers["entropy"])  # of the first records
        rates = numbers.get("conflict_rate", no_rates)
        measured = zip(numbers["entropy"], rates, numbers["num_bundles"], strict=True)
        for place, (entropy, rate, count) in enumerate(measured, start=1):
            pooled = place > len(entry["entropy"])  # what is behind the last block
            family = record["config"]["model"]["family"]
            where = POOLED_FEATURES if pooled else layer_or_block(family, place)
            values = {"entropy": entropy, "conflict_rate": rate, "num_bundles": count}
            rows.append({**network, "reading": reading, **where, **values})
    return rows


def layer_or_block(family: str, place: int) -> dict[str, Any]:
    if family == "fc":
        return {"block": None, "layer": place}
    return {"block": place, "layer": "-".join(map(str, layers_of_block(place)))}


def columns(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Keys and titles of the columns for people: the usual ones, after those in which rows differ
    although their depth, width and seed may agree."""
    settings = ("dataset", "model", "epochs", *summary.SETTINGS)
    axes = {key: key.replace("_", " ") for key in settings if len({row[key] for row in rows}) > 1}
    columns = {**axes, **MARKDOWN_COLUMNS}
    if all(row["conflict_rate"] is None for row in rows):  # written before there were rates
        del columns["conflict_rate"]
    for key in dict.fromkeys(key for row in rows for key in row):
        if key.startswith(("bundle_entropy[", "conflict_rate[")):
            quantity, _, reading = key.partition("[")
            columns[key] = f"{MARKDOWN_COLUMNS[quantity]} {reading.removesuffix(']')}"
    families = {row["model"] for row in rows}
    if families == {"fc"}:
        del columns["first_conflicting_block"]
    elif "fc" not in families:
        del columns["first_conflicting_layer"]
    return columns


def shown(row: dict[str, Any], columns: dict[str, str]) -> list[str]:
    """A row as people read it."""
    return [_format(key, row.get(key), row["diverged"]) for key in columns]


def _format(key: str, value: Any, diverged: bool) -> str:
    if diverged and key == "bundle_entropy":
        return "diverged"
    if value is None:
        return "-"
    if key == "first_conflicting_block":
        first, second = layers_of_block(value)
        return f"{value} (layers {first} and {second})"
    if key == "test_accuracy":
        return f"{100 * value:.1f} %"
    if key.startswith("bundle_entropy"):
        return f"{value:.3f}"
    if key.startswith("conflict_rate"):
        return f"{value:.2g}"
    if key == "num_bundles":
        return f"{value:.0f}"
    if key == "parameters":
        return f"{value:,}"
    if key in summary.SETTINGS and isinstance(value, float):
        return f"{value:g}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def markdown_text(name: str, rows: Sequence[dict[str, Any]], notes: Sequence[str]) -> str:
    """The table in Markdown, under the run's name and the lines that say how it was made."""
    lines = [f"# {name}", "", *(f"- {note}" for note in notes), ""]
    chosen = columns(rows)
    lines.append("| " + " | ".join(chosen.values()) + " |")
    lines.append("|" + " ---: |" * len(chosen))
    lines += [markdown_row(shown(row, chosen)) for row in rows]
    return "\n".join(lines) + "\n"


def markdown_row(values: Sequence[str]) -> str:
    return "| " + " | ".join(value.replace("|", "\\|") for value in values) + " |"


TEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
       "±": r"$\pm$", "<": "$<$", ">": "$>$"}
)  # fmt: skip


def latex_row(values: Sequence[str]) -> str:
    return " & ".join(value.translate(TEX) for value in values) + r" \\"


def boundary_lines(records: Sequence[dict[str, Any]]) -> list[str]:
    """For each width of each variant, one sentence: where conflicts begin, and what that costs."""
    return [
        _boundary_line(width, depth, group) + (f" [{name}]" if name else "")
        for name, group in summary.variants(records).items()
        if group[0]["config"]["model"]["family"] == "fc"
        for width, depth in summary.boundary(group).items()
    ]


def _boundary_line(width: int, depth: float | None, records: Sequence[dict[str, Any]]) -> str:
    rows = [summary.row(r) for r in records if summary.width_of(r) == width]
    diverged = sum(row["diverged"] for row in rows)
    note = f" ({diverged} diverged)" if diverged else ""
    if depth is None:
        return f"width {width}: no conflicting layer; accuracy {_accuracy(rows)}{note}"
    below = [row for row in rows if row["depth"] < depth]
    above = [row for row in rows if row["depth"] >= depth]
    shallower = f"{_accuracy(below)} in shallower networks, " if below else ""
    return (
        f"width {width}: layers conflict from depth {depth:g}; accuracy "
        f"{shallower}{_accuracy(above)} from there on{note}"
    )


def _accuracy(rows: Sequence[dict[str, Any]]) -> str:
    values = [100 * row["test_accuracy"] for row in rows]
    low, high = min(values), max(values)
    return f"{low:.1f} %" if len(values) == 1 else f"{low:.1f}-{high:.1f} %"
