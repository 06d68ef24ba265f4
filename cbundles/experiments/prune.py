"""Remove blocks of a trained ResNet for real: what becomes of its accuracy, size and speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cbundles import measure, train
from cbundles.config import Cell
from cbundles.data import augment
from cbundles.data.device import DeviceData
from cbundles.experiments.lesion import predictions_program
from cbundles.networks import network, pruning, watched
from cbundles.networks.network import Network
from cbundles.networks.shape import CONV_BATCH, ConvShape
from cbundles.population import measurement_of, recipe_of
from cbundles.records import Comparison


class Pruned(NamedTuple):
    """A network that lost some of its blocks.

    small: without the blocks
    recalibrated: that, with the probe set's statistics in its batch normalisations
    tuned: that, after a short fine-tune
    compared: what was measured of the whole network and of these
    """

    shape: ConvShape
    small: Network
    recalibrated: Network
    tuned: Network
    compared: Comparison


def prune(
    shape: ConvShape,
    whole: Network,
    cell: Cell,
    data: DeviceData,
    removed: Sequence[int],
    epochs: int,
) -> Pruned:
    """Remove blocks, numbered from 0; take the statistics of batch normalisation anew, on the probe
    set: those of the whole network do not fit any more; then train for some epochs, from a fresh
    optimizer. They are compared with the whole network."""
    whole = jax.tree.map(jnp.asarray, whole)
    smaller, small = pruning.without(shape, whole, removed)
    small = jax.tree.map(jnp.asarray, small)
    augmentation = measurement_of(cell).augmentation
    probe = augment.plain(data.probe.images, augmentation)
    fitting = jax.jit(network.recalibrated, static_argnums=0)(smaller, small, probe)
    tuned = trained_on(smaller, fitting, cell, data, epochs)
    networks = [(shape, whole), (smaller, small), (smaller, fitting), (smaller, tuned)]
    right = np.array([right_answers(of, one, cell, data) for of, one in networks])
    images = data.test.images[: cell.training.batch_size]
    seconds = (
        measure.latency(shape, whole, images, augmentation),
        measure.latency(smaller, small, images, augmentation),
    )
    compared = Comparison(
        removed=[int(block) for block in removed],
        epochs=epochs,
        images=len(data.test.labels),
        correct=_counts(right),
        lost=_counts(right[0] & ~right),
        gained=_counts(~right[0] & right),
        difference=_difference(shape, whole, smaller, small, cell, data, removed),
        layers=(shape.depth, smaller.depth),
        parameters=(shape.parameters, smaller.parameters),
        bytes=(shape.bytes, smaller.bytes),
        flops=(shape.flops, smaller.flops),
        latency_seconds=seconds,
    )
    return Pruned(smaller, small, fitting, tuned, compared)


def _counts(chosen: np.ndarray) -> tuple[int, int, int, int]:
    """How many images are chosen of each network, bool (4, N)."""
    whole, small, recalibrated, tuned = chosen.sum(1).tolist()
    return whole, small, recalibrated, tuned


def trained_on(
    shape: ConvShape, start: Network, cell: Cell, data: DeviceData, epochs: int
) -> Network:
    """A network after some more epochs of its training, from a fresh optimizer."""
    recipe, seed = recipe_of(cell), cell.training.seed
    state = jax.tree.map(lambda a: jnp.asarray(a)[None], train.start(start, recipe))
    program = train.advance_program(shape, recipe)
    for number in range(cell.training.epochs + 1, cell.training.epochs + 1 + epochs):
        plan = train.plan(recipe, seed, number, len(data.labels))
        plans = jax.tree.map(lambda a: a[None], plan)
        state, _ = program(*train.whole_epoch(state, plans, data.canvas, data.labels))
    return jax.tree.map(lambda a: a[0], state.network())


def right_answers(shape: ConvShape, one: Network, cell: Cell, data: DeviceData) -> np.ndarray:
    """Whether each test image is classified correctly, bool (N,)."""
    program = predictions_program(shape, measurement_of(cell).augmentation)
    everything = np.ones((1, shape.layers), bool)
    return np.asarray(program(one, data.test.images, everything)[0] == data.test.labels)


def _difference(
    shape: ConvShape, whole: Network, smaller: ConvShape, small: Network, cell: Cell,
    data: DeviceData, removed: Sequence[int],
) -> float:  # fmt: skip
    """The largest one between the logits of the smaller network and of the masked one, on a batch
    of test images, relative to the largest logit."""
    keep = np.ones(shape.layers, bool)
    keep[list(removed)] = False
    x = augment.plain(data.test.images[:CONV_BATCH], measurement_of(cell).augmentation)
    masked = watched.masked_logits(shape, whole, x, jnp.asarray(keep))
    pruned = network.logits(smaller, small, x)
    return float(jnp.abs(masked - pruned).max() / jnp.abs(masked).max())
