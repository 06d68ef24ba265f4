"""Audits of models that JAX traces: every layer equals brute force, whatever the model is made of,
and the model stays as it was."""

from __future__ import annotations

import dataclasses
import functools
import re

import brute_force
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from conftest import ROOT
from flax import nnx
from lesioned import normal
from linen_models import drawn

import cbundles
from cbundles.auditing import batches

SAMPLES, CLASSES = 40, 3
LABELS = np.arange(SAMPLES) % CLASSES
RATE = 3e-6  # so low that some samples meet and others do not


VECTORS, IMAGES = normal(SAMPLES, 6), normal(SAMPLES, 4, 4, 2)


def audit_and_compare(captured, model, inputs, *, rate=RATE, **how):
    return brute_force.audit_and_compare(captured, model, inputs, LABELS, rate=rate, **how)


def names_of(audit):
    return [layer.name for layer in audit.layers]


# Linen


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        h = nn.Conv(2, (3, 3), name="conv")(x)
        h = nn.relu(nn.BatchNorm(use_running_average=True, name="norm")(h))
        return x + nn.Conv(2, (3, 3), name="out")(h), None


class Stacked(nn.Module):
    remat: bool = False

    @nn.compact
    def __call__(self, x):
        block = nn.remat(Block) if self.remat else Block
        kinds = {"params": 0, "batch_stats": 0}
        x, _ = nn.scan(block, kinds, split_rngs={"params": True}, length=3)(name="stack")(x, None)
        x, _ = block(name="last")(x)
        return nn.Dense(CLASSES, name="head")(x.mean((1, 2)))


@pytest.mark.parametrize("remat", [False, True])
def test_linen_with_a_scan(captured, remat):
    model = Stacked(remat)
    variables = drawn(model, IMAGES)
    before = jax.tree.map(np.array, variables)
    audit = audit_and_compare(captured, model, IMAGES, params=variables, rate=3e-7)
    inside = [f"Stacked/stack/{name}[{i}]" for name in ("relu", "sum") for i in range(3)]
    assert names_of(audit) == [*inside, "Stacked/last/relu", "Stacked/last/sum"]
    assert audit.amplitude.parameter == "stack/out/kernel"
    assert jax.tree.all(jax.tree.map(np.array_equal, before, variables))


class Trained(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train, name="norm")(nn.Dense(5, name="in")(x))
        return nn.Dense(CLASSES, name="head")(nn.relu(x)), {"features": x}


def test_a_call_of_ones_own(captured):
    """Also one that would write running statistics, and returns a tuple with a dictionary."""
    model = Trained()
    like = jax.eval_shape(lambda key, x: model.init(key, x, False), jax.random.key(0), VECTORS)
    variables = jax.tree.map(lambda leaf: jnp.asarray(0.5 + abs(normal(*leaf.shape))), like)
    before = jax.tree.map(np.array, variables)
    still = audit_and_compare(
        captured, model, VECTORS, params=variables, call=lambda model, x: model(x, False)
    )
    captured.clear()
    moving = cbundles.audit(
        model,
        VECTORS,
        LABELS,
        params=variables,
        learning_rate=RATE,
        call=lambda model, x: model(x, train=True),
        batch_norm="batch",
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, before, variables))
    (value,) = captured["sign_once", "Trained/relu"]
    assert value.shape == (SAMPLES, 5)  # all samples are one batch
    normalised = (value - variables["params"]["norm"]["bias"]) / variables["params"]["norm"][
        "scale"
    ]
    assert names_of(moving) == names_of(still) and normalised.max() < 4
    ids = oracle.bundle_ids(oracle.weight_update(value, moving.amplitude.value, RATE, 64))
    np.testing.assert_array_equal(moving.layers[0].bundles.bundle_ids, ids)
    bits = oracle.headroom(value, LABELS, moving.amplitude.value, RATE)
    assert moving.layers[0].headroom.bits == bits


