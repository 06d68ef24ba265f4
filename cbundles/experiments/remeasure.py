"""Measure networks that were kept, without training them again: other readings of the same weights.

What is found has the form of a record's history, one entry for each epoch of which a network is
there, so it stands beside what the training found. The run's own reading is measured once more, and
how far its layers are from conflicting where that is asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cbundles import bits, measure, scan
from cbundles.bundles import Scale, largest_entropy, scales_of_scan
from cbundles.config import Cell
from cbundles.data.device import DeviceData
from cbundles.experiments import entries
from cbundles.keeping import LAST
from cbundles.networks.saved import Saved
from cbundles.population import measurement_of
from cbundles.records import MeasuredRecord, Origin, SweepHistory


def remeasure(
    cell: Cell,
    kept: Mapping[str, Saved],
    data: DeviceData,
    readings: str,
    headroom: bool,
    networks: dict[str, str],
    origin: Origin,
) -> MeasuredRecord:
    """What further readings say of networks.

    kept: by the epoch after which each was kept, see `keeping`
    readings: in the form of `readings.canonical`
    headroom: whether it is wanted, too
    networks: what identifies each, by its epoch
    """
    when = bits.ALL if headroom else bits.OFF
    probe = dataclasses.replace(cell.probe, readings=readings, headroom=when)
    asking = dataclasses.replace(cell, probe=probe)
    measured = [_entry(asking, saved, data) for saved in kept.values()]
    return MeasuredRecord(
        id=cell.id,
        origin=origin,
        config=cell.asdict(),
        readings=readings,
        kept_after=list(kept),
        epochs_trained=[_epochs_trained(saved, epoch) for epoch, saved in kept.items()],
        networks=networks,
        largest_entropy=round(largest_entropy(np.asarray(data.probe.labels)), 6),
        history=SweepHistory.of_entries(measured),
    )


def _epochs_trained(saved: Saved, epoch: str) -> int:
    """What the file says; training may have ended early. The first files do not say it."""
    trained: int = saved.origin["config"]["training"]["epochs"]
    return int(saved.origin.get("epoch", trained if epoch == LAST else epoch))


def _entry(cell: Cell, saved: Saved, data: DeviceData) -> dict[str, Any]:
    """What is measured of one network; the loss of the epoch that led to it is not known."""
    shape, training = saved.shape, cell.training
    measurement = measurement_of(cell)
    population_of_one = jax.tree.map(lambda a: jnp.asarray(a)[None], saved.network)
    test = measure.accuracy_program(shape, measurement.augmentation)
    accuracy = np.asarray(test(population_of_one, data.test))
    program = measure.signatures_program(shape, measurement)
    scale = Scale.of(0.0, training.learning_rate, training.batch_size)
    measured = measure.layers(program, shape, population_of_one, data.probe, scale, measurement)
    entry = entries.entry_of_member(accuracy[0], measured, 0, shape, loss=None)
    if cell.probe.headroom == bits.OFF:
        return entry
    scanned = scan.headroom(
        scan.signatures_program(shape, measurement),
        shape,
        population_of_one,
        data.probe,
        scales_of_scan(0.0, training.learning_rate, training.batch_size),
        scan.conflict_rate_of_inputs(data.probe, shape, measurement),
    )
    return {**entry, "headroom": entries.headroom_of_member(scanned[0], entry)}
