"""Preprocessing and augmentation on the device, as the original input pipelines do it.

A pipeline (`pipelines.ORIGINAL`) is split where chance enters. `canvas` runs once per data set:
everything deterministic that comes before, for example enlarging to 32x32. `view` runs inside the
training step: random crop, flip and brightness of a batch, read straight from the canvas. Bilinear
enlargement is thus paid once, not every epoch. `plain` is what test and probe images get.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cbundles.arrays import Numbers
from cbundles.data.pipelines import Augmentation

BYTE = np.float32(1 / 255)  # the original multiplies; dividing by 255 gives other bits
CHUNK_BYTES = 32 * 2**20  # of the canvas at once: enlarging needs several copies of what it makes


class Draws(NamedTuple):
    """The chance of n images. corner: int32 (n, 2), of the crop; brightness: float32 (n,); flip:
    bool (n,), or None where nothing is ever flipped."""

    corner: Any
    brightness: Any
    flip: Any = None


def to_float(images: jax.Array) -> jax.Array:
    """uint8 -> float32 in [0, 1], as float32(u8) * float32(1/255); float32 stays as it is."""
    if images.dtype == jnp.float32:
        return images
    return images.astype(jnp.float32) * BYTE


def standardized(images: jax.Array) -> jax.Array:
    """float32 (..., H, W, C), each image over all its pixels and channels: mean 0, deviation 1.

    (x - mean) / max(deviation, 1 / sqrt(H W C)); the bound keeps an image of one colour finite.
    """
    axes = (-3, -2, -1)
    centred = images - images.mean(axes, keepdims=True)
    deviation = jnp.sqrt(jnp.square(centred).mean(axes, keepdims=True))
    return centred / jnp.maximum(deviation, 1 / math.sqrt(math.prod(images.shape[-3:])))


def plain(images: jax.Array, augmentation: Augmentation) -> jax.Array:
    """Images as a network is tested on them: uint8 -> float32 (N, H, W, C), nothing by chance."""
    pixels = to_float(images)
    return pixels if augmentation.standardize == "no" else standardized(pixels)


def canvas(images: jax.Array, augmentation: Augmentation) -> jax.Array:
    """uint8 (N, H, W, C) -> float32 (N, H + enlarge, W + enlarge, C), bilinear, half-pixel centres.

    The original calls ``resize_with_pad`` on square images, which enlarges and adds no border.
    Made in chunks, so that hardly more memory is needed than for the result.
    """
    n, height, width, channels = images.shape
    larger = (height + augmentation.enlarge, width + augmentation.enlarge, channels)

    def some(images: jax.Array) -> jax.Array:
        pixels = to_float(images)
        if augmentation.standardize == "before":
            pixels = standardized(pixels)
        if augmentation.enlarge == 0:
            return pixels
        shape = (len(images), *larger)
        return jax.image.resize(pixels, shape, method="bilinear", antialias=False)

    at_once = min(n, max(1, CHUNK_BYTES // (4 * math.prod(larger))))

    def fill(i: jax.Array, result: jax.Array) -> jax.Array:
        start = jnp.minimum(i * at_once, n - at_once)  # the last chunk overlaps the one before it
        chunk = some(lax.dynamic_slice_in_dim(images, start, at_once))
        return lax.dynamic_update_slice_in_dim(result, chunk, start, axis=0)

    empty = jnp.zeros((n, *larger), jnp.float32)
    return lax.fori_loop(0, -(-n // at_once), fill, empty)


def draw(chance: np.random.Generator, n: int, augmentation: Augmentation) -> Draws:
    """The chance for n images, drawn on the host.

    The flip is drawn last and only where there is one: what is drawn for MNIST stays what it was.
    """
    limit = augmentation.brightness
    corner = chance.integers(0, augmentation.enlarge, (n, 2), np.int32, endpoint=True)
    brightness = (2 * chance.random(n, np.float32) - 1) * np.float32(limit)
    flip = chance.random(n, np.float32) < 0.5 if augmentation.flip else None
    return Draws(corner, brightness, flip)


def view(canvas: jax.Array, rows: Numbers, draws: Draws, augmentation: Augmentation) -> jax.Array:
    """Images `rows` (int32 (B,)) of the canvas, float32 (B, H, W, C): cropped, flipped, perhaps
    standardised, brightened, in this order."""
    _, height, width, channels = canvas.shape
    size = (1, height - augmentation.enlarge, width - augmentation.enlarge, channels)

    def crop(row: Numbers, corner: Numbers) -> jax.Array:
        return lax.dynamic_slice(canvas, (row, corner[0], corner[1], jnp.int32(0)), size)[0]

    images = jax.vmap(crop)(rows, draws.corner) if augmentation.by_chance else canvas[rows]
    if augmentation.flip:
        images = jnp.where(draws.flip[:, None, None, None], images[:, :, ::-1], images)
    if augmentation.standardize == "after":
        images = standardized(images)
    if augmentation.brightness > 0:
        images = images + draws.brightness[:, None, None, None]
    return images
