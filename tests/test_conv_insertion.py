"""Inserted layers of VGG and ResNet: they change nothing at first; their gradients are known."""

from __future__ import annotations

import dataclasses
import functools
import json

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree

from cbundles.errors import InputError
from cbundles.networks import conv, conv_insertion, lowering, network, pruning, saved, watched
from cbundles.networks.network import Network
from cbundles.networks.shape import ConvShape

BLOCKS = (1, 4, 0, 0)  # numbers 0 | 1, which halves the image, and 2 to 4, which are one scan
PLACES = [(1, 3, 3), (0, 4)]


def shape_of(residual, blocks=BLOCKS):
    return ConvShape((28, 28, 1), blocks, 4, residual, 10)


@pytest.fixture(scope="module")
def batch():
    chance = np.random.default_rng(0)
    images = chance.random((16, 28, 28, 1), np.float32)
    return jnp.asarray(images), jnp.asarray(np.arange(16) % 10, jnp.int32)


def some(shape, seed=0) -> Network:
    """A network all of whose parameters and statistics differ from their initial values, so that
    some activations are zero and some are not."""
    start, chance = network.initial(shape, seed, shape), np.random.default_rng(seed)
    params = start.params + chance.normal(0, 0.1, start.params.shape)
    statistics = start.statistics * chance.uniform(0.5, 2, start.statistics.shape)
    return Network(jnp.asarray(params, jnp.float32), jnp.asarray(statistics, jnp.float32))


def inserted(shape, one, places):
    for block in places:
        params = conv_insertion.insert(shape, one.params, block, virtual=True)
        shape, one = conv_insertion.grown(shape, block), one._replace(params=jnp.asarray(params))
    return shape, one


@functools.partial(compiled.quickly, static_argnums=0)
def trained(shape, one, x, y):
    """Logits and statistics after a training pass, and the gradient of the loss: (P,)."""

    def loss(flat):
        logits, statistics = network.moving_logits(shape, one._replace(params=flat), x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), (
            logits,
            statistics,
        )

    slopes, (logits, statistics) = jax.grad(loss, has_aux=True)(one.params)
    return logits, statistics, slopes


@pytest.mark.parametrize("residual", [False, True])
def test_insertion_changes_neither_the_function_nor_other_gradients(batch, residual):
    shape, x = shape_of(residual), batch[0]
    one = some(shape)
    (logits, statistics, slopes), classes = (
        trained(shape, one, *batch),
        compiled.logits(shape, one, x),
    )
    for places in PLACES:
        larger, same = inserted(shape, one, places)
        assert larger.inserted == places and same.params.shape == (larger.parameters,)
        np.testing.assert_allclose(compiled.logits(larger, same, x), classes, atol=1e-5)
        found, after, gradient = trained(larger, same, *batch)
        np.testing.assert_allclose(found, logits, atol=1e-5)
        np.testing.assert_allclose(after, statistics, atol=1e-6)
        atol = 1e-5 * float(jnp.abs(slopes).max())
        np.testing.assert_allclose(gradient[: len(slopes)], slopes, atol=atol)


def test_insertion_changes_nothing_where_the_convolution_rounds(batch):
    """Wide stages are lowered to transforms, after which a Dirac kernel is not exactly that."""
    shape = ConvShape((16, 16, 1), (2, 0, 0, 0), lowering.WINOGRAD_CHANNELS, False, 10)
    one, x = some(shape), batch[0][:, :16, :16]
    larger, same = inserted(shape, one, (0,))
    np.testing.assert_allclose(
        compiled.logits(larger, same, x), compiled.logits(shape, one, x), atol=1e-5
    )


