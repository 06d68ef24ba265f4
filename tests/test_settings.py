"""Settings that vary what the paper holds fixed: number formats, gain, what a layer computes."""

from __future__ import annotations

import dataclasses
import functools
import io

import compiled
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from mnist_images import first_images

from cbundles import config, train
from cbundles.bundles import rounded
from cbundles.data import device, pipelines
from cbundles.data.dataset import Facts
from cbundles.errors import DamagedCheckpoint, InputError
from cbundles.executor import planner
from cbundles.experiments import sweep
from cbundles.networks import conv, fc, network, saved
from cbundles.networks.network import Network
from cbundles.networks.shape import ConvShape, FcShape

FACTS = Facts(640, 200, (28, 28, 1), 10)


@pytest.fixture(scope="module")
def small() -> device.DeviceData:
    """The first 640 images of mnist_mini: ten steps an epoch."""
    return device.place(first_images(640, 200), config.Data(), config.Probe(samples=256))


def cells(*overrides: str, model: str = "width: 10, depth: 4") -> tuple[config.Cell, ...]:
    content = {
        "model": config.parse_yaml(f"{{{model}}}", "test"),
        "training": {"epochs": 2},
        "probe": {"samples": 256},
    }
    return config.override(content, list(overrides), default_name="test", file="test").cells


def trained(chosen, data, resume=None):
    return functools.reduce(lambda _, state: state, sweep.train(chosen, data, FACTS, resume))


# What can be written.


def test_a_block_and_its_activation_are_one_setting_of_a_cell():
    (together,) = cells("model.block=residual1-gelu")
    (apart,) = cells("model.block=residual1", "model.activation=gelu")
    assert together == apart and together.model.block == "residual1-gelu"
    assert together.model.activation is None
    (usual,) = cells()
    assert cells("model.block=plain") == cells("model.activation=relu") == (usual,)
    assert cells("model.activation=gelu")[0].model.block == "plain-gelu"


def test_blocks_and_activations_may_be_axes():
    grid = cells("model.block=[plain, residual2]", "model.activation=[relu, tanh, leaky_relu]")
    assert [cell.model.block for cell in grid] == [
        "plain-relu", "plain-tanh", "plain-leaky_relu",
        "residual2-relu", "residual2-tanh", "residual2-leaky_relu",
    ]  # fmt: skip


def test_storage_in_the_format_of_the_arithmetic_is_no_rounding():
    for precision in ("float32", "float64"):
        same = cells(f"training.precision={precision}", "training.storage=[precision, float32]")
        assert len(same) == (1 if precision == "float32" else 2)
    assert cells("training.storage=float32") == cells()


