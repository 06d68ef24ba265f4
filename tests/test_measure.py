"""Measuring a network: golden end-to-end results, and padding that does not show."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from networks import golden_params

from cbundles import bundles, measure
from cbundles.models import fc
from cbundles.models.shape import Shape


@pytest.mark.parametrize(("evaluation_size", "used"), [(40, 48), (64, 64), (512, 160)])
def test_golden_end_to_end(golden, evaluation_size, used):
    """The original rounds the probe size up to whole batches of 16, or takes all there is."""
    case = golden("e2e_fnn_w10_d4")
    x, y = jnp.asarray(case["x"][:used].reshape(used, -1)), jnp.asarray(case["y"][:used])
    flat = ravel_pytree(golden_params(case))[0]
    scale = bundles.Resolution.of(0.0, float(case["train_lr"]), int(case["train_batch_size"]))
    shape = Shape(784, 4, 10, 10)
    program = measure.program(shape, masked=False)
    depths = jnp.asarray([4], jnp.int32)
    found = measure.population(program, flat[None], depths, (x, y), (x, y), scale)
    expected = case[f"result:evaluation_size={evaluation_size}:all_layers=True"]
    np.testing.assert_array_equal(found.num_bundles[0], expected[:, 0])
    np.testing.assert_allclose(found.entropy[0], expected[:, 1], atol=2e-6)


def measured(params: fc.Params, shape: Shape, depth: int | None, x, y) -> measure.Measurement:
    flat = ravel_pytree(params)[0][None]
    program = measure.program(shape, masked=depth is not None)
    depths = jnp.asarray([depth if depth is not None else shape.depth], jnp.int32)
    scale = bundles.Resolution.of(0.0, 1e-3, 64)
    return measure.population(program, flat, depths, (x, y), (x, y), scale)


def test_padding_neither_changes_bundles_nor_the_amplitude():
    own, larger = Shape(20, 4, 6, 3), Shape(20, 7, 9, 3)
    params = fc.init(own, seed=0)
    chance = np.random.default_rng(0)
    x = jnp.asarray(chance.integers(0, 2, (80, 20)).astype(np.float32) * 1e-4)
    y = jnp.asarray(np.arange(80) % 3)
    alone = measured(params, own, None, x, y)
    padded = measured(fc.pad(params, larger), larger, 4, x, y)
    assert alone.num_bundles.min() < 80  # there is something to compare
    np.testing.assert_array_equal(padded.num_bundles[:, :4], alone.num_bundles)
    np.testing.assert_array_equal(padded.entropy[:, :4], alone.entropy)
    np.testing.assert_array_equal(padded.accuracy, alone.accuracy)


def test_a_diverged_network_is_reported_as_such():
    shape = Shape(20, 3, 6, 3)
    params = fc.init(shape, seed=0)
    params.hidden[0][:] = np.inf
    x, y = jnp.ones((10, 20)), jnp.zeros(10, jnp.int32)
    result = measured(params, shape, None, x, y)
    assert result.finite.tolist() == [[False, False, False]]  # nor is the amplitude a number


def test_a_layer_beyond_an_infinite_activation_is_not_finite():
    """Overflow without an infinite weight: the first layer is still measurable."""
    shape = Shape(20, 3, 6, 3)
    params = fc.init(shape, seed=0)
    params.first[:] = 1e30
    params.hidden[0][:] = 1e30
    result = measured(params, shape, None, jnp.ones((10, 20)), jnp.zeros(10, jnp.int32))
    assert result.finite.tolist() == [[True, False, False]]


def test_accuracy_counts_every_test_image():
    shape = Shape(5, 1, 4, 3)
    params = fc.init(shape, seed=1)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((101, 5)), jnp.float32)
    y = jnp.argmax(fc.forward(jax.tree.map(jnp.asarray, params), x), axis=1)
    wrong = y.at[:10].set((y[:10] + 1) % 3)
    assert measured(params, shape, None, x, wrong).accuracy == pytest.approx([91 / 101])
