"""What further readings say of networks that were kept: `readings.csv`, and the same for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cbundles.keeping import LAST
from cbundles.report import summary, tables
from cbundles.store import MEASURED, Store, write_atomically


def write_readings(store: Store) -> list[dict[str, Any]]:
    """Write the table of a run's kept networks, when some were measured again; returns the rows of
    last layers, which are what people look at first."""
    records = store.records(MEASURED)
    layers = [row for record in records for row in layer_rows(record)]
    if layers:
        write_atomically(store.folder / "readings.csv", tables.csv_text(layers))
    return [row for record in records for row in network_rows(record)]


def layer_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each reading of each layer, or block, of each network that was kept."""
    rows = []
    for epoch, entry in zip(record["epochs"], record["history"], strict=True):
        rows += tables.measured_rows(record, _number_of(epoch, record), entry)
    return rows


def network_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each network that was kept: H^L and conflict rate of the last layer in each
    reading."""
    rows = []
    for epoch, entry in zip(record["epochs"], record["history"], strict=True):
        row = {
            "cell": record["cell"],
            "width": summary.width_of(record),
            "depth": record["config"]["model"]["depth"],
            "seed": record["config"]["training"]["seed"],
            "epoch": _number_of(epoch, record),
            "test_accuracy": entry["test_accuracy"],
        }
        for reading, numbers in {tables.OWN_READING: entry, **entry["readings"]}.items():
            row[f"H^L {reading}"] = numbers["entropy"][-1]
            row[f"c^L {reading}"] = numbers["conflict_rate"][-1]
        rows.append(row)
    return rows


def table_for_people(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells of `network_rows`; readings that a network does not have are left empty."""
    keys = list(dict.fromkeys(key for row in rows for key in row if key != "cell"))
    titles = [key.replace("_", " ") for key in keys]
    return titles, [[_text(key, row.get(key)) for key in keys] for row in rows]


def _number_of(epoch: str, record: dict[str, Any]) -> int:
    return int(record["config"]["training"]["epochs"] if epoch == LAST else epoch)


def _text(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "test_accuracy":
        return f"{100 * value:.1f} %"
    if key.startswith("c^L"):
        return f"{value:.2g}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
