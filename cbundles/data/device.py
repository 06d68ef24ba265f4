"""A data set on the accelerator, ready for the epoch and measuring programs."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cbundles.config import Data, Probe
from cbundles.data import augment
from cbundles.data.dataset import Dataset

PROBE_STREAM = 2**50  # keeps the probe's draw apart from the training seeds' streams


class DeviceData(NamedTuple):
    """canvas: float32 (N, H', W', C), see `augment.canvas`; labels: int32 (N,). test and probe:
    images as float32 (N, H * W * C) and labels int32 (N,)."""

    canvas: jax.Array
    labels: jax.Array
    test: tuple[jax.Array, jax.Array]
    probe: tuple[jax.Array, jax.Array]


def place(dataset: Dataset, data: Data, probe: Probe) -> DeviceData:
    """Move a data set to the default device. The probe set is drawn from the training images, of
    which there must be at least ``probe.samples``."""
    augmentation = augment.pipeline_for(data.name, data.augmentation)
    canvas = jax.jit(augment.canvas, static_argnums=1)(dataset.train_images, augmentation)
    chance = np.random.Generator(np.random.Philox(key=[probe.seed, PROBE_STREAM]))
    rows = np.arange(probe.samples)
    if probe.selection == "uniform":
        rows = chance.choice(len(dataset.train_labels), probe.samples, replace=False)
    if probe.images == "augmented":
        draws = augment.draw(chance, probe.samples, augmentation)
        images = augment.view(canvas, jnp.asarray(rows), draws, augmentation)
    else:
        images = augment.to_float(jnp.asarray(dataset.train_images[rows]))
    test_images = augment.to_float(jnp.asarray(dataset.test_images))
    return DeviceData(
        canvas=canvas,
        labels=jnp.asarray(dataset.train_labels),
        test=(test_images.reshape(len(test_images), -1), jnp.asarray(dataset.test_labels)),
        probe=(images.reshape(len(rows), -1), jnp.asarray(dataset.train_labels[rows])),
    )
