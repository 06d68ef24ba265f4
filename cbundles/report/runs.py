"""What lies under a results folder, read back: every run with its completion records."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cbundles import formats
from cbundles.config import GROW, TUNE
from cbundles.errors import InputError
from cbundles.store import LESIONS, Store

TOY, AUTOTUNE, SWEEP = "toy", "autotune", "sweep"


@dataclass(frozen=True)
class Run:
    """One folder. description: its run.json; records: completion records that belong to it (same
    data; of a sweep or the toy the cells that were asked for last, in that order)."""

    store: Store
    description: dict[str, Any]
    records: list[dict[str, Any]]
    lesions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.store.folder.name

    @property
    def kind(self) -> str:
        experiment = self.records[0].get("experiment")
        if experiment in (TOY, GROW, TUNE):
            return str(experiment)
        return AUTOTUNE if "attempts" in self.description else SWEEP

    @property
    def unfinished(self) -> int:
        """Cells that were asked for and have no record; of an auto-tuning, seeds without an end."""
        if self.kind == AUTOTUNE:
            ended = [*self.description.get("tuned", []), *self.description.get("given_up", [])]
            return len(self.description["attempts"]) - len(ended)
        return len(self.description["cells"]) - len(self.records)


def load(root: Path) -> list[Run]:
    """Every run with at least one record, by name. Raises InputError for a damaged one."""
    found = [read(path.parent) for path in sorted(root.glob("*/run.json"))]
    return [run for run in found if run.records]


def read(folder: Path) -> Run:
    """One run, perhaps without records. Raises InputError for a folder that is none."""
    store, path = Store(folder), folder / "run.json"
    try:
        description = json.loads(path.read_text())
        formats.check(formats.RUN, description, str(path))
        cells = [str(cell) for cell in description["cells"]]
        if "attempts" in description:
            cells = sorted(p.stem for p in store.folder.glob("cells/*.json"))
        data = dict(description.get("data", {}))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: no run here (run.json is missing)") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: damaged ({type(error).__name__}: {error}); run its command again"
        ) from None
    found = [store.record(cell) for cell in cells if store.record_path(cell).is_file()]
    lesions = [store.record(c, LESIONS) for c in cells if store.record_path(c, LESIONS).is_file()]
    lesions = [record for record in lesions if _of_data(record, data)]
    return Run(store, description, [r for r in found if _of_data(r, data)], lesions)


def _of_data(record: dict[str, Any], data: dict[str, str]) -> bool:
    """Whether a record was trained on the images that the run names."""
    if "config" not in record:
        return True
    expected = data.get(record["config"]["data"]["name"])
    return expected is None or record.get("data_fingerprint", expected) == expected
