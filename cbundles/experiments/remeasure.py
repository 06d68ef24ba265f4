"""Measure networks that were kept, without training them again: other readings of the same weights,
and other probe sets.

What is found has the form of a record's history, one entry for each epoch of which a network is
there, so it stands beside what the training found. The run's own reading is measured once more, and
how far its layers are from conflicting where that is asked for. On probe sets of other sizes the
own reading alone is taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cbundles import bits, measure, scan
from cbundles.bundles import largest_entropy, scales_of_scan
from cbundles.config import Cell
from cbundles.data.device import DeviceData, Examples
from cbundles.experiments import entries
from cbundles.keeping import LAST
from cbundles.measure import Measurement
from cbundles.networks.network import Network
from cbundles.networks.saved import Saved
from cbundles.population import measurement_of
from cbundles.readings import NONE
from cbundles.records import Layers, MeasuredRecord, Origin, SweepHistory


class Wanted(NamedTuple):
    """What is asked of networks on the probe set that they were trained with.

    readings: in the form of `readings.canonical`
    headroom: whether it is wanted, too
    """

    readings: str
    headroom: bool


def remeasure(
    cell: Cell,
    kept: Mapping[str, Saved],
    data: DeviceData,
    wanted: Wanted,
    probes: Mapping[str, Examples],
    networks: dict[str, str],
    origin: Origin,
) -> MeasuredRecord:
    """What further readings and other probe sets say of networks.

    kept: by the epoch after which each was kept, see `keeping`
    probes: sets of other sizes, by these
    networks: what identifies each, by its epoch
    """
    when = bits.ALL if wanted.headroom else bits.OFF
    asking = _asking(cell, wanted.readings, when)
    measured = [_entry(asking, saved, data) for saved in kept.values()]
    return MeasuredRecord(
        id=cell.id,
        origin=origin,
        config=cell.asdict(),
        readings=wanted.readings,
        kept_after=list(kept),
        epochs_trained=[_epochs_trained(saved, epoch) for epoch, saved in kept.items()],
        networks=networks,
        largest_entropy=round(largest_entropy(np.asarray(data.probe.labels)), 6),
        history=SweepHistory.of_entries(measured),
        by_samples={size: _layers_on(cell, kept.values(), probe) for size, probe in probes.items()},
    )


def _asking(cell: Cell, readings: str, headroom: str) -> Cell:
    """The cell, as if these had been asked for when it was trained."""
    probe = dataclasses.replace(cell.probe, readings=readings, headroom=headroom)
    return dataclasses.replace(cell, probe=probe)


def _layers_on(cell: Cell, kept: Iterable[Saved], probe: Examples) -> Layers:
    """What one probe set says of each network, in the own reading."""
    alone = measurement_of(_asking(cell, NONE, bits.OFF))
    found = [
        entries.numbers_of_member(_measured(cell, saved, probe, alone).own, member=0)
        for saved in kept
    ]
    return Layers.of_entries(found)


def _measured(
    cell: Cell, saved: Saved, probe: Examples, measurement: Measurement
) -> measure.Measured:
    """The bundles of one network."""
    training = cell.training
    return measure.layers_of_one(
        saved.shape, saved.network, probe, measurement, training.learning_rate, training.batch_size
    )


def _population_of_one(saved: Saved) -> Network:
    network: Network = jax.tree.map(lambda a: jnp.asarray(a)[None], saved.network)
    return network


def _epochs_trained(saved: Saved, epoch: str) -> int:
    """What the file says; training may have ended early. The first files do not say it."""
    trained: int = saved.origin["config"]["training"]["epochs"]
    return int(saved.origin.get("epoch", trained if epoch == LAST else epoch))


def _entry(cell: Cell, saved: Saved, data: DeviceData) -> dict[str, Any]:
    """What is measured of one network; the loss of the epoch that led to it is not known."""
    shape, training = saved.shape, cell.training
    measurement = measurement_of(cell)
    test = measure.accuracy_program(shape, measurement.augmentation)
    accuracy = np.asarray(test(_population_of_one(saved), data.test))
    measured = _measured(cell, saved, data.probe, measurement)
    entry = entries.entry_of_member(accuracy[0], measured, 0, shape, loss=None)
    if cell.probe.headroom == bits.OFF:
        return entry
    scanned = scan.headroom(
        scan.signatures_program(shape, measurement),
        shape,
        _population_of_one(saved),
        data.probe,
        scales_of_scan(0.0, training.learning_rate, training.batch_size),
        scan.conflict_rate_of_inputs(data.probe, shape, measurement),
    )
    return {**entry, "headroom": entries.headroom_of_member(scanned[0], entry)}
