"""VGG and ResNet: the original's forward passes, gradients and sizes; lowering; initial weights."""

from __future__ import annotations

import json
import math

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import GOLDEN
from jax.flatten_util import ravel_pytree
from networks import golden_network

from cbundles import bundles, measure, readings
from cbundles.config import PAPER_BLOCKS
from cbundles.data import augment, pipelines
from cbundles.data.device import Examples
from cbundles.networks import conv, lowering, network
from cbundles.networks.network import Network
from cbundles.networks.shape import CONV_BATCH, ConvShape

CASES = ["vgg_1111", "vgg_1111_imagenette_stem", "resnet_1111"]
MODELS = json.loads((GOLDEN / "models.json").read_text())


def load(golden, name):
    case, residual = golden(f"forward_{name}"), name.startswith("resnet")
    params = golden_network(case, (1, 1, 1, 1), residual)
    statistics = golden_network(case, (1, 1, 1, 1), residual, statistics=True)
    return case, residual, params, statistics


def of_one_block_a_stage(case, residual, params, statistics):
    """The shape of a stored network, and its numbers in vectors."""
    shape = ConvShape(case["x"].shape[1:], (1, 1, 1, 1), 8, residual, 10)
    return shape, Network(ravel_pytree(params)[0], ravel_pytree(statistics)[0])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("norm", "key"), [(conv.RUNNING, "infer"), (conv.TRAIN, "train")])
def test_golden_forward_pass(golden, name, norm, key):
    case, residual, params, statistics = load(golden, name)

    def view(a):
        rows = a.reshape(len(a), -1)
        total = jnp.stack([rows.sum(), rows.mean(), rows.max(), jnp.abs(rows).sum()])
        return jnp.concatenate([rows[:2, :256].reshape(-1), total])

    shape, one = of_one_block_a_stage(case, residual, params, statistics)
    logits, outputs, branches = compiled.seen(shape, one, case["x"], view, norm)
    np.testing.assert_allclose(logits, case[f"logits_{key}"], atol=2e-5)
    assert (len(outputs), len(branches)) == (4, 4 if residual else 0)
    for block in range(4):
        entry = 2 * block + 1 if residual else block  # the original lists a branch before its block
        views = [(outputs, entry)] + ([(branches, 2 * block)] if residual else [])
        for found, entry in views:
            expected = case[f"cb_{key}:{entry}:slice"].reshape(-1)
            np.testing.assert_allclose(found[block][:512], expected, atol=3e-5)
            stored = case[f"cb_{key}:{entry}:stats"]
            np.testing.assert_allclose(found[block][512:], stored, rtol=2e-5, atol=2e-3)
    if norm == conv.TRAIN:
        after = golden_network(case, (1, 1, 1, 1), residual, "after_train:", statistics=True)
        _, now = compiled.moving_logits(shape, one, case["x"])
        np.testing.assert_allclose(now, ravel_pytree(after)[0], atol=1e-6)


def test_batch_statistics_are_those_of_training_but_move_nothing(golden):
    case, residual, params, statistics = load(golden, "vgg_1111")
    shape, one = of_one_block_a_stage(case, residual, params, statistics)
    logits = compiled.logits(shape, one, case["x"], conv.BATCH)
    np.testing.assert_allclose(logits, case["logits_train"], atol=2e-5)
    _, now = compiled.moving_logits(shape, one, case["x"], conv.BATCH)
    np.testing.assert_array_equal(now, one.statistics)


