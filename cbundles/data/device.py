"""A data set on the accelerator, ready for the epoch and measuring programs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int64

from cbundles import spread
from cbundles.chance import HELD_OUT, PROBE_SET, generator
from cbundles.config import Data, Probe
from cbundles.data import augment, pipelines
from cbundles.data.dataset import Dataset


class Examples(NamedTuple):
    """images (N, H, W, C), uint8, or float32 when they are augmented; labels: int32 (N,)."""

    images: jax.Array
    labels: jax.Array


class DeviceData(NamedTuple):
    """canvas: float32 (N, H', W', C), see `augment.canvas`; labels: int32 (N,); held_out: training
    images that are kept from training and from the probe set, if any."""

    canvas: jax.Array
    labels: jax.Array
    test: Examples
    probe: Examples
    held_out: Examples | None = None

    @property
    def inputs(self) -> int:
        """Numbers in an image."""
        return math.prod(self.test.images.shape[1:])


def place(
    dataset: Dataset,
    data: Data,
    probe: Probe,
    held_out: float = 0.0,
    devices: Sequence[jax.Device] | None = None,
) -> DeviceData:
    """Move a data set to the default device, or to all of these. The probe set is drawn from the
    training images, of which there must be enough; before that, a share of them is held out, always
    the same."""
    apart = None
    if held_out:
        dataset, apart = _split(dataset, held_out)
    augmentation = pipelines.pipeline_for(data)
    canvas = jax.jit(augment.canvas, static_argnums=1)(dataset.train_images, augmentation)
    placed = DeviceData(
        canvas=canvas,
        labels=jnp.asarray(dataset.train_labels),
        test=Examples(jnp.asarray(dataset.test_images), jnp.asarray(dataset.test_labels)),
        probe=draw_probe(dataset, data, probe, canvas),
        held_out=apart,
    )
    return placed if devices is None else spread.on_all(placed, devices)


def draw_probe(dataset: Dataset, data: Data, probe: Probe, canvas: jax.Array) -> Examples:
    """The probe set. canvas: of the training images, see `DeviceData`."""
    augmentation = pipelines.pipeline_for(data)
    chance = generator(probe.seed, PROBE_SET)
    rows = probe_rows(probe, len(dataset.train_labels), chance)
    if probe.images == "augmented":
        draws = augment.draw(chance, len(rows), augmentation)
        images = augment.view(canvas, jnp.asarray(rows), draws, augmentation)
    else:
        images = jnp.asarray(dataset.train_images[rows])
    return Examples(images, jnp.asarray(dataset.train_labels[rows]))


def probe_rows(
    probe: Probe, available: int, chance: np.random.Generator
) -> Int64[np.ndarray, " samples"]:
    """Which of the training images are the probe set. chance: of `PROBE_SET`."""
    count = probe.count(available)
    if probe.selection == "uniform" and count < available:
        return chance.choice(available, count, replace=False)
    return np.arange(count)


def _split(dataset: Dataset, share: float) -> tuple[Dataset, Examples]:
    """A data set without a share of its training images, and these."""
    chance = generator(0, HELD_OUT)
    order = chance.permutation(len(dataset.train_labels))
    apart, kept = (np.sort(rows) for rows in np.split(order, [round(share * len(order))]))
    images, labels = dataset.train_images, dataset.train_labels
    left = dataclasses.replace(dataset, train_images=images[kept], train_labels=labels[kept])
    return left, Examples(jnp.asarray(images[apart]), jnp.asarray(labels[apart]))
