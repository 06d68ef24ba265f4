"""Fully connected networks: golden forward pass and gradients, initial weights, padding."""

from __future__ import annotations

import math

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from networks import cut, golden_params

from cbundles.networks import fc
from cbundles.networks.network import Network
from cbundles.networks.shape import FcShape

GOLDEN_SHAPE = FcShape(inputs=784, depth=4, width=10, outputs=10)


def test_golden_forward_pass(golden):
    case = golden("forward_fnn_w10_d4")
    params, x = golden_params(case), case["x"].reshape(16, -1)
    one = Network(ravel_pytree(params)[0], jnp.zeros(0))
    found = compiled.logits(GOLDEN_SHAPE, one, x)
    np.testing.assert_allclose(found, case["logits_infer"], atol=2e-6)
    activations = compiled.layers(GOLDEN_SHAPE, one, x)
    assert activations.shape == (4, 16, 10)
    for layer in range(4):
        a = activations[layer]
        np.testing.assert_allclose(a[:2], case[f"cb_infer:{layer}:slice"], atol=1e-6)
        total, mean, largest, absolute = case[f"cb_infer:{layer}:stats"]
        assert float(a.sum()) == pytest.approx(total, rel=1e-5)
        assert float(a.mean()) == pytest.approx(mean, rel=1e-5)
        assert float(a.max()) == pytest.approx(largest, rel=1e-6)
        assert float(jnp.abs(a).sum()) == pytest.approx(absolute, rel=1e-5)
    assert float(jnp.abs(ravel_pytree(params)[0]).max()) == float(case["weight_amplitude"])


def test_golden_gradients(golden):
    case = golden("forward_fnn_w10_d4")
    flat, unravel = ravel_pytree(golden_params(case))
    x, y = case["x"].reshape(16, -1), case["y"]
    rest = Network(flat, jnp.zeros(0))
    (loss, _), gradient = compiled.slope(flat, rest, x, y, GOLDEN_SHAPE)
    assert float(loss) == pytest.approx(float(case["loss_train"]), abs=1e-6)
    tree = unravel(gradient)
    for layer in (1, 2, 3):
        np.testing.assert_allclose(
            tree.hidden[layer - 1], case[f"grad:fc{layer}/kernel"], atol=1e-6
        )
        np.testing.assert_allclose(
            tree.hidden_bias[layer - 1], case[f"grad:fc{layer}/bias"], atol=1e-6
        )
    np.testing.assert_allclose(tree.last, case["grad:out/kernel"], atol=1e-6)
    norm = float(jnp.linalg.norm(tree.first))
    assert norm == pytest.approx(float(case["gradnorm:fc0/kernel"]), rel=1e-5)


@pytest.mark.parametrize(
    ("depth", "width", "count"),
    [(10, 10, 8950), (50, 10, 13350), (150, 10, 24350), (10, 25, 25735)],
)
def test_parameter_counts(depth, width, count):
    shape = FcShape(784, depth, width, 10)
    assert shape.parameters == count
    assert sum(a.size for a in jax.tree.leaves(fc.init(shape, seed=0))) == count


def test_initial_weights_are_he_and_glorot_uniform():
    shape = FcShape(784, 20, 100, 10)
    params = fc.init(shape, seed=4)
    for weights, limit in (
        (params.first, math.sqrt(6 / 784)),
        (params.hidden, math.sqrt(6 / 100)),
        (params.last, math.sqrt(6 / 110)),
    ):
        assert weights.dtype == np.float32
        assert np.abs(weights).max() <= limit * (1 + 1e-6)
        assert np.std(weights) == pytest.approx(limit / math.sqrt(3), rel=0.05)
        assert abs(np.mean(weights)) < limit / 20
    assert not params.first_bias.any() and not params.hidden_bias.any()


def test_a_layers_initial_weights_depend_on_seed_and_position_only():
    deep, shallow = fc.init(FcShape(9, 8, 5, 3), seed=1), fc.init(FcShape(9, 4, 5, 3), seed=1)
    np.testing.assert_array_equal(deep.hidden[:3], shallow.hidden)
    np.testing.assert_array_equal(deep.last, shallow.last)
    other = fc.init(FcShape(9, 8, 5, 3), seed=2)
    assert not np.array_equal(deep.first, other.first)
    assert len({layer.tobytes() for layer in deep.hidden}) == 7


def test_padding_does_not_change_the_function():
    own, larger = FcShape(12, 3, 5, 4), FcShape(12, 9, 8, 4)
    params = fc.init(own, seed=0)
    padded = fc.pad(params, larger)
    x = np.random.default_rng(0).standard_normal((6, 12)).astype(np.float32)
    for ours, theirs in zip(cut(padded, 3, 5), params, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    one = Network(ravel_pytree(params)[0], jnp.zeros(0))
    inside = Network(ravel_pytree(padded)[0], jnp.zeros(0), jnp.int32(3))
    expected = compiled.logits(own, one, x)
    np.testing.assert_allclose(compiled.logits(larger, inside, x), expected, atol=1e-6)
    seen, alone = compiled.layers(larger, inside, x), compiled.layers(own, one, x)
    np.testing.assert_allclose(seen[:3, :, :5], alone, atol=1e-6)
    np.testing.assert_array_equal(seen[:, :, 5:], 0)


def test_a_network_of_one_hidden_layer():
    shape = FcShape(12, 1, 5, 4)
    params = fc.init(shape, seed=0)
    one = Network(ravel_pytree(params)[0], jnp.zeros(0))
    x = np.ones((2, 12), np.float32)
    hidden = np.maximum(x @ params.first, 0)
    np.testing.assert_allclose(compiled.logits(shape, one, x), hidden @ params.last, atol=1e-6)
    np.testing.assert_allclose(compiled.layers(shape, one, x), hidden[None], atol=1e-6)
