"""What further readings say of networks that were kept: `readings.csv`, and the same for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cbundles.config import Cell
from cbundles.keeping import LAST
from cbundles.report import summary, tables
from cbundles.store import MEASURED, Store, write_atomically

OWN = "own"  # the reading that the run itself judges by


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
        for reading, numbers in _by_reading(entry).items():
            for place, (entropy, rate, count) in enumerate(_measured(numbers), start=1):
                rows.append(
                    {
                        **_network(record, epoch),
                        "reading": reading,
                        **_layer_or_block(record, entry, place),
                        "entropy": entropy,
                        "conflict_rate": rate,
                        "num_bundles": count,
                    }
                )
    return rows


def network_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each network that was kept: H^L and conflict rate of the last layer in each
    reading."""
    rows = []
    for epoch, entry in zip(record["epochs"], record["history"], strict=True):
        row = {**_network(record, epoch), "test_accuracy": entry["test_accuracy"]}
        for reading, numbers in _by_reading(entry).items():
            row[f"bundle_entropy {reading}"] = numbers["entropy"][-1]
            row[f"conflict_rate {reading}"] = numbers["conflict_rate"][-1]
        rows.append(row)
    return rows


def table_for_people(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells of `network_rows`; readings that a network does not have are left empty."""
    keys = list(dict.fromkeys(key for row in rows for key in row if key != "cell"))
    titles = [key.replace("bundle_entropy", "H^L").replace("_", " ") for key in keys]
    return titles, [[_text(key, row.get(key)) for key in keys] for row in rows]


def _by_reading(entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {OWN: entry, **entry.get("readings", {})}


def _measured(numbers: dict[str, Any]) -> list[tuple[float | None, float | None, int]]:
    columns = (numbers["entropy"], numbers["conflict_rate"], numbers["num_bundles"])
    return list(zip(*columns, strict=True))


def _network(record: dict[str, Any], epoch: str) -> dict[str, Any]:
    cell = Cell.fromdict(record["config"])
    return {
        "cell": record["cell"],
        "width": summary.width_of(record),
        "depth": cell.model.depth,
        "seed": cell.training.seed,
        "epoch": cell.training.epochs if epoch == LAST else int(epoch),
    }


def _layer_or_block(record: dict[str, Any], entry: dict[str, Any], place: int) -> dict[str, Any]:
    if place > len(entry["entropy"]):  # behind the last block
        return {"block": None, "layer": "pooled"}
    return tables.layer_or_block(record["config"]["model"]["family"], place)


def _text(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "test_accuracy":
        return f"{100 * value:.1f} %"
    if key.startswith("conflict_rate"):
        return f"{value:.2g}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
