"""Augmentation on the device, as the original input pipeline does it.

A pipeline is split where chance enters. `canvas` runs once per data set: everything deterministic,
for example enlarging to 32x32. `view` runs inside the training step: the random crop and brightness
of a batch, read straight from the canvas. Bilinear enlargement is thus paid once, not every epoch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

BYTE = np.float32(1 / 255)  # the original multiplies; dividing by 255 gives other bits
BRIGHTNESS = 0.25


class Draws(NamedTuple):
    """The chance of n images. corner: int32 (n, 2), of the crop; brightness: float32 (n,)."""

    corner: Any
    brightness: Any


class Augmentation(NamedTuple):
    """enlarge: pixels added to height and width before a random crop back to the original size.
    brightness: largest absolute offset, one draw an image, never clipped."""

    enlarge: int
    brightness: float


NONE = Augmentation(enlarge=0, brightness=0.0)
ORIGINAL = {
    "mnist": Augmentation(enlarge=4, brightness=BRIGHTNESS),
    "mnist_mini": Augmentation(enlarge=4, brightness=BRIGHTNESS),
}


def pipeline_for(name: str, augmentation: str) -> Augmentation:
    """The pipeline of a data set; a folder of images has no original one and gets `NONE`."""
    return ORIGINAL.get(name, NONE) if augmentation == "original" else NONE


def to_float(images: jax.Array) -> jax.Array:
    """uint8 -> float32 in [0, 1], as float32(u8) * float32(1/255)."""
    return images.astype(jnp.float32) * BYTE


def canvas(images: jax.Array, augmentation: Augmentation) -> jax.Array:
    """uint8 (N, H, W, C) -> float32 (N, H + enlarge, W + enlarge, C), bilinear, half-pixel centres.

    The original calls ``resize_with_pad`` on square images, which enlarges and adds no border.
    """
    n, height, width, channels = images.shape
    pixels = to_float(images)
    if augmentation.enlarge == 0:
        return pixels
    larger = (n, height + augmentation.enlarge, width + augmentation.enlarge, channels)
    return jax.image.resize(pixels, larger, method="bilinear", antialias=False)


def draw(chance: np.random.Generator, n: int, augmentation: Augmentation) -> Draws:
    """The chance for n images, drawn on the host."""
    limit = augmentation.brightness
    corner = chance.integers(0, augmentation.enlarge, (n, 2), np.int32, endpoint=True)
    brightness = (2 * chance.random(n, np.float32) - 1) * np.float32(limit)
    return Draws(corner, brightness)


def view(canvas: jax.Array, rows: jax.Array, draws: Draws, augmentation: Augmentation) -> jax.Array:
    """Images `rows` (int32 (B,)) of the canvas, cropped and brightened: float32 (B, H, W, C)."""
    _, height, width, channels = canvas.shape
    size = (1, height - augmentation.enlarge, width - augmentation.enlarge, channels)
    if augmentation == NONE:
        return canvas[rows]

    def one(row: jax.Array, corner: jax.Array) -> jax.Array:
        return lax.dynamic_slice(canvas, (row, corner[0], corner[1], jnp.int32(0)), size)[0]

    return jax.vmap(one)(rows, draws.corner) + draws.brightness[:, None, None, None]
