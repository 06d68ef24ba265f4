"""Inserting layers: golden cases, function and gradients unchanged, closed form of scores."""

from __future__ import annotations

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from cbundles.networks import fc, insertion, network
from cbundles.networks.network import Network
from cbundles.networks.shape import FcShape

# Golden file: kind of block, zero weights, width after padding, hidden layers.
GOLDEN = {
    "fwd_relu_3-4-3": ("plain-relu", "outer", 4, 3),
    "res1_tanh_3x4": ("residual1-tanh", "outer", 3, 4),
    "res2v1_relu_3x3": ("residual2-relu", "outer", 3, 3),
    "res2v1_tanh_3x3": ("residual2-tanh", "outer", 3, 3),
    "res2v2_tanh_3x3": ("residual2-tanh", "inner", 3, 3),
}
KINDS = [("plain-relu", "outer"), ("residual1-tanh", "outer"), ("residual2-relu", "outer"),
         ("residual2-tanh", "outer"), ("residual2-tanh", "inner")]  # fmt: skip
# ... and those whose activations the oracle in NumPy does not have.
ALL_KINDS = [*KINDS, ("residual1-gelu", "outer"), ("residual2-leaky_relu", "outer")]


def stored(case, prefix, shape):
    """The network whose parameters the golden file names in order, padded to one width."""
    named = {k.removeprefix(prefix)[3:]: case[k] for k in sorted(case) if k.startswith(prefix)}
    weights = [w.T for name, w in named.items() if name.endswith("weight") and ".l2." not in name]
    outer = [w.T for name, w in named.items() if name.endswith("l2.weight")]
    biases = [b for name, b in named.items() if name.endswith("bias")]

    def fit(array, *size):
        return np.pad(array, [(0, n - have) for n, have in zip(size, array.shape, strict=True)])

    width, none = shape.width, np.zeros((0, shape.width, shape.width))
    blocks = [fit(w, width, width) for w in weights[1:-1]]
    return fc.Params(
        first=fit(weights[0], 2, width),
        first_bias=fit(biases[0], width),
        hidden=np.stack(blocks) if blocks else none,
        hidden_bias=np.stack([fit(b, width) for b in biases[1:-1]]),
        last=fit(weights[-1], width, 2),
        last_bias=biases[-1],
        outer=np.stack([fit(w, width, width) for w in outer]) if outer else (),
    )


def flat(params):
    return ravel_pytree(jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params))[0]


def batches(case):
    size = int(case["batch_size"])
    x = case["X"].astype(np.float32).reshape(-1, size, 1, 1, 2)
    return jnp.asarray(x), jnp.asarray(case["y"].astype(np.int32).reshape(-1, size))


@pytest.mark.parametrize("name", GOLDEN)
def test_insertion_golden(golden, name):
    """Logits, loss, gradients of virtual layers, sensitivities, the chosen place, what follows."""
    case = golden(f"insertion_{name}")
    block, zero, width, depth = GOLDEN[name]
    shape = FcShape(2, depth, width, 2, block)
    one = Network(flat(stored(case, "base_", shape)), jnp.zeros(0))
    x, y = batches(case)
    everything = x.reshape(-1, 1, 1, 2)
    np.testing.assert_allclose(compiled.logits(shape, one, everything), case["base_logits"],
                               atol=2e-5)  # fmt: skip
    found = compiled.scores(shape, one, x, y, zero)
    places = len(case["sens"])  # with one weight, the original leaves out the place after the last
    assert places == (depth - 1 if block == "residual1-tanh" else depth)
    np.testing.assert_allclose(found.virtual[:places], case["sens"], rtol=2e-4, atol=1e-9)
    chosen = int(np.argmax(found.virtual[:places]))
    assert chosen == int(case["argmax"])
    two = block.startswith("residual2")
    weight = ("l1" if zero == "inner" else "l2") + ".weight" if two else "weight"
    names = [k for k in sorted(case) if k.startswith("grad_") and "_V_" in k]
    expected = [case[name].T for name in names if name.endswith(weight)]
    mean = np.mean([compiled.gradients(shape, one, *batch, zero)[0]
                    for batch in zip(x, y, strict=True)], axis=0)  # fmt: skip
    for ours, theirs in zip(mean, expected, strict=False):
        rows, columns = theirs.shape
        np.testing.assert_allclose(ours[:rows, :columns], theirs, rtol=2e-4, atol=1e-6)
        assert not ours[rows:].any() and not ours[:, columns:].any()

    larger = FcShape(2, depth + 1, width, 2, block)
    padded = compiled.resize(shape, one.params, larger)
    params = compiled.insert(larger, padded, chosen, zero, virtual=True)
    grown = Network(params, one.statistics)
    np.testing.assert_allclose(compiled.logits(larger, grown, everything), case["new_logits"],
                               atol=2e-5)  # fmt: skip
    losses = []
    for _ in range(3):
        (loss, _), gradient = compiled.slope(params, grown, everything, y.reshape(-1), larger)
        losses.append(float(loss))
        params = params - 0.01 * gradient
    np.testing.assert_allclose(losses, case["new_losses_gd_lr0.01_3steps"], atol=2e-5)


