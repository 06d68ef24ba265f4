"""What lies under a results folder, read back: every run with its completion records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cbundles import formats
from cbundles.config import AUTOTUNE, GROW, SWEEP, TOY, TUNE
from cbundles.errors import InputError
from cbundles.records import (
    AnyRecord,
    CellRecord,
    EditedRecord,
    LesionRecord,
    MeasuredRecord,
    NetworkRecord,
    PrunedRecord,
    SweepRecord,
    ToyRecord,
)
from cbundles.records.sealed import complain
from cbundles.report.descriptions import BASELINE_ASKED_FOR, require_description
from cbundles.store import CELLS, LESIONS, MEASURED, PRUNED, Kept, Kind, Store

Record = TypeVar("Record", SweepRecord, EditedRecord, ToyRecord)
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
    records: Sequence[CellRecord]
    lesions: Sequence[LesionRecord] = ()
    measured: Sequence[MeasuredRecord] = ()
    pruned: Sequence[PrunedRecord] = ()

    @property
    def name(self) -> str:
        return self.store.folder.name

    @property
    def kind(self) -> str:
        """One of those of `config`."""
        if "kind" in self.description:
            return str(self.description["kind"])
        # The first version did not write it down.
        if "attempts" in self.description:
            return AUTOTUNE
        return self.records[0].kind if self.records else SWEEP

    @property
    def is_published(self) -> bool:
        """Whether it is one of the repository itself."""
        return self.description.get("published") is True

    @property
    def sweeps(self) -> list[SweepRecord]:
        """The records of a sweep, or of an auto-tuning."""
        return self._of_type(SweepRecord)

    @property
    def edited(self) -> list[EditedRecord]:
        """The records of networks that change their depth."""
        return self._of_type(EditedRecord)

    @property
    def toys(self) -> list[ToyRecord]:
        """The records of the toy."""
        return self._of_type(ToyRecord)

    def require_records_of_its_kind(self) -> None:
        """InputError where a record is of another kind than the run."""
        if self.kind == TOY:
            self._of_type(ToyRecord)
        elif self.kind in (GROW, TUNE):
            self._of_type(EditedRecord)
        else:
            self._of_type(SweepRecord)

    def _of_type(self, kind: type[Record]) -> list[Record]:
        """All records. InputError for one of another kind than the run."""
        records: list[Record] = []
        for record in self.records:
            if not isinstance(record, kind):
                raise InputError(
                    f"{self.store.folder}: the run is of kind {self.kind}, but its record "
                    f"{record.id} is of kind {record.kind}; run its command again"
                )
            records.append(record)
        return records

    @property
    def by_cell(self) -> dict[str, SweepRecord]:
        """The records of networks as sweeps train them, by the identity of their cell."""
        return {r.id: r for r in self.records if isinstance(r, SweepRecord)}

    @property
    def starts(self) -> list[SweepRecord]:
        """The network that each seed of an auto-tuning began with, where it has a record."""
        known = self.by_cell
        chains = self.description["attempts"]
        return [known[chain[0]] for chain in chains if chain[0] in known]

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

    @property
    def baselines_missing(self) -> int:
        """Networks that an auto-tuning was to stand beside and that have no record."""
        known = self.by_cell
        asked_for = self.description.get(BASELINE_ASKED_FOR, [])  # older runs do not say
        return sum(cell not in known for cell in asked_for)


def read_all(root: Path) -> tuple[list[Run], list[str]]:
    """Every run with at least one record, by name; and what is damaged, with the reason, which is
    left out."""
    runs: list[Run] = []
    damaged: list[str] = []
    for path in sorted(root.glob("*/run.json")):
        try:
            run = read(path.parent, damaged)
            run.require_records_of_its_kind()
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

    def records_of(kind: Kind[Kept]) -> list[Kept]:
        found = _records_of(store, kind, cells, damaged)
        return [record for record in found if _is_of_data(record, data)]

    return Run(
        store,
        description,
        records_of(CELLS),
        records_of(LESIONS),
        records_of(MEASURED),
        _records_of(store, PRUNED, store.ids(PRUNED), damaged),
    )


def _records_of(
    store: Store, kind: Kind[Kept], cells: list[str], damaged: list[str] | None
) -> list[Kept]:
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


def _is_of_data(record: AnyRecord, data: dict[str, str]) -> bool:
    """Whether a record was trained on the images that the run names, as far as both say it."""
    if not isinstance(record, NetworkRecord):
        return True
    expected, trained_on = data.get(str(record.cell.data.images)), record.origin.data_fingerprint
    return None in (expected, trained_on) or trained_on == expected
