"""Measuring a network: golden end-to-end results, and padding that does not show."""

from __future__ import annotations

from typing import Any

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from networks import golden_network, golden_params

from cbundles import bundles, measure, readings
from cbundles.bundles import equality
from cbundles.data import augment, pipelines
from cbundles.data.device import Examples
from cbundles.networks import conv, fc, network
from cbundles.networks.network import Network
from cbundles.networks.shape import ConvShape, FcShape


def one(params: fc.Params, depth: int | None = None) -> Network:
    """A population of one."""
    depths = None if depth is None else jnp.asarray([depth], jnp.int32)
    return Network(ravel_pytree(params)[0][None], jnp.zeros((1, 0)), depths)


def by(rule: str = "weight_amplitude") -> measure.Measurement:
    own = readings.own_reading(readings.BLOCK, readings.ALL, readings.RUNNING)
    return measure.Measurement(bundles.Equality(rule), own, (), pipelines.NONE)


def measured(
    params: fc.Params,
    shape: FcShape,
    images,
    labels,
    *,
    depth=None,
    rule="weight_amplitude",
    rate=1e-3,
    batch_size=64,
) -> measure.Layers:
    networks = one(params, depth)
    program = measure.signatures_program(shape, by(rule))
    scale = bundles.Scale.of(0.0, rate, batch_size)
    examples = Examples(jnp.asarray(images), jnp.asarray(labels, jnp.int32))
    return measure.layers(program, shape, networks, examples, scale, by(rule)).own


@pytest.mark.parametrize(("evaluation_size", "used"), [(40, 48), (64, 64), (512, 160)])
def test_golden_end_to_end(golden, evaluation_size, used):
    """The original rounds the probe size up to whole batches of 16, or takes all there is."""
    case = golden("e2e_fnn_w10_d4")
    rate, batch_size = float(case["train_lr"]), int(case["train_batch_size"])
    found = measured(
        golden_params(case),
        FcShape(784, 4, 10, 10),
        case["x"][:used],
        case["y"][:used],
        rate=rate,
        batch_size=batch_size,
    )
    expected = case[f"result:evaluation_size={evaluation_size}:all_layers=True"]
    np.testing.assert_array_equal(found.num_bundles[0], expected[:, 0])
    np.testing.assert_allclose(found.entropy[0], expected[:, 1], atol=2e-6)


PAPER = readings.PAPER
# Layers in which two activations are equal or not depending on the order in which their inputs are
# added up: in float64 the network of `paper_e2e_fnn` has 17 bundles there, in float32 17 or 18.
NEARLY_TIED = {"fnn": [28], "vgg": [], "resnet": []}


@pytest.mark.parametrize("family", ["fnn", "vgg", "resnet"])
def test_paper_e2e(golden, family):
    """The paper's own revision, run on a whole network: every layer, the last one, and w."""
    case = golden(f"paper_e2e_{family}")
    shape, network_, measurement = paper_case(case, family)
    scale = bundles.Scale.of(0.0, float(case["train_lr"]), int(case["train_batch_size"]))
    examples = Examples(jnp.asarray(case["x"]), jnp.asarray(case["y"], jnp.int32))
    program = measure.signatures_program(shape, measurement)
    found = measure.layers(program, shape, network_, examples, scale, measurement)
    paper = found.further[PAPER]
    sure = [layer for layer in range(len(case["result_all"])) if layer not in NEARLY_TIED[family]]
    expected = case["result_all"][sure]
    np.testing.assert_array_equal(paper.num_bundles[0, sure], expected[:, 0])
    np.testing.assert_allclose(paper.entropy[0, sure], expected[:, 1], atol=2e-6)
    np.testing.assert_allclose(paper.entropy[0, -1], case["result_last"][0, 1], atol=2e-6)
    w = network.amplitude(shape, network_.params[0], readings.HIDDEN)
    assert float(w) == float(case["weight_amplitude"])


def test_paper_e2e_of_activations(golden):
    """The layer that hangs on the order of additions, too, when NumPy adds as the original did."""
    case = golden("paper_e2e_fnn")
    a = case["x"].reshape(len(case["x"]), -1)
    for layer, (num_bundles, entropy) in enumerate(case["result_all"]):
        a = np.maximum(a @ case[f"w:fc{layer}/kernel"] + case[f"w:fc{layer}/bias"], 0)
        found = bundles.bundle_entropy(
            a, case["y"], num_classes=10, amplitude=float(case["weight_amplitude"])
        )
        assert found.num_bundles == num_bundles
        assert found.entropy == pytest.approx(entropy, abs=2e-6)


