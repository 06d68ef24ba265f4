"""Tables of a run: `table.csv`, `table.md` and `layers.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from cbundles.report import summary

MARKDOWN_COLUMNS = {
    "width": "width",
    "depth": "depth",
    "seed": "seed",
    "test_accuracy": "test accuracy",
    "bundle_entropy": "bundle entropy H^L",
    "num_bundles": "bundles",
    "first_conflicting_layer": "first conflicting layer",
    "parameters": "parameters",
    "seconds_per_epoch": "s/epoch",
}


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Comma-separated values with a header; None is an empty field, booleans are true/false."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _plain(value) for key, value in row.items()})
    return text.getvalue()


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else value


def layer_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each measurement of each layer; epoch 0 is the initial network."""
    return [
        {
            "cell": record["cell"],
            "epoch": epoch,
            "layer": layer,
            "entropy": entropy,
            "num_bundles": count,
        }
        for epoch, entry in enumerate(record["history"])
        for layer, (entropy, count) in enumerate(
            zip(entry["entropy"], entry["num_bundles"], strict=True), start=1
        )
    ]


def shown(row: dict[str, Any]) -> list[str]:
    """A row as people read it, in the order of MARKDOWN_COLUMNS."""
    return [_format(key, row[key], row["diverged"]) for key in MARKDOWN_COLUMNS]


def _format(key: str, value: Any, diverged: bool) -> str:
    if value is None:
        return "diverged" if diverged and key == "bundle_entropy" else "-"
    if key == "test_accuracy":
        return f"{100 * value:.1f} %"
    if key == "bundle_entropy":
        return f"{value:.3f}"
    if key == "num_bundles":
        return f"{value:.0f}"
    if key == "parameters":
        return f"{value:,}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def markdown_text(name: str, rows: Sequence[dict[str, Any]], notes: Sequence[str]) -> str:
    """The table in Markdown, under the run's name and the lines that say how it was made."""
    lines = [f"# {name}", "", *(f"- {note}" for note in notes), ""]
    lines.append("| " + " | ".join(MARKDOWN_COLUMNS.values()) + " |")
    lines.append("|" + " ---: |" * len(MARKDOWN_COLUMNS))
    lines += ["| " + " | ".join(shown(row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def boundary_lines(records: Sequence[dict[str, Any]]) -> list[str]:
    """For each width, one sentence: where conflicts begin, and what that does to the accuracy."""
    lines = []
    for width, depth in summary.boundary(records).items():
        mine = [summary.row(r) for r in records if r["config"]["model"]["width"] == width]
        if depth is None:
            lines.append(f"width {width}: no conflicting layer; accuracy {_accuracy(mine)}")
            continue
        below = [row for row in mine if row["depth"] < depth]
        above = [row for row in mine if row["depth"] >= depth]
        lines.append(
            f"width {width}: layers conflict from depth {depth:g}; accuracy "
            f"{_accuracy(below)} below it, {_accuracy(above)} from there on"
        )
    return lines


def _accuracy(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return "(no network)"
    values = [100 * row["test_accuracy"] for row in rows]
    low, high = min(values), max(values)
    return f"{low:.1f} %" if len(values) == 1 else f"{low:.1f}-{high:.1f} %"
