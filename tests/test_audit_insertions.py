"""Where an audit says that one more layer would help: every sensitivity is that of a layer which is
really inserted, and of our own networks the one by which they grow."""

from __future__ import annotations

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import lesioned
import numpy as np
import optax
import pytest
from lesioned import normal

import cbundles
from cbundles.auditing import batches
from cbundles.networks import conv_insertion, insertion, network
from cbundles.networks.network import Network, module_of, variables_of
from cbundles.networks.shape import ConvShape, FcShape

SAMPLES, CLASSES = 40, 3
VECTORS, IMAGES = normal(SAMPLES, 6), normal(SAMPLES, 6, 6, 2)
LABELS = np.arange(SAMPLES) % CLASSES


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(batches, "AT_ONCE", lesioned.AT_ONCE)


def inserted_by(audit):
    return {one.name: one for one in audit.insertions.places}


def loss_of(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()


def squared(gradient):
    return float(np.square(np.asarray(gradient, np.float64)).sum())


# Layers that are really inserted, in plain functions: `extra` are their weights, by place.


def perceptron(params, x, extra):
    h = jax.nn.relu(x @ params["w1"] + params["b1"])
    h = h if "relu" not in extra else jax.nn.relu(h @ extra["relu"])
    h = jnp.tanh(h @ params["w2"])
    h = h if "tanh" not in extra else h + jnp.tanh(h @ extra["tanh"])
    return h @ params["w3"]


PARAMS = {"w1": normal(6, 5), "b1": normal(5), "w2": normal(5, 4), "w3": normal(4, CLASSES)}


def test_dense_layers_after_relu_and_tanh():
    extra = {"relu": jnp.eye(5), "tanh": jnp.zeros((4, 4))}
    base = perceptron(PARAMS, VECTORS, {})
    np.testing.assert_allclose(perceptron(PARAMS, VECTORS, extra), base, atol=1e-6)
    by_params, by_extra = jax.grad(lambda p, e: loss_of(perceptron(p, VECTORS, e)), (0, 1))(
        PARAMS, extra
    )

    audit = cbundles.audit(
        lambda p, x: perceptron(p, x, {}), VECTORS, LABELS, params=PARAMS, insert=True
    )
    found = inserted_by(audit)
    assert {name: (one.kind, one.shape) for name, one in found.items()} == {
        "relu": ("relu(dense(x))", (5, 5)),
        "tanh": ("x + tanh(dense(x))", (4, 4)),
    }
    for name, one in found.items():
        assert one.sensitivity == pytest.approx(squared(by_extra[name]), rel=1e-4)
    existing = {one.name: one.sensitivity for one in audit.insertions.existing}
    assert existing == pytest.approx(
        {name: squared(by_params[name]) for name in ("w1", "w2", "w3")}, rel=1e-4
    )
    sensitivities = [one.sensitivity for one in audit.insertions.places]
    assert sensitivities == sorted(sensitivities, reverse=True)


def test_finite_differences():
    """Along its gradient the loss rises by the norm, whose square is the sensitivity."""
    audit = cbundles.audit(
        lambda p, x: perceptron(p, x, {}), VECTORS, LABELS, params=PARAMS, insert=True
    )
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), PARAMS)
        x = jnp.asarray(VECTORS, jnp.float64)
        zero = np.zeros((4, 4))

        def loss(weights):
            return float(loss_of(perceptron(params, x, {"tanh": weights})))

        step = 1e-5
        slopes = []
        for place in np.ndindex(4, 4):
            moved = zero.copy()
            moved[place] = step
            slopes.append((loss(moved) - loss(-moved)) / (2 * step))
    assert inserted_by(audit)["tanh"].sensitivity == pytest.approx(squared(slopes), rel=1e-4)


class Convolutional(nn.Module):
    """Two convolutions in a scan and one behind them; `gelu` behind the last."""

    @nn.compact
    def __call__(self, x, kernels=None):
        class Step(nn.Module):
            @nn.compact
            def __call__(self, x, kernel):
                x = nn.relu(nn.Conv(2, (3, 3), name="conv")(x))
                return (x if kernel is None else nn.relu(convolved(x, kernel))), None

        steps = nn.scan(Step, {"params": 0}, split_rngs={"params": True}, length=2)(name="steps")
        x, _ = steps(x, None if kernels is None else kernels["relu"])
        x = nn.gelu(nn.Conv(3, (3, 3), strides=2, name="last")(x))
        x = x if kernels is None else x + jnp.tanh(convolved(x, kernels["gelu"]))
        return nn.Dense(CLASSES, name="head")(x.mean((1, 2)))


