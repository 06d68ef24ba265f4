"""Audits of models in Equinox: modules that are pytrees, and take one sample at a time."""

from __future__ import annotations

import brute_force
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cbundles

eqx = pytest.importorskip("equinox", reason="equinox is not installed: pip install cbundles[dev]")

SAMPLES, WIDTH, CLASSES = 40, 6, 3
LABELS = np.arange(SAMPLES) % CLASSES
RATE = 3e-6  # so low that some samples meet and others do not
VECTORS = np.random.default_rng(1).standard_normal((SAMPLES, WIDTH)).astype(np.float32)
IMAGES = np.random.default_rng(2).standard_normal((SAMPLES, 2, 8, 8)).astype(np.float32)


@pytest.fixture
def compared(captured):
    """An audit, every layer of which has been compared with brute force."""

    def compare(model, inputs=VECTORS, *, rate=RATE, **how):
        captured.clear()
        return brute_force.audit_and_compare(captured, model, inputs, LABELS, rate=rate, **how)

    return compare


def names_of(audit):
    return [layer.name for layer in audit.layers]


def mapped(model, batch):
    return jax.vmap(model)(batch)


class Block(eqx.Module):
    norm: eqx.nn.LayerNorm
    inside: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(self, key):
        first, second = jax.random.split(key)
        self.norm = eqx.nn.LayerNorm(WIDTH)
        self.inside = eqx.nn.Linear(WIDTH, WIDTH, key=first)
        self.out = eqx.nn.Linear(WIDTH, WIDTH, key=second)

    def __call__(self, x):
        return x + self.out(jax.nn.gelu(self.inside(self.norm(x))))


class Residual(eqx.Module):
    blocks: list[Block]
    head: eqx.nn.Linear

    def __init__(self, key):
        *keys, last = jax.random.split(key, 3)
        self.blocks = [Block(key) for key in keys]
        self.head = eqx.nn.Linear(WIDTH, CLASSES, key=last)

    def __call__(self, x):
        for number, block in enumerate(self.blocks):
            with jax.named_scope(f"block{number + 1}"):
                x = block(x)
        return self.head(x)


RESIDUAL = Residual(jax.random.key(0))
LAYERS = ["block1/gelu", "block1/sum", "block2/gelu", "block2/sum"]


def test_a_callable_under_vmap(compared, captured):
    audit = compared(jax.vmap(RESIDUAL))
    assert names_of(audit) == LAYERS
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(RESIDUAL))
    assert audit.amplitude.value == largest
    # By other means: the first block by hand, a sample at a time.
    block = RESIDUAL.blocks[0]
    by_hand = [jax.nn.gelu(block.inside(block.norm(x))) for x in VECTORS]
    program = brute_force.joined(captured["sign_once", "block1/gelu"], 0, SAMPLES)[0]
    np.testing.assert_allclose(program, by_hand, atol=1e-5)


def test_a_module_that_is_called_under_vmap(compared):
    audit = compared(RESIDUAL, call=mapped)
    assert names_of(audit) == LAYERS
    assert audit.amplitude.parameter == "blocks/0/norm/weight"  # all ones
    assert audit.to_dict() == compared(eqx.filter_jit(mapped), params=RESIDUAL).to_dict()
    # The weights of the module are known, so each layer can be measured beside its reader's.
    by_reader = compared(RESIDUAL, call=mapped, amplitude="consumer")
    reader = RESIDUAL.blocks[0].out.weight
    assert by_reader.layers[0].amplitude == float(jnp.abs(reader).max())


def test_parameters_apart_from_the_rest_and_only_some_of_them_trained(compared):
    params, rest = eqx.partition(RESIDUAL, eqx.is_array)

    def function(params, batch):
        return jax.vmap(eqx.combine(params, rest))(batch)

    audit = compared(function, params=params, trainable="blocks/*/weight")
    assert names_of(audit) == LAYERS
    trained = [
        leaf
        for block in RESIDUAL.blocks
        for leaf in (block.norm.weight, block.inside.weight, block.out.weight)
    ]
    assert audit.amplitude.value == max(float(jnp.abs(leaf).max()) for leaf in trained)
    assert audit.amplitude.parameter.startswith("blocks/")
    only_head = compared(function, params=params, trainable="head/*")
    assert only_head.amplitude.parameter.startswith("head/")
    assert only_head.amplitude.value < audit.amplitude.value
    with pytest.raises(ValueError, match=r"trainable: no parameter 'haed/\*'"):
        cbundles.audit(function, VECTORS, LABELS, params=params, trainable="haed/*")


class Convolutional(eqx.Module):
    """Channels first; a normalisation with a state, and dropout."""

    first: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    second: eqx.nn.Conv2d
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.first = eqx.nn.Conv2d(2, 4, 3, padding=1, key=keys[0])
        self.norm = eqx.nn.BatchNorm(4, axis_name="batch", mode="batch")
        self.second = eqx.nn.Conv2d(4, 4, 3, stride=2, key=keys[1])
        self.dropout = eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(4, CLASSES, key=keys[2])

    def __call__(self, image, state):
        x, state = self.norm(self.first(image), state)
        x = jax.nn.relu(self.second(jax.nn.relu(x)))
        return self.head(self.dropout(x.mean((1, 2)))), state


def test_a_state_that_a_call_would_change(compared):
    model, state = eqx.nn.make_with_state(Convolutional)(jax.random.key(0))
    still = eqx.nn.inference_mode(model)
    before = jax.tree.map(np.array, eqx.filter((model, state), eqx.is_array))

    def call(model, batch):
        over_batch = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        return over_batch(batch, state)

    audit = compared(still, IMAGES, call=call)
    assert names_of(audit) == ["relu", "relu#2"]
    assert [layer.shape for layer in audit.layers] == [(4, 8, 8), (4, 3, 3)]
    after = eqx.filter((model, state), eqx.is_array)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, after))


class Scanned(eqx.Module):
    """Blocks whose parameters have a leading axis, scanned and checkpointed."""

    blocks: Block
    length: int = eqx.field(static=True)

    def __init__(self, length, key):
        self.blocks = eqx.filter_vmap(Block)(jax.random.split(key, length))
        self.length = length

    def __call__(self, x):
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)

        @jax.checkpoint
        def body(x, arrays):
            with jax.named_scope("blocks"):
                return eqx.combine(arrays, rest)(x), None

        return jax.lax.scan(body, x, arrays)[0].sum()


def test_a_scan_over_stacked_modules(compared):
    audit = compared(Scanned(3, jax.random.key(1)), call=mapped)
    places = range(3)
    assert names_of(audit) == [
        *(f"blocks/gelu[{place}]" for place in places),
        *(f"blocks/sum[{place}]" for place in places),
    ]