def test_which_weights_the_amplitude_is_taken_over():
    dense = FcShape(20, 3, 6, 3)
    layers = fc.init(dense, seed=0)
    layers.last[0, 0], layers.hidden[1, 0, 0] = -9.0, 5.0
    flat = ravel_pytree(layers)[0]
    assert network.amplitude(dense, flat, readings.ALL) == 9.0
    assert network.amplitude(dense, flat, readings.HIDDEN) == 5.0
    small = ConvShape((28, 28, 1), (1, 1, 0, 0), 4, True, 10)
    units, _ = conv.init(small, seed=0)
    units.stem.gamma[0], units.last[0, 0] = -9.0, 5.0
    flat = ravel_pytree(units)[0]
    assert network.amplitude(small, flat, readings.ALL) == 9.0
    assert network.amplitude(small, flat, readings.HIDDEN) == 5.0


@pytest.mark.parametrize("residual", [False, True])
def test_readings_measured_together_are_those_measured_alone(residual):
    """Whatever is shared between them, and in whichever order they are asked for."""
    shape = ConvShape((28, 28, 1), (1, 2, 1, 1), 4, residual, 10)
    units, past = conv.init(shape, seed=2)
    units.stem.gamma[0] = 300.0  # so that the amplitude makes a difference
    network_ = Network(ravel_pytree(units)[0][None], ravel_pytree(past)[0][None])
    chance = np.random.default_rng(0)
    images = np.full((200, 28, 28, 1), 128, np.uint8)
    images[:, 14, 14, 0] += chance.integers(0, 100, 200).astype(np.uint8)  # they differ by a pixel
    examples = Examples(jnp.asarray(images), jnp.asarray(np.arange(200) % 10, jnp.int32))
    scale = bundles.Scale.of(0.0, 1e-3, 64)

    def measure_with(own, further):
        way = measure.Measurement(bundles.Equality(), own, further, pipelines.NONE)
        program = measure.signatures_program(shape, way)
        return measure.layers(program, shape, network_, examples, scale, way)

    own = readings.own_reading(readings.BLOCK, readings.ALL, readings.BATCH)
    names = "running,paper,hidden,pooled,pooled+hidden"
    asked = readings.named_readings(names, own, convolutional=True)
    together = measure_with(own, asked)
    plain = measure_with(own, ())
    assert list(together.further) == names.split(",")
    assert jax.tree.all(jax.tree.map(np.array_equal, together.own, plain.own))
    assert jax.tree.all(jax.tree.map(np.array_equal, together.branches, plain.branches))
    counts = {name: layers.num_bundles[0] for name, layers in together.further.items()}
    for reading in asked:
        alone = measure_with(reading, ()).own
        np.testing.assert_array_equal(alone.num_bundles[0], counts[reading.name])
        np.testing.assert_array_equal(alone.entropy, together.further[reading.name].entropy)
    assert len({len(count) for count in counts.values()}) == 2  # with pooled features, and without
    assert counts["hidden"].tolist() != together.own.num_bundles[0].tolist()
    assert counts["running"].tolist() != together.own.num_bundles[0].tolist()
    np.testing.assert_array_equal(counts["pooled"][:-1], together.own.num_bundles[0])


def paper_case(case, family):
    """The shape of a stored network, the network as a population of one, and how it is measured."""
    convolutional = family != "fnn"
    own = readings.own_reading(readings.BLOCK, readings.ALL, readings.BATCH)
    further = readings.named_readings(PAPER, own, convolutional=convolutional)
    measurement = measure.Measurement(bundles.Equality(), own, further, pipelines.NONE)
    if not convolutional:
        return FcShape(784, 40, 10, 10), one(golden_params(case, depth=40)), measurement
    blocks, residual = tuple(int(n) for n in case["blocks"]), family == "resnet"
    shape = ConvShape(case["x"].shape[1:], blocks, 4, residual, 10)
    params = ravel_pytree(golden_network(case, blocks, residual))[0]
    statistics = ravel_pytree(golden_network(case, blocks, residual, statistics=True))[0]
    return shape, Network(params[None], statistics[None]), measurement


