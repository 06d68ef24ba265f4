"""Tables of a sweep: `table.csv`, `table.md` and `layers.csv`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cbundles import bits
from cbundles.config import CONVOLUTIONAL, layers_of_block
from cbundles.readings import POOLED
from cbundles.records import OWN_READING, Layers, MeasuredRecord, Number, SweepHistory, SweepRecord
from cbundles.report import summary
from cbundles.report.table import MISSING, Column, Row, Table, distinct_keys, formatted


def network_table(rows: Sequence[Row], narrow: bool = False) -> Table:
    """A line for each network. Columns: the usual ones, after those in which rows differ although
    their depth, width and seed may agree. narrow: without size and time, for terminals."""
    settings = ("dataset", "model", "epochs", *summary.SETTINGS)
    differing = [key for key in settings if len({row[key] for row in rows}) > 1]
    differing += _differing_keywords(rows)
    usual = [column for column in USUAL_COLUMNS if column != WIDTH or any(r["width"] for r in rows)]
    columns = [_setting_column(key) for key in differing] + usual
    columns += [_further_column(key) for key in distinct_keys(rows) if _is_further(key)]
    if all(row["conflict_rate"] is None for row in rows):  # written before there were rates
        columns = [column for column in columns if column not in ONLY_WITH_RATES]
    if not any("headroom_last" in row for row in rows):
        columns = [column for column in columns if column not in ONLY_WITH_HEADROOM]
    if narrow:
        columns = [column for column in columns if column not in SIZE_AND_TIME]
    families = {row["model"] for row in rows}
    if families.isdisjoint(CONVOLUTIONAL):
        columns.remove(FIRST_BLOCK)
    elif families <= set(CONVOLUTIONAL):
        columns.remove(FIRST_LAYER)
    return Table(rows, columns)


def _differing_keywords(rows: Sequence[Row]) -> list[str]:
    """Columns of keywords of users' architectures that say something."""
    keys = [key for key in distinct_keys(rows) if summary.is_of_build(key)]
    own_depth = f"{summary.OF_ARCHITECTURE}depth"
    if all(row.get(own_depth) == str(row["depth"]) for row in rows):
        keys = [key for key in keys if key != own_depth]
    return [key for key in keys if len({row.get(key) for row in rows}) > 1]


def _is_further(key: str) -> bool:
    """Whether a column is one of `_further_column`; of test accuracies people get the usual one."""
    quantity, bracket, _ = key.partition("[")
    return bool(bracket) and quantity in QUANTITIES


def _further_column(key: str) -> Column:
    """Of a further reading, or of a step of the first epoch, which stands in brackets."""
    quantity, _, rest = key.partition("[")
    template = "{:.3f}" if quantity == "bundle_entropy" else "{:.2g}"
    which = rest.removesuffix("]")
    title = f"{QUANTITIES[quantity]}, {which}"
    if not which.startswith("step "):
        title = f"mean {QUANTITIES[quantity]}, {which}"
    return _number(key, title, formatted(key, template))


def _setting_column(key: str) -> Column:
    def show(row: Row) -> str:
        value = row.get(key)
        if value is None:
            return MISSING
        return f"{value:g}" if isinstance(value, float) else str(value)

    title = key.removeprefix(summary.OF_ARCHITECTURE)
    if title != key:
        return Column(key, f"build: {title}", show, to_the_right=True)
    return Column(key, title.replace("_", " "), show, to_the_right=True)


def _number(key: str, title: str, show: Callable[[Row], str] | None = None) -> Column:
    return Column(key, title, show, to_the_right=True)


def _show_entropy(row: Row) -> str:
    return "diverged" if row["diverged"] else formatted("bundle_entropy_last", "{:.3f}")(row)


def _show_first_block(row: Row) -> str:
    block = row["first_conflicting_block"]
    if row["first_conflicting_layer"] == POOLED:
        return "pooled features"
    if block is None:
        return MISSING
    first, second = layers_of_block(block)
    return f"{block} (layers {first} and {second})"


def _show_headroom(row: Row) -> str:
    found = row.get("headroom_last")
    return MISSING if found is None else bits.in_short(found)


