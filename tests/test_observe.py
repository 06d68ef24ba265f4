"""Observation: sites are found and named, and reading, gating, leaving out and perturbing do what
they say, without a change of the model's own bits."""

from __future__ import annotations

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from linen_models import drawn

from cbundles.observe import nnx_function, observe

KEY = jax.random.key(0)


def normal(*shape, seed=1):
    return jax.random.normal(jax.random.key(seed), shape)


def equal(a, b):
    """Whether two trees are bit by bit the same; not of zeros, which would prove nothing."""
    assert any(np.std(leaf) > 0 for leaf in jax.tree.leaves(a))
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


def itself(value):
    return value


# Models


class Block(nn.Module):
    """A residual block; with a stride its shortcut is a projection."""

    filters: int
    stride: int = 1
    train: bool = False

    @nn.compact
    def __call__(self, x, _=None):
        def convolution(size, stride, name):
            return nn.Conv(self.filters, (size, size), stride, use_bias=False, name=name)

        def norm(name):
            return nn.BatchNorm(use_running_average=not self.train, name=name)

        h = nn.relu(norm("norm1")(convolution(3, self.stride, "conv1")(x)))
        h = norm("norm2")(convolution(3, 1, "conv2")(h))
        if self.stride > 1:
            x = norm("norm_skip")(convolution(1, self.stride, "conv_skip")(x))
        return nn.relu(x + h), None


class ResNet(nn.Module):
    train: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="stem")(x))
        x, _ = Block(4, train=self.train, name="block1")(x)
        x, _ = Block(8, stride=2, train=self.train, name="block2")(x)
        stacked = nn.scan(
            Block, {"params": 0, "batch_stats": 0}, split_rngs={"params": True}, length=3
        )
        x, _ = stacked(8, train=self.train, name="rest")(x, None)
        return nn.Dense(3, name="head")(x.mean((1, 2)))


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        return nn.relu(nn.Dense(6, name="dense")(x)), None


class Stack(nn.Module):
    remat: bool = False

    @nn.compact
    def __call__(self, x):
        layer = nn.remat(Layer) if self.remat else Layer
        stacked = nn.scan(layer, {"params": 0}, split_rngs={"params": True}, length=4)
        x, _ = stacked(name="layers")(x, None)
        return nn.Dense(3, name="head")(x)


@functools.cache
def resnet():
    """A ResNet, its variables, images, and its sites."""
    x = normal(2, 8, 8, 3)
    variables = drawn(ResNet(), x)
    return ResNet(), variables, x, observe(ResNet().apply, variables, x)


@functools.cache
def stack(remat=False):
    x = normal(5, 6)
    model = Stack(remat)
    variables = drawn(model, x)
    return model, variables, x, observe(model.apply, variables, x)


def mlp(params, x):
    for w in params:
        x = x + jax.nn.relu(x @ w)
    return x


MLP = [normal(4, 4, seed=seed) for seed in (2, 3)]


# Sites


def test_sites_of_a_resnet():
    found = [(site.name, site.kind, site.repeats) for site in resnet()[3].sites]
    inside = [("conv1/convolution", "convolution"), ("relu", "activation"),
              ("conv2/convolution", "convolution"), ("branch", "branch"), ("sum", "sum"),
              ("relu#2", "activation")]  # fmt: skip

    def block(path, repeats=()):
        return [(f"ResNet/{path}/{name}", kind, repeats) for name, kind in inside]

    projected = block("block2")
    projected.insert(4, ("ResNet/block2/conv_skip/convolution", "convolution", ()))
    assert found == [
        ("ResNet/stem/convolution", "convolution", ()),
        ("ResNet/relu", "activation", ()),
        *block("block1"),
        *projected,
        *block("rest", (3,)),
        ("ResNet/head/linear", "linear", ()),
    ]
    assert resnet()[3].skipped == ()
    rest = resnet()[3].select("ResNet/rest/branch")[0]
    assert (rest.path, rest.label) == ("ResNet/rest", "branch")
    assert (rest.shape, rest.dtype) == ((2, 4, 4, 8), jnp.float32)