def accuracy(params: fc.Params, shape: FcShape, images, labels, *, depth=None) -> float:
    program = measure.accuracy_program(shape, pipelines.NONE)
    examples = Examples(jnp.asarray(images), jnp.asarray(labels, jnp.int32))
    return float(program(one(params, depth), examples)[0])


def test_padding_neither_changes_bundles_nor_the_amplitude():
    own, larger = FcShape(20, 4, 6, 3), FcShape(20, 7, 9, 3)
    params = fc.init(own, seed=0)
    chance = np.random.default_rng(0)
    x = jnp.asarray(chance.integers(0, 2, (80, 20)).astype(np.float32) * 1e-4)
    y = jnp.asarray(np.arange(80) % 3)
    alone = measured(params, own, x, y)
    padded = measured(fc.pad(params, larger), larger, x, y, depth=4)
    assert alone.num_bundles.min() < 80  # there is something to compare
    np.testing.assert_array_equal(padded.num_bundles[:, :4], alone.num_bundles)
    np.testing.assert_array_equal(padded.entropy[:, :4], alone.entropy)
    assert accuracy(fc.pad(params, larger), larger, x, y, depth=4) == accuracy(params, own, x, y)


def test_the_amplitude_is_the_largest_absolute_weight():
    """A weight of -1000 makes updates invisible that beside the other weights could be seen."""
    shape = FcShape(20, 3, 6, 3)
    params = fc.init(shape, seed=0)
    chance = np.random.default_rng(0)
    x, y = jnp.asarray(chance.random((80, 20)), jnp.float32), np.arange(80) % 3
    before = measured(params, shape, x, y)
    params.last[0, 0] = -1000.0  # no hidden layer reads it
    after = measured(params, shape, x, y)
    assert before.num_bundles.min() == 80
    assert after.num_bundles.max() < 80 and after.entropy.min() > 0


def test_a_diverged_network_is_reported_as_such():
    shape = FcShape(20, 3, 6, 3)
    params = fc.init(shape, seed=0)
    params.hidden[0][:] = np.inf
    x, y = jnp.ones((10, 20)), jnp.zeros(10, jnp.int32)
    result = measured(params, shape, x, y)
    assert result.finite.tolist() == [[False, False, False]]  # nor is the amplitude a number


def test_a_layer_beyond_an_infinite_activation_is_not_finite():
    """Overflow without an infinite weight: the first layer is still measurable."""
    shape = FcShape(20, 3, 6, 3)
    params = fc.init(shape, seed=0)
    params.first[:] = 1e30
    params.hidden[0][:] = 1e30
    result = measured(params, shape, jnp.ones((10, 20)), np.zeros(10))
    assert result.finite.tolist() == [[True, False, False]]


def test_accuracy_counts_every_test_image():
    shape = FcShape(5, 1, 4, 3)
    params = fc.init(shape, seed=1)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((101, 5)), jnp.float32)
    alone = Network(ravel_pytree(params)[0], jnp.zeros(0))
    y = jnp.argmax(compiled.logits(shape, alone, x), axis=1)
    wrong = y.at[:10].set((y[:10] + 1) % 3)
    assert accuracy(params, shape, x, wrong) == pytest.approx(91 / 101)


def exact_network(shape: FcShape) -> fc.Params:
    """Weights that are whole numbers: float32 arithmetic is exact, however it is batched."""
    params = fc.init(shape, seed=3)
    return jax.tree.map(lambda leaf: np.round(3 * leaf), params)


@pytest.mark.parametrize("batch", [7, 64, 300])
def test_streaming_in_batches_changes_nothing(monkeypatch, batch):
    """Also where the last batch overlaps the one before it, and with uint8 images."""
    shape = FcShape(12, 5, 4, 3)
    params = exact_network(shape)
    chance = np.random.default_rng(0)
    images = chance.integers(0, 3, (300, 3, 4, 1)).astype(np.float32)
    labels = chance.integers(0, 3, 300)
    monkeypatch.setattr(measure, "IMAGES_AT_ONCE", 300)
    measure.signatures_program.cache_clear()
    whole = measured(params, shape, images, labels)
    monkeypatch.setattr(measure, "IMAGES_AT_ONCE", batch)
    measure.signatures_program.cache_clear()
    parts = measured(params, shape, images, labels)
    assert 1 < whole.num_bundles[0, -1] < whole.num_bundles[0, 0]  # something to get wrong
    np.testing.assert_array_equal(parts.num_bundles, whole.num_bundles)
    np.testing.assert_array_equal(parts.entropy, whole.entropy)


