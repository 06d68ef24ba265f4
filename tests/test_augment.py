"""Augmentation against plain NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cbundles import data
from cbundles.data import augment

MNIST = augment.ORIGINAL["mnist"]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.asarray(data.load("mnist_mini").train_images[:20])


def enlarged(image: np.ndarray, size: int) -> np.ndarray:
    """Bilinear with half-pixel centres, float64, one output pixel at a time."""
    height = image.shape[0]
    result = np.zeros((size, size))
    at = np.clip((np.arange(size) + 0.5) * height / size - 0.5, 0, height - 1)
    for i, y in enumerate(at):
        for j, x in enumerate(at):
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, height - 1)
            fy, fx = y - top, x - left
            upper = (1 - fx) * image[top, left] + fx * image[top, right]
            lower = (1 - fx) * image[bottom, left] + fx * image[bottom, right]
            result[i, j] = (1 - fy) * upper + fy * lower
    return result


def test_pixels_have_the_bits_of_a_multiplication():
    levels = np.arange(256, dtype=np.uint8)
    ours = np.asarray(jax.jit(augment.to_float)(levels))
    np.testing.assert_array_equal(ours, levels.astype(np.float32) * np.float32(1 / 255))
    assert (ours != levels.astype(np.float32) / np.float32(255)).any()


def test_canvas_is_the_bilinear_enlargement(images):
    canvas = augment.canvas(jnp.asarray(images), MNIST)
    assert canvas.shape == (20, 32, 32, 1)
    for image, ours in zip(images, canvas, strict=True):
        expected = enlarged(image[..., 0].astype(np.float64) / 255, 32)
        np.testing.assert_allclose(ours[..., 0], expected, atol=2e-6)


def test_enlarging_adds_no_border():
    ones = jnp.full((1, 28, 28, 1), 255, jnp.uint8)
    np.testing.assert_allclose(augment.canvas(ones, MNIST), 1.0, atol=1e-6)


def test_view_crops_then_brightens(images):
    canvas = augment.canvas(jnp.asarray(images), MNIST)
    rows = np.array([3, 3, 17, 0], np.int32)
    draws = augment.draw(np.random.default_rng(0), 4, MNIST)
    views = augment.view(canvas, rows, draws, MNIST)
    assert views.shape == (4, 28, 28, 1)
    for i, row in enumerate(rows):
        y, x = draws.corner[i]
        expected = np.asarray(canvas)[row, y : y + 28, x : x + 28] + draws.brightness[i]
        np.testing.assert_allclose(views[i], expected, atol=1e-7)


def test_draws_cover_all_corners_and_brightnesses():
    draws = augment.draw(np.random.default_rng(0), 20_000, MNIST)
    assert draws.corner.dtype == np.int32
    counts = np.bincount(draws.corner[:, 0] * 5 + draws.corner[:, 1], minlength=25)
    assert len(counts) == 25 and counts.min() > 600  # 800 each
    assert -0.25 <= draws.brightness.min() < -0.249 and 0.249 < draws.brightness.max() < 0.25
    assert abs(draws.brightness.mean()) < 0.005


def test_no_augmentation_leaves_the_images_alone(images):
    none = augment.pipeline_for("mnist", "none")
    canvas = augment.canvas(jnp.asarray(images), none)
    rows = np.arange(20)
    views = augment.view(canvas, rows, augment.draw(np.random.default_rng(0), 20, none), none)
    np.testing.assert_array_equal(views, augment.to_float(jnp.asarray(images)))