def test_a_training_step_of_normalisation_is_no_residual_sum():
    _, variables, x, inference = resnet()
    apply = functools.partial(ResNet(train=True).apply, mutable=["batch_stats"])
    assert observe(apply, variables, x).sites == inference.sites


@pytest.mark.parametrize(
    ("function", "label"),
    [
        (jax.nn.relu, "relu"),
        (jax.nn.relu6, "relu6"),
        (jax.nn.gelu, "gelu"),
        (functools.partial(jax.nn.gelu, approximate=False), "gelu"),
        (jax.nn.silu, "silu"),
        (lambda x: x * jax.nn.sigmoid(x), "silu"),
        (jax.nn.elu, "elu"),
        (jax.nn.leaky_relu, "leaky_relu"),
        (jax.nn.softplus, "softplus"),
        (jax.nn.mish, "mish"),
        (jnp.tanh, "tanh"),
        (jax.nn.sigmoid, "logistic"),
        (lambda x: jnp.maximum(x, 0), "max"),
        (lambda x: jnp.where(x > 0, x, 0), "select_n"),
        (lambda x: jax.nn.relu(x) * 2 + x, "relu"),
    ],
)
def test_an_activation_is_one_site(function, label):
    x = normal(3, 4)
    observed = observe(function, x)
    assert [(site.label, site.kind) for site in observed.sites] == [(label, "activation")]
    result, readings = jax.jit(lambda x: observed.run(x, read={"*": itself}))(x)
    assert equal(result, jax.jit(function)(x))
    if label != "relu" or function is jax.nn.relu:
        assert equal(readings[label], result)


@pytest.mark.parametrize(
    "function",
    [
        jax.nn.softmax,
        jax.nn.log_softmax,
        jax.nn.standardize,
        lambda x: nn.LayerNorm().apply({"params": {"scale": x[0], "bias": x[0]}}, x),
        lambda x: nn.GroupNorm(2).apply({"params": {"scale": x[0], "bias": x[0]}}, x),
        lambda x: nn.Dropout(0.5, deterministic=False).apply({}, x, rngs={"dropout": KEY}),
        lambda x: x + jax.random.normal(KEY, x.shape),
        lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-6),
        lambda x: x + 2 * x,
        lambda x: jnp.where(x.sum() > 0, x, 0),
        lambda x: (x + x[0], x + x[:, :1]),
    ],
)
def test_what_is_no_site(function):
    assert observe(function, normal(3, 4)).sites == ()


