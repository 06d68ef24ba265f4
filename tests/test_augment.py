"""Preprocessing and augmentation against plain NumPy, TensorFlow and the original's own input."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pixels
import pytest

from cbundles import config, data
from cbundles.data import augment, device, pipelines, tfds
from cbundles.errors import InputError

MNIST = pipelines.ORIGINAL["mnist"]
NAMES = sorted(pixels.TRAIN)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.asarray(data.load("mnist_mini").train_images[:20])


@pytest.fixture(scope="module")
def pictures(golden, images) -> dict[str, np.ndarray]:
    """For each pipeline three real images of the size that it has."""
    cifar = golden("standardized_cifar10")["x_u8"]
    large = np.stack([np.pad(image, ((48, 48), (48, 48), (0, 0)), "symmetric") for image in cifar])
    return {"mnist": images[:3], "cifar10": cifar, "svhn_cropped": cifar, "imagenette": large}


def drawn(name: str, n: int, seed: int = 0) -> augment.Draws:
    """Chance for n images; of those that are flipped by chance, the first is and the second not."""
    draws = augment.draw(np.random.default_rng(seed), n, pipelines.ORIGINAL[name])
    return draws if draws.flip is None else draws._replace(flip=np.arange(n) % 2 == 0)


def flips(draws: augment.Draws) -> np.ndarray:
    return np.zeros(len(draws.corner), bool) if draws.flip is None else draws.flip


@functools.partial(jax.jit, static_argnums=2)
def pipeline(images, draws, augmentation):
    canvas = augment.canvas(images, augmentation)
    return augment.view(canvas, jnp.arange(len(images)), draws, augmentation)


def test_pixels_have_the_bits_of_a_multiplication():
    levels = np.arange(256, dtype=np.uint8)
    ours = np.asarray(jax.jit(augment.to_float)(levels))
    np.testing.assert_array_equal(ours, levels.astype(np.float32) * np.float32(1 / 255))
    assert (ours != levels.astype(np.float32) / np.float32(255)).any()


@pytest.mark.parametrize("name", NAMES)
def test_every_pipeline_does_what_the_original_does(name, pictures):
    draws = drawn(name, 3)
    ours = pipeline(pictures[name], draws, pipelines.ORIGINAL[name])
    assert ours.shape == pictures[name].shape and ours.dtype == jnp.float32
    chance = zip(pictures[name], draws.corner, flips(draws), draws.brightness, strict=True)
    for view, each in zip(ours, chance, strict=True):
        # Of a pixel position near 128, float32 knows 1e-5, and its neighbours may differ by 5.
        np.testing.assert_allclose(view, pixels.TRAIN[name](*each), atol=5e-5)


@pytest.mark.parametrize("name", NAMES)
def test_test_images_are_only_standardised(name, pictures):
    ours = jax.jit(augment.plain, static_argnums=1)(pictures[name], pipelines.ORIGINAL[name])
    expected = np.stack([pixels.TEST[name](image) for image in pictures[name]])
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, expected, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_without_augmentation_training_images_are_as_test_images(name, pictures):
    none = pipelines.pipeline_for(config.Data(name=name, augmentation="none"))
    ours = pipeline(pictures[name], augment.draw(np.random.default_rng(0), 3, none), none)
    plain = augment.plain(jnp.asarray(pictures[name]), none)
    np.testing.assert_allclose(ours, plain, atol=1e-6)
    original = augment.plain(jnp.asarray(pictures[name]), pipelines.ORIGINAL[name])
    np.testing.assert_array_equal(plain, original)


def test_the_original_feeds_its_networks_the_same_numbers(golden):
    case = golden("standardized_cifar10")
    ours = augment.plain(jnp.asarray(case["x_u8"]), pipelines.ORIGINAL["cifar10"])
    np.testing.assert_allclose(ours, case["x"], atol=2e-6)


def test_against_tensorflow(pictures, tmp_path):
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("skipped: TensorFlow is not installed")
    photo = np.random.default_rng(0).integers(0, 256, (160, 213, 3), np.uint8)
    given = {"photo": photo}
    chance = {name: drawn(name, 3, seed=1) for name in NAMES}
    for name, draws in chance.items():
        given |= {f"{name}_images": pictures[name], f"{name}_corner": draws.corner}
        given |= {f"{name}_flip": flips(draws), f"{name}_brightness": draws.brightness}
    np.savez(tmp_path / "in.npz", **given)
    program = Path(__file__).with_name("tensorflow_pixels.py")
    command = [sys.executable, str(program), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = np.load(tmp_path / "out.npz")
    for name, draws in chance.items():
        original = pipelines.ORIGINAL[name]
        ours = pipeline(pictures[name], draws, original)
        np.testing.assert_allclose(ours, theirs[f"{name}_train"], atol=1e-5)
        ours = augment.plain(jnp.asarray(pictures[name]), original)
        np.testing.assert_allclose(ours, theirs[f"{name}_test"], atol=2e-6)
    assert np.abs(tfds.resize_with_pad(photo, 128) - theirs["photo"]).max() < 0.51


def test_enlarging_adds_no_border():
    ones = jnp.full((1, 28, 28, 1), 255, jnp.uint8)
    canvas = augment.canvas(ones, MNIST)
    assert canvas.shape == (1, 32, 32, 1)
    np.testing.assert_allclose(canvas, 1.0, atol=1e-6)


def test_an_image_of_one_colour_stays_finite():
    grey = jnp.full((1, 8, 8, 3), 77, jnp.uint8)
    np.testing.assert_allclose(augment.plain(grey, pipelines.ORIGINAL["cifar10"]), 0.0, atol=1e-5)


def test_each_image_is_standardised_on_its_own(pictures):
    dark = pictures["cifar10"] // np.array([1, 2, 5], np.uint8)[:, None, None, None]
    ours = np.asarray(augment.plain(jnp.asarray(dark), pipelines.ORIGINAL["cifar10"]))
    np.testing.assert_allclose(ours.mean((1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(ours.std((1, 2, 3)), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_canvas_made_in_chunks_is_the_same(name, images, monkeypatch):
    whole = augment.canvas(jnp.asarray(images), pipelines.ORIGINAL[name])
    monkeypatch.setattr(augment, "CHUNK_BYTES", 7 * whole[0].nbytes)  # 20 = 7 + 7 + 6
    np.testing.assert_array_equal(augment.canvas(images, pipelines.ORIGINAL[name]), whole)


def test_view_takes_the_rows_it_is_asked_for(pictures):
    original = pipelines.ORIGINAL["imagenette"]
    canvas = augment.canvas(jnp.asarray(pictures["imagenette"]), original)
    rows, draws = np.array([2, 0, 2, 1], np.int32), drawn("imagenette", 4)
    views = augment.view(canvas, rows, draws, original)
    for i, row in enumerate(rows):
        one = jax.tree.map(lambda a, i=i: a[i : i + 1], draws)
        alone = augment.view(canvas[row : row + 1], np.array([0], np.int32), one, original)
        np.testing.assert_allclose(views[i], alone[0], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_draws_cover_all_corners_and_brightnesses(name):
    n, corners = (
        400 * (pipelines.ORIGINAL[name].enlarge + 1) ** 2,
        pipelines.ORIGINAL[name].enlarge + 1,
    )
    draws = augment.draw(np.random.default_rng(0), n, pipelines.ORIGINAL[name])
    assert draws.corner.dtype == np.int32
    assert draws.corner.min() == 0 and draws.corner.max() == pipelines.ORIGINAL[name].enlarge
    counts = np.bincount(draws.corner[:, 0] * corners + draws.corner[:, 1], minlength=corners**2)
    assert len(counts) == corners**2 and counts.min() > 300 and counts.max() < 500  # 400 each
    assert draws.brightness.dtype == np.float32
    assert -0.25 <= draws.brightness.min() < -0.249 and 0.249 < draws.brightness.max() < 0.25
    assert abs(draws.brightness.mean()) < 0.005


def test_half_of_the_images_are_flipped_where_the_original_flips():
    for name in NAMES:
        draws = augment.draw(np.random.default_rng(0), 40_000, pipelines.ORIGINAL[name])
        if name in ("cifar10", "imagenette"):
            assert draws.flip.dtype == np.bool_ and abs(draws.flip.mean() - 0.5) < 0.01
            assert abs(np.corrcoef(draws.flip, draws.brightness)[0, 1]) < 0.02
        else:
            assert draws.flip is None


def test_draws_are_a_fixed_sequence():
    """Published MNIST results rest on it; another pipeline draws the same and then its flips."""
    chance = np.random.Generator(np.random.Philox(key=[3, 5]))
    corner = chance.integers(0, 4, (1000, 2), np.int32, endpoint=True)
    brightness = (2 * chance.random(1000, np.float32) - 1) * np.float32(0.25)
    for name in ("mnist", "svhn_cropped"):
        again = np.random.Generator(np.random.Philox(key=[3, 5]))
        draws = augment.draw(again, 1000, pipelines.ORIGINAL[name])
        np.testing.assert_array_equal(draws.corner, corner)
        np.testing.assert_array_equal(draws.brightness, brightness)
    first, second = (
        augment.draw(np.random.default_rng(7), 100, pipelines.ORIGINAL["cifar10"]) for _ in range(2)
    )
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_whose_pipeline_it_is():
    def chosen(**fields):
        return pipelines.pipeline_for(config.Data(**fields))

    assert chosen(name="mnist_mini") == chosen(name="mnist") == MNIST
    assert chosen(name="folder:x") == pipelines.NONE
    assert chosen(name="folder:x", pipeline="cifar10") == pipelines.ORIGINAL["cifar10"]
    assert chosen(name="imagenette", pipeline="plain") == pipelines.NONE
    assert chosen(name="mnist", augmentation="none") == pipelines.NONE
    for name in ("cifar10", "svhn_cropped", "imagenette"):
        assert chosen(name=name, augmentation="none") == pipelines.Augmentation(
            standardize="before"
        )


def test_images_that_are_not_square_are_not_enlarged():
    odd = config.Data(name="folder:pets", pipeline="svhn_cropped")
    with pytest.raises(InputError, match=r"square images only, .* are 40x30; nearest valid"):
        pipelines.require_square(odd, (30, 40, 3))
    pipelines.require_square(odd, (32, 32, 3))
    pipelines.require_square(config.Data(name="folder:pets"), (30, 40, 3))


def test_on_the_device_test_images_stay_bytes():
    stored = data.load("mnist_mini")
    chosen = config.Data(name="mnist_mini", pipeline="cifar10")
    for kind, dtype in (("plain", np.uint8), ("augmented", np.float32)):
        placed = device.place(stored, chosen, config.Probe(samples=64, images=kind))
        assert placed.canvas.shape == (10_000, 34, 34, 1)
        assert placed.test.images.dtype == np.uint8
        assert placed.probe.images.shape == (64, 28, 28, 1)
        assert placed.probe.images.dtype == dtype
