"""Audits of values in other forms than a row of float32 for each sample: tokens, narrow floating
point, arrays on several devices; and what is kept of them."""

from __future__ import annotations

import collections
import os
import subprocess
import sys

import brute_force
import flax
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from flax import nnx
from lesioned import normal

import cbundles
from cbundles.auditing import batches

SAMPLES, TOKENS, WIDTH, CLASSES = 40, 5, 6, 3
RATE = 3e-6  # so low that some rows meet and others do not


class Attention(nnx.Module):
    """A block whose tokens see each other."""

    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(2, WIDTH, decode=False, rngs=rngs)
        self.expand = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs)
        self.contract = nnx.Linear(2 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(x)
        return x + self.contract(nnx.gelu(self.expand(x)))


class Tokens(nnx.Module):
    """One block, then two that are scanned; the output is a tuple with a dictionary."""

    def __init__(self, rngs):
        @nnx.split_rngs(splits=2)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def make(rngs):
            return Attention(rngs)

        self.first, self.stack = Attention(rngs), make(rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def through(block, x):
            return block(x)

        hidden = self.first(x)
        last = through(self.stack, hidden)
        return last[:, 0], {"hidden": hidden, "last": (last,)}


def token_rows(parts, axes):
    """The values of all tokens from those of batches (repeats..., batch, tokens, features)."""
    rows = brute_force.joined(parts, axes, SAMPLES)
    return rows.reshape(len(rows), SAMPLES * TOKENS, -1)


@pytest.mark.parametrize("of_samples", [True, False], ids=["a label a sample", "a label a token"])
def test_tokens_equal_brute_force(captured, of_samples):
    texts = normal(SAMPLES, TOKENS, WIDTH)
    labels = np.random.default_rng(0).integers(0, CLASSES, (SAMPLES, TOKENS))
    given = labels[:, 0] if of_samples else labels
    of_rows = np.repeat(labels[:, 0], TOKENS) if of_samples else labels.ravel()
    audit = cbundles.audit(
        Tokens(nnx.Rngs(0)), texts, given, rows="tokens", learning_rate=RATE, headroom=True
    )
    found = {layer.name: layer for layer in audit.layers}
    sites = {name.split("[")[0]: name.count("[") for name in found}
    assert list(sites) == [
        *("first/sum", "first/gelu", "first/sum#2"),
        *("stack/sum", "stack/gelu", "stack/sum#2"),
    ]
    assert audit.input.num_bundles == SAMPLES * TOKENS
    merged = 0
    for site, repeated in sites.items():
        names = [f"{site}[{place}]" for place in range(2)] if repeated else [site]
        values = token_rows(captured["sign_once", site], repeated)
        scanned = token_rows(captured["sign_at_scales", site], repeated)
        for name, value, again in zip(names, values, scanned, strict=True):
            layer = found[name]
            assert layer.shape == (value.shape[-1],)
            ids = oracle.bundle_ids(oracle.weight_update(value, layer.amplitude, RATE, 64))
            np.testing.assert_array_equal(layer.bundles.bundle_ids, ids, err_msg=name)
            assert layer.conflict_rate == pytest.approx(oracle.conflict_rate(ids, of_rows))
            bits = oracle.headroom(again, of_rows, layer.amplitude, RATE)
            assert layer.headroom.bits == bits, name
            merged += 1 < layer.num_bundles < len(of_rows)
    assert merged


class Narrow(nnx.Module):
    """Computes in a narrow format, with weights in another one."""

    def __init__(self, dtype, param_dtype, rngs):
        formats = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.layers = nnx.List([nnx.Linear(WIDTH, WIDTH, **formats) for _ in range(3)])
        self.norm = nnx.LayerNorm(WIDTH, **formats)

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.gelu(layer(self.norm(x)))
        return {"features": x}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("param_dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_modules_that_compute_in_narrow_formats(captured, dtype, param_dtype):
    model = Narrow(dtype, param_dtype, nnx.Rngs(0))
    audit = brute_force.audit_and_compare(
        captured, model, normal(SAMPLES, WIDTH), np.arange(SAMPLES) % CLASSES, rate=RATE
    )
    assert [layer.name for layer in audit.layers] == ["gelu", "gelu#2", "gelu#3"]
    kernels = [np.asarray(layer.kernel[...], np.float32) for layer in model.layers]
    largest = max(1.0, *(np.abs(kernel).max() for kernel in kernels))  # the norm's scale is 1
    assert audit.amplitude.value == largest


class HeldOtherwise(nnx.Module):
    """Parameters without an array, and with two; a statistic that is larger than all weights."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.a_bias = nnx.Param(None)
        self.both = nnx.Param({"scale": jnp.ones(WIDTH), "shift": jnp.zeros(WIDTH)})
        self.kernel = nnx.Param(jnp.eye(WIDTH) / 2)
        self.norm = nnx.BatchNorm(WIDTH, rngs=rngs)
        self.norm.var[...] = jnp.full(WIDTH, 900.0)

    def __call__(self, x):
        held = self.both.get_value()
        x = x @ self.kernel * held["scale"] + held["shift"]
        return nnx.relu(self.norm(x))


def test_names_of_parameters_are_those_of_their_arrays():
    audit = cbundles.audit(HeldOtherwise(), normal(SAMPLES, WIDTH), np.arange(SAMPLES) % CLASSES)
    assert audit.amplitude.value == 1.0
    assert audit.amplitude.parameter in ("both/scale", "norm/scale")


def test_what_a_loader_brings_is_answered_in_a_sentence():
    labels = np.arange(6) % CLASSES

    def model(x):
        return jax.nn.relu(x["x"] if isinstance(x, dict) else x)

    uneven = iter([normal(3, WIDTH), normal(3, WIDTH + 1)])
    with pytest.raises(ValueError, match="all must have one shape: pad them alike"):
        cbundles.audit(model, uneven, labels, amplitude=1.0)
    with_an_empty_one = iter([normal(6, WIDTH), normal(0, WIDTH)])
    assert cbundles.audit(model, with_an_empty_one, labels, amplitude=1.0).layers
    with pytest.raises(ValueError, match=r"inputs are a UserDict; pass dict\(inputs\)"):
        cbundles.audit(model, collections.UserDict(x=normal(6, WIDTH)), labels, amplitude=1.0)
    coming = iter([collections.UserDict(x=normal(6, WIDTH))])
    with pytest.raises(ValueError, match=r"a batch is a UserDict; pass dict\(batch\) of each"):
        cbundles.audit(model, coming, labels, amplitude=1.0)

    frozen = flax.core.freeze({"x": normal(6, WIDTH)})
    assert cbundles.audit(lambda x: jax.nn.relu(x["x"]), frozen, labels, amplitude=1.0).layers

    class Frame:  # as one of pandas
        shape = (6, WIDTH)

    with pytest.raises(ValueError, match="inputs are a Frame; pass arrays"):
        cbundles.audit(model, Frame(), labels, amplitude=1.0)


def test_tokens_are_no_pictures():
    audit = cbundles.audit(
        lambda x: jax.nn.relu(x),
        normal(6, 5, 8),
        np.zeros((6, 5), int),
        rows="tokens",
        amplitude=1.0,
    )
    with pytest.raises(ValueError, match="show is of samples"):
        audit.show(audit.layers[0].name)


def test_many_batches_on_two_devices():
    """Samples over the devices, or weights over them; batches are cut out of what is sharded."""
    code = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import cbundles
assert len(jax.devices()) == 2
mesh = Mesh(jax.devices(), ("devices",))

def placed(tree, *axes):
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*axes)))

random = np.random.default_rng(0)
x, labels = random.standard_normal((600, 6)).astype("f4"), np.arange(600) % 3
params = [random.standard_normal((6, 6)).astype("f4") for _ in range(3)]

def model(params, x):
    for weight in params:
        x = jax.nn.relu(x @ weight)
    return x

def audit(params, x):
    return cbundles.audit(model, x, labels, params=params, learning_rate=1e-6).to_dict()

plain = audit(params, x)
assert 1 < plain["layers"][-1]["num_bundles"] < 600
assert audit(placed(params), placed(x, "devices")) == plain
assert audit(placed(params, None, "devices"), placed(x)) == plain
by_hand = placed(x[:300], "devices"), placed(x[300:], "devices")
assert audit(placed(params), iter(by_hand)) == audit(params, iter([x[:300], x[300:]]))
explicit = jax.make_mesh((2,), ("devices",))
spread = jax.device_put(x, NamedSharding(explicit, PartitionSpec("devices")))
assert audit(params, spread) == plain
one_layer = cbundles.bundle_entropy(spread, labels, amplitude=1.0, learning_rate=1e-6,
                                    batch_size=64, num_classes=3)
assert one_layer.num_bundles > 1
print("the same")
"""
    flags = "--xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "the same", done.stderr


def test_what_is_kept_of_a_layer(monkeypatch):
    """The number of each sample's bundle, and nothing else as long as the samples."""
    monkeypatch.setattr(batches, "AT_ONCE", 100)

    def function(params, x):
        return jnp.tanh(jnp.tanh(x @ params) @ params).sum(1)

    samples = 500
    audit = cbundles.audit(
        function, normal(samples, WIDTH), np.arange(samples) % CLASSES, params=normal(WIDTH, WIDTH)
    )
    assert str(audit) and audit.to_dict() and audit.plot()
    for layer in audit.layers:
        kept = [value for key, value in vars(layer.bundles).items() if key != "labels"]
        assert sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(kept)) < 4 * samples + 200
        assert layer.bundles.labels is audit.input.bundles.labels