def test_a_transformer():
    class Transformer(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = x + nn.MultiHeadDotProductAttention(2, name="attention")(nn.LayerNorm()(x))
            h = nn.gelu(nn.Dense(16, name="up")(nn.LayerNorm()(x)))
            return x + nn.Dense(8, name="down")(h)

    x = normal(2, 5, 8)
    variables = drawn(Transformer(), x)
    observed = observe(Transformer().apply, variables, x)
    # Scores and weighted values are products of two activations: no linear maps.
    attention = [f"attention/{part}/linear" for part in ("query", "key", "value", "out")]
    names = [*attention, "branch", "sum", "up/linear", "gelu", "down/linear", "branch#2", "sum#2"]
    assert [site.name for site in observed.sites] == [f"Transformer/{name}" for name in names]
    whole = functools.partial(observed.run, variables, x)
    off = whole(keep={"*/branch*": False})[0]
    np.testing.assert_array_equal(off, x)


def test_a_softmax_is_passed_by_a_branch_not_by_a_shortcut():
    def function(w, x):
        return x @ w[0] + jax.nn.softmax(x @ w[1]) @ w[2]

    w, x = normal(3, 4, 4), normal(2, 4)
    observed = observe(function, w, x)
    assert [site.name for site in observed.select(kind="branch")] == ["branch"]
    off = observed.run(w, x, keep={"branch": False})[0]
    np.testing.assert_array_equal(off, x @ w[0])


def test_names_given_by_the_program_win():
    def block(w, x):
        branch = checkpoint_name(jax.nn.relu(x @ w) @ w, "branch of mine")
        return checkpoint_name(x + branch, "block")

    names = [(site.name, site.kind) for site in observe(block, normal(4, 4), normal(2, 4)).sites]
    assert names == [
        ("linear", "linear"),
        ("relu", "activation"),
        ("linear#2", "linear"),
        ("branch of mine", "branch"),
        ("sum", "sum"),
        ("block", "named"),
    ]


def test_a_module_called_twice_has_two_sites():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = Layer(name="layer")
            return layer(layer(x)[0])[0]

    x = normal(2, 6)
    observed = observe(Twice().apply, drawn(Twice(), x), x)
    names = [site.name for site in observed.select(kind="activation")]
    assert names == ["Twice/layer/relu", "Twice/layer/relu#2"]


def test_what_is_evaluated_as_a_whole_is_told_with_its_reason():
    @jax.custom_vjp
    def product(w, x):
        return x @ w

    product.defvjp(lambda w, x: (x @ w, (w, x)), lambda saved, g: (g, g))
    mesh = jax.make_mesh((1,), ("a",))
    spec = jax.sharding.PartitionSpec()

    def function(w, x):
        with jax.named_scope("branching"):
            x = lax.cond(x.sum() > 0, lambda x: jax.nn.relu(x @ w), lambda x: x, x)
        with jax.named_scope("looping"):
            x = lax.while_loop(lambda x: x.sum() < 0, lambda x: jnp.tanh(x) + 1, x)
        x = jax.shard_map(jnp.tanh, mesh=mesh, in_specs=spec, out_specs=spec)(x)
        return jax.nn.relu(product(w, x))

    w, x = normal(4, 4), normal(2, 4)
    observed = observe(function, w, x)
    assert [site.name for site in observed.sites] == ["relu"]
    assert [(one.name, one.kind) for one in observed.skipped] == [
        ("branching/linear", "linear"),
        ("branching/relu", "activation"),
        ("looping/tanh", "activation"),
        ("tanh", "activation"),
        ("linear", "linear"),
    ]
    reasons = ["cond", "cond", "while", "shard_map", "its own derivative"]
    for one, reason in zip(observed.skipped, reasons, strict=True):
        assert reason in one.reason
    assert equal(jax.jit(lambda *a: observed.run(*a, read={"relu": itself})[0])(w, x),
                 jax.jit(function)(w, x))  # fmt: skip


def test_equations_of_a_backward_pass_are_no_sites():
    gradient = jax.grad(lambda w, x: jax.nn.relu(x @ w).sum())
    labels = [site.label for site in observe(gradient, normal(4, 4), normal(2, 4)).sites]
    assert labels == ["linear", "relu"]


def test_paths_are_stable():
    _, variables, x, observed = resnet()
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (variables, x))
    traced = []

    def inside(variables, x):
        with jax.named_scope("around"):
            traced.append(observe(ResNet().apply, variables, x).sites)
        return x

    jax.jit(inside)(variables, x)
    jax.vmap(inside, (None, 0))(variables, x[None])
    for sites in (*traced, observe(ResNet().apply, *shapes).sites):
        assert sites == observed.sites


def test_an_observed_function_can_be_observed():
    _, variables, x, observed = stack()
    again = observe(lambda *a: observed.run(*a, read={"*/relu": jnp.max}), variables, x)
    assert again.sites == observed.sites


# Reading


def test_reading_a_resnet_changes_no_bit():
    model, variables, x, observed = resnet()
    program = jax.jit(lambda v, x: observed.run(v, x, read={"*": jnp.std}))
    result, readings = program(variables, x)
    assert equal(result, jax.jit(model.apply)(variables, x))
    assert list(map(jnp.shape, readings.values())) == [
        readings[site.name].shape for site in sorted(observed.sites, key=lambda s: s.name)
    ]
    for site in observed.sites:
        assert readings[site.name].shape == site.repeats
        assert (readings[site.name] > 0).all()


def test_readings_are_what_flax_captures():
    model, variables, x, observed = resnet()
    _, captured = model.apply(variables, x, capture_intermediates=True, mutable="intermediates")
    _, readings = observed.run(variables, x, read={"*": itself})
    flax = captured["intermediates"]

    def output(*path):
        return functools.reduce(lambda tree, key: tree[key], path, flax)["__call__"][0]

    for block in ("block1", "block2"):
        assert equal(readings[f"ResNet/{block}/conv1/convolution"], output(block, "conv1"))
        assert equal(readings[f"ResNet/{block}/branch"], output(block, "norm2"))
        assert equal(readings[f"ResNet/{block}/relu#2"], output(block)[0])
    skip = output("block2", "norm_skip")
    assert equal(readings["ResNet/block2/sum"], skip + output("block2", "norm2"))