CONV = "model={family: vgg, depth: 10, base_filters: 4}"
GROWING = ["growth.arm=max", "growth.first_epoch=1"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.block=plain-relu", "model.activation=gelu"], ["model.block = plain"]),
        (["model.activation=gellu"], ["gelu"]),
        (["model.gain=0"], ["model.gain = 0", "greater than 0"]),
        (["model.gain=1e9"], ["at most 1000"]),
        (["model.normalisation=batch"], ["'batch'", "layer"]),
        (["training.storage=float8"], ["float8"]),
        ([CONV, "training.precision=float64"], ["only fc", "nearest valid: float32"]),
        ([CONV, "model.activation=tanh"], ["no effect for model.family = vgg"]),
        ([CONV, "model.normalisation=layer"], ["no effect for model.family = vgg"]),
        ([*GROWING, "training.precision=float64"], ["change their depth", "float32"]),
        ([*GROWING, "training.storage=float16"], ["change their depth", "valid: precision"]),
        ([*GROWING, "model.normalisation=layer"], ["standardised", "nearest valid: none"]),
        ([*GROWING, "model.activation=gelu"], ["plain-gelu", "nearest valid: plain-relu"]),
        (
            [*GROWING, "model.block=residual1", "model.activation=leaky_relu"],
            ["kink", "nearest valid: residual1-tanh"],
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(overrides, words):
    with pytest.raises(InputError) as refused:
        cells(*overrides)
    for word in words:
        assert word in str(refused.value)


def test_unusual_settings_stand_in_the_name_of_a_network():
    (cell,) = cells(
        "model.gain=2", "model.normalisation=layer", "model.activation=tanh",
        "training.precision=float64", "training.storage=bfloat16",
    )  # fmt: skip
    for text in ("gain=2.0", "normalisation=layer", "block=plain-tanh", "precision=float64",
                 "storage=bfloat16"):  # fmt: skip
        assert f" {text}" in cell.label


def test_populations_do_not_mix_number_formats_nor_normalisations():
    grid = cells(
        "training.precision=[float32, float64]", "training.storage=[precision, float16]",
        "model.normalisation=[none, layer]", "model.gain=[1.0, 2.0]", "training.seed=[0, 1]",
    )  # fmt: skip
    for kind, number in (("cpu", 16), ("gpu", 8)):
        populations = planner.populations(grid, kind)
        assert len(populations) == number
        for population in populations:
            alike = {
                (dataclasses.replace(cell.training, seed=0), cell.model.normalisation)
                for cell in population.cells
            }
            assert len(alike) == 1


# Initial weights.


@pytest.mark.parametrize("block", ["plain-relu", "residual2-gelu"])
def test_gain_multiplies_all_kernels_of_fully_connected_networks(block):
    shape = FcShape(9, 4, 5, 3, block, "layer")
    usual, twice = fc.init(shape, seed=1), fc.init(shape, seed=1, gain=2.0)
    kernels = {"first", "hidden", "last", "outer"}
    for name, ours, theirs in zip(fc.Params._fields, twice, usual, strict=True):
        factor = 2 if name in kernels else 1
        jax.tree.map(lambda a, b, f=factor: np.testing.assert_array_equal(a, f * b), ours, theirs)


def test_gain_multiplies_all_kernels_of_convolutional_networks():
    shape = ConvShape((8, 8, 1), (1, 1, 0, 0), 2, True, 3)
    usual, _ = conv.init(shape, seed=1)
    twice, _ = conv.init(shape, seed=1, gain=2.0)
    for ours, theirs in zip(jax.tree.leaves(twice), jax.tree.leaves(usual), strict=True):
        is_kernel = theirs.ndim in (2, 4, 5) and theirs.any() and not (theirs == 1).all()
        np.testing.assert_array_equal(ours, 2 * theirs if is_kernel else theirs)


# Normalisation and activations.


@pytest.mark.parametrize("block", ["plain-relu", "residual1-tanh", "residual2-gelu"])
def test_a_normalised_network_in_plain_numpy(block):
    shape = FcShape(12, 3, 5, 4, block, "layer")
    params, chance = fc.init(shape, seed=0), np.random.default_rng(0)
    params = jax.tree.map(lambda a: a + chance.normal(0, 0.1, a.shape).astype(np.float32), params)
    kind, name = block.split("-")

    def s(z):
        return np.asarray(fc.ACTIVATIONS[name](jnp.asarray(z, jnp.float32)))

    def normalised(z, scale, shift):
        return (z - z.mean(1, keepdims=True)) / np.sqrt(
            z.var(1, keepdims=True) + 1e-5
        ) * scale + shift

    x, norms = chance.standard_normal((6, 12)).astype(np.float32), params.norms
    h = s(normalised(x @ params.first + params.first_bias, *norms[:2]))
    for layer in range(2):
        z = h @ params.hidden[layer] + params.hidden_bias[layer]
        out = s(normalised(z, norms.scale[layer], norms.shift[layer]))
        if kind == "residual2":
            out = out @ params.outer[layer]
        h = out if kind == "plain" else h + out
    one = Network(ravel_pytree(params)[0], jnp.zeros(0))
    found = compiled.logits(shape, one, x)
    np.testing.assert_allclose(found, h @ params.last + params.last_bias, atol=1e-5)
    assert one.params.size == shape.parameters


def test_activations_are_what_they_are_called():
    x = jnp.array([-2.0, -0.5, 0.0, 1.0])
    gelu, leaky = fc.ACTIVATIONS["gelu"](x), fc.ACTIVATIONS["leaky_relu"](x)
    np.testing.assert_allclose(gelu, [-0.0455003, -0.1542688, 0, 0.8413447], atol=1e-6)
    np.testing.assert_allclose(leaky, [-0.02, -0.005, 0, 1], atol=1e-7)


@pytest.mark.parametrize("block", ["plain-relu", "residual1-tanh", "residual2-leaky_relu"])
def test_a_padded_normalised_network_equals_the_network_alone(small, block):
    sizes = [(3, 7), (6, 10), (9, 12)]
    together = [
        cells(f"model.depth={depth}", f"model.width={width}", f"model.block={block}",
              "model.normalisation=layer", "model.gain=1.5")[0]
        for depth, width in sizes
    ]  # fmt: skip
    ended = trained(together, small)
    population = ended.population
    for number, cell in enumerate(together):
        alone = trained([cell], small)
        (own, ours), (_, theirs) = population.network_of(number), alone.population.network_of(0)
        np.testing.assert_allclose(ours.params, theirs.params, rtol=0, atol=5e-5)
        whole = population.state.params.fast[number]
        again = fc.pad(network.views(own)[0](ours.params), population.shape)
        np.testing.assert_array_equal(whole, ravel_pytree(again)[0])  # padding is exactly zero
        amplitude = network.amplitude(population.shape, whole, "all")
        assert float(amplitude) == float(np.abs(ours.params).max())
        for mine, its in zip(ended.members[number].history, alone.members[0].history, strict=True):
            assert mine["test_accuracy"] == pytest.approx(its["test_accuracy"], abs=0.011)
            np.testing.assert_allclose(mine["entropy"], its["entropy"], atol=0.02)


def test_a_normalised_network_is_kept_with_its_normalisation(small):
    (cell,) = cells("model.normalisation=layer", "model.activation=gelu")
    ended = trained([cell], small)
    shape, one = ended.population.network_of(0)
    content = saved.encode(saved.Saved(shape, one, {"cell": cell.id}))
    again = saved.decode(content, "a file")
    assert again.shape == shape and shape.is_normalised
    np.testing.assert_array_equal(again.network.params, one.params)
    with np.load(io.BytesIO(content)) as archive:
        assert '"normalisation": "layer"' in str(archive["header"])


# Number formats.


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
def test_rounding_in_a_program_is_that_of_numpy(storage):
    chance = np.random.default_rng(0)
    x = (chance.standard_normal(4096) * 10.0 ** chance.integers(-9, 5, 4096)).astype(np.float32)
    expected = x.astype(getattr(ml_dtypes, storage, np.float16)).astype(np.float32)
    found = jax.jit(lambda x, zero: rounded(2 * x, storage, zero))(x / 2, jnp.uint32(0))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
def test_all_weights_are_numbers_of_their_storage_format(small, storage):
    (cell,), (usual,) = cells(f"training.storage={storage}"), cells()
    state, full = (trained([one], small).population.state for one in (cell, usual))
    number_format = np.dtype(getattr(ml_dtypes, storage, np.float16))

    def is_rounded(values) -> bool:
        values = np.asarray(values)
        return bool((values == values.astype(number_format).astype(values.dtype)).all())

    assert is_rounded(state.params.fast) and is_rounded(state.params.slow)
    assert not is_rounded(full.params.fast)
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim == 2]
    assert len(moments) == 2 and not any(map(is_rounded, moments))


def test_storage_rounds_what_every_step_makes():
    """Step by step against the optimizer, and NumPy's rounding: seven of them, one synchronises."""
    shape = FcShape(9, 3, 5, 3)
    recipe = train.Recipe(8, 1e-2, 1e-2, pipelines.NONE, storage="float16")
    chance = np.random.default_rng(0)
    x = jnp.asarray(chance.standard_normal((7, 8, 9)), jnp.float32)
    y = jnp.asarray(chance.integers(0, 3, (7, 8)), jnp.int32)
    state = train.start(network.initial(shape, 0, shape), recipe)
    plain = dataclasses.replace(recipe, storage="precision")

    def halves(tree):
        return jax.tree.map(lambda a: np.asarray(a).astype(np.float16).astype(np.float32), tree)

    expected = halves(train.start(network.initial(shape, 0, shape), plain).params)
    opt_state = state.opt_state
    for number in range(7):
        params = optax.LookaheadParams(*map(jnp.asarray, expected))
        before = train.TrainState(params, opt_state, jnp.zeros(0))
        after, _ = compiled_step(before, x[number], y[number], shape=shape, recipe=plain)
        expected, opt_state = halves(after.params), after.opt_state
        state, _ = compiled_step(state, x[number], y[number], shape=shape, recipe=recipe)
        for ours, theirs in zip(state.params, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-3)
            assert np.mean(np.asarray(ours) == theirs) > 0.98  # last bits before the rounding


compiled_step = jax.jit(train.step, static_argnames=("shape", "recipe"))


def test_float64_is_trained_in_float64_and_measured_in_float32(small):
    (cell,), (usual,) = cells("training.precision=float64"), cells()
    ended, single = trained([cell], small), trained([usual], small)
    population = ended.population
    floats = [leaf for leaf in jax.tree.leaves(population.state) if leaf.dtype.kind == "f"]
    assert {str(leaf.dtype) for leaf in floats if leaf.size} == {"float64"}
    assert population.losses.dtype == np.float64
    assert population.networks.params.dtype == np.float32
    assert not jax.config.jax_enable_x64
    double, one = (np.asarray(state.population.state.params.fast) for state in (ended, single))
    assert (double != double.astype(np.float32)).mean() > 0.9  # more digits than float32 has
    np.testing.assert_allclose(double, one, rtol=0, atol=1e-3)  # from the same initial weights
    for mine, its in zip(ended.members[0].history, single.members[0].history, strict=True):
        assert mine.keys() == its.keys()
        assert mine["train_loss"] == pytest.approx(its["train_loss"], abs=1e-3)


def test_float64_agrees_with_numpy_to_its_digits():
    """One step of plain gradient: the loss of a network in NumPy's float64."""
    shape = FcShape(9, 3, 5, 3, "plain-gelu", "layer")
    recipe = train.Recipe(8, 1e-2, 1e-2, pipelines.NONE, precision="float64")
    chance = np.random.default_rng(0)
    x, y = chance.standard_normal((8, 9)), chance.integers(0, 3, 8).astype(np.int32)
    params = fc.init(shape, 0)
    with train.arithmetic(recipe.precision):
        state = train.start(Network(network.flat(params), np.zeros(0, np.float32)), recipe)
        _, loss = compiled_step(state, jnp.asarray(x), jnp.asarray(y), shape=shape, recipe=recipe)
    from scipy.special import erf

    def layer(z):
        z = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-5)
        return z * (1 + erf(z / np.sqrt(2))) / 2

    h = layer(x @ params.first.astype(float))
    for weights in params.hidden.astype(float):
        h = layer(h @ weights)
    logits = h @ params.last.astype(float)
    expected = (np.log(np.exp(logits).sum(1)) - logits[np.arange(8), y]).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("setting", ["training.precision=float64", "training.storage=bfloat16"])