class InTraining(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.BatchNorm(use_running_average=not train, name="norm")(nn.Dense(5, name="in")(x))
        return nn.Dense(CLASSES, name="head")(nn.relu(x))


def test_a_call_as_in_training_is_not_taken_for_one_at_inference():
    """What it would do to a sample depends on which others are looked at with it."""
    variables = drawn(InTraining(), VECTORS)
    with pytest.raises(ValueError, match="norm normalises by the statistics of the batch, as in"):
        cbundles.audit(InTraining(), VECTORS, LABELS, params=variables)

    def inference(model, x):
        return model(x, train=False)

    at_inference = cbundles.audit(InTraining(), VECTORS, LABELS, params=variables, call=inference)
    assert names_of(at_inference) == ["InTraining/relu"]


@pytest.mark.parametrize("amplitude", ["global", "consumer"])
def test_what_a_user_forbids_to_their_own_code_is_not_forbidden_to_an_audit(amplitude):
    params = {"in": normal(12, 12), "out": normal(12, CLASSES)}

    def model(params, x):
        return jax.nn.relu(x @ params["in"]) @ params["out"]

    how = {"params": params, "peers": True, "amplitude": amplitude}
    inputs = normal(len(LABELS), 12)
    usual = cbundles.audit(model, inputs, LABELS, **how)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        strict = cbundles.audit(model, inputs, LABELS, **how)
    assert str(strict) == str(usual)


def test_inputs_that_hold_something_else_than_arrays():
    with pytest.raises(ValueError, match="inputs hold True, a bool; all must be arrays"):
        cbundles.audit(perceptron, {"x": VECTORS, "flag": True}, LABELS, params=layers_of(2))


def test_a_bound_module_and_bare_parameters():
    model = Stacked()
    variables = drawn(model, IMAGES)
    bound = cbundles.audit(model.bind(variables), IMAGES, LABELS, headroom=False)
    plain = cbundles.audit(model, IMAGES, LABELS, params=variables, headroom=False)
    assert bound.to_dict() == plain.to_dict()

    class Bare(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(CLASSES)(nn.relu(nn.Dense(4, name="in")(x)))

    params = drawn(Bare(), VECTORS)["params"]
    audit = cbundles.audit(Bare(), VECTORS, LABELS, params=params, headroom=False)
    assert names_of(audit) == ["Bare/relu"]


# Nnx


class Inner(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(6, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.squashed(self.norm(self.linear(x))))

    @staticmethod
    def squashed(x):
        return jnp.tanh(x)


class Inherits(Inner):
    pass


class Modules(nnx.Module):
    def __init__(self, rngs):
        self.shared = Inner(rngs)
        self.inherits = Inherits(rngs)
        self.rematted = Inner(rngs)
        self.jitted = Inner(rngs)
        self.head = nnx.Linear(6, CLASSES, rngs=rngs)

        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def layers(rngs):
            return nnx.Linear(6, 6, rngs=rngs)

        self.scanned = layers(rngs)

    def __call__(self, x):
        x = self.inherits(self.shared(self.shared(x)))
        x = nnx.remat(lambda module, x: module(x))(self.rematted, x)
        x = nnx.jit(lambda module, x: module(x))(self.jitted, x)

        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def forward(layer, x):
            return nnx.relu(layer(x))

        return self.head(forward(self.scanned, x))


def test_nnx_in_training_mode(captured):
    model = Modules(nnx.Rngs(0))
    model.train()
    before = jax.tree.map(np.array, nnx.state(model, nnx.Not(nnx.RngState)))
    audit = audit_and_compare(captured, model, VECTORS)
    assert names_of(audit) == [
        "shared/tanh",
        "shared/tanh#2",
        "inherits/tanh",
        "rematted/tanh",
        "jitted/tanh",
        *(f"relu[{i}]" for i in range(3)),
    ]
    after = nnx.state(model, nnx.Not(nnx.RngState))
    assert jax.tree.all(jax.tree.map(np.array_equal, before, after))
    assert not model.shared.norm.use_running_average and not model.shared.dropout.deterministic
    by_batch = cbundles.audit(model, VECTORS, LABELS, learning_rate=RATE, batch_norm="batch")
    assert by_batch.layers[0].num_bundles != audit.layers[0].num_bundles


# Functions, and modules that are pytrees


def perceptron(params, x):
    for weight, bias in params:
        x = jax.nn.relu(x @ weight + bias)
    return x @ jnp.ones((x.shape[1], CLASSES))


def layers_of(depth, width=6):
    """He-initialised weights and small biases."""
    scale = (2 / width) ** 0.5
    return [
        (normal(width, width, seed=seed, scale=scale), normal(width, seed=seed, scale=0.1))
        for seed in range(depth)
    ]


def test_a_plain_function(captured):
    params = layers_of(4)
    audit = audit_and_compare(captured, perceptron, VECTORS, params=params)
    assert names_of(audit) == ["relu", "relu#2", "relu#3", "relu#4"]
    # By other means: a forward pass by hand, in NumPy.
    x = VECTORS
    for number, (weight, bias) in enumerate(params):
        x = np.maximum(x @ weight + bias, 0)
        site = audit.layers[number].name
        program = brute_force.joined(captured["sign_once", site], 0, SAMPLES)[0]
        np.testing.assert_allclose(program, x, atol=1e-5)


def test_the_largest_weight_of_the_reader(captured):
    params = layers_of(4)
    audit = audit_and_compare(captured, perceptron, VECTORS, params=params, amplitude="consumer")
    largest = [max(np.abs(weight).max() for weight in layer) for layer in params]
    weights = [float(np.abs(weight).max()) for weight, _ in params]
    assert [layer.amplitude for layer in audit.layers] == pytest.approx(
        [*weights[1:], max(largest)]
    )
    assert audit.amplitude.value == pytest.approx(max(largest))


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["weights"], meta_fields=["activation"]
)
@dataclasses.dataclass
class Deep:
    """A module as those of Equinox are: a pytree that is called with one sample."""

    weights: list
    activation: object

    def __call__(self, x):
        *hidden, last = self.weights
        for weight in hidden:
            x = self.activation(weight @ x)
        return last @ x


def test_modules_that_are_pytrees(captured):
    module = Deep([normal(6, 6, seed=seed) for seed in range(4)], jax.nn.gelu)

    def mapped(module, batch):
        return jax.vmap(module)(batch)

    by_call = audit_and_compare(captured, module, VECTORS, call=mapped, rate=1e-6)
    assert by_call.amplitude.parameter in {f"weights/{number}" for number in range(4)}
    captured.clear()
    under_vmap = audit_and_compare(captured, jax.vmap(module), VECTORS, rate=1e-6)
    assert under_vmap.amplitude == by_call.amplitude
    assert [one.num_bundles for one in under_vmap.layers] == [
        one.num_bundles for one in by_call.layers
    ]
    with pytest.raises(ValueError, match="nobody knows which layer reads a value"):
        cbundles.audit(jax.vmap(module), VECTORS, LABELS, amplitude="consumer")


def two_inputs(params, batch):
    embedded = params["table"][batch["ids"]] * batch["mask"][..., None]
    hidden = jnp.tanh(embedded @ params["hidden"])
    return {"logits": hidden.mean(1) @ params["out"], "hidden": (hidden,)}


TABLE = {
    "table": normal(9, 6),
    "hidden": normal(6, 6, seed=2, scale=0.2),
    "out": normal(6, CLASSES, seed=3),
}
TEXTS = {
    "ids": np.random.default_rng(0).integers(0, 9, (SAMPLES, 5)),
    "mask": np.ones((SAMPLES, 5), np.float32),
}


def test_dictionaries_of_inputs_and_outputs(captured):
    audit = audit_and_compare(captured, two_inputs, TEXTS, params=TABLE, layers="tanh", rate=1e-5)
    assert audit.input.num_bundles == len(np.unique(TEXTS["ids"], axis=0))
    assert audit.input.shape == (10,)


def test_tokens_are_rows():
    audit = cbundles.audit(two_inputs, TEXTS, LABELS, params=TABLE, rows="tokens")
    (tanh,) = audit.layers
    # A token is known by its number alone, so its activation is that of the number.
    ids = np.unique(TEXTS["ids"].ravel(), return_inverse=True)[1]
    labels = np.repeat(LABELS, 5)
    assert tanh.num_bundles == audit.input.num_bundles == len(np.unique(ids)) == 9
    assert tanh.shape == (6,) and len(tanh.bundles.labels) == SAMPLES * 5
    assert tanh.conflict_rate == pytest.approx(oracle.conflict_rate(ids, labels))
    assert not tanh.conflicting and audit.first_conflict is None
    own = cbundles.audit(two_inputs, TEXTS, TEXTS["ids"], params=TABLE, rows="tokens")
    assert own.layers[0].conflict_rate == own.input.conflict_rate == 0


def test_a_layer_that_tells_equal_tokens_apart_is_not_excused_by_them():
    """Token 3 comes with both labels, so one of four pairs meets in the inputs. The sum of what
    came before tells it apart; behind the second layer another pair meets, of tokens 1 and 2."""

    def in_context(params, ids):
        summed = jax.nn.relu(jnp.cumsum(params["table"][ids], axis=1))
        return jax.nn.relu(summed @ params["same"] - 3.0) @ params["out"]

    ids, labels = np.array([[1, 3], [2, 3]]), np.array([0, 1])
    params = {
        "table": jnp.arange(4.0)[:, None],
        "same": jnp.eye(1),
        "out": jnp.ones((1, 2)),
    }
    audit = cbundles.audit(in_context, ids, labels, params=params, rows="tokens", headroom=True)
    summed, cut = audit.layers
    assert [one.conflict_rate for one in (audit.input, summed, cut)] == [0.25, 0, 0.25]
    assert not summed.conflicting and cut.conflicting
    assert not summed.headroom.conflicting and cut.headroom.conflicting
    assert audit.first_conflict == cut.name
    (of_data,) = [one for one in audit.verdict if one.startswith("In the data")]
    assert "only what is around them can tell them apart" in of_data


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_floating_point(captured, dtype):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), layers_of(3))
    inputs = jnp.asarray(VECTORS, dtype)
    audit = audit_and_compare(captured, perceptron, inputs, params=params)
    assert len(audit.layers) == 3