def test_insertion_order_in_the_vector():
    shape = shape_of(False, (2, 2, 0, 0))
    one = some(shape)
    larger, two = inserted(shape, one, (3, 1))
    assert larger.inserted == (1, 3)
    size = {block: 9 * d * d + d for block, (_, _, d) in enumerate(shape.places)}
    np.testing.assert_array_equal(two.params[: shape.parameters], one.params)
    marked = np.array(two.params)
    marked[shape.parameters : shape.parameters + size[1]] = 7  # that after block 1
    again = conv_insertion.insert(larger, marked, 1, virtual=True)
    largest = conv_insertion.grown(larger, 1)
    assert largest.inserted == (1, 1, 3)
    layers = network.views(largest)[0](jnp.asarray(again)).inserted
    assert np.all(np.asarray(layers[0].kernel) == 7) and np.all(np.asarray(layers[0].bias) == 7)
    for layer, block in zip(layers[1:], (1, 3), strict=True):
        expected = conv.virtual(shape.places[block][2])
        np.testing.assert_array_equal(layer.kernel, expected.kernel)
        np.testing.assert_array_equal(layer.bias, expected.bias)
    moments = conv_insertion.insert(larger, marked, 1, virtual=False)
    assert moments.dtype == again.dtype == np.float32
    new = slice(shape.parameters + size[1], shape.parameters + 2 * size[1])
    assert not moments[new].any() and again[new].sum() == shape.places[1][2]
    for vector in (again, moments):
        np.testing.assert_array_equal(np.delete(vector, new), marked)


def test_insertion_in_sizes():
    shape = shape_of(True, (3, 4, 1, 2))
    larger = conv_insertion.grown(conv_insertion.grown(shape, 9), 1)
    added = [9 * d * d + d for d in (4, 32)]
    assert larger.parameters == shape.parameters + sum(added)
    assert larger.bytes == shape.bytes + 4 * sum(added)
    assert (larger.statistics, larger.layers) == (shape.statistics, shape.layers)
    assert larger.depth == shape.depth + 2
    assert larger.places == shape.places and shape.places[1] == (14, 14, 4)
    assert larger.flops == shape.flops + 2 * 9 * (14 * 14 * 4**2 + 2 * 2 * 32**2)
    start = network.initial(larger, 0, larger)
    same = inserted(shape, Network(*map(jnp.asarray, network.initial(shape, 0, shape)[:2])), (9, 1))
    np.testing.assert_array_equal(start.params, same[1].params)


def scans(jaxpr):
    return [eqn.params["length"] for eqn in jaxpr.eqns if eqn.primitive.name == "scan"]


@pytest.mark.parametrize(
    ("places", "lengths"),
    [
        ((), [3, 3, 1]),
        ((2, 3, 6, 9), [3, 3, 1]),
        ((1,), [2, 1, 3, 1]),
        ((0, 5, 5), [1, 2, 2, 1, 1]),
    ],
)
def test_insertion_splits_only_the_scans_it_must(batch, places, lengths):
    shape = shape_of(False, (3, 4, 1, 2))
    shape, one = inserted(shape, some(shape), places)
    traced = jax.make_jaxpr(functools.partial(network.logits, shape))(one, batch[0])
    assert scans(traced.jaxpr) == lengths


@pytest.mark.parametrize("residual", [False, True])
def test_insertion_leaves_what_is_seen_and_masked_as_it_is(batch, residual):
    shape, (x, y) = shape_of(residual), batch
    larger, same = inserted(shape, some(shape), (0, 1, 3, 3))
    keep = jnp.asarray(np.random.default_rng(1).random(shape.layers) < 0.5) if residual else None

    def mean(a):
        return a.mean((1, 2, 3))

    logits, outputs, _ = compiled.seen(shape, some(shape), x, mean, conv.BATCH, keep)
    found, after, _ = compiled.seen(larger, same, x, mean, conv.BATCH, keep)
    np.testing.assert_allclose(found, logits, atol=1e-5)
    np.testing.assert_allclose(after, outputs, atol=1e-5)
    behind = compiled.quickly(watched.slopes, static_argnums=(0, 4))
    _, before = behind(shape, some(shape), x, y, conv.BATCH)
    _, now = behind(larger, same, x, y, conv.BATCH)
    assert [h.shape for h, _ in now] == [(len(x), *place) for place in shape.places]
    for (h, delta), (h_before, delta_before) in zip(now, before, strict=True):
        np.testing.assert_allclose(h, h_before, atol=1e-5)
        np.testing.assert_allclose(delta, delta_before, atol=1e-5 * float(abs(delta_before).max()))