@pytest.mark.parametrize("name", CASES)
def test_golden_gradients(golden, name):
    case, residual, params, statistics = load(golden, name)
    shape, rest = of_one_block_a_stage(case, residual, params, statistics)
    unravel = ravel_pytree(params)[1]
    (loss, _), gradient = compiled.slope(rest.params, rest, case["x"], case["y"], shape)
    assert float(loss) == pytest.approx(float(case["loss_train"]), abs=2e-6)
    tree = unravel(gradient)
    first = tree.stages[0].rest
    pairs = [
        (tree.stem.kernel, "stem/conv/kernel"),
        (first[0].kernel[0], "block0/conv1/kernel"),
        (first[1].gamma[0], "block0/bn2/gamma"),
        (tree.stages[1].first[0].kernel, "block1/conv1/kernel"),
        (tree.stages[2].first[1].kernel, "block2/conv2/kernel"),
        (tree.stages[3].first[0].beta, "block3/bn1/beta"),
        (tree.last, "fc/kernel"),
    ]
    if residual:
        pairs.append((tree.stages[2].first[2].kernel, "block2/down/conv/kernel"))
    for ours, name in pairs:
        norm = float(case[f"gradnorm:{name}"])
        assert float(jnp.linalg.norm(ours)) == pytest.approx(norm, rel=2e-4)
        if f"grad:{name}" in case:
            np.testing.assert_allclose(ours, case[f"grad:{name}"], atol=2e-4 * norm)


@pytest.mark.parametrize(
    "row", MODELS, ids=lambda r: f"{r['dataset']}-{r['model']}-{r['num_layers']}"
)
def test_parameter_and_byte_counts_of_every_network_of_the_paper(row):
    residual, blocks = row["model"] == "resnet", tuple(row["blocks_per_stage"])
    shape = ConvShape(tuple(row["input"]), blocks, 64, residual, 10)
    assert PAPER_BLOCKS[row["num_layers"]] == blocks
    assert shape.depth == row["num_layers"]
    assert shape.parameters == row["trainable_params"]
    assert shape.parameters + shape.statistics == row["total_params_incl_bn_stats"]
    assert shape.bytes == row["float32_bytes_total"]
    assert shape.layers + shape.branches == row["monitored_cb"]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("blocks", [(1, 0, 0, 0), (2, 1, 3, 2), (0, 2, 0, 1), (3, 4, 3, 0)])
def test_initial_weights(blocks, residual):
    shape = ConvShape((28, 28, 1), blocks, 8, residual, 10)
    start = network.initial(shape, 3, shape)
    assert start.params.shape == (shape.parameters,)
    assert start.statistics.shape == (shape.statistics,)
    params, _ = conv.init(shape, seed=3)
    again, _ = conv.init(ConvShape((28, 28, 1), (5, 5, 5, 5), 8, residual, 10), seed=3)
    np.testing.assert_array_equal(params.stem.kernel, again.stem.kernel)
    for stage in range(4):
        for mine, longer in zip(params.stages[stage].rest, again.stages[stage].rest, strict=True):
            np.testing.assert_array_equal(mine.kernel, longer.kernel[: len(mine.kernel)])
            if mine.kernel.size:
                deviation = math.sqrt(2 / (9 * mine.kernel.shape[-1]))
                assert np.std(mine.kernel) == pytest.approx(deviation, rel=0.1)
                assert np.abs(mine.kernel).max() <= deviation * 2 / 0.8796 * (1 + 1e-6)
    images = np.ones((3, 28, 28, 1), np.float32)
    logits = compiled.logits(shape, Network(*map(jnp.asarray, start[:2])), images)
    assert logits.shape == (3, 10) and bool(jnp.isfinite(logits).all())