@pytest.mark.parametrize("remat", [False, True])
def test_reading_inside_a_scan(remat):
    model, variables, x, observed = stack(remat)
    program = jax.jit(lambda v, x: observed.run(v, x, read={"*/relu": itself}))
    result, readings = program(variables, x)
    assert equal(result, jax.jit(model.apply)(variables, x))
    weights = variables["params"]["layers"]["dense"]
    expected = []
    for kernel, bias in zip(weights["kernel"], weights["bias"], strict=True):
        x = jax.nn.relu(x @ kernel + bias)
        expected.append(x)
    np.testing.assert_allclose(readings["Stack/layers/relu"], jnp.stack(expected), rtol=1e-6)


def test_nested_reversed_and_successive_scans():
    def function(w, x):
        def inner(x, w):
            return jnp.tanh(x @ w), None

        def outer(x, ws):
            return lax.scan(inner, x, ws, reverse=True)

        x, _ = lax.scan(outer, x, w)
        return lax.scan(inner, x, w[0])[0]

    w, x = normal(2, 3, 4, 4), normal(5, 4)
    observed = observe(function, w, x)
    first, second = observed.select(kind="activation")
    assert [(s.name, s.repeats) for s in (first, second)] == [("tanh", (2, 3)), ("tanh#2", (3,))]
    taps = observed.zeros(kind="activation")
    result, readings = observed.run(w, x, read={"tanh*": itself}, perturb=taps)
    assert equal(result, function(w, x))
    expected = np.zeros((2, 3, 5, 4))
    for i in range(2):
        for j in reversed(range(3)):
            x = expected[i, j] = jnp.tanh(x @ w[i, j])
    np.testing.assert_allclose(readings["tanh"], expected, rtol=1e-5)
    assert readings["tanh#2"].shape == (3, 5, 4)


def test_one_reader_of_several_sites():
    _, variables, x, observed = resnet()

    def scaled(first, second, branch):
        return branch * lax.rsqrt(first.var() + 1e-6) * lax.rsqrt(second.var() + 1e-6)

    group = [f"ResNet/rest/{name}" for name in ("conv1/*", "conv2/*", "branch")]
    _, together = observed.run(variables, x, read={tuple(group): scaled})
    _, alone = observed.run(variables, x, read=dict.fromkeys(group, itself))
    assert list(together) == ["ResNet/rest/branch"]
    values = [alone[observed.select(name)[0].name] for name in group]
    expected = jnp.stack([scaled(*parts) for parts in zip(*values, strict=True)])
    np.testing.assert_allclose(together["ResNet/rest/branch"], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="not in one loop body"):
        observed.run(variables, x, read={("ResNet/relu", "ResNet/rest/relu"): scaled})


# Gating, leaving out


def zeroed(variables, block, number=None):
    """Without the branch of a block: its last normalisation gives 0."""
    copy = jax.tree.map(itself, variables)
    norm = copy["params"][block]["norm2"]
    place = slice(None) if number is None else number
    copy["params"][block]["norm2"] = {name: a.at[place].set(0) for name, a in norm.items()}
    return copy


@pytest.mark.parametrize("effect", ["gate", "keep"])
def test_a_branch_gated_or_left_out_is_a_zeroed_branch(effect):
    model, variables, x, observed = resnet()
    on, off = (1.0, 0.0) if effect == "gate" else (True, False)
    program = jax.jit(lambda v, x, at: observed.run(v, x, **{effect: at})[0])
    apply = jax.jit(model.apply)
    kinds = {"ResNet/block1/branch": on, "ResNet/block2/branch": on,
             "ResNet/rest/branch": jnp.array([on, on, on])}  # fmt: skip
    assert equal(program(variables, x, kinds), apply(variables, x))
    for block in ("block1", "block2"):
        result = program(variables, x, kinds | {f"ResNet/{block}/branch": off})
        assert equal(result, apply(zeroed(variables, block), x))
    result = program(variables, x, kinds | {"ResNet/rest/branch": jnp.array([on, off, on])})
    assert equal(result, apply(zeroed(variables, "rest", 1), x))