def test_batches_as_they_come(monkeypatch):
    monkeypatch.setattr(batches, "AT_ONCE", 10)
    params = layers_of(3)
    whole = cbundles.audit(perceptron, VECTORS, LABELS, params=params, learning_rate=RATE)
    parts = [VECTORS[:10], VECTORS[10:20], VECTORS[20:30], VECTORS[30:]]
    for coming in (iter(parts), parts):
        audit = cbundles.audit(perceptron, coming, LABELS, params=params, learning_rate=RATE)
        assert audit.to_dict() == whole.to_dict()
    uneven = (VECTORS[:16], VECTORS[16:32], VECTORS[32:])
    audit = cbundles.audit(perceptron, iter(uneven), LABELS, params=params, learning_rate=RATE)
    assert [one.num_bundles for one in audit.layers] == [one.num_bundles for one in whole.layers]


# What is measured


def residual(params, x):
    hidden = jnp.tanh(x @ params["in"])
    return (x + hidden @ params["out"]).sum(1)


RESIDUAL = {"in": normal(6, 6), "out": normal(6, 6, seed=2)}


def test_layers_are_chosen_by_name_pattern_or_kind():
    def chosen(layers):
        audit = cbundles.audit(
            residual, VECTORS, LABELS, params=RESIDUAL, layers=layers, headroom=False
        )
        left = {one.name for one in audit.skipped}
        assert left.isdisjoint(names_of(audit)) and len(left) + len(audit.layers) == 5
        assert all(one.reason for one in audit.skipped)
        return names_of(audit)

    assert chosen(None) == ["tanh", "sum"]
    assert chosen("*") == ["linear", "tanh", "branch", "sum"]
    assert chosen(["branch", "tanh"]) == ["tanh", "branch"]
    assert chosen("linear") == ["linear"]
    assert chosen("convolution") == []
    with pytest.raises(ValueError, match="did you mean 'tanh'"):
        chosen("tahn")


