"""What lies under a results folder, read back: every run with its completion records."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbundles.errors import InputError
from cbundles.store import Store

TOY, AUTOTUNE, SWEEP = "toy", "autotune", "sweep"


@dataclass(frozen=True)
class Run:
    """One folder. description: its run.json; records: completion records, of a sweep those of the
    grid that was run last, in its order."""

    store: Store
    description: dict[str, Any]
    records: list[dict[str, Any]]

    @property
    def name(self) -> str:
        return self.store.folder.name

    @property
    def kind(self) -> str:
        if self.records[0].get("experiment") == TOY:
            return TOY
        return AUTOTUNE if "attempts" in self.description else SWEEP


def load(root: Path) -> list[Run]:
    """Every run with at least one record, by name. Raises InputError for a damaged one."""
    runs = []
    for path in sorted(root.glob("*/run.json")):
        store = Store(path.parent)
        try:
            description = json.loads(path.read_text())
            if not isinstance(description, dict):
                raise ValueError("it is no description of a run")
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: damaged ({error}); run its command again") from None
        cells = [cell.stem for cell in sorted(store.folder.glob("cells/*.json"))]
        if "attempts" not in description and "cells" in description:
            cells = [cell for cell in description["cells"] if cell in cells]
        if cells:
            runs.append(Run(store, description, [store.record(cell) for cell in cells]))
    return runs