@pytest.mark.parametrize("name", GOLDEN)
def test_insertion_everywhere_has_the_gradients_of_the_extended_network(golden, name):
    """Existing parameters have the same gradients, virtual ones those of the golden file."""
    case = golden(f"insertion_{name}")
    block, zero, width, depth = GOLDEN[name]
    shape = FcShape(2, depth, width, 2, block)
    params, depths, places = flat(stored(case, "base_", shape)), depth, len(case["sens"])
    for place in reversed(range(places)):
        larger = FcShape(2, depths + 1, width, 2, block)
        params = compiled.resize(FcShape(2, depths, width, 2, block), params, larger)
        params = compiled.insert(larger, params, place, zero, virtual=True)
        depths += 1
    one, (x, y) = Network(params, jnp.zeros(0)), batches(case)
    gradients = [compiled.slope(params, one, *batch, larger)[1]
                 for batch in zip(x, y, strict=True)]  # fmt: skip
    ours = network.views(larger)[0](sum(gradients) / len(gradients))
    theirs = stored(case, "grad_", larger)
    real = stored(case, "ext_", larger)
    for mine, golden_gradient, weights, built in zip(
        jax.tree.leaves(ours), jax.tree.leaves(theirs), jax.tree.leaves(real),
        jax.tree.leaves(network.views(larger)[0](params)), strict=True,
    ):  # fmt: skip
        inside = golden_gradient != 0  # padding has none
        np.testing.assert_allclose(mine[inside], golden_gradient[inside], rtol=2e-4, atol=2e-6)
        same = weights != 0
        np.testing.assert_allclose(built[same], weights[same], rtol=1e-6)


def example(block, *, depth=4, width=5, samples=40, seed=3):
    shape = FcShape(2, depth, width, 3, block)
    chance = np.random.default_rng(seed)
    x = jnp.asarray(chance.standard_normal((samples, 1, 1, 2)), jnp.float32)
    y = jnp.asarray(chance.integers(0, 3, samples), jnp.int32)
    params = fc.init(shape, seed)
    biases = chance.uniform(-0.5, 0.5, params.hidden_bias.shape).astype(np.float32)
    return shape, flat(params._replace(hidden_bias=biases)), x, y


def extended(shape, params, position, zero):
    larger = FcShape(shape.inputs, shape.depth + 1, shape.width, shape.outputs, shape.block)
    padded = compiled.resize(shape, params, larger)
    return larger, compiled.insert(larger, padded, position, zero, virtual=True)


@pytest.mark.parametrize(("block", "zero"), ALL_KINDS)
def test_insertion_changes_neither_function_nor_gradients(block, zero):
    shape, params, x, y = example(block)
    before = compiled.logits(shape, Network(params, jnp.zeros(0)), x)
    gradient = compiled.slope(params, Network(params, jnp.zeros(0)), x, y, shape)[1]
    for position in range(shape.depth):
        larger, new = extended(shape, params, position, zero)
        one = Network(new, jnp.zeros(0))
        assert float(jnp.abs(compiled.logits(larger, one, x) - before).max()) <= 1e-5
        extended_gradient = compiled.slope(new, one, x, y, larger)[1]
        view = network.views(larger)[0](extended_gradient)
        kept = np.arange(shape.depth) != position
        existing = view._replace(
            hidden=view.hidden[kept], hidden_bias=view.hidden_bias[kept],
            outer=view.outer[kept] if shape.weights == 2 else (),
        )  # fmt: skip
        np.testing.assert_allclose(ravel_pytree(existing)[0], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("block", "zero"), ALL_KINDS)
def test_closed_form_of_an_insertion_is_autodiff_of_the_real_layer(block, zero):
    shape, params, x, y = example(block)
    ours, _ = compiled.gradients(shape, Network(params, jnp.zeros(0)), x, y, zero)
    for position in range(shape.depth):
        larger, new = extended(shape, params, position, zero)
        gradient = compiled.slope(new, Network(new, jnp.zeros(0)), x, y, larger)[1]
        view = network.views(larger)[0](gradient)
        of_weights = (
            view.outer if block.startswith("residual2") and zero == "outer" else view.hidden
        )
        np.testing.assert_allclose(ours[position], of_weights[position], rtol=1e-4, atol=1e-7)


def oracle_loss(shape, params, x, y):
    """The network in NumPy float64."""
    s = (lambda a: np.maximum(a, 0)) if shape.block.endswith("relu") else np.tanh
    a = s(x @ params.first + params.first_bias)
    for i, (w, b) in enumerate(zip(params.hidden, params.hidden_bias, strict=True)):
        z = s(a @ w + b)
        z = z @ params.outer[i] if shape.weights == 2 else z
        a = z if shape.block.startswith("plain") else a + z
    logits = a @ params.last + params.last_bias
    logits = logits - logits.max(1, keepdims=True)
    return (np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]).mean()


