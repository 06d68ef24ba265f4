"""Tables of a sweep: `table.csv`, `table.md` and `layers.csv`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cbundles.config import layers_of_block
from cbundles.report import select, summary
from cbundles.report.records import (
    Record,
    course,
    depth_of,
    family_of,
    seed_of,
    width_of,
)
from cbundles.report.table import MISSING, Column, Row, Table, formatted


def network_table(rows: Sequence[Row]) -> Table:
    """A line for each network. Columns: the usual ones, after those in which rows differ although
    their depth, width and seed may agree."""
    settings = ("dataset", "model", "epochs", *summary.SETTINGS)
    differing = [key for key in settings if len({row[key] for row in rows}) > 1]
    columns = [_setting_column(key) for key in differing] + USUAL_COLUMNS
    families = {row["model"] for row in rows}
    if families == {"fc"}:
        columns.remove(FIRST_BLOCK)
    elif "fc" not in families:
        columns.remove(FIRST_LAYER)
    return Table(rows, columns)


def _setting_column(key: str) -> Column:
    def show(row: Row) -> str:
        value = row[key]
        if value is None:
            return MISSING
        return f"{value:g}" if isinstance(value, float) else str(value)

    return Column(key, key.replace("_", " "), show, to_the_right=True)


def _number(key: str, title: str, show: Callable[[Row], str] | None = None) -> Column:
    return Column(key, title, show, to_the_right=True)


def _show_entropy(row: Row) -> str:
    return "diverged" if row["diverged"] else formatted("bundle_entropy", "{:.3f}")(row)


def _show_first_block(row: Row) -> str:
    block = row["first_conflicting_block"]
    if block is None:
        return MISSING
    first, second = layers_of_block(block)
    return f"{block} (layers {first} and {second})"


FIRST_LAYER = _number("first_conflicting_layer", "first conflicting layer")
FIRST_BLOCK = _number("first_conflicting_block", "first conflicting block", _show_first_block)
USUAL_COLUMNS = [
    _number("width", "width"),
    _number("depth", "depth"),
    _number("seed", "seed"),
    _number("test_accuracy", "test accuracy", formatted("test_accuracy", "{:.1f} %", 100)),
    _number("bundle_entropy", "bundle entropy H^L", _show_entropy),
    _number("num_bundles", "bundles", formatted("num_bundles", "{:.0f}")),
    FIRST_LAYER,
    FIRST_BLOCK,
    _number("parameters", "parameters", formatted("parameters", "{:,}")),
    _number("seconds_per_epoch", "s/epoch", formatted("seconds_per_epoch", "{:.2f}")),
]


def network_page(name: str, rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The table in Markdown, under the run's name and the lines that say how it was made."""
    lines = [f"# {name}", "", *(f"- {note}" for note in notes), "", ""]
    return "\n".join(lines) + network_table(rows).markdown()


def layer_rows(record: Record) -> list[Row]:
    """One row for each measurement of each layer; epoch 0 is the initial network. Of a VGG or
    ResNet the outputs of blocks are measured: there a row names a block and the layers in it."""
    network = {
        "cell": record["cell"],
        "width": width_of(record),
        "depth": depth_of(record),
        "seed": seed_of(record),
    }
    rows = []
    measured = zip(course(record, "entropy"), course(record, "num_bundles"), strict=True)
    for epoch, (entropies, bundles) in enumerate(measured):
        for place, (entropy, number) in enumerate(zip(entropies, bundles, strict=True), start=1):
            row = {
                **network,
                "epoch": epoch,
                **_layer_or_block(family_of(record), place),
                "entropy": entropy,
                "num_bundles": number,
            }
            rows.append(row)
    return rows


def _layer_or_block(family: str, place: int) -> Row:
    if family == "fc":
        return {"block": None, "layer": place}
    return {"block": place, "layer": "-".join(map(str, layers_of_block(place)))}


def boundary_lines(records: Sequence[Record]) -> list[str]:
    """For each width of each variant, one sentence: where conflicts begin, and what that costs."""
    lines = []
    for group in summary.variants(records):
        if group.cell.model.family != "fc":
            continue
        which = f" [{group.name}]" if group.name else ""
        for width, depth in summary.boundary(group.records).items():
            networks = select.only(group.records, width=width)
            lines.append(_boundary_line(width, depth, networks) + which)
    return lines


def _boundary_line(width: int, depth: float | None, records: Sequence[Record]) -> str:
    diverged = sum(summary.is_diverged(record) for record in records)
    note = f" ({diverged} diverged)" if diverged else ""
    if depth is None:
        return f"width {width}: no conflicting layer; accuracy {_accuracies(records)}{note}"
    below = [record for record in records if depth_of(record) < depth]
    above = [record for record in records if depth_of(record) >= depth]
    shallower = f"{_accuracies(below)} in shallower networks, " if below else ""
    return (
        f"width {width}: layers conflict from depth {depth:g}; accuracy "
        f"{shallower}{_accuracies(above)} from there on{note}"
    )


def _accuracies(records: Sequence[Record]) -> str:
    percent = [100 * summary.accuracy_of(record) for record in records]
    if len(percent) == 1:
        return f"{percent[0]:.1f} %"
    return f"{min(percent):.1f}-{max(percent):.1f} %"