def convolutions_outside_cond(jaxpr):
    """How many convolutions are always evaluated, a scan's body counting once."""
    count = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            count += 1
        elif equation.primitive.name != "cond":
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                count += convolutions_outside_cond(inner) if hasattr(inner, "eqns") else 0
    return count


def test_what_is_left_out_costs_nothing():
    _, variables, x, observed = resnet()

    def run(keep):
        read = {"*/branch": jnp.std, "*/conv1/*": jnp.std}
        read["ResNet/block1/conv1/*", "ResNet/block1/branch"] = lambda a, b: a.std() * b.std()
        return observed.run(variables, x, keep={"*/branch": keep}, read=read)

    program = jax.make_jaxpr(run)(True).jaxpr
    # The stem, and the projection, which is part of a skip; all six others are in branches.
    assert convolutions_outside_cond(program) == 2
    assert convolutions_outside_cond(jax.make_jaxpr(ResNet().apply)(variables, x).jaxpr) == 8
    kept, left_out = jax.jit(run)(True)[1], jax.jit(run)(False)[1]
    for name in kept:
        assert (kept[name] > 0).all() and (left_out[name] == 0).all()


def test_what_others_need_is_computed_although_a_branch_is_left_out():
    _, variables, x, _ = resnet()
    apply = functools.partial(ResNet(train=True).apply, mutable=["batch_stats"])
    observed = observe(apply, variables, x)
    (_, with_all), _ = observed.run(variables, x, keep={"ResNet/block1/branch": True})
    (_, without), _ = observed.run(variables, x, keep={"ResNet/block1/branch": False})
    assert equal(with_all["batch_stats"]["block1"], without["batch_stats"]["block1"])
    assert not equal(with_all["batch_stats"]["block2"], without["batch_stats"]["block2"])


def test_a_value_left_out_although_its_step_makes_more():
    def function(w, x):
        branch, all_of_them = lax.scan(lambda a, w: (jnp.tanh(a @ w),) * 2, x, w)
        return x + branch, all_of_them

    w, x = normal(3, 4, 4), normal(2, 4)
    observed = observe(function, w, x)
    (result, all_of_them), _ = observed.run(w, x, keep={"branch": False})
    np.testing.assert_array_equal(result, x)
    assert equal(all_of_them, function(w, x)[1])


def test_a_value_left_out_inside_another():
    def function(w, x):
        inner = x @ w[0]
        inner = inner + jax.nn.relu(inner @ w[1])
        return x + inner @ w[2]

    w, x = normal(3, 4, 4), normal(2, 4)
    observed = observe(function, w, x)
    names = [site.name for site in observed.select(kind="branch")]
    assert names == ["branch", "branch#2"]
    run = jax.jit(lambda *on: observed.run(w, x, keep=dict(zip(names, on, strict=True)))[0])
    np.testing.assert_allclose(run(True, True), function(w, x), atol=1e-5)
    np.testing.assert_array_equal(run(True, False), x)
    np.testing.assert_allclose(run(False, True), x + x @ w[0] @ w[2], atol=1e-5)


def test_a_gate_can_be_a_factor_of_every_sample():
    _, variables, x, observed = resnet()
    both = observed.run(variables, x, gate={"ResNet/rest/branch": jnp.ones((3, 2, 1, 1, 1))})[0]
    gates = jnp.ones((3, 2, 1, 1, 1)).at[:, 1].set(0)
    second = observed.run(variables, x, gate={"ResNet/rest/branch": gates})[0]
    assert (both[0] == second[0]).all() and (both[1] != second[1]).all()


def test_the_dtype_of_a_site_stays():
    w, x = normal(4, 4).astype(jnp.bfloat16), normal(2, 4).astype(jnp.bfloat16)
    observed = observe(lambda w, x: jax.nn.gelu(x @ w), w, x)
    result, readings = observed.run(w, x, gate={"gelu": jnp.float32(0.5)}, read={"gelu": itself})
    assert result.dtype == readings["gelu"].dtype == jnp.bfloat16