QUANTITIES = {"bundle_entropy": "H^L", "conflict_rate": "conflict rate"}
# Whatever says how a network is, says it after the last epoch; means stand in table.csv.
RATE_LAST = _number(
    "conflict_rate_last", "conflict rate, last epoch", formatted("conflict_rate_last", "{:.2g}")
)
HEADROOM_LAST = _number("headroom_last", "headroom [bits], last epoch", _show_headroom)
HEADROOM_LAYER = _number("headroom_layer_last", "least in layer")
CLEAR_FIRST = _number("first_clear_layer", "layer of first conflict, epoch 1")
CLEAR_LAST = _number("first_clear_layer_last", "layer of first conflict, last epoch")
FIRST_LAYER = _number("first_conflicting_layer", "layer of first H > 0, epoch 1")
FIRST_BLOCK = _number("first_conflicting_block", "block of first H > 0, epoch 1", _show_first_block)
ONLY_WITH_RATES = (RATE_LAST, CLEAR_FIRST, CLEAR_LAST)
ONLY_WITH_HEADROOM = (HEADROOM_LAST, HEADROOM_LAYER)
SIZE_AND_TIME = (
    _number("parameters", "parameters", formatted("parameters", "{:,}")),
    _number("seconds_per_epoch", "s/epoch", formatted("seconds_per_epoch", "{:.2f}")),
)
WIDTH = _number("width", "width")
USUAL_COLUMNS = [
    WIDTH,
    _number("depth", "depth"),
    _number("seed", "seed"),
    _number(
        "test_accuracy_last",
        "accuracy, last epoch",
        formatted("test_accuracy_last", "{:.1f} %", 100),
    ),
    _number("bundle_entropy_last", "H^L, last epoch", _show_entropy),
    RATE_LAST,
    HEADROOM_LAST,
    HEADROOM_LAYER,
    CLEAR_LAST,
    CLEAR_FIRST,
    FIRST_LAYER,
    FIRST_BLOCK,
    *SIZE_AND_TIME,
]


def network_page(name: str, rows: Sequence[Row], notes: Sequence[str], answer: str) -> str:
    """The table in Markdown, under the run's name, what it answers, and how it was made."""
    made = "".join(f"- {note}\n" for note in notes)
    return f"# {name}\n\n{answer}\n{network_table(rows).markdown()}\n{made}"


def layer_rows(
    record: SweepRecord, with_steps: bool = False, with_headroom: bool = False
) -> list[Row]:
    """One row for each measurement of each layer in each reading; epoch 0 is the initial network.
    Of a VGG or ResNet the outputs of blocks are measured: there a row names a block and the layers
    in it. with_steps: also those within the first epoch, which have a step and no epoch.
    with_headroom: in a column of its own, which only the own reading fills."""
    rows = []
    for epoch in range(len(record.history)):
        when = {"epoch": epoch, "step": None} if with_steps else {"epoch": epoch}
        rows += measured_rows(record, record.history, epoch, when, with_headroom)
    if with_steps and record.first_epoch is not None:
        for evaluation, step in enumerate(record.first_epoch.step):
            when = {"epoch": None, "step": step}
            rows += measured_rows(record, record.first_epoch, evaluation, when, with_headroom)
    return rows


def measured_rows(
    record: SweepRecord | MeasuredRecord,
    history: SweepHistory,
    evaluation: int,
    when: Row,
    with_headroom: bool = False,
) -> list[Row]:
    """What one measurement of a network says of each of its layers. when: the columns that tell
    when it was made. with_headroom: see `layer_rows`."""
    rows = []
    headroom = _headroom_by_layer(history, evaluation)
    for reading in (OWN_READING, *history.readings):
        layers = history.reading(reading)
        of_reading = measured_layers(record, layers, evaluation, {**when, "reading": reading})
        if with_headroom:
            for place, row in enumerate(of_reading):
                row["headroom"] = headroom[place] if reading == OWN_READING else None
        rows += of_reading
    return rows


def measured_layers(
    record: SweepRecord | MeasuredRecord, layers: Layers, evaluation: int, when: Row
) -> list[Row]:
    """What one measurement of a network says of each layer. when: the columns that tell when it was
    made, and how."""
    network = {
        "cell": record.id,
        "width": record.width or None,
        "depth": record.depth,
        "seed": record.seed,
        **summary.keywords_of_build(record),
        **when,
    }
    measured = [getattr(layers, quantity)[evaluation] for quantity in MEASURED]
    return [
        {
            **network,
            **_layer_or_block(record, place),
            **dict(zip(MEASURED, values, strict=True)),
        }
        for place, values in enumerate(zip(*measured, strict=True), start=1)
    ]


def _headroom_by_layer(history: SweepHistory, evaluation: int) -> list[Number]:
    """None for each layer where it was not measured."""
    measured = history.headroom[evaluation] if history.headroom else None
    return [None] * len(history.entropy[evaluation]) if measured is None else measured


MEASURED = ("entropy", "conflict_rate", "num_bundles")
POOLED_FEATURES = {"block": None, "layer": "pooled"}


def _layer_or_block(record: SweepRecord | MeasuredRecord, place: int) -> Row:
    if summary.is_pooled(place, record):
        return POOLED_FEATURES
    if isinstance(record, SweepRecord) and record.layers is not None:
        return {"block": None, "layer": place, "name": record.layers[place - 1]}
    if not record.is_convolutional:
        return {"block": None, "layer": place}
    return {"block": place, "layer": "-".join(map(str, layers_of_block(place)))}
