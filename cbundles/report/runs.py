"""What lies under a results folder, read back: every run with its completion records."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cbundles import formats
from cbundles.config import AUTOTUNE, GROW, SWEEP, TOY, TUNE
from cbundles.errors import InputError
from cbundles.report.records import Record, dataset_of, experiment_of, has_settings
from cbundles.sealed import complain
from cbundles.store import CELLS, LESIONS, MEASURED, PRUNED, Store

KINDS = (SWEEP, GROW, TUNE, AUTOTUNE, TOY)


@dataclass(frozen=True)
class Run:
    """One folder.

    description: its run.json
    records: completion records that belong to it (same data; of a sweep or the toy the cells that
        were asked for last, in that order)
    lesions: studies of its trained networks without some blocks
    measured: what further readings say of networks that were kept
    pruned: what became of its networks without some blocks
    """

    store: Store
    description: dict[str, Any]
    records: list[Record]
    lesions: list[Record] = field(default_factory=list)
    measured: list[Record] = field(default_factory=list)
    pruned: list[Record] = field(default_factory=list)

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
    def is_published(self) -> bool:
        """Whether it is one of the repository itself."""
        return self.description.get("published") is True

    @property
    def by_cell(self) -> dict[str, Record]:
        """The records by the identity of their cell."""
        return {record["cell"]: record for record in self.records}

    @property
    def unfinished(self) -> int:
        """Cells that were asked for and have no record; of an auto-tuning, seeds without an end, or
        without the record of an attempt."""
        known = self.by_cell
        if self.kind == AUTOTUNE:
            ended = [*self.description.get("tuned", []), *self.description.get("given_up", [])]
            chains = self.description["attempts"]
            return sum(chain[-1] not in ended or not set(chain) <= set(known) for chain in chains)
        return len(self.description["cells"]) - len(self.records)


def read_all(root: Path) -> tuple[list[Run], list[str]]:
    """Every run with at least one record, by name; and what is damaged, with the reason, which is
    left out."""
    runs: list[Run] = []
    damaged: list[str] = []
    for path in sorted(root.glob("*/run.json")):
        try:
            run = read(path.parent, damaged)
        except InputError as error:
            damaged.append(str(error))
        else:
            if run.records:
                runs.append(run)
    return runs, damaged


def read(folder: Path, damaged: list[str] | None = None) -> Run:
    """One run, perhaps without records. Raises InputError for a folder that is none, and for a
    damaged record; with a list for those, they are told there and left out."""
    store, path = Store(folder, damaged), folder / "run.json"
    store.recover()
    try:
        description = json.loads(path.read_text())
        formats.check(formats.RUN, description, str(path))
        if description.get("kind", SWEEP) not in KINDS:
            raise ValueError(f"kind = {description['kind']!r}; valid: {', '.join(KINDS)}")
        cells = [str(cell) for cell in description["cells"]]
        if "attempts" in description:
            cells = store.ids()
        data = dict(description.get("data", {}))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: no run here (run.json is missing)") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: damaged ({type(error).__name__}: {error}); run its command again"
        ) from None

    def records_of(kind: str, wanted: list[str]) -> list[Record]:
        found = _records_of(store, kind, wanted, damaged)
        return [record for record in found if _is_of_data(record, data)]

    return Run(
        store,
        description,
        records_of(CELLS, cells),
        records_of(LESIONS, cells),
        records_of(MEASURED, cells),
        _records_of(store, PRUNED, store.ids(PRUNED), damaged),
    )


def _records_of(
    store: Store, kind: str, cells: list[str], damaged: list[str] | None
) -> list[Record]:
    """The records of a kind that these cells have."""
    records = []
    for cell in cells:
        if not store.has(cell, kind):
            continue
        try:
            records.append(store.record(cell, kind))
        except InputError as error:
            complain(str(error), damaged)
    return records


def _is_of_data(record: Record, data: dict[str, str]) -> bool:
    """Whether a record was trained on the images that the run names."""
    if not has_settings(record):
        return True
    expected = data.get(dataset_of(record))
    return expected is None or record.get("data_fingerprint", expected) == expected
