"""The one way in which records are grouped and filtered.

Networks are compared when they agree in everything but what the comparison is about: seeds of one
network, widths and depths of one grid, arms of one setting. `groups` puts together what differs in
the named settings alone, and says in which of the others the groups differ from each other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from cbundles import bits, readings
from cbundles.config import PAPER_BLOCKS, Cell
from cbundles.records import (
    OWN_READING,
    MeasuredRecord,
    NetworkRecord,
    SweepHistory,
    SweepRecord,
)

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
        key = (*map(_told_apart, settings.values()), also(record) if also else None)
        if key not in members:
            common.append(settings)
        members.setdefault(key, []).append(record)
    differing = [path for path in common[0] if _differs(path, common)] if common else []
    return [
        Group(group, {path: settings.get(path) for path in differing})
        for group, settings in zip(members.values(), common, strict=True)
    ]


def _differs(path: str, settings: Sequence[dict[str, Any]]) -> bool:
    # Keywords of a user's architecture no other network has.
    own = _told_apart(settings[0][path])
    return any(_told_apart(one.get(path)) != own for one in settings)


def _told_apart(value: Any) -> tuple[bool, Any]:
    """Python holds True and 1 for equal; of a keyword of a user's they are two settings."""
    return isinstance(value, bool), value


# What a user's function is not given: it says itself what its layers are.
OF_OUR_FAMILIES = ("model.block", "model.normalisation", "model.gain")


def settings_that_matter(record: NetworkRecord) -> dict[str, Any]:
    """Every setting of a network by its key path. None stands for one that says nothing about this
    network, and for the blocks that the paper has at its depth."""
    values: dict[str, Any] = dict(record.settings_by_path)
    if record.cell.model.is_own:
        values["probe.last"] = values["probe.amplitude"] = None
        for path in OF_OUR_FAMILIES:
            values[path] = None
        values["model.keywords"] = None  # but each of them says something:
        for key, value in record.cell.model.other_keywords.items():
            values[f"build.{key}"] = str(value) if isinstance(value, list) else value
    elif values["model.family"] == "fc":
        values["probe.batch_norm"] = values["probe.last"] = None
    else:
        values["model.block"] = values["model.normalisation"] = None
        if record.cell.blocks == PAPER_BLOCKS.get(record.depth):
            values["model.blocks"] = None
    is_gamma = values["probe.equality"] == "gamma"
    values["probe.resolution" if is_gamma else "probe.gamma"] = None
    if not values["training.conflict_checks"]:
        values["training.stop_conflicting"] = None  # never stopped, by neither
    return values


def readings_of(record: SweepRecord) -> dict[tuple[str, str, str], str]:
    """In which readings a network was measured: by their settings what its record calls them."""
    further = {reading.settings: reading.name for reading in record.cell.further_readings}
    return {**further, record.cell.own_reading.settings: OWN_READING}


def in_reading(record: SweepRecord, settings: tuple[str, str, str]) -> SweepRecord:
    """The record as if the run had judged by another of its readings. Headroom, branches and what
    was measured within the first epoch belong to the run's own and are left out."""
    name = readings_of(record)[settings]
    if name == OWN_READING:
        return record
    layers, history = record.history.readings[name], record.history
    own = dict(zip(readings.SETTINGS, settings, strict=True))
    probe = {**record.config["probe"], **own, "readings": readings.NONE, "headroom": bits.OFF}
    return msgspec.structs.replace(
        record,
        config={**record.config, "probe": probe},
        first_epoch=None,
        history=SweepHistory(
            test_accuracy=history.test_accuracy,
            train_loss=history.train_loss,
            entropy=layers.entropy,
            conflict_rate=layers.conflict_rate,
            num_bundles=layers.num_bundles,
        ),
    )


def reading_in_full(record: SweepRecord) -> str:
    """What the reading is called that a run judges by: ``pooled+hidden+running``."""
    own = record.cell.own_reading
    return readings.name_in_full(own, convolutional=record.is_convolutional)


def blocks_of(record: SweepRecord | MeasuredRecord) -> int:
    """How many blocks a VGG or ResNet has: what is measured behind them are the pooled features."""
    return sum(record.cell.blocks)


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
