"""Residual blocks that are removed for good: what is left equals the model with zeroed branches."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT
from flax import nnx
from jax import export

import cbundles
from cbundles.networks import network, pruning, watched
from cbundles.networks.network import Network
from cbundles.networks.shape import ConvShape
from cbundles.observe import jaxprs

CLASSES = 10
IMAGES = np.random.default_rng(0).standard_normal((24, 16, 16, 3)).astype(np.float32)
LABELS = np.arange(len(IMAGES)) % CLASSES


def varied(variables):
    """Weights and statistics of which none is 0 or 1, so that nothing is equal by chance."""
    chance = np.random.default_rng(1)
    leaves, tree = jax.tree.flatten(variables)
    moved = [leaf + 0.1 * chance.standard_normal(leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(tree, moved)


def zeroed(tree, *places):
    """A copy of nested dictionaries with zeros at these paths; a number at the end is a row."""
    copy = jax.tree.map(jnp.asarray, tree)
    for *path, last in places:
        row = last if isinstance(last, int) else None
        inside = copy
        for name in path[:-1] if row is not None else path:
            inside = inside[name]
        name = path[-1] if row is not None else last
        inside[name] = jax.tree.map(
            lambda a, row=row: jnp.zeros_like(a) if row is None else a.at[row].set(0), inside[name]
        )
    return copy


def difference(a, b):
    assert float(jnp.std(a)) > 1e-3, "two outputs that say nothing are always equal"
    return float(jnp.abs(a - b).max())


def norm():
    return nn.BatchNorm(use_running_average=True)


class Block(nn.Module):
    filters: int
    strides: int = 1

    @nn.compact
    def __call__(self, x, _=None):
        h = nn.Conv(self.filters, (3, 3), self.strides, name="conv1")(x)
        h = nn.relu(nn.BatchNorm(use_running_average=True, name="norm1")(h))
        h = nn.Conv(self.filters, (3, 3), name="conv2")(h)
        h = nn.BatchNorm(use_running_average=True, name="norm2")(h)
        if self.strides > 1:
            x = nn.Conv(self.filters, (1, 1), self.strides, name="project")(x)
            x = nn.BatchNorm(use_running_average=True, name="norm_project")(x)
        return nn.relu(x + h), None


class ResNet(nn.Module):
    """Blocks that stand alone, one of them with a projection, and a scan over others."""

    remat: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), name="stem")(x))
        x, _ = Block(8, name="first")(x)
        inside = nn.remat(Block) if self.remat else Block
        axes = {"params": 0, "batch_stats": 0}
        stack = nn.scan(inside, axes, split_rngs={"params": True}, length=4)
        x, _ = stack(8, name="stack")(x, None)
        x, _ = Block(16, 2, name="half")(x)
        x, _ = Block(16, name="last")(x)
        return nn.Dense(CLASSES, name="head")(x.mean((1, 2)))


NAMES = [
    "ResNet/first/sum",
    *(f"ResNet/stack/sum[{row}]" for row in range(4)),
    "ResNet/half/sum",
    "ResNet/last/sum",
]


@pytest.fixture(scope="module")
def resnet():
    variables = varied(jax.jit(ResNet().init)(jax.random.key(0), IMAGES))
    variables["batch_stats"] = jax.tree.map(lambda a: jnp.abs(a) + 0.3, variables["batch_stats"])
    return variables


def without_branches(variables, *places):
    """The variables with last normalisations of 0 in these blocks: their branches are exactly 0."""
    ends = [(*place[:1], "norm2", *place[1:]) for place in places]
    return {**variables, "params": zeroed(variables["params"], *ends)}


@pytest.mark.parametrize(
    ("blocks", "places"),
    [
        ("ResNet/first/sum", [("first",)]),
        ("ResNet/first/branch", [("first",)]),
        (1, [("first",)]),
        ([3, "ResNet/half/sum"], [("stack", 1), ("half",)]),
        (["ResNet/stack/sum[0]", "*/stack/*[3]"], [("stack", 0), ("stack", 3)]),
        ("ResNet/stack/sum", [("stack",)]),
        ("*", [("first",), ("stack",), ("half",), ("last",)]),
    ],
)
def test_smaller_model_equals_zeroed_branches(resnet, blocks, places):
    removed = cbundles.remove(ResNet(), blocks, params=resnet, inputs=IMAGES)
    expected = jax.jit(ResNet().apply)(without_branches(resnet, *places), IMAGES)
    # To the last bit, but for the case in which so little is left that XLA fuses it otherwise.
    assert difference(removed(IMAGES), expected) <= (1e-6 if blocks == "*" else 0)


def test_it_needs_no_parameter_of_a_removed_branch(resnet):
    removed = cbundles.remove(ResNet(), [1, 3, 6], params=resnet, inputs=IMAGES)
    assert removed.blocks == (NAMES[0], NAMES[2], NAMES[5])
    names = set(removed.params)
    assert not {name for name in names if name.startswith(("first/", "batch_stats/first/"))}
    of_projection = {"project/kernel", "project/bias", "norm_project/scale", "norm_project/bias"}
    left = {name.removeprefix("half/") for name in names if name.startswith("half/")}
    assert left == of_projection
    rows = {name for name in names if name.startswith("stack/conv1/kernel")}
    assert rows == {f"stack/conv1/kernel[{row}]" for row in (0, 2, 3)}
    kernels = resnet["params"]["stack"]["conv1"]["kernel"]
    assert (removed.params["stack/conv1/kernel[2]"] == kernels[2]).all()
    report = removed.report
    assert "stack/conv1/kernel[1]" in report.gone
    assert not names & set(report.gone)
    assert report.after.parameters == sum(a.size for a in removed.params.values())
    assert report.before.parameters == sum(a.size for a in jax.tree.leaves(resnet))
    assert report.after.bytes == 4 * report.after.parameters
    assert report.after.flops < 0.7 * report.before.flops


def test_flops_of_scans_count_every_repetition(resnet):
    """A block of the stack costs as much as the first one."""
    first = cbundles.remove(ResNet(), 1, params=resnet, inputs=IMAGES).report
    stacked = cbundles.remove(ResNet(), 2, params=resnet, inputs=IMAGES).report
    assert first.before.flops == stacked.before.flops
    assert first.after.flops == stacked.after.flops


def test_it_trains_further_and_statistics_are_frozen(resnet):
    removed = cbundles.remove(ResNet(), [2, 6], params=resnet, inputs=IMAGES)

    def loss(params):
        logits = removed.model(params, IMAGES)
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

    value, gradients = jax.jit(jax.value_and_grad(loss))(removed.params)
    trained = {name for name, gradient in gradients.items() if jnp.abs(gradient).max() > 0}
    assert trained == set(removed.trainable)
    assert set(removed.params) - trained == {n for n in removed.params if "batch_stats" in n}
    assert "trained further" in removed.report.training
    moved = jax.tree.map(lambda a, g: a - 0.01 * g, removed.params, gradients)
    assert loss(moved) < value


def test_gradients_are_those_of_the_zeroed_model(resnet):
    removed = cbundles.remove(ResNet(), 3, params=resnet, inputs=IMAGES)
    zero = without_branches(resnet, ("stack", 1))

    def of_whole(params):
        return jnp.square(ResNet().apply({**zero, "params": params}, IMAGES)).mean()

    def of_smaller(params):
        return jnp.square(removed.model(params, IMAGES)).mean()

    expected = jax.jit(jax.grad(of_whole))(zero["params"])
    found = jax.jit(jax.grad(of_smaller))(removed.params)
    of_row, of_stem = expected["stack"]["conv1"]["kernel"][0], expected["stem"]["kernel"]
    np.testing.assert_allclose(found["stack/conv1/kernel[0]"], of_row, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found["stem/kernel"], of_stem, rtol=1e-3, atol=1e-6)


def test_remats_stay_around_what_keeps_its_branch(resnet):
    removed = cbundles.remove(ResNet(remat=True), 3, params=resnet, inputs=IMAGES)
    plain = cbundles.remove(ResNet(), 3, params=resnet, inputs=IMAGES)
    assert difference(removed(IMAGES), plain(IMAGES)) <= 1e-6
    program = jax.make_jaxpr(removed.model)(removed.params, IMAGES)
    names = [str(equation.primitive.name) for equation in program.eqns]
    assert sum(name in jaxprs.REMATS for name in names) == 3


def test_any_batch_size_and_the_same_up_to_rounding_from_a_file(resnet, tmp_path):
    removed = cbundles.remove(ResNet(), [2, 7], params=resnet, inputs=IMAGES)
    written = removed.export(tmp_path / "models" / "smaller.bin")
    assert written.batch is None  # it takes any
    again = export.deserialize(bytearray(written.path.read_bytes()))
    for size in (len(IMAGES), 1, 7):
        found, expected = again.call(IMAGES[:size]), removed(IMAGES[:size])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert removed(IMAGES[:size]).shape == (size, CLASSES)


def test_a_file_for_one_batch_size_says_so(tmp_path):
    """This model asks how large its batch is, so it cannot be written for all."""

    def model(params, x):
        y = x + jnp.tanh(x @ params["w"])
        return y if len(x) > 3 else 2 * y

    x = IMAGES[:, 0, :4, 0]
    removed = cbundles.remove(model, 1, params={"w": np.eye(4, dtype=np.float32)}, inputs=x)
    written = removed.export(tmp_path / "smaller.bin")
    assert written.batch == len(x)
    found = export.deserialize(bytearray(written.path.read_bytes())).call(x)
    np.testing.assert_allclose(found, x, rtol=1e-5)
    assert (removed(x[:2]) == 2 * x[:2]).all()
    assert removed.params == {}


def test_accuracy_before_after_and_with_statistics_taken_anew(resnet):
    removed = cbundles.remove(
        ResNet(), [2, 6], params=resnet, inputs=IMAGES, labels=LABELS, recalibrate=True
    )
    plain = cbundles.remove(ResNet(), [2, 6], params=resnet, inputs=IMAGES)
    for model, count in (
        (jax.jit(ResNet().apply)(resnet, IMAGES), removed.report.before.correct),
        (plain(IMAGES), removed.report.after.correct),
        (removed(IMAGES), removed.report.recalibrated),
    ):
        assert count == (np.asarray(model).argmax(-1) == LABELS).sum()
    assert removed.report.accuracy[0] == removed.report.before.correct / len(LABELS)
    assert plain.report.accuracy is None and plain.report.before.correct is None
    said = str(removed.report)
    assert "statistics anew" in said and "ResNet/stack/sum[0], ResNet/half/sum" in said
    assert "statistics anew" not in str(plain.report)


def test_statistics_taken_anew_are_those_of_the_inputs(resnet):
    """A forward pass by hand, each normalisation by what it is given."""
    removed = cbundles.remove(
        ResNet(), ["*/stack/sum", "*/last/sum"], params=resnet, inputs=IMAGES, recalibrate=True
    )
    params, statistics = resnet["params"], removed.params

    def normalised(x, block, name):
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        np.testing.assert_allclose(statistics[f"batch_stats/{block}/{name}/mean"], mean, atol=1e-4)
        np.testing.assert_allclose(
            statistics[f"batch_stats/{block}/{name}/var"], variance, rtol=1e-3
        )
        of_norm = params[block][name]
        return (x - mean) / np.sqrt(variance + 1e-5) * of_norm["scale"] + of_norm["bias"]

    def convolved(x, layer, strides=1):
        window = nn.Conv(layer["kernel"].shape[-1], layer["kernel"].shape[:2], strides)
        return window.apply({"params": layer}, x)

    def block(x, name, strides=1):
        own = params[name]
        h = nn.relu(normalised(convolved(x, own["conv1"], strides), name, "norm1"))
        h = normalised(convolved(h, own["conv2"]), name, "norm2")
        if strides > 1:
            x = normalised(convolved(x, own["project"], strides), name, "norm_project")
        return nn.relu(x + h)

    x = block(nn.relu(convolved(IMAGES, params["stem"])), "first")
    x = block(x, "half", 2)
    head = params["head"]
    np.testing.assert_allclose(
        removed(IMAGES), x.mean((1, 2)) @ head["kernel"] + head["bias"], rtol=1e-3, atol=1e-4
    )


def test_statistics_of_a_scan_that_stays_are_rows_of_one_array(resnet):
    rolled = cbundles.remove(ResNet(), 1, params=resnet, inputs=IMAGES, recalibrate=True)
    unrolled = cbundles.remove(ResNet(), [1, 5], params=resnet, inputs=IMAGES, recalibrate=True)
    mean = rolled.params["batch_stats/stack/norm2/mean"]
    assert mean.shape == (4, 8)
    for row in range(3):
        np.testing.assert_allclose(
            mean[row], unrolled.params[f"batch_stats/stack/norm2/mean[{row}]"], atol=1e-5
        )


def shape_of(blocks, residual=True):
    return ConvShape((16, 16, 3), blocks, 4, residual, CLASSES)


def fitting_network(shape):
    """With statistics of the images, as training leaves them."""
    one = network.initial(shape, 0, shape)
    one = jax.tree.map(jnp.asarray, one)
    return jax.jit(network.recalibrated, static_argnums=0)(shape, one, IMAGES)


@pytest.mark.parametrize("blocks", [(1, 0, 0, 0), (2, 3, 1, 2)])
def test_own_networks_equal_their_masks_and_their_surgery(blocks):
    shape = shape_of(blocks)
    whole = fitting_network(shape)
    module, variables = network.module_of(shape), network.variables_of(shape, whole)
    gone = [n for n in range(shape.layers) if n % 3 != 1]
    removed = cbundles.remove(module, [n + 1 for n in gone], params=variables, inputs=IMAGES)

    keep = np.ones(shape.layers, bool)
    keep[gone] = False
    masked = jax.jit(watched.masked_logits, static_argnums=0)(shape, whole, IMAGES, keep)
    assert difference(removed(IMAGES), masked) == 0
    smaller, small = pruning.without(shape, whole, gone)
    small = jax.tree.map(jnp.asarray, small)
    by_surgery = jax.jit(network.logits, static_argnums=0)(smaller, small, IMAGES)
    assert difference(removed(IMAGES), by_surgery) == 0
    assert removed.report.after.parameters == len(small.params) + len(small.statistics)

    fitting = jax.jit(network.recalibrated, static_argnums=0)(smaller, small, IMAGES)
    anew = cbundles.remove(
        module, [n + 1 for n in gone], params=variables, inputs=IMAGES, recalibrate=True
    )
    expected = jax.jit(network.logits, static_argnums=0)(smaller, fitting, IMAGES)
    # The product keeps the unbiased variance: of 24 values in the last stage 4 % more.
    assert difference(anew(IMAGES), expected) < 0.1 * float(jnp.abs(expected).max())


def test_a_vgg_has_nothing_to_remove():
    shape = shape_of((1, 1, 1, 1), residual=False)
    variables = network.variables_of(shape, Network(*network.initial(shape, 0, shape)[:2]))
    with pytest.raises(ValueError, match="this model has no residual sums"):
        cbundles.remove(network.module_of(shape), 1, params=variables, inputs=IMAGES)


class Layer(nnx.Module):
    def __init__(self, width, rngs):
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.inside = nnx.Linear(width, 2 * width, rngs=rngs)
        self.out = nnx.Linear(2 * width, width, rngs=rngs)

    def __call__(self, x):
        return x + self.out(nnx.gelu(self.inside(self.norm(x))))


class Scanned(nnx.Module):
    def __init__(self, rngs):
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def layers(rngs):
            return Layer(8, rngs)

        self.layers = layers(rngs)
        self.head = nnx.Linear(8, CLASSES, rngs=rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def forward(layer, x):
            return layer(x)

        return self.head(forward(self.layers, x))


def test_nnx_modules_with_scans():
    model, x = Scanned(nnx.Rngs(0)), IMAGES[:, 0, :, 0].reshape(48, 8)
    removed = cbundles.remove(model, [1, 3], inputs=x, recalibrate=True)
    assert [name[-6:] for name in removed.blocks] == ["sum[0]", "sum[2]"]
    plain = cbundles.remove(model, [1, 3], inputs=x)
    zero = nnx.clone(model)
    zero.eval()
    for variable in (zero.layers.out.kernel, zero.layers.out.bias):
        variable[...] = variable[...].at[jnp.array([0, 2])].set(0)
    assert difference(plain(x), nnx.jit(lambda model, x: model(x))(zero, x)) <= 1e-6
    kernels = {name for name in plain.params if "inside/kernel" in name}
    assert kernels == {"layers/inside/kernel[1]"}
    np.testing.assert_allclose(removed.params["layers/norm/mean[1]"], x.mean(0), atol=1e-5)
    frozen = {"layers/norm/mean[1]", "layers/norm/var[1]"}
    assert set(plain.trainable) == plain.params.keys() - frozen


def test_a_vision_transformer(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    example = importlib.import_module("examples.vision_transformer")
    model = example.VisionTransformer(3, 16, nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal((20, 28, 28, 1)).astype(np.float32)
    # Attention is the first branch of a block, the perceptron the second.
    removed = cbundles.remove(model, [2, 3], inputs=x, labels=np.arange(20) % CLASSES)
    zero = nnx.clone(model)
    for layer in (zero.blocks[0].contract, zero.blocks[1].attention.out):
        layer.kernel[...] = jnp.zeros_like(layer.kernel[...])
        layer.bias[...] = jnp.zeros_like(layer.bias[...])
    assert difference(removed(x), jax.jit(lambda x: zero(x))(x)) <= 1e-6
    assert difference(removed(x[:3]), removed(x)[:3]) <= 1e-5
    assert {name for name in removed.params if name.startswith("blocks/0/expand")} == set()
    with pytest.raises(ValueError, match="recalibrate: the model has no batch normalisation"):
        cbundles.remove(model, 1, inputs=x, recalibrate=True)


def test_modules_that_are_pytrees():
    eqx = pytest.importorskip("equinox")
    del eqx
    from test_audit_equinox import RESIDUAL, VECTORS, mapped

    removed = cbundles.remove(RESIDUAL, "block1/sum", inputs=VECTORS, call=mapped)

    def by_hand(x):
        return RESIDUAL.head(RESIDUAL.blocks[1](x))

    assert difference(removed(VECTORS), jax.vmap(by_hand)(VECTORS)) <= 1e-6
    assert {name for name in removed.params if "blocks/0" in name} == set()
    assert len(removed.trainable) == len(removed.params)

    # What is inside a function cannot be trained, but goes as well.
    inside = cbundles.remove(jax.vmap(RESIDUAL), 1, inputs=VECTORS)
    assert difference(inside(VECTORS), removed(VECTORS)) == 0
    assert not inside.trainable and "cannot be trained further" in inside.report.training
    assert inside.report.after.parameters == removed.report.after.parameters


@pytest.mark.slow
def test_resnet50_of_keras(tmp_path):
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "jax"
    keras = importlib.import_module("keras")
    if keras.backend.backend() != "jax":
        pytest.skip("this Keras does not run on JAX")
    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(
        weights=None, input_shape=(32, 32, 3), classes=CLASSES, classifier_activation=None
    )
    x = np.random.default_rng(0).standard_normal((8, 32, 32, 3)).astype(np.float32)
    labels = np.arange(8) % CLASSES
    removed = cbundles.remove(model, [1, 3, 5, 14], inputs=x, labels=labels)
    zeros = ("conv2_block1", "conv2_block3", "conv3_block2", "conv5_block1")
    anew = cbundles.remove(model, [1, 3, 5, 14], inputs=x, recalibrate=True)
    assert 0.1 < float(jnp.std(anew(x))) < 100
    for block in zeros:
        layer = model.get_layer(f"{block}_3_bn")
        for variable in (layer.gamma, layer.beta):
            variable.assign(jnp.zeros_like(variable.value))
    zero = jnp.asarray(model(x, training=False))
    assert difference(removed(x), zero) <= 1e-6 * float(jnp.abs(zero).max())
    assert removed.report.after.flops < 0.85 * removed.report.before.flops
    assert removed.export(tmp_path / "smaller.bin").path.stat().st_size > 1e7


def test_what_cannot_be_removed_is_refused_by_name(resnet):
    def refused(blocks, **how):
        with pytest.raises(ValueError) as caught:
            cbundles.remove(ResNet(), blocks, params=resnet, inputs=IMAGES, **how)
        return str(caught.value)

    assert refused("ResNet/frist/sum").startswith(
        "blocks: no residual sum is 'ResNet/frist/sum': did you mean 'ResNet/first/sum'?"
    )
    said = refused("ResNet/first/relu")
    assert "ResNet/first/relu is of kind activation, no residual sum" in said
    assert refused(0) == "blocks: 0 is not a number from 1 to 7"
    assert refused([1, 8]) == "blocks: 8 is not a number from 1 to 7"
    assert refused(True) == "blocks: True is not a number from 1 to 7"
    assert refused(None) == "blocks: None is not a number from 1 to 7"
    assert refused([1.5]) == "blocks: 1.5 is not a number from 1 to 7"
    assert refused(np.int64(8)) == "blocks: 8 is not a number from 1 to 7"
    assert refused([]) == "blocks is empty: nothing would be removed"
    assert "no residual sum is 'ResNet/stack/sum[4]'" in refused("ResNet/stack/sum[4]")
    assert refused("ResNet/stack/smu").endswith(" and 9 more)")  # of 14 names five are shown
    assert "inputs have 24 samples, but there are 3 labels" in refused(1, labels=[0, 1, 2])
    for trainable in (3, [3]):
        with pytest.raises(ValueError, match="trainable must be a name, a list of names or None"):
            cbundles.remove(ResNet(), 1, params=resnet, inputs=IMAGES, trainable=trainable)
    with pytest.raises(ValueError, match="inputs must share their first axis, that of the samples"):
        cbundles.remove(ResNet(), 1, params=resnet, inputs=[IMAGES, IMAGES[:3]])
    with pytest.raises(ValueError, match="the model cannot be called with a batch of"):
        cbundles.remove(ResNet(), 1, params=resnet, inputs=IMAGES[:, 0])
    removed = cbundles.remove(ResNet(), 1, params=resnet, inputs=IMAGES)
    with pytest.raises(ValueError, match="params: half/conv1/bias is missing"):
        removed.model({k: a for k, a in removed.params.items() if k != "half/conv1/bias"}, IMAGES)


def test_sums_inside_a_cond_are_refused_with_the_reason():
    w, x = np.eye(4, dtype=np.float32), IMAGES[:, 0, :4, 0]

    def residual(x, w):
        return x + jnp.tanh(x @ w)

    def model(w, x):
        x = residual(x, w)
        with jax.named_scope("maybe"):
            return jax.lax.cond(x.sum() > 0, lambda x: residual(x, w), lambda x: x, x)

    with pytest.raises(ValueError, match="maybe/sum cannot be removed: it is inside cond: only"):
        cbundles.remove(model, [1, "maybe/sum"], params=w, inputs=x)

    def only_hidden(w, x):
        return jax.lax.cond(x.sum() > 0, lambda x: residual(x, w), lambda x: x, x)

    with pytest.raises(ValueError, match="no residual sums; sum is inside cond"):
        cbundles.remove(only_hidden, 1, params=w, inputs=x)


def test_outputs_that_are_no_class_scores_are_refused(resnet):
    def model(params, x):
        logits = ResNet().apply(params, x)
        return {"logits": logits, "best": logits.max(1)}

    def first(output):
        return cbundles.remove(
            model, 1, params=resnet, inputs=IMAGES, labels=LABELS, output=output
        ).report.before.correct

    assert first(None) == first("logits")
    with pytest.raises(ValueError, match=r"no output .* class scores \(batch, classes\)"):
        first("best")


def test_statistics_that_nobody_knows_are_refused():
    """A function does not say which of its numbers are statistics."""
    variables = {"params": {"w": np.eye(4, dtype=np.float32)}, "seen": np.ones(4, np.float32)}

    def model(variables, x):
        x = x + jnp.tanh(x @ variables["params"]["w"])
        return x - variables["seen"]

    with pytest.raises(ValueError, match="recalibrate: a function does not say which numbers"):
        cbundles.remove(model, 1, params=variables, inputs=IMAGES[:, 0, :4, 0], recalibrate=True)


def test_a_branch_that_others_need_is_refused():
    def model(w, x):
        with jax.named_scope("block"):
            branch = jnp.tanh(x @ w)
            x = x + branch
        with jax.named_scope("later"):
            return x * jnp.exp(branch)

    with pytest.raises(ValueError, match=r"block/sum cannot be removed: .* needed by later/exp$"):
        cbundles.remove(model, 1, params=np.eye(4, dtype=np.float32), inputs=IMAGES[:, 0, :4, 0])


def test_statistics_of_other_inputs(resnet):
    others = IMAGES[::-1] + 1
    anew, of_inputs = (
        cbundles.remove(ResNet(), 1, params=resnet, inputs=inputs, recalibrate=recalibrate)
        for inputs, recalibrate in ((IMAGES, others), (others, True))
    )
    for name, value in anew.params.items():
        np.testing.assert_array_equal(value, of_inputs.params[name])


def test_scans_that_run_backwards():
    weights = np.random.default_rng(0).standard_normal((3, 4, 4)).astype(np.float32)
    x = IMAGES[:, 0, :4, 0]

    def model(params, x):
        def step(x, w):
            return x + jnp.tanh(x @ w), None

        return jax.lax.scan(step, x, params["w"], reverse=True)[0]

    removed = cbundles.remove(model, 1, params={"w": weights}, inputs=x)
    assert removed.blocks == ("sum[2]",)  # the last row comes first
    assert set(removed.params) == {"w[0]", "w[1]"}
    expected = x
    for w in (weights[1], weights[0]):
        expected = expected + np.tanh(expected @ w)
    np.testing.assert_allclose(removed(x), expected, rtol=1e-5)


def test_scans_in_scans():
    weights = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    x = IMAGES[:, 0, :4, 0]

    def model(params, x):
        def inner(x, w):
            return x + jnp.tanh(x @ w), x.mean()

        def outer(x, ws):
            x, means = jax.lax.scan(inner, x, ws)
            return x, means

        x, means = jax.lax.scan(outer, x, params["w"])
        return x, means

    removed = cbundles.remove(model, [2, "sum[1, 2]"], params={"w": weights}, inputs=x)
    assert removed.blocks == ("sum[0, 1]", "sum[1, 2]")
    assert set(removed.params) == {"w[0, 0]", "w[0, 2]", "w[1, 0]", "w[1, 1]"}
    expected, means = x, np.zeros((2, 3), np.float32)
    for i in range(2):
        for j in range(3):
            means[i, j] = expected.mean()
            if (i, j) not in {(0, 1), (1, 2)}:
                expected = expected + np.tanh(expected @ weights[i, j])
    found, found_means = removed(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(found_means, means, rtol=1e-4, atol=1e-6)


def test_latency_is_measured_in_turns(resnet):
    removed = cbundles.remove(ResNet(), "*", params=resnet, inputs=IMAGES)
    assert 0 < removed.report.after.seconds < removed.report.before.seconds
    assert removed.report.to_dict()["before"]["seconds"] == removed.report.before.seconds


def test_the_page_of_examples_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "remove.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) > 4
    names: dict[str, object] = {}
    for example in (one for one in examples if "torch" not in one):
        exec(compile(example, "docs/remove.md", "exec"), names)
    assert [path.name for path in tmp_path.iterdir()] == ["smaller.bin"]