# Perturbing


def test_the_gradient_by_a_perturbation_is_the_gradient_by_the_activation():
    w, x = MLP, normal(3, 4)
    observed = observe(mlp, w, x)

    def loss(taps):
        result, readings = observed.run(w, x, perturb=taps, read={"sum": itself})
        return jnp.square(result).sum() / 2, readings["sum"]

    by_taps, between = jax.jit(jax.grad(loss, has_aux=True))(observed.zeros("sum*"))
    result = mlp(w, x)
    np.testing.assert_allclose(by_taps["sum#2"], result, rtol=1e-5)
    slope = jnp.where(between @ w[1] > 0, result, 0)
    np.testing.assert_allclose(by_taps["sum"], result + slope @ w[1].T, rtol=1e-4)


def test_the_gradient_inside_a_scan_equals_differences():
    _, variables, x, observed = stack(remat=True)
    name = "Stack/layers/relu"
    zeros = observed.zeros(name)[name]

    def loss(tap):
        return jnp.square(observed.run(variables, x, perturb={name: tap})[0]).sum()

    gradient = jax.jit(jax.grad(loss))(zeros)
    direction = normal(*zeros.shape, seed=5)
    step = 1e-3  # far enough from where a relu switches
    difference = (loss(step * direction) - loss(-step * direction)) / (2 * step)
    assert abs(difference) > 0.1
    np.testing.assert_allclose((gradient * direction).sum(), difference, rtol=1e-2)


def test_derivative_rules_are_kept():
    observed = observe(jax.nn.relu, jnp.zeros(3))

    def observed_relu(x):
        return observed.run(x, read={"*": jnp.max}, gate={"*": 1.0})[0]

    slope = jax.grad(lambda x: observed_relu(x).sum())(jnp.array([-1.0, 0.0, 1.0]))
    np.testing.assert_array_equal(slope, [0, 0, 1])  # max(x, 0) itself has 0.5 in the middle


def test_remat_is_kept():
    _, variables, x, observed = stack(remat=True)

    def loss(variables):
        result, readings = observed.run(variables, x, read={"*/relu": jnp.max})
        return result.sum(), readings

    text = str(jax.make_jaxpr(jax.grad(loss, has_aux=True))(variables))
    assert re.search("remat|checkpoint", text)
    plain = jax.grad(lambda v: Stack(remat=True).apply(v, x).sum())(variables)
    assert equal(jax.grad(loss, has_aux=True)(variables)[0], plain)


# Transformations


def test_several_effects_of_a_population_in_one_program():
    x, members = normal(3, 4), 3
    population = [normal(members, 4, 4, seed=seed) for seed in (2, 3)]
    observed = observe(mlp, MLP, x)
    traces = []

    @jax.jit
    def scores(population, gates):
        traces.append(1)

        def one(w, gate):
            def loss(taps):
                result, readings = observed.run(
                    w, x, perturb=taps, gate={"branch": gate}, read={"sum*": jnp.max}
                )
                return result.sum(), readings

            return jax.grad(loss, has_aux=True)(observed.zeros("branch*"))

        return jax.vmap(one)(population, gates)

    gradients, readings = scores(population, jnp.array([0.0, 0.5, 1.0]))
    scores(population, jnp.zeros(members))
    assert traces == [1]
    assert gradients["branch#2"].shape == (members, 3, 4)
    assert readings["sum"].shape == (members,)
    assert readings["sum"][0] == x.max()  # the first branch of the first member is gated off
    last = [w[-1] for w in population]
    np.testing.assert_allclose(readings["sum#2"][-1], mlp(last, x).max(), rtol=1e-6)


def test_vmap_inside_the_function():
    w, x = MLP[0], normal(5, 4)
    observed = observe(lambda w, x: jax.vmap(lambda x: jax.nn.relu(x @ w))(x), w, x)
    _, readings = observed.run(w, x, read={"relu": itself})
    assert equal(readings["relu"], jax.nn.relu(x @ w))


# nnx