@pytest.mark.parametrize(("residual", "existing"), [(False, ()), (True, (0, 3, 3))])
def test_insertion_gradients_are_those_of_the_network_with_the_layer(batch, residual, existing):
    shape, one = inserted(shape_of(residual), some(shape_of(residual)), existing)
    noise = np.random.default_rng(2).normal(0, 0.1, one.params.shape)
    one = one._replace(params=jnp.asarray(one.params + noise, jnp.float32))
    virtual, kernels = compiled.conv_gradients(shape, one, *batch)
    slopes = trained(shape, one, *batch)[2]
    tree = network.views(shape)[0](slopes)
    expected = [a for a in jax.tree.leaves(tree) if a.ndim == 4]  # stem, first blocks, inserted
    stacked = [kernel for a in jax.tree.leaves(tree) if a.ndim == 5 for kernel in a]
    norms = [float(jnp.linalg.norm(a)) for a in (*expected, *stacked)]
    assert len(kernels) == 1 + 2 * shape.layers + residual + len(existing)
    np.testing.assert_allclose(
        sorted(float(jnp.linalg.norm(a)) for a in kernels), sorted(norms), rtol=1e-4
    )
    np.testing.assert_allclose(kernels[0], tree.stem.kernel, atol=1e-5 * max(norms))
    np.testing.assert_allclose(
        kernels[6 + residual], tree.stages[1].rest[1].kernel[0], atol=1e-5 * max(norms)
    )  # of block 2, after the stem, block 0, and block 1 with its skip
    assert len(virtual) == shape.layers
    # All at once: none changes what the others see.
    larger, same = inserted(shape, one, range(shape.layers))
    layers = network.views(larger)[0](trained(larger, same, *batch)[2]).inserted
    last = dict(zip(larger.inserted, layers, strict=True))
    for block, gradient in enumerate(virtual):
        scale = float(jnp.abs(gradient).max())
        assert scale > 0
        np.testing.assert_allclose(gradient, last[block].kernel, atol=2e-5 * scale)


