"""What further readings, and other probe sets, say of networks that were kept: `readings.csv` and
`probe_sizes.csv`, and the same for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cbundles.records import OWN_READING, MeasuredRecord
from cbundles.report.runs import Run
from cbundles.report.summary import is_of_build, keywords_of_build, least_headroom
from cbundles.report.sweep_tables import measured_layers, measured_rows
from cbundles.report.table import Column, Row, Table, distinct_keys, formatted

READINGS, PROBE_SIZES = "readings.csv", "probe_sizes.csv"


def tables_of(folder: Path) -> list[Path]:
    """The tables that `write_readings` has written there."""
    return [folder / name for name in (READINGS, PROBE_SIZES) if (folder / name).exists()]


def write_readings(run: Run) -> Table:
    """Write the table of a run's kept networks, when some were measured again; returns that of
    their last layers, which people look at first."""
    known = any(record.history.headroom is not None for record in run.measured)
    layers = [row for record in run.measured for row in _kept_layer_rows(record, known)]
    if layers:
        Table(layers).write_csv(run.store.folder / READINGS)
    sized = [row for record in run.measured for row in _sized_layer_rows(record)]
    if sized:
        Table(sized).write_csv(run.store.folder / PROBE_SIZES)
    rows = [row for record in run.measured for row in _network_rows(record)]
    keys = [key for key in distinct_keys(rows) if key != "cell" and _says_something(key, rows)]
    return Table(rows, [_column(key) for key in keys])


def _says_something(key: str, rows: Sequence[Row]) -> bool:
    """Whether people should see a column: a width that there is, a keyword of a user's architecture
    in which networks differ."""
    found = {row.get(key) for row in rows}
    if is_of_build(key):
        return len(found) > 1
    return key != "width" or found != {None}


def _kept_layer_rows(record: MeasuredRecord, with_headroom: bool) -> list[Row]:
    """One row for each reading of each layer, or block, of each network that was kept."""
    rows = []
    for evaluation, epoch in enumerate(record.epochs_trained):
        when = {"epoch": epoch}
        rows += measured_rows(record, record.history, evaluation, when, with_headroom)
    return rows


def _sized_layer_rows(record: MeasuredRecord) -> list[Row]:
    """One row for each size of the probe set, of each layer, or block, of each network that was
    kept."""
    rows = []
    for size, layers in record.by_samples.items():
        for evaluation, epoch in enumerate(record.epochs_trained):
            when = {"epoch": epoch, "samples": size}
            rows += measured_layers(record, layers, evaluation, when)
    return rows


def _network_rows(record: MeasuredRecord) -> list[Row]:
    """One row for each network that was kept: H^L and conflict rate of the last layer in each
    reading, and the least headroom of all layers where it was measured."""
    rows = []
    for evaluation, epoch in enumerate(record.epochs_trained):
        row: Row = {
            "cell": record.id,
            "width": record.width or None,
            "depth": record.depth,
            "seed": record.seed,
            **keywords_of_build(record),
            "epoch": epoch,
            "test_accuracy": record.history.test_accuracy[evaluation],
        }
        for reading in (OWN_READING, *record.history.readings):
            layers = record.history.reading(reading)
            row[f"H^L {reading}"] = layers.entropy[evaluation][-1]
            row[f"c^L {reading}"] = layers.conflict_rate[evaluation][-1]
        for size, layers in record.by_samples.items():
            row[f"H^L {size} samples"] = layers.entropy[evaluation][-1]
            row[f"c^L {size} samples"] = layers.conflict_rate[evaluation][-1]
        if record.history.headroom is not None:
            least = least_headroom(record.history, evaluation)
            row["least_headroom"] = None if least is None else least.bits
        rows.append(row)
    return rows


def _column(key: str) -> Column:
    show = None
    if key == "test_accuracy":
        show = formatted(key, "{:.1f} %", 100)
    elif key.startswith("H^L"):
        show = formatted(key, "{:.3f}")
    elif key.startswith("c^L"):
        show = formatted(key, "{:.2g}")
    elif key == "least_headroom":
        show = formatted(key, "{:g} bits")
    return Column(key, key.replace("_", " "), show, to_the_right=True)
