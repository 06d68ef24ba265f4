"""What lies under a results folder, read back: every run with its completion records."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cbundles import formats
from cbundles.config import AUTOTUNE, GROW, SWEEP, TOY, TUNE
from cbundles.errors import InputError
from cbundles.report.descriptions import require_description
from cbundles.report.records import Record, dataset_of, experiment_of, has_settings
from cbundles.store import CELLS, LESIONS, MEASURED, Store

KINDS = (SWEEP, GROW, TUNE, AUTOTUNE, TOY)


@dataclass(frozen=True)
class Run:
    """One folder.

    description: its run.json
    records: completion records that belong to it (same data; of a sweep or the toy the cells that
        were asked for last, in that order)
    lesions: studies of its trained networks without some blocks
    measured: what further readings say of networks that were kept
    """

    store: Store
    description: dict[str, Any]
    records: list[Record]
    lesions: list[Record] = field(default_factory=list)
    measured: list[Record] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.store.folder.name

    @property
    def kind(self) -> str:
        """One of those of `config`."""
        if "kind" in self.description:
            return str(self.description["kind"])
        experiment = experiment_of(self.records[0])  # the first version did not write it down
        if experiment in (TOY, GROW, TUNE):
            return experiment
        return AUTOTUNE if "attempts" in self.description else SWEEP

    @property
    def by_cell(self) -> dict[str, Record]:
        """The records by the identity of their cell."""
        return {record["cell"]: record for record in self.records}

    @property
    def unfinished(self) -> int:
        """Cells that were asked for and have no record; of an auto-tuning, seeds without an end."""
        if self.kind == AUTOTUNE:
            ended = [*self.description.get("tuned", []), *self.description.get("given_up", [])]
            return len(self.description["attempts"]) - len(ended)
        return len(self.description["cells"]) - len(self.records)


def read_all(root: Path) -> list[Run]:
    """Every run with at least one record, by name. Raises InputError for a damaged one."""
    runs = [read(path.parent) for path in sorted(root.glob("*/run.json"))]
    return [run for run in runs if run.records]


def read(folder: Path) -> Run:
    """One run, perhaps without records. Raises InputError for a folder that is none."""
    store, path = Store(folder), folder / "run.json"
    try:
        description = require_description(json.loads(path.read_text(encoding="utf-8")))
        formats.check(formats.RUN, description, str(path))
        if description.get("kind", SWEEP) not in KINDS:
            raise ValueError(f"kind = {description['kind']!r}; valid: {', '.join(KINDS)}")
        cells = [str(cell) for cell in description["cells"]]
        if "attempts" in description:
            cells = store.ids()
        data = dict(description.get("data", {}))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: no run here (run.json is missing)") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: damaged ({type(error).__name__}: {error}); run its command again"
        ) from None
    kinds = (CELLS, LESIONS, MEASURED)
    return Run(store, description, *(_records_of(store, kind, cells, data) for kind in kinds))


def _records_of(store: Store, kind: str, cells: list[str], data: dict[str, str]) -> list[Record]:
    """The records of a kind that these cells have, of networks trained on this data."""
    present = [cell for cell in cells if store.has(cell, kind)]
    records = [store.record(cell, kind) for cell in present]
    return [record for record in records if _is_of_data(record, data)]


def _is_of_data(record: Record, data: dict[str, str]) -> bool:
    """Whether a record was trained on the images that the run names."""
    if not has_settings(record):
        return True
    expected = data.get(dataset_of(record))
    return expected is None or record.get("data_fingerprint", expected) == expected