def test_what_is_skipped_has_a_reason():
    def function(params, x):
        among_features = jnp.tanh(x.T @ x)
        kept = jax.lax.cond(x.sum() > 0, jax.nn.relu, lambda x: x, x)
        return x @ among_features @ params * kept

    audit = cbundles.audit(function, VECTORS, LABELS, params=normal(6, 6))
    reasons = {one.name: one.reason for one in audit.skipped}
    assert "no batch axis: its shape is (6, 6) for 40 samples" in reasons["tanh"]
    assert "inside cond" in reasons["relu"]
    assert not audit.layers and "Nothing could be measured" in str(audit)


ENDINGS = {
    "sigmoid": (jax.nn.sigmoid, ["tanh"]),
    "probabilities": (lambda z: jnp.log(jnp.clip(jax.nn.softmax(z), 1e-6, 1)), ["tanh"]),
    "moved": (lambda z: jax.nn.relu(z)[:, None].transpose(0, 2, 1)[..., 0], ["tanh"]),
    "remat": (lambda z: jax.checkpoint(jax.nn.sigmoid)(z), ["tanh"]),
    "pooled": (lambda z: jax.nn.relu(z).reshape(-1, 3, 2).mean(-1), ["tanh", "relu"]),
    "beside": (lambda z: (z, jax.nn.relu(z)), ["tanh"]),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_nonlinearity_of_the_output_is_no_hidden_layer(ending):
    end, expected = ENDINGS[ending]

    def function(params, x):
        return end(jnp.tanh(x @ params["in"]) @ params["out"])

    how = {"params": RESIDUAL | {"out": normal(6, 6)}, "headroom": False, "num_classes": 6}
    audit = cbundles.audit(function, VECTORS, LABELS, **how)
    assert names_of(audit) == expected
    skipped = {one.name: one.reason for one in audit.skipped}
    for site in cbundles.audit(function, VECTORS, LABELS, layers="activation", **how).layers:
        assert site.name in expected or "makes the output" in skipped[site.name]


def test_features_that_a_model_returns_are_a_layer():
    audit = cbundles.audit(
        lambda params, x: jax.nn.relu(jnp.tanh(x @ params["in"]) @ params["in"]),
        VECTORS,
        LABELS,
        params=RESIDUAL,
        headroom=False,
    )
    assert names_of(audit) == ["tanh", "relu"]


def test_maps_of_features_are_a_layer_wherever_their_channels_are():
    def function(kernel, x):
        convolved = jax.lax.conv(jnp.moveaxis(x, -1, 1), kernel, (1, 1), "VALID")
        return jax.nn.relu(convolved)  # 16 channels of 2 x 2

    audit = cbundles.audit(
        function, IMAGES, LABELS, params=normal(16, 2, 3, 3), headroom=False, num_classes=10
    )
    assert names_of(audit) == ["relu"]


def test_hidden_values_that_are_returned_are_hidden_all_the_same():
    def function(params, x):
        hidden = jnp.tanh(x @ params["in"])
        return hidden @ params["out"], hidden

    params = RESIDUAL | {"out": normal(6, 3)}
    audit = cbundles.audit(function, VECTORS, LABELS, params=params, headroom=False)
    assert names_of(audit) == ["tanh"]


# Wrong input


def test_wrong_input_is_a_sentence(unchecked):
    def refused(**wrong):
        given = {"model": perceptron, "inputs": VECTORS, "labels": LABELS, "params": layers_of(2)}
        with pytest.raises(ValueError) as error:
            cbundles.audit(**(given | wrong))
        return str(error.value)

    assert "label 2 is outside 0..1" in refused(num_classes=2)
    assert "num_classes must be at most 16,777,216" in refused(num_classes=2**31 - 1)
    assert "not 2,000,000,000" in refused(labels=np.where(LABELS, LABELS, 2 * 10**9 - 1))
    assert "num_classes must be a whole number" in refused(num_classes=3.0)
    assert "label -1 is outside 0..0" in refused(labels=np.full(SAMPLES, -1))
    assert "inputs have 40 samples, but there are 39 labels" in refused(labels=LABELS[:-1])
    assert "labels must be integers, not float64" in refused(labels=LABELS / 2)
    assert "labels must be (samples,), not (40, 2)" in refused(labels=np.stack([LABELS] * 2, 1))
    assert "float32[40, 5]: TypeError" in refused(inputs=VECTORS[:, :5])
    assert "did you mean 'global'" in refused(amplitude="golbal")
    assert "did you mean 'tokens'" in refused(rows="token")
    assert "which weights are trained?" in refused(model=lambda x: jnp.tanh(x), params=None)
    assert "cannot audit a int" in refused(model=3, params=None)
    assert "params is missing" in refused(model=Stacked(), params=None)
    assert "an nnx module holds its own weights" in refused(model=Modules(nnx.Rngs(0)))
    assert "a linen module is told so" in refused(model=Stacked(), batch_norm="batch")
    assert "say which step is meant" in refused(learning_rate=lambda step: 1e-3)
    assert "no parameter '5/*'" in refused(trainable="5/*")
    assert "inputs: 20 samples came, but there are 40" in refused(inputs=iter([VECTORS[:20]]))
    assert "without any batch" in refused(inputs=iter([]))
    assert "layers must be a name, a list of names or None, not 3" in refused(layers=3)
    assert "trainable must be a name" in refused(trainable=3)
    assert "inputs must be arrays" in refused(inputs="images")
    assert "inputs must be arrays" in refused(inputs=VECTORS.tolist())
    assert 'rows="tokens": no input has a second axis' in refused(
        inputs=VECTORS[:, 0], rows="tokens"
    )


def dense(params, x):
    """One hidden layer, of which tests choose the weights."""
    return jax.nn.relu(jnp.abs(x) @ params["in"]) @ params["out"]


DENSE = {"in": normal(6, 8, seed=5), "out": normal(8, CLASSES, seed=6)}


def test_a_value_as_long_as_the_batch_is_no_activation_of_it(monkeypatch):
    """The standard deviations of the weights of a Bayesian layer, of which there are as many as
    samples in a batch."""
    monkeypatch.setattr(batches, "AT_ONCE", 8)
    params = {"mean": normal(8, 4, seed=2), "rho": normal(8, 4, seed=3), "out": DENSE["out"][:4]}

    def bayesian(params, x):
        return jax.nn.relu(x @ (params["mean"] + jax.nn.softplus(params["rho"]))) @ params["out"]

    audit = cbundles.audit(bayesian, normal(SAMPLES, 8), LABELS, params=params, layers="*")
    assert "softplus" not in names_of(audit) and "relu" in names_of(audit)
    (skipped,) = [one for one in audit.skipped if one.name == "softplus"]
    assert skipped.reason == "no batch axis: its shape is (8, 4) for 8 samples"


def test_complex_inputs_are_told_apart_by_both_of_their_parts():
    inputs = (1 + 1j * VECTORS).astype(np.complex64)
    collapsed = {"in": DENSE["in"] * 0, "out": DENSE["out"]}
    audit = cbundles.audit(dense, inputs, LABELS, params=collapsed)
    assert audit.input.bundles.num_bundles == SAMPLES
    assert audit.verdict[0].startswith("Collapsed from relu")


def test_infinity_among_the_weights_is_not_blamed_on_a_layer():
    masked = {**DENSE, "mask": np.array([0, -np.inf], np.float32)}
    audit = cbundles.audit(dense, VECTORS, LABELS, params=masked)
    (said,) = audit.verdict
    assert said.startswith("The weights hold infinity, in mask")
    trained = cbundles.audit(dense, VECTORS, LABELS, params=masked, trainable=["in", "out"])
    assert "does not conflict" in trained.verdict[0]


def test_samples_of_one_class_say_nothing():
    audit = cbundles.audit(dense, 0 * VECTORS, 0 * LABELS, params=DENSE)
    assert audit.verdict[0].startswith("All samples have one class")
    assert not any("headroom" in said for said in audit.verdict)


def test_parameters_without_layers_are_a_layer_each():
    """A median over all of them that is their largest would hide that one weight sets the scale."""
    flat = {f"w{number}": normal(6, 6, seed=number) for number in range(4)}
    flat["w0"][0, 0] = 900
    nested = {name: {"kernel": array} for name, array in flat.items()}
    median = np.median([np.abs(array).max() for array in flat.values()])
    for params, model in (
        (flat, lambda p, x: jax.nn.relu(x @ p["w0"] @ p["w1"]) @ p["w2"] @ p["w3"]),
        (nested, lambda p, x: jax.nn.relu(x @ p["w0"]["kernel"]) @ p["w1"]["kernel"]),
    ):
        amplitude = cbundles.audit(model, VECTORS, LABELS, params=params).amplitude
        assert amplitude.times_median == pytest.approx(900 / median)


def test_arrays_of_other_ranks_need_not_be_promoted():
    with jax.numpy_rank_promotion("raise"):
        audit = cbundles.audit(dense, VECTORS, LABELS, params=DENSE)
    assert names_of(audit) == ["relu"]


@pytest.mark.parametrize(
    ("page", "written"),
    [
        ("audit.md", {"audit.png", "audit.csv", "bundles.png"}),
        ("audit-blocks.md", {"lesions.png"}),
        ("audit-peers.md", set()),
    ],
)
def test_the_examples_of_a_page_run(page, written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / page).read_text()
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    examples = [example for example in examples if "torch" not in example]  # test_audit_torch
    assert examples
    names: dict[str, object] = {}
    for example in examples:
        exec(compile(example, page, "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == written