class NnxBlock(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 3, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x):
        return x + self.norm(nnx.relu(self.conv(x)))


class Derived(NnxBlock):
    def __call__(self, x):
        return super().__call__(x)


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.List([NnxBlock(rngs), Derived(rngs)])

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def test_nnx_modules_have_their_paths():
    model, x = NnxNet(nnx.Rngs(0)), normal(2, 4, 4, 3)
    call = NnxBlock.__call__
    before = jax.tree.map(jnp.copy, nnx.state(model))
    function, state = nnx_function(model)
    observed = observe(function, state, x)
    inside = ["conv/convolution", "relu", "branch", "sum"]
    names = [f"blocks/{i}/{name}" for i in (0, 1) for name in inside]
    assert [site.name for site in observed.sites] == names
    result, readings = jax.jit(lambda s, x: observed.run(s, x, read={"*/sum": itself}))(state, x)
    assert equal(nnx.state(model), before) and NnxBlock.__call__ is call
    assert not hasattr(model.blocks[0], "_observed_path")
    assert equal(result, readings["blocks/1/sum"])
    assert equal(result, jax.jit(function)(state, x))
    np.testing.assert_allclose(result, model(x), atol=1e-5)


def test_nnx_scan():
    class NnxLayer(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(6, 6, rngs=rngs)

        def __call__(self, x):
            return nnx.relu(self.linear(x))

    class NnxStack(nnx.Module):
        def __init__(self, rngs):
            @nnx.split_rngs(splits=4)
            @nnx.vmap(in_axes=(0,), out_axes=0)
            def layers(rngs):
                return NnxLayer(rngs)

            self.layers = layers(rngs)

        def __call__(self, x):
            @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
            def forward(layer, x):
                return layer(x)

            return forward(self.layers, x)

    model, x = NnxStack(nnx.Rngs(0)), normal(2, 6)
    function, state = nnx_function(model)
    observed = observe(function, state, x)
    found = [(site.name, site.repeats) for site in observed.sites]
    assert found == [("layers/linear/linear", (4,)), ("layers/relu", (4,))]
    result, readings = observed.run(state, x, read={"*/relu": itself})
    assert equal(readings["layers/relu"][-1], result)
    np.testing.assert_allclose(result, model(x), rtol=1e-6)


# Which parameters read a value


def readers_of(function, variables, x):
    """Names of the parameters that read each site, joined by spaces."""
    observed = observe(function, variables, x)
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    found = observed.consumers(range(len(leaves)), [len(leaves)])
    return {site: " ".join(sorted(names[leaf] for leaf in read)) for site, read in found.items()}


def test_the_next_layer_reads_an_activation():
    _, variables, x, _ = resnet()
    found = readers_of(ResNet().apply, variables, x)
    assert found["ResNet/stem/convolution"] == found["ResNet/relu"]
    assert found["ResNet/relu"] == "params/block1/conv1/kernel"
    assert found["ResNet/block1/relu"] == "params/block1/conv2/kernel"
    # What becomes a sum is read by what reads the sum.
    next_block = "params/block2/conv1/kernel params/block2/conv_skip/kernel"
    for name in ("branch", "sum", "relu#2"):
        assert found[f"ResNet/block1/{name}"] == next_block
    # Inside a scan all repetitions are one; what comes after the scan reads the last.
    assert found["ResNet/rest/relu"] == "params/rest/conv2/kernel"
    assert found["ResNet/rest/relu#2"] == "params/head/kernel params/rest/conv1/kernel"
    assert found["ResNet/head/linear"] == ""


def test_readers_of_a_plain_function():
    def function(params, x):
        scores = jnp.tanh(x @ params["query"]) @ jnp.tanh(x @ params["key"].T).T
        return jax.checkpoint(lambda v: jax.nn.softmax(scores) @ v @ params["out"])(x)

    params = {name: normal(4, 4) for name in ("query", "key", "out")}
    found = readers_of(function, params, x=normal(5, 4))
    assert found["tanh"] == found["tanh#2"] == found["linear"] == "out"
    assert readers_of(mlp, MLP, normal(3, 4))["sum"] == "1"


# Errors


def test_errors_name_the_nearest_choice():
    _, variables, x, observed = resnet()
    with pytest.raises(ValueError, match="did you mean 'ResNet/block1/branch'"):
        observed.run(variables, x, gate={"ResNet/block1/brnach": 0.0})
    with pytest.raises(ValueError, match="no site has the name 'convolution'"):
        observed.select("convolution")
    with pytest.raises(ValueError, match="did you mean 'activation'"):
        observed.select(kind="activations")


def test_errors_of_shapes():
    _, variables, x, observed = resnet()
    with pytest.raises(ValueError, match=r"arguments\[1\] of float32\[2, 8, 8, 3\], not"):
        observed.run(variables, x[:1])
    with pytest.raises(ValueError, match="observed for arguments"):
        observed.run(x)
    for gate in (jnp.ones(2), jnp.ones((3, 3, 1, 1, 1)), jnp.ones((3, 1, 2, 4, 4, 8))):
        with pytest.raises(ValueError, match="a gate of ResNet/rest/branch"):
            observed.run(variables, x, gate={"ResNet/rest/branch": gate})
    for keep in (1.0, jnp.ones(2, bool)):
        with pytest.raises(ValueError, match="is kept by bools"):
            observed.run(variables, x, keep={"ResNet/rest/branch": keep})
    with pytest.raises(ValueError, match="a perturbation of ResNet/relu"):
        observed.run(variables, x, perturb={"ResNet/relu": jnp.zeros(3)})


def named_chain(w, x):
    a = checkpoint_name(x @ w, "a")
    b = checkpoint_name(jnp.tanh(x @ w.T), "b")
    return b + checkpoint_name(jax.nn.relu(a) @ w, "branch")


def test_a_group_that_is_complete_before_a_branch_is_read_although_the_branch_may_be_off():
    w, x = jnp.eye(4) * 2, jnp.ones((3, 4))
    observed = observe(named_chain, w, x)
    for keep in (True, False):
        result, found = observed.run(
            w, x, keep={"branch": keep}, read={("a", "b"): lambda a, b: a.sum() - b.sum()}
        )
        assert found["b"] == pytest.approx(24 - 12 * np.tanh(2), rel=1e-6)
        np.testing.assert_allclose(result, np.tanh(2) + (4 if keep else 0), rtol=1e-6)


def test_names_that_look_like_numbered_ones_stay_apart():
    def f(x):
        for number, label in enumerate(("a", "a", "a#2"), start=1):
            x = checkpoint_name(x + number, label)
        return x

    observed = observe(f, jnp.zeros((2, 2)))
    names = [site.name for site in observed.sites]
    assert len(set(names)) == 3
    _, found = observed.run(jnp.zeros((2, 2)), read=dict.fromkeys(observed.sites, jnp.max))
    assert [float(found[name]) for name in names] == [1, 3, 6]


def test_readers_of_several_sites_say_what_they_cannot_do():
    w, x = jnp.eye(4), jnp.ones((3, 4))
    observed = observe(named_chain, w, x)
    with pytest.raises(ValueError, match="stands for several sites"):
        observed.run(w, x, read={("*", "b"): lambda a, b: a})
    with pytest.raises(ValueError, match="two readers would be found under the name 'branch'"):
        both = {("a", "branch"): lambda a, b: a, ("b", "branch"): lambda a, b: a}
        observed.run(w, x, read=both)
    counted = observe(lambda x: checkpoint_name(x + 1, "count"), jnp.arange(3))
    with pytest.raises(ValueError, match="count is int32: it cannot be scaled"):
        counted.run(jnp.arange(3), gate={"count": 0.5})
    with pytest.raises(ValueError, match="this function has no sites"):
        observe(lambda x: x + 1, x).run(x, read={"a": jnp.sum})


def test_one_file_knows_versions_of_jax():
    for path in (ROOT / "cbundles" / "observe").glob("*.py"):
        text = path.read_text()
        if path.name != "jaxprs.py":
            assert not re.search(r"jax\.extend|\.params\b|\.eqns\b|__version__", text), path


def test_the_page_of_examples_runs():
    page = (ROOT / "docs" / "observe.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 6
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/observe.md", "exec"), names)
