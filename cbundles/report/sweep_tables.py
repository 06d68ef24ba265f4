"""Tables of a sweep: `table.csv`, `table.md` and `layers.csv`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cbundles.config import layers_of_block
from cbundles.records import OWN_READING, MeasuredRecord, SweepRecord
from cbundles.report import select, summary
from cbundles.report.table import MISSING, Column, Row, Table, distinct_keys, formatted


def network_table(rows: Sequence[Row]) -> Table:
    """A line for each network. Columns: the usual ones, after those in which rows differ although
    their depth, width and seed may agree."""
    settings = ("dataset", "model", "epochs", *summary.SETTINGS)
    differing = [key for key in settings if len({row[key] for row in rows}) > 1]
    columns = [_setting_column(key) for key in differing] + USUAL_COLUMNS
    columns += [_reading_column(key) for key in distinct_keys(rows) if "[" in key]
    if all(row["conflict_rate"] is None for row in rows):  # written before there were rates
        columns.remove(CONFLICT_RATE)
    families = {row["model"] for row in rows}
    if families == {"fc"}:
        columns.remove(FIRST_BLOCK)
    elif "fc" not in families:
        columns.remove(FIRST_LAYER)
    return Table(rows, columns)


def _reading_column(key: str) -> Column:
    """Of a further reading, whose name stands in brackets."""
    quantity, _, reading = key.partition("[")
    template = "{:.3f}" if quantity == "bundle_entropy" else "{:.2g}"
    title = f"{QUANTITIES[quantity]} {reading.removesuffix(']')}"
    return _number(key, title, formatted(key, template))


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


QUANTITIES = {"bundle_entropy": "bundle entropy H^L", "conflict_rate": "conflict rate c^L"}
CONFLICT_RATE = _number(
    "conflict_rate", QUANTITIES["conflict_rate"], formatted("conflict_rate", "{:.2g}")
)
FIRST_LAYER = _number("first_conflicting_layer", "first conflicting layer")
FIRST_BLOCK = _number("first_conflicting_block", "first conflicting block", _show_first_block)
USUAL_COLUMNS = [
    _number("width", "width"),
    _number("depth", "depth"),
    _number("seed", "seed"),
    _number("test_accuracy", "test accuracy", formatted("test_accuracy", "{:.1f} %", 100)),
    _number("bundle_entropy", QUANTITIES["bundle_entropy"], _show_entropy),
    CONFLICT_RATE,
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


def layer_rows(record: SweepRecord) -> list[Row]:
    """One row for each measurement of each layer in each reading; epoch 0 is the initial network.
    Of a VGG or ResNet the outputs of blocks are measured: there a row names a block and the layers
    in it."""
    evaluations = range(len(record.history))
    return [row for epoch in evaluations for row in measured_rows(record, epoch, epoch)]


def measured_rows(record: SweepRecord | MeasuredRecord, evaluation: int, epoch: int) -> list[Row]:
    """What one measurement of a network, after an epoch, says of each of its layers."""
    network = {
        "cell": record.id,
        "width": record.width,
        "depth": record.depth,
        "seed": record.seed,
        "epoch": epoch,
    }
    rows, family = [], record.family
    history = record.history
    blocks = len(history.entropy[evaluation])
    for reading in (OWN_READING, *history.readings):
        layers = history.reading(reading)
        measured = [getattr(layers, quantity)[evaluation] for quantity in MEASURED]
        for place, values in enumerate(zip(*measured, strict=True), start=1):
            pooled = place > blocks  # what is behind the last block
            row = {
                **network,
                "reading": reading,
                **(POOLED_FEATURES if pooled else _layer_or_block(family, place)),
                **dict(zip(MEASURED, values, strict=True)),
            }
            rows.append(row)
    return rows


MEASURED = ("entropy", "conflict_rate", "num_bundles")
POOLED_FEATURES = {"block": None, "layer": "pooled"}


def _layer_or_block(family: str, place: int) -> Row:
    if family == "fc":
        return {"block": None, "layer": place}
    return {"block": place, "layer": "-".join(map(str, layers_of_block(place)))}


def boundary_lines(records: Sequence[SweepRecord]) -> list[str]:
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


def _boundary_line(width: int, depth: float | None, records: Sequence[SweepRecord]) -> str:
    diverged = sum(summary.is_diverged(record) for record in records)
    note = f" ({diverged} diverged)" if diverged else ""
    if depth is None:
        return f"width {width}: no conflicting layer; accuracy {_accuracies(records)}{note}"
    below = [record for record in records if record.depth < depth]
    above = [record for record in records if record.depth >= depth]
    shallower = f"{_accuracies(below)} in shallower networks, " if below else ""
    return (
        f"width {width}: layers conflict from depth {depth:g}; accuracy "
        f"{shallower}{_accuracies(above)} from there on{note}"
    )


def _accuracies(records: Sequence[SweepRecord]) -> str:
    percent = [100 * summary.accuracy_of(record) for record in records]
    if len(percent) == 1:
        return f"{percent[0]:.1f} %"
    return f"{min(percent):.1f}-{max(percent):.1f} %"