def test_images_may_be_bytes():
    shape = FcShape(16, 3, 6, 3)
    params, chance = fc.init(shape, seed=1), np.random.default_rng(4)
    raw, labels = chance.integers(0, 256, (50, 4, 4, 1), dtype=np.uint8), np.arange(50) % 3
    pixels = np.asarray(augment.to_float(jnp.asarray(raw)))
    as_bytes, as_floats = (measured(params, shape, x, labels) for x in (raw, pixels))
    np.testing.assert_array_equal(as_bytes.entropy, as_floats.entropy)
    assert accuracy(params, shape, raw, labels) == accuracy(params, shape, pixels, labels)


def test_streaming_stores_no_activations():
    """What grows with the samples is less than one layer's activations, let alone all four."""

    def temporary(samples):
        shape = FcShape(16, 4, 256, 10)
        program = measure.signatures_program(shape, by())
        networks = Network(jnp.zeros((1, shape.parameters)), jnp.zeros((1, 0)))
        images = jnp.zeros((samples, 4, 4, 1), jnp.uint8)
        arguments = (networks, images, bundles.Scale.of(0, 1e-3, 64), measure.keys_for(shape))
        memory = program.lower(*arguments).compile().memory_analysis()
        return memory.temp_size_in_bytes

    assert temporary(60_000) - temporary(10_000) < 50_000 * 256 * 4 / 2


def population(rule: str) -> tuple[measure.Layers, list[fc.Params], Any, Any]:
    """Three networks of six layers: 18 layers do not fill two pieces."""
    shape = FcShape(12, 6, 10, 3)
    params = [
        jax.tree.map(lambda leaf: np.round(3 * leaf), fc.init(shape, seed)) for seed in range(3)
    ]
    chance = np.random.default_rng(0)
    x, y = chance.integers(0, 3, (90, 12)).astype(np.float32), np.arange(90) % 3
    networks = Network(jnp.stack([ravel_pytree(p)[0] for p in params]), jnp.zeros((3, 0)))
    program = measure.signatures_program(shape, by(rule))
    examples = Examples(jnp.asarray(x), jnp.asarray(y, jnp.int32))
    scale = bundles.Scale.of(0.0, 1e-3, 64)
    found = measure.layers(program, shape, networks, examples, scale, by(rule)).own
    return found, params, x, y


@pytest.mark.parametrize("rule", bundles.RULES)
def test_every_layer_of_a_population_is_what_the_metric_says_of_its_activations(rule):
    found, members, x, y = population(rule)
    for member, params in enumerate(members):
        shape, alone = FcShape(12, 6, 10, 3), Network(ravel_pytree(params)[0], jnp.zeros(0))
        activations = compiled.layers(shape, alone, x)
        amplitude = float(np.abs(ravel_pytree(params)[0]).max())
        for layer in range(6):
            alone = bundles.bundle_entropy(
                activations[layer], y, num_classes=3, equality=rule, amplitude=amplitude
            )
            assert found.num_bundles[member, layer] == alone.num_bundles
            assert found.entropy[member, layer] == pytest.approx(alone.entropy, abs=1e-6)
            rate = found.conflict_rate[member, layer]
            assert rate == pytest.approx(alone.conflict_rate, abs=1e-6)
    assert found.num_bundles.min() < 90


def test_layers_in_which_hashes_collide_are_measured_again(monkeypatch):
    """With blind keys at first (one sort key for all rows), the result must be the same."""
    honest = population("weight_amplitude")[0]
    salts = []

    def blind_at_first(columns, salt):
        salts.append(salt)
        keys = draw(columns, salt)
        if salt < 2:
            keys[: equality.LANE_DISTANCE * 2] = 0
        return keys

    draw = bundles.draw_keys
    monkeypatch.setattr(bundles, "draw_keys", blind_at_first)
    again = population("weight_amplitude")[0]
    assert salts == [0, 1, 2]
    np.testing.assert_array_equal(again.num_bundles, honest.num_bundles)
    np.testing.assert_array_equal(again.entropy, honest.entropy)
    monkeypatch.setattr(bundles, "MAX_SALTS", 2)
    with pytest.raises(bundles.CollisionError):
        population("weight_amplitude")