def convolved(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def test_kernels_in_a_scan_and_behind_gelu():
    model = Convolutional()
    params = jax.jit(model.init)(jax.random.key(0), IMAGES)
    dirac = jnp.zeros((3, 3, 2, 2)).at[1, 1].set(jnp.eye(2))
    kernels = {"relu": jnp.stack([dirac, dirac]), "gelu": jnp.zeros((3, 3, 3, 3))}
    np.testing.assert_allclose(
        model.apply(params, IMAGES, kernels), model.apply(params, IMAGES), atol=1e-6
    )
    slopes = jax.grad(lambda k: loss_of(model.apply(params, IMAGES, k)))(kernels)
    audit = cbundles.audit(model, IMAGES, LABELS, params=params, insert=True, headroom=False)
    found = {name.removeprefix("Convolutional/"): one for name, one in inserted_by(audit).items()}
    assert {name: (one.kind, one.shape) for name, one in found.items()} == {
        "steps/relu[0]": ("relu(conv3x3(x))", (3, 3, 2, 2)),
        "steps/relu[1]": ("relu(conv3x3(x))", (3, 3, 2, 2)),
        "gelu": ("x + tanh(conv3x3(x))", (3, 3, 3, 3)),
    }
    for number in range(2):
        one = found[f"steps/relu[{number}]"]
        assert one.sensitivity == pytest.approx(squared(slopes["relu"][number]), rel=1e-4)
    assert found["gelu"].sensitivity == pytest.approx(squared(slopes["gelu"]), rel=1e-4)


def test_channels_before_pixels():
    """As Equinox has them, also under vmap: the same numbers as with the channels behind."""
    kernels = [normal(3, 3, 2, 3, seed=2, scale=0.4), normal(3, CLASSES, seed=3)]

    def behind(params, x):
        return jax.nn.relu(convolved(x, params[0])).mean((1, 2)) @ params[1]

    def one_in_front(params, x):
        order = ("NCHW", "HWIO", "NCHW")
        h = jax.lax.conv_general_dilated(
            x[None], params[0], (1, 1), "SAME", dimension_numbers=order
        )
        return jax.nn.relu(h[0]).mean((1, 2)) @ params[1]

    in_front = jax.vmap(one_in_front, (None, 0))
    found = [
        cbundles.audit(function, x, LABELS, params=kernels, insert=True, headroom=False)
        for function, x in ((behind, IMAGES), (in_front, np.moveaxis(IMAGES, -1, 1)))
    ]
    (one,), (other,) = (audit.insertions.places for audit in found)
    assert one.shape == other.shape == (3, 3, 3, 3)
    assert one.sensitivity == pytest.approx(other.sensitivity, rel=1e-5)
    assert one.sensitivity > 0


def test_tokens():
    """A layer is for each token; its gradient is summed over all of them."""
    params = {"w": normal(6, 4), "head": normal(4, CLASSES)}
    x = normal(SAMPLES, 5, 6)

    def model(params, x, extra=None):
        h = jnp.tanh(x @ params["w"])
        h = h if extra is None else h + jnp.tanh(h @ extra)
        return h.mean(1) @ params["head"]

    slope = jax.grad(lambda extra: loss_of(model(params, x, extra)))(jnp.zeros((4, 4)))
    audit = cbundles.audit(model, x, LABELS, params=params, insert=True, headroom=False)
    (one,) = audit.insertions.places
    assert one.sensitivity == pytest.approx(squared(slope), rel=1e-4)


# Our own networks


def test_a_perceptron_grows_by_the_same_sensitivities():
    shape = FcShape(inputs=6, width=5, depth=3, outputs=CLASSES, block="plain-relu")
    start = network.initial(shape, 0, shape)
    subject = Network(jnp.asarray(start.params), jnp.asarray(start.statistics))
    x = jnp.asarray(VECTORS.reshape(SAMPLES, 1, 1, 6))
    scores = insertion.scores(shape, subject, x[None], jnp.asarray(LABELS[None]), "outer")
    audit = cbundles.audit(
        module_of(shape), x, LABELS, params=variables_of(shape, subject), insert=True
    )
    found = sorted(one.sensitivity for one in audit.insertions.places)
    assert len(found) == shape.depth
    np.testing.assert_allclose(found, sorted(np.asarray(scores.virtual)), rtol=1e-4)


def test_a_vgg_grows_by_the_same_gradients():
    """Behind blocks, with the statistics of the batch, as in training."""
    shape = ConvShape((6, 6, 2), (2, 1, 0, 0), 4, False, CLASSES)
    start = network.initial(shape, 0, shape)
    subject = Network(jnp.asarray(start.params), jnp.asarray(start.statistics))
    virtual, _ = jax.jit(conv_insertion.gradients, static_argnums=0)(shape, subject, IMAGES, LABELS)
    model = module_of(shape, "batch")
    audit = cbundles.audit(
        model, IMAGES, LABELS, params=variables_of(shape, subject), insert=True, headroom=False,
        call=lambda model, x: model(x), batch_norm="batch",
    )  # fmt: skip
    found = [one.sensitivity for one in audit.insertions.places]
    for gradient in virtual:
        assert np.isclose(found, squared(gradient), rtol=1e-3).any()


# What is left out, and what is said


def test_what_is_left_out_has_a_reason():
    def model(params, x):
        h = jax.nn.relu(x @ params["w1"])
        aside = jax.nn.silu(x @ params["w1"])
        flat = jax.nn.relu((x @ params["w1"])[:, 0])
        inside = jax.lax.cond(x.sum() > 0, jnp.tanh, lambda x: x, h)
        scores = (h + inside + flat[:, None]) @ params["w2"]
        return scores + 0 * jax.lax.stop_gradient(aside).sum()

    params = {"w1": normal(6, 5), "w2": normal(5, CLASSES)}
    audit = cbundles.audit(model, VECTORS, LABELS, params=params, insert=True, headroom=False)
    reasons = {one.name: one.reason for one in audit.insertions.skipped}
    assert [one.name for one in audit.insertions.places] == ["relu"]
    assert reasons["relu#2"] == f"no square layer fits its shape, [{lesioned.AT_ONCE - 2}]"
    assert reasons["silu"] == "no gradient of the loss reaches it"
    assert reasons["tanh"].startswith("inside cond")
    assert "Left out were 3 activations, because: " in " ".join(str(audit).split())


def test_a_linear_model_has_no_place():
    params = {"w": normal(6, CLASSES)}
    audit = cbundles.audit(lambda p, x: x @ p["w"], VECTORS, LABELS, params=params, insert=True)
    assert audit.insertions.places == ()
    assert "No place for another layer is known: the model has no activation." in str(audit)


def test_nan_is_no_sensitivity():
    params = {"w": normal(6, 5), "head": np.full((5, CLASSES), np.nan, np.float32)}
    audit = cbundles.audit(
        lambda p, x: jnp.tanh(x @ p["w"]) @ p["head"], VECTORS, LABELS, params=params, insert=True,
        amplitude=1.0,
    )  # fmt: skip
    assert [one.reason for one in audit.insertions.skipped] == ["its gradient is not finite"]
    assert [one.sensitivity for one in audit.insertions.existing] == [None, None]
    assert json.dumps(audit.to_dict(), allow_nan=False)


def test_stacks_of_biases_are_no_layers():
    def model(params, x):
        def layer(x, own):
            return jnp.tanh(x @ own["w"]) + own["b"], None

        def group(x, own):
            return jax.lax.scan(layer, x, own)[0], None

        return jax.lax.scan(group, x, params["stacks"])[0] @ params["head"]

    stacks = {"w": normal(2, 3, 6, 6), "b": normal(2, 3, 6)}
    params = {"stacks": stacks, "head": normal(6, CLASSES)}
    audit = cbundles.audit(model, VECTORS, LABELS, params=params, insert=True, headroom=False)
    assert [one.name for one in audit.insertions.existing] == ["head", "stacks/w"]


def test_text_and_json():
    audit = cbundles.audit(
        lambda p, x: perceptron(p, x, {}), VECTORS, LABELS, params=PARAMS, insert=True
    )
    largest = audit.insertions.places[0]
    text = str(audit)
    assert f"A layer would help most behind {largest.name}" in text
    lines = text[text.index("one more layer behind") :].splitlines()
    (line,) = [line for line in lines if line.startswith(f"{largest.name} ")]
    median = np.median([one.per_weight for one in audit.insertions.existing])
    assert line.split()[-2:] == [f"{largest.sensitivity:.3g}", f"{largest.per_weight / median:.2g}"]
    plain = json.loads(json.dumps(audit.to_dict(), allow_nan=False))["insertions"]
    assert [one["name"] for one in plain["places"]] == [one.name for one in audit.insertions.places]
    assert plain["existing"][0]["per_weight"] == audit.insertions.existing[0].per_weight