@pytest.mark.parametrize(("block", "zero"), KINDS)
def test_closed_form_of_an_insertion_is_that_of_finite_differences(block, zero):
    """At the kink of ReLU the derivative is that from below: what is off stays off."""
    shape, params, x, y = example(block, depth=3, width=3)
    ours, _ = compiled.gradients(shape, Network(params, jnp.zeros(0)), x, y, zero)
    points, step = np.asarray(x, np.float64).reshape(len(x), -1), 1e-6
    for position in range(shape.depth):
        larger, new = extended(shape, params, position, zero)
        view = jax.tree.map(lambda a: np.asarray(a, np.float64), network.views(larger)[0](new))
        name = "outer" if block.startswith("residual2") and zero == "outer" else "hidden"
        base = oracle_loss(larger, view, points, np.asarray(y))
        h = activations(larger, view, points, position)
        for i, j in np.ndindex(3, 3):
            moved = {}
            for sign in (1, -1):
                weights = getattr(view, name).copy()
                weights[position, i, j] += sign * step
                changed = view._replace(**{name: weights})
                moved[sign] = (oracle_loss(larger, changed, points, np.asarray(y)) - base) / step
                moved[sign] *= sign
            # A weight of the identity moves relu's argument off 0 only where neuron j is off and
            # neuron i is on: upwards it wakes, downwards it stays off.
            kink = block == "plain-relu" and ((h[:, j] == 0) & (h[:, i] > 0)).any()
            expected = moved[-1] if kink else (moved[1] + moved[-1]) / 2
            assert float(ours[position, i, j]) == pytest.approx(expected, rel=1e-3, abs=1e-5)


def activations(shape, params, x, position):
    """After the first layer and `position` blocks of a plain network."""
    a = np.maximum(x @ params.first + params.first_bias, 0)
    for w, b in zip(params.hidden[:position], params.hidden_bias[:position], strict=True):
        a = np.maximum(a @ w + b, 0)
    return a


def test_scores_of_an_insertion_in_a_padded_network_are_those_of_its_own_size():
    shape, params, x, y = example("plain-relu")
    larger = FcShape(2, 7, 5, 3)
    padded = Network(compiled.resize(shape, params, larger), jnp.zeros(0), jnp.int32(4))
    batches = x.reshape(4, 10, 1, 1, 2), y.reshape(4, 10)
    one = compiled.scores(shape, Network(params, jnp.zeros(0)), *batches, "outer")
    two = compiled.scores(larger, padded, *batches, "outer")
    np.testing.assert_allclose(two.virtual[:4], one.virtual, rtol=1e-5)
    np.testing.assert_allclose(two.existing[:4], one.existing[:4], rtol=1e-5)
    np.testing.assert_allclose(two.existing[-1], one.existing[-1], rtol=1e-5)
    assert not two.existing[4:-1].any()
    inserted = compiled.insert(larger, padded.params, 2, "outer", virtual=True)
    grown = compiled.logits(larger, padded._replace(params=inserted, depth=jnp.int32(5)), x)
    np.testing.assert_allclose(grown, compiled.logits(larger, padded, x), atol=1e-5)
    assert bool((compiled.insert(larger, inserted, -1, "outer", virtual=True) == inserted).all())


def test_scores_average_gradients_before_squaring_when_an_insertion_is_scored():
    shape, params, x, y = example("residual1-tanh")
    one = Network(params, jnp.zeros(0))
    whole = compiled.gradients(shape, one, x, y, "outer")[0]
    parts = compiled.scores(shape, one, x.reshape(8, 5, 1, 1, 2), y.reshape(8, 5), "outer")
    np.testing.assert_allclose(parts.virtual, jnp.square(whole).sum((1, 2)), rtol=1e-4)


def test_truncation_and_insertion_of_zeros():
    shape, params, x, _ = example("residual2-tanh", depth=6)
    short = insertion.truncate(shape, params, jnp.int32(3))
    own = FcShape(2, 3, 5, 3, "residual2-tanh")
    alone = compiled.logits(own, Network(compiled.resize(shape, params, own), jnp.zeros(0)), x)
    kept = compiled.logits(shape, Network(short, jnp.zeros(0), jnp.int32(3)), x)
    np.testing.assert_allclose(kept, alone, atol=1e-6)
    moments = compiled.insert(shape, short, 1, "outer", virtual=False)
    before, after = (network.views(shape)[0](flat) for flat in (short, moments))
    for name in ("hidden", "hidden_bias", "outer"):
        old, new = getattr(before, name), getattr(after, name)
        assert not new[1].any() and bool((new[0] == old[0]).all())
        assert bool((new[2:] == old[1:-1]).all())
