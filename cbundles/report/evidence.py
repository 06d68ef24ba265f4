"""What claims are judged on: networks of complete runs that were built and measured as the paper's.

A claim is judged at each scale for itself: on networks of one run that differ in nothing but their
depth, width and seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cbundles import identity, readings
from cbundles.config import AUTOTUNE, FOLDER_PREFIX, PAPER_BLOCKS, SWEEP, Cell
from cbundles.records import MeasuredRecord, NetworkRecord, SweepRecord
from cbundles.report import select
from cbundles.report.runs import Run
from cbundles.report.statistics import finite
from cbundles.wording import counted

Record = TypeVar("Record", bound=NetworkRecord)
# Settings of the networks that claims are judged on. They are named here, so that neither a changed
# default nor a new setting changes what is judged, or how.
BUILT_AND_MEASURED = {
    "model.block": "plain-relu",
    "model.normalisation": "none",
    "model.gain": 1.0,
    "training.precision": "float32",
    "training.storage": "precision",
    "probe.equality": "weight_amplitude",
    "probe.resolution": "float32",
}
# ... and of those that stand for the paper's own, which differ in nothing else than FREE settings.
AS_THE_PAPER_TRAINS = {
    **BUILT_AND_MEASURED,
    "data.augmentation": "original",
    "data.pipeline": "auto",
    "training.batch_size": 64,
    "training.learning_rate": 1e-3,
    "training.weight_decay": 1e-2,
    "training.accuracy_epochs": 5,
    "training.stop_conflicting": "entropy",
    "probe.samples": 2048,
    "probe.selection": "uniform",
    "probe.images": "plain",
    "probe.seed": 0,
}
FREE = (
    "data.name",
    "model.family",
    "model.depth",
    "model.blocks",
    "model.base_filters",
    "training.epochs",
    "training.seed",
    "training.conflict_checks",
    "probe.last",
    "probe.amplitude",
    "probe.batch_norm",
    "probe.readings",
    "probe.steps",
    "probe.headroom",
    "probe.peers",
)
# In what networks of one scale may differ.
WITHIN_A_SCALE = (
    "model.depth",
    "model.width",
    "model.blocks",
    "training.seed",
    "probe.resolution",
)
# Settings that vary within a group, or that its run is known for.
UNNAMED = (
    "model.blocks",
    "probe.resolution",
    "training.conflict_checks",
    "probe.reading",  # which is named in full
    "probe.readings",
    "probe.steps",
    "probe.headroom",
    "probe.peers",
)


@dataclass(frozen=True)
class Evidence(Generic[Record]):
    """Networks of one complete run and one scale, trained to the end.

    run: its name
    diverged: how many had a NaN or infinity in a layer; they are not among the records
    left_out: why these are not, in words
    measured: those of its networks that were kept and measured again, by the identity of their cell
    """

    run: str
    records: list[Record]
    diverged: int = 0
    measured: Mapping[str, MeasuredRecord] = dataclasses.field(default_factory=dict)
    left_out: str = "that diverged"

    @property
    def family(self) -> str:
        return self.records[0].family

    @property
    def dataset(self) -> str:
        return self.records[0].dataset

    @property
    def depths(self) -> list[int]:
        return select.depths(self.records)

    @property
    def widths(self) -> list[int]:
        return select.widths(self.records)

    def only(self, *, width: int | None = None, depth: int | None = None) -> list[Record]:
        """The networks of this width, of this depth, or of both."""
        return select.only(self.records, width=width, depth=depth)


def scale(records: Sequence[NetworkRecord]) -> str:
    """What the caption of a result has to name: data set, networks, epochs, seeds, in which reading
    they were measured, and every setting that is unusual, and the same for all."""
    cell = records[0].cell
    networks = {(record.cell.model, record.cell.training) for record in records}
    parts = [cell.data.name, cell.model.family]
    if cell.model.is_convolutional:
        parts.append(f"{cell.model.base_filters} filters")
    for path, value in cell.unusual.items():
        if path in UNNAMED:
            continue
        if all(record.settings_by_path[path] == value for record in records):
            parts.append(f"{path.split('.')[1]}={value}")
    parts += [
        counted(cell.training.epochs, "epoch"),
        counted(len(networks), "network"),
        counted(select.seeds(records), "seed"),
    ]
    if isinstance(records[0], SweepRecord):
        parts.append(f"reading {select.reading_in_full(records[0])}")
    return ", ".join(parts)


def last_entropy(record: SweepRecord, epoch: int) -> float:
    """H^L after an epoch, 0 for the initial weights, of a network that did not diverge."""
    return _last_layer(record)[epoch]


def last_entropies(record: SweepRecord) -> list[float]:
    """H^L after each epoch of training, of a network that did not diverge."""
    return _last_layer(record)[1:]


def _last_layer(record: SweepRecord) -> list[float]:
    return [finite(entropy) for entropy in record.history.last("entropy")]


def in_every_reading(group: Evidence[SweepRecord]) -> list[Evidence[SweepRecord]]:
    """The same networks in each reading that was measured of all of them, that of the paper's
    revision first."""
    common = [select.readings_of(record).keys() for record in group.records]
    shared = set.intersection(*map(set, common))
    in_order = sorted(shared, key=lambda settings: tuple(map(readings.RANK.get, settings)))
    found = []
    for settings in in_order:
        seen = [select.in_reading(record, settings) for record in group.records]
        if all(one is record for one, record in zip(seen, group.records, strict=True)):
            found.append(group)  # with what was measured beside its own reading
            continue
        sound = [record for record in seen if _is_sound(record)]
        if sound:
            diverged = group.diverged + len(seen) - len(sound)
            found.append(Evidence(group.run, sound, diverged))
    return found


def tunings(runs: Sequence[Run]) -> list[Run]:
    """Auto-tunings as in the paper: from 120 layers, with its rule and its settings."""
    return [run for run in runs if _is_tuned_as_in_the_paper(run)]


def _is_tuned_as_in_the_paper(run: Run) -> bool:
    if run.kind != AUTOTUNE or run.unfinished or run.description.get("rule") != "stage":
        return False
    return all(map(_is_the_papers_start, run.starts))


def _is_the_papers_start(record: SweepRecord) -> bool:
    cell = record.cell
    return has_deepest_blocks(cell) and is_as_the_paper_trains(on_named_data(cell))


def has_deepest_blocks(cell: Cell) -> bool:
    """Whether a network has the blocks from which the paper's auto-tuning begins."""
    return cell.blocks == PAPER_BLOCKS[max(PAPER_BLOCKS)]