@pytest.mark.usefixtures("unchecked")  # float64 is not what networks are annotated with
@pytest.mark.parametrize("residual", [False, True])
def test_insertion_gradients_are_finite_differences(unchecked, batch, residual):
    """In float64, and from below: a kernel that grows off its centre lets pixels through that are
    0 and have neighbours, and the slope of a ReLU at 0 is taken to be 0."""
    shape = shape_of(residual, (1, 2, 0, 0))
    flat = some(shape)
    trees = [view(a) for view, a in zip(network.views(shape), flat[:2], strict=True)]
    chance, step = np.random.default_rng(3), 1e-6
    with jax.enable_x64(True):
        params, statistics = jax.tree.map(lambda a: jnp.asarray(np.float64(a)), trees)
        x, y = jnp.asarray(np.float64(batch[0])), batch[1]

        slopes = compiled.quickly(watched.slopes, static_argnums=(0, 4))
        vectors = Network(ravel_pytree(params)[0], ravel_pytree(statistics)[0])
        _, behind = slopes(shape, vectors, x, y, conv.TRAIN)
        everywhere = dataclasses.replace(shape, inserted=tuple(range(shape.layers)))
        layers = [jax.tree.map(np.float64, conv.virtual(h.shape[-1])) for h, _ in behind]

        @compiled.quickly
        def at(layers):
            longer = ravel_pytree(params._replace(inserted=tuple(layers)))[0]
            logits, _ = network.moving_logits(everywhere, vectors._replace(params=longer), x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        here = float(at(layers))
        for block, (h, delta) in enumerate(behind):
            closed = np.asarray(conv_insertion.virtual_gradient(h, delta))
            assert closed.dtype == np.float64 and bool((h == 0).any())
            strongest = np.argsort(-np.abs(closed).ravel())[:2]
            for entry in (*strongest, *chance.integers(0, closed.size, 4)):
                lower = layers[block].kernel.copy()
                lower.flat[entry] -= step
                changed = [*layers]
                changed[block] = layers[block]._replace(kernel=lower)
                slope = (here - float(at(changed))) / step
                np.testing.assert_allclose(closed.flat[entry], slope, rtol=1e-3, atol=2e-6)


def test_insertion_gradient_of_a_pixel_that_is_zero_is_zero():
    h = jnp.zeros((1, 6, 6, 2)).at[0, 2, 2, 0].set(2.0)
    found = conv_insertion.virtual_gradient(h, jnp.full(h.shape, 3.0))
    np.testing.assert_allclose(found, np.zeros((3, 3, 2, 2)) + 6 * np.eye(9)[4].reshape(3, 3, 1, 1)
                               * np.array([[1, 0], [0, 0]]))  # fmt: skip


def test_insertion_golden_network(golden):
    """Convolution, ReLU, maximum of 2x2, three times; two dense layers, ReLU between them, the last
    without bias. Virtual layers stand between ReLU and maximum."""
    case = golden("insertion_cnn_vggsmall_2-4-8")
    with jax.enable_x64(True):
        weights = [jnp.asarray(case[name]) for name in sorted(case) if name.startswith("base_0")]
        x, y = jnp.asarray(np.float64(case["X"])).transpose(0, 2, 3, 1), jnp.asarray(case["y"])

        def logits(weights, x, taps=(0.0, 0.0, 0.0)):
            behind = []
            for kernel, bias, tap in zip(weights[:6:2], weights[1:6:2], taps, strict=True):
                h = lowering.convolve(x, kernel.transpose(2, 3, 1, 0), 1) + bias
                behind.append(jax.nn.relu(h))
                window = (1, 2, 2, 1)
                x = lax.reduce_window(behind[-1] + tap, -jnp.inf, lax.max, window, window, "VALID")
            flat = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
            hidden = jax.nn.relu(flat @ weights[6].T + weights[7])
            return hidden @ weights[8].T, behind

        def loss(weights, taps, x, y):
            found, behind = logits(weights, x, taps)
            return optax.softmax_cross_entropy_with_integer_labels(found, y).mean(), behind

        np.testing.assert_allclose(logits(weights, x)[0], case["base_logits"], atol=1e-6)
        slopes = compiled.quickly(jax.value_and_grad(loss, (0, 1), has_aux=True))
        found, existing, losses, size = [], [], [], int(case["batch_size"])
        for start in range(0, len(x), size):
            part = slice(start, start + size)
            taps = [jnp.zeros((size, n, n, d)) for n, d in ((28, 2), (14, 4), (7, 8))]
            (value, behind), (by_weight, deltas) = slopes(weights, taps, x[part], y[part])
            found.append(list(map(conv_insertion.virtual_gradient, behind, deltas)))
            existing.append(by_weight[:6:2])
            losses.append(value)
        assert len(found) == 3
        assert float(np.mean(losses)) == pytest.approx(float(case["base_loss"]), abs=1e-9)
        virtual = [sum(parts) / 3 for parts in zip(*found, strict=True)]
        kernels = [sum(parts) / 3 for parts in zip(*existing, strict=True)]
        for number, gradient in enumerate(virtual):
            expected = case[f"grad_virtual_{number}_OIHW_mean"]
            np.testing.assert_allclose(gradient.transpose(3, 2, 0, 1), expected, atol=1e-9)
        norms = np.array([float(jnp.square(a).sum()) for a in virtual])
        sizes = np.array([a.size for a in virtual])
        np.testing.assert_allclose(norms, case["sens_fro_squared"], rtol=1e-8)
        np.testing.assert_allclose(norms / sizes, case["sens_fro_squared_scaled"], rtol=1e-8)
        is_virtual = case["all_conv_is_virtual"]
        known = [float(jnp.square(a).sum()) for a in kernels]
        np.testing.assert_allclose(known, case["all_conv_fro_squared"][~is_virtual], rtol=1e-8)


def test_insertion_survives_saving():
    shape, one = inserted(shape_of(True, (1, 2, 0, 0)), some(shape_of(True, (1, 2, 0, 0))), (2, 0))
    again = saved.decode(saved.encode(saved.Saved(shape, one, {"cell": "x"})), "here")
    assert again.shape == shape and again.shape.inserted == (0, 2)
    np.testing.assert_array_equal(again.network.params, one.params)


@pytest.mark.parametrize("places", [[7], [-1], [1, 0], ["a"], 3])
def test_insertion_that_cannot_be_is_refused_when_read(tmp_path, places):
    shape, one = inserted(shape_of(True, (1, 2, 0, 0)), some(shape_of(True, (1, 2, 0, 0))), (2, 0))
    file = tmp_path / "one.npz"
    file.write_bytes(saved.encode(saved.Saved(shape, one, {})))
    with np.load(file) as archive:
        content = dict(archive)
    header = json.loads(str(content["header"]))
    header["shape"]["inserted"] = places
    np.savez(file, **{**content, "header": np.array(json.dumps(header))})
    with pytest.raises(InputError, match="not a network"):
        saved.read(file)


def test_pruning_refuses_a_network_with_an_insertion():
    shape, one = inserted(shape_of(True), some(shape_of(True)), (2,))
    with pytest.raises(ValueError, match="inserted"):
        pruning.without(shape, one, (1,))
