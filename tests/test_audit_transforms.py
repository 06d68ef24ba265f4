"""Audits of modules under the transformations of Flax: scan, remat, jit and vmap, inside each other
and on methods. Every layer equals brute force, and has a name that says where it is."""

from __future__ import annotations

import brute_force
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

SAMPLES, WIDTH, CLASSES = 40, 6, 3
LABELS = np.arange(SAMPLES) % CLASSES
RATE = 3e-6  # so low that some samples meet and others do not
VECTORS = np.random.default_rng(1).standard_normal((SAMPLES, WIDTH)).astype(np.float32)


@pytest.fixture
def named_layers(monkeypatch):
    """The names of the layers of a model, each of which has been compared with brute force."""
    captured = brute_force.capture(monkeypatch)

    def compare(model, **how):
        audit = brute_force.audit_and_compare(captured, model, VECTORS, LABELS, rate=RATE, **how)
        return [layer.name for layer in audit.layers]

    return compare


def repeated(*names, times):
    return [f"{name}[{number}]" for name in names for number in range(times)]


# Nnx


class Inner(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.linear(x))


class Block(nnx.Module):
    """Nested modules, and a residual sum."""

    def __init__(self, rngs):
        self.inner = Inner(rngs)
        self.out = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        return x + self.out(self.inner(x))


def stack_of(cls, length, rngs):
    """Modules of which each parameter has a leading axis."""

    @nnx.split_rngs(splits=length)
    @nnx.vmap(in_axes=(0,), out_axes=0)
    def make(rngs):
        return cls(rngs)

    return make(rngs)


@nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
def scanned(block, x):
    return block(x)


@nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
@nnx.remat
def scanned_remat(block, x):
    return block(x)


@nnx.jit
def jitted_scan(block, x):
    return scanned(block, x)


class ScannedInside(nnx.Module):
    def __init__(self, rngs):
        self.layers = stack_of(Inner, 2, rngs)

    def __call__(self, x):
        return scanned(self.layers, x)


class Scans(nnx.Module):
    def __init__(self, rngs):
        self.stack = stack_of(Block, 3, rngs)
        self.rematted = stack_of(Inner, 2, rngs)
        self.deep = nnx.List([ScannedInside(rngs), ScannedInside(rngs)])
        self.jitted = stack_of(Inner, 2, rngs)
        self.head = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, x):
        x = scanned_remat(self.rematted, scanned(self.stack, x))
        for module in self.deep:
            x = module(x)
        return self.head(jitted_scan(self.jitted, x))


def test_nnx_scans_of_nested_modules(named_layers):
    assert named_layers(Scans(nnx.Rngs(0))) == [
        *repeated("stack/inner/relu", "stack/sum", times=3),
        *repeated("rematted/relu", "deep/0/layers/relu", "deep/1/layers/relu", times=2),
        *repeated("jitted/relu", times=2),
    ]


class Outer(nnx.Module):
    """A stack of stacks."""

    def __init__(self, rngs):
        self.inside = stack_of(Inner, 2, rngs)

    def __call__(self, x):
        return jnp.tanh(scanned(self.inside, x) - 0.1 * x)


class ScanOfScans(nnx.Module):
    def __init__(self, rngs):
        self.outer = stack_of(Outer, 3, rngs)

    def __call__(self, x):
        return scanned(self.outer, x).sum(1)


def test_nnx_scan_inside_a_scan(named_layers):
    inside = [f"outer/inside/relu[{one}, {other}]" for one in range(3) for other in range(2)]
    names = named_layers(ScanOfScans(nnx.Rngs(0)))
    assert names == [*inside, *repeated("outer/tanh", times=3)]


class RematMethod(Inner):
    @nnx.remat
    def __call__(self, x):
        return nnx.relu(self.linear(x))


class JitMethod(Inner):
    @nnx.jit
    def __call__(self, x):
        return nnx.relu(self.linear(x))


class InheritsJitMethod(JitMethod):
    pass


class ScanMethod(nnx.Module):
    def __init__(self, rngs):
        @nnx.split_rngs(splits=2)
        @nnx.vmap(in_axes=(0, 0))
        def fill(module, rngs):
            module.linear = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

        fill(self, rngs)

    @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
    def __call__(self, x):
        return self.activated(self.linear(x))

    @staticmethod
    def activated(x):
        return nnx.relu(x)


class Methods(nnx.Module):
    def __init__(self, rngs):
        self.remat = RematMethod(rngs)
        self.jit = JitMethod(rngs)
        self.inherits = InheritsJitMethod(rngs)
        self.scan = ScanMethod(rngs)

    def __call__(self, x):
        return self.scan(self.inherits(self.jit(self.jit(self.remat(x))))).sum(1)


def test_nnx_methods_that_are_transformed(named_layers):
    """The module `jit` is called twice, under one name."""
    model = Methods(nnx.Rngs(0))
    called_before = model(VECTORS)
    assert named_layers(model) == [
        "remat/relu",
        "jit/relu",
        "jit/relu#2",
        "inherits/relu",
        *repeated("scan/relu", times=2),
    ]
    np.testing.assert_array_equal(model(VECTORS), called_before)
    assert isinstance(vars(JitMethod)["__call__"], type(nnx.jit(lambda x: x)))


# Linen


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        return nn.relu(nn.Dense(WIDTH, name="dense")(x)), None


class Rows(nn.Module):
    """A scan, to be scanned."""

    @nn.compact
    def __call__(self, x, _=None):
        return stacked(Dense, 2)(name="inside")(x, None)[0], None


def stacked(module, length):
    return nn.scan(module, {"params": 0}, split_rngs={"params": True}, length=length)


class LinenModel(nn.Module):
    @nn.compact
    def __call__(self, x):
        x, _ = stacked(Rows, 3)(name="rows")(x, None)
        x, _ = stacked(nn.remat(Dense), 2)(name="remats")(x, None)
        x, _ = nn.remat(Dense)(name="remat")(x)
        x, _ = nn.jit(Dense)(name="jit")(x)
        shared = Dense(name="shared")
        return nn.Dense(CLASSES, name="head")(shared(shared(x)[0])[0])


def test_linen_scans_remats_and_jit(named_layers):
    model = LinenModel()
    variables = jax.jit(model.init)(jax.random.key(0), VECTORS)
    inside = [f"LinenModel/rows/inside/relu[{i}, {j}]" for i in range(3) for j in range(2)]
    assert named_layers(model, params=variables) == [
        *inside,
        *repeated("LinenModel/remats/relu", times=2),
        "LinenModel/remat/relu",
        "LinenModel/jit/relu",
        "LinenModel/shared/relu",
        "LinenModel/shared/relu#2",
    ]
