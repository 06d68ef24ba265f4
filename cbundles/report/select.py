"""The one way in which records are grouped and filtered.

Networks are compared when they agree in everything but what the comparison is about: seeds of one
network, widths and depths of one grid, arms of one setting. `groups` puts together what differs in
the named settings alone, and says in which of the others the groups differ from each other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cbundles.config import PAPER_BLOCKS, Cell
from cbundles.records import NetworkRecord

SEED = "training.seed"
# What a setting is called where its own name does not tell.
LABELS = {"data.name": "dataset", "model.family": "model", "model.base_filters": "filters"}
Record = TypeVar("Record", bound=NetworkRecord)


@dataclass(frozen=True)
class Group(Generic[Record]):
    """Records that agree in all settings but those that they were grouped across.

    apart: the settings, by key path, in which the groups of one selection are not all the same
    """

    records: list[Record]
    apart: dict[str, Any]

    @property
    def name(self) -> str:
        """What tells it from the others, as ``learning_rate=0.01, probe_samples=512``; "" where
        there are no others."""
        return ", ".join(
            f"{label_of(path)}={value}" for path, value in self.apart.items() if value is not None
        )

    @property
    def cell(self) -> Cell:
        """The settings of one of its networks."""
        return self.records[0].cell


def label_of(path: str) -> str:
    """What the setting with this key path is called in tables and captions."""
    section, key = path.split(".")
    return LABELS.get(path, f"probe_{key}" if section == "probe" else key)


def groups(
    records: Sequence[Record],
    across: Collection[str],
    also: Callable[[Record], Hashable] | None = None,
) -> list[Group[Record]]:
    """Records grouped by every setting except those in across (key paths), and by what `also`
    says of a record, in the order in which they come."""
    members: dict[Hashable, list[Record]] = {}
    common: list[dict[str, Any]] = []
    for record in records:
        settings = {
            path: value
            for path, value in settings_that_matter(record).items()
            if path not in across
        }
        key = (*settings.values(), also(record) if also else None)
        if key not in members:
            common.append(settings)
        members.setdefault(key, []).append(record)
    differing = [path for path in common[0] if _differs(path, common)] if common else []
    return [
        Group(group, {path: settings[path] for path in differing})
        for group, settings in zip(members.values(), common, strict=True)
    ]


def _differs(path: str, settings: Sequence[dict[str, Any]]) -> bool:
    return any(one[path] != settings[0][path] for one in settings)


def settings_that_matter(record: NetworkRecord) -> dict[str, Any]:
    """Every setting of a network by its key path. None stands for one that says nothing about this
    network, and for the blocks that the paper has at its depth."""
    values: dict[str, Any] = dict(record.settings_by_path)
    if values["model.family"] == "fc":
        values["probe.batch_norm"] = None
    else:
        values["model.block"] = None
        if record.cell.blocks == PAPER_BLOCKS.get(record.depth):
            values["model.blocks"] = None
    is_gamma = values["probe.equality"] == "gamma"
    values["probe.resolution" if is_gamma else "probe.gamma"] = None
    return values


def only(
    records: Sequence[Record], *, width: int | None = None, depth: int | None = None
) -> list[Record]:
    """The networks of this width, of this depth, or of both."""
    return [
        record
        for record in records
        if (width is None or record.width == width) and (depth is None or record.depth == depth)
    ]


def by_size(records: Sequence[Record]) -> dict[tuple[int, int], list[Record]]:
    """The networks of each width and depth."""
    networks: dict[tuple[int, int], list[Record]] = {}
    for record in records:
        networks.setdefault((record.width, record.depth), []).append(record)
    return networks


def widths(records: Sequence[NetworkRecord]) -> list[int]:
    """The widths that occur among records, sorted."""
    return sorted({record.width for record in records})


def depths(records: Sequence[NetworkRecord]) -> list[int]:
    """The depths that occur among records, sorted."""
    return sorted({record.depth for record in records})


def seeds(records: Sequence[NetworkRecord]) -> int:
    """How many different seeds there are among records."""
    return len({record.seed for record in records})