def collect(runs: Sequence[Run], *, free: Collection[str] = ()) -> list[Evidence[SweepRecord]]:
    """The networks of every complete sweep, built and measured as claims are judged.

    free: settings, by key path, in which networks may differ nevertheless, and that do not keep
        them in groups apart
    """
    settings = {path: value for path, value in BUILT_AND_MEASURED.items() if path not in free}
    evidence = []
    for run in runs:
        if run.kind != SWEEP or run.unfinished:
            continue
        again = {record.id: record for record in run.measured}
        whole = [record for record in run.sweeps if _is_whole(record, settings)]
        for group in select.groups(whole, across=(*WITHIN_A_SCALE, *free)):
            sound = [record for record in group.records if _is_sound(record)]
            if sound:
                diverged = len(group.records) - len(sound)
                evidence.append(Evidence(run.name, sound, diverged, again))
    return evidence


def _is_whole(record: SweepRecord, settings: Mapping[str, Any]) -> bool:
    """Whether a network was trained to the end, with these settings. Where those that conflict are
    stopped, the others are no sample of a grid."""
    cell = record.cell
    if cell.model.is_own:
        return False  # the papers say nothing of it
    is_finished = record.epochs_trained == record.epochs and not cell.training.checks
    return is_finished and has(cell, settings)


def _is_sound(record: SweepRecord) -> bool:
    """Whether no layer had a NaN or infinity at any time."""
    return not any(None in layers for layers in record.history.entropy)


def has(cell: Cell, settings: Mapping[str, Any]) -> bool:
    """Whether a cell has these values, by key path."""
    for path, value in settings.items():
        section, key = path.split(".")
        if getattr(getattr(cell, section), key) != value:
            return False
    return True


def on_named_data(cell: Cell) -> Cell:
    """A network on a folder of images, which get the preprocessing of a named data set, as one on
    that data set, of which they are copies; any other as it is."""
    data = cell.data
    if not data.name.startswith(FOLDER_PREFIX) or data.pipeline in ("auto", "plain"):
        return cell
    return dataclasses.replace(
        cell, data=dataclasses.replace(data, name=data.pipeline, pipeline="auto")
    )


def is_as_the_paper_trains(cell: Cell) -> bool:
    """Whether a VGG or ResNet is built, trained and measured in every respect as the paper's."""
    others = identity.differences(cell.asdict()).keys() - AS_THE_PAPER_TRAINS.keys() - set(FREE)
    return has(cell, AS_THE_PAPER_TRAINS) and not others