@pytest.mark.parametrize(
    ("form", "size", "stride", "kernel"),
    [
        ("patches", 7, 1, 3), ("patches", 7, 2, 3), ("patches", 8, 2, 3), ("patches", 2, 1, 3),
        ("patches", 28, 2, 7), ("patches", 8, 2, 1), ("patches", 1, 1, 3),
        ("rows", 14, 1, 3), ("rows", 7, 1, 3), ("winograd", 8, 1, 3), ("winograd", 2, 1, 3),
        ("winograd4", 8, 1, 3), ("winograd4", 4, 1, 3), ("folded", 8, 2, 7), ("folded", 28, 2, 7),
    ],
)  # fmt: skip
def test_every_lowering_is_the_same_convolution(form, size, stride, kernel):
    """Against XLA's own convolution in float64, with both gradients."""
    chance = np.random.default_rng(0)
    x = chance.standard_normal((3, size, size, 5))
    w = chance.standard_normal((kernel, kernel, 5, 4)) / kernel

    def ours(x, w):
        if form == "winograd4":
            return lowering.winograd(x, w, lowering.F4)
        convolve = getattr(lowering, form)
        return convolve(x, w, stride) if form == "patches" else convolve(x, w)

    def both(convolve):
        """The convolution, and its gradients for one by its result."""

        def run(x, w, g):
            found, back = jax.vjp(convolve, x, w)
            return found, back(g)

        return jax.jit(run)

    g = chance.standard_normal((3, -(-size // stride), -(-size // stride), 4))
    with jax.enable_x64(True):
        expected, slopes = both(lambda x, w: lowering.xla(x, w, stride))(x, w, g)
    found, gradients = both(ours)(*(jnp.asarray(a, jnp.float32) for a in (x, w, g)))
    np.testing.assert_allclose(found, expected, atol=3e-5)
    for mine, exact in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(mine, exact, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("images", [CONV_BATCH + 1, 2 * CONV_BATCH])
def test_many_images_are_convolved_some_after_others(images):
    """What a product of all of them needs would be many times what it yields."""
    chance = np.random.default_rng(0)
    x = jnp.asarray(chance.standard_normal((images, 6, 8, 2)), jnp.float32)
    w = jnp.asarray(chance.standard_normal((7, 7, 2, 3)), jnp.float32)
    program = jax.jit(lambda x, w: lowering.convolve(x, w, 2)).lower(x, w).compile()
    np.testing.assert_allclose(program(x, w), lowering.xla(x, w, 2), atol=1e-4)
    of_all = jax.jit(lambda x, w: lowering.patches(x, w, 2)).lower(x, w).compile()
    needed = program.memory_analysis().temp_size_in_bytes
    assert needed < 0.7 * of_all.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("norm", ["batch", "running"])
@pytest.mark.parametrize("residual", [False, True])
def test_measured_bundles_are_what_the_metric_says_of_the_activations(norm, residual):
    shape = ConvShape((28, 28, 1), (1, 2, 2, 1), 4, residual, 10)
    chance = np.random.default_rng(0)
    images = jnp.asarray(chance.integers(0, 256, (300, 28, 28, 1)).astype(np.uint8))
    images = images.at[150:].set(images[:150])  # every image twice, with another label
    labels = jnp.asarray(np.arange(300) % 10 + (np.arange(300) >= 150)).astype(jnp.int32) % 10
    start = network.initial(shape, 0, shape)
    one = Network(jnp.asarray(start.params)[None], jnp.asarray(start.statistics)[None])
    equality, own = (
        bundles.Equality("weight_amplitude"),
        readings.own_reading(readings.BLOCK, readings.ALL, norm),
    )
    way = measure.Measurement(equality, own, (), pipelines.NONE)
    program, scale = measure.signatures_program(shape, way), bundles.Scale.of(0.0, 1e-3, 64)
    measured = measure.layers(program, shape, one, Examples(images, labels), scale, way)
    assert measured.own.entropy.shape == (1, 6)
    assert (measured.branches is not None) == residual

    def padded(a):
        return jnp.pad(a.reshape(len(a), -1), ((0, 0), (0, 784 - a[0].size))).T

    alone = jax.tree.map(lambda a: a[0], one)
    _, outputs, branches = compiled.seen(shape, alone, augment.to_float(images), padded, norm)
    amplitude = float(np.abs(start.params).max())
    for found, each in ((measured.own, outputs), (measured.branches, branches)):
        for number, activations in enumerate(each):
            alone = bundles.bundle_entropy(
                activations.T, labels, num_classes=10, amplitude=amplitude
            )
            assert found.num_bundles[0, number] == alone.num_bundles <= 150
            assert found.entropy[0, number] == pytest.approx(alone.entropy, abs=1e-6)


def test_latency_is_measured():
    shape = ConvShape((28, 28, 1), (1, 0, 0, 0), 4, False, 10)
    start = Network(*map(jnp.asarray, network.initial(shape, 0, shape)[:2]))
    images = jnp.zeros((64, 28, 28, 1), jnp.uint8)
    assert 0 < measure.latency(shape, start, images, pipelines.NONE) < 10
