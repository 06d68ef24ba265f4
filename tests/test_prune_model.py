"""`cbundles prune PACKAGE.MODULE:FUNCTION` of a model of JAX: what is refused loses nothing."""

from __future__ import annotations

import sys

import pytest

MODEL = """
import equinox as eqx
import jax
import jax.numpy as jnp

class Model(eqx.Module):
    layers: list
    mask: jax.Array

    def __init__(self, value):
        keys = jax.random.split(jax.random.key(0), 3)
        sizes = [(784, 8), (8, 8), (8, 10)]
        self.layers = [eqx.nn.Linear(*size, key=key) for size, key in zip(sizes, keys)]
        self.mask = jnp.zeros(10).at[3].set(value)

    def __call__(self, image):
        stem, block, head = self.layers
        x = jax.nn.relu(stem(image.reshape(-1)))
        x = x + jax.nn.tanh(block(x))
        return head(x) + self.mask

def build():
    return jax.vmap(Model(0.0))

def masked():
    return jax.vmap(Model(-jnp.inf))

def speaking():
    model = Model(0.0)
    def call(image):
        jax.debug.callback(lambda x: None, image)
        return model(image)
    return jax.vmap(call)
"""
WANTED = ("--dataset", "mnist_mini", "--samples", "60", "--out", "small")


@pytest.fixture
def my_model(tmp_path, monkeypatch):
    """A module in the current folder of `cli`."""
    pytest.importorskip("equinox", reason="equinox is not installed")
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_jax_model.py").write_text(MODEL)
    yield "my_jax_model"
    sys.modules.pop("my_jax_model", None)


def test_an_earlier_model_is_not_written_over(cli, my_model, tmp_path):
    wanted = ("prune", f"{my_model}:build", *WANTED, "--blocks", "1")
    first = cli(*wanted)
    assert first.returncode == 0, first.stderr
    file = tmp_path / "small" / "model.stablehlo"
    content = file.read_bytes()
    again = cli(*wanted)
    assert again.returncode == 2
    assert "small/model.stablehlo: is there already; nearest valid: another --out" in again.stderr
    assert file.read_bytes() == content


def test_an_infinite_number_does_not_make_all_blocks_go(cli, my_model, tmp_path):
    done = cli("prune", f"{my_model}:masked", *WANTED)
    assert done.returncode == 2 and "The weights hold infinity, in mask" in done.stderr
    assert not (tmp_path / "small").exists()


def test_a_model_that_cannot_be_written_down_is_told_all_the_same(cli, my_model):
    done = cli("prune", f"{my_model}:speaking", *WANTED, "--blocks", "1")
    assert done.returncode == 2 and "jax.export cannot write this model" in done.stderr
    assert "Went: sum" in done.stdout