def test_resuming_is_bit_identical(small, setting):
    chosen = cells(setting, "training.epochs=3", "training.seed=[0, 1]")
    whole = trained(chosen, small)
    frozen = next(s.freeze() for s in sweep.train(chosen, small, FACTS) if s.epoch == 1)
    resumed = trained(chosen, small, resume=frozen)
    assert resumed.members == whole.members
    ours, theirs = (jax.tree.leaves(s.population.state) for s in (resumed, whole))
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_checkpoint_of_another_precision_is_refused(small):
    frozen = next(iter(sweep.train(cells("training.precision=float64"), small, FACTS))).freeze()
    with pytest.raises(DamagedCheckpoint, match="other networks"):
        next(iter(sweep.train(cells(), small, FACTS, resume=frozen)))


def test_a_float64_network_in_a_population_equals_the_network_alone(small):
    together = [
        cells("training.precision=float64", f"model.depth={depth}", f"model.width={width}",
              "model.normalisation=layer")[0]
        for depth, width in ((3, 7), (6, 10))
    ]  # fmt: skip
    population = trained(together, small).population
    for number, cell in enumerate(together):
        alone = trained([cell], small).population.network_of(0)[1]
        np.testing.assert_allclose(population.network_of(number)[1].params, alone.params, atol=1e-7)


def test_what_float64_costs_is_planned():
    (double,), (single,) = cells("training.precision=float64"), cells()
    assert planner.training_seconds(double, FACTS) > planner.training_seconds(single, FACTS)
    assert planner.checkpoint_bytes(double, FACTS) == 2 * planner.checkpoint_bytes(single, FACTS)


def test_a_vgg_may_be_stored_coarsely_too(small):
    (cell,) = cells("training.storage=bfloat16", "training.epochs=1", model=(
        "family: vgg, blocks: '1,1,0,0', base_filters: 2"))  # fmt: skip
    fast = np.asarray(trained([cell], small).population.state.params.fast)
    assert (fast == fast.astype(ml_dtypes.bfloat16).astype(np.float32)).all()
