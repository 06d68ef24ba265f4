"""`cbundles prune PACKAGE.MODULE:FUNCTION` of a model of JAX: what is refused loses nothing."""

from __future__ import annotations

import json
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

def fixed():
    model = jax.vmap(Model(0.0))
    return lambda images: model(images.reshape(len(images), 28, 28, 1))

def raising():
    return {}["missing"]

def leaving():
    raise SystemExit(3)
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


def test_a_file_for_one_batch_size_is_told_as_one(cli, my_model):
    done = cli("prune", f"{my_model}:fixed", *WANTED, "--blocks", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"][0]["model_batch"] == 60
    assert "small/model.stablehlo takes batches of 60 alone" in done.stderr


def test_an_infinite_number_does_not_make_all_blocks_go(cli, my_model, tmp_path):
    done = cli("prune", f"{my_model}:masked", *WANTED)
    assert done.returncode == 2 and "The weights hold infinity, in mask" in done.stderr
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize(("function", "said"), [("raising", "KeyError"), ("leaving", "SystemExit")])
def test_what_a_function_raises_is_told_with_its_line(cli, my_model, function, said):
    for command in ("prune", "audit"):
        more = WANTED if command == "prune" else WANTED[:2]
        done = cli(command, f"{my_model}:{function}", *more)
        assert done.returncode == 2, done.stdout
        assert f"{command} {my_model}:{function}: {said}: " in done.stderr
        assert f"{my_model}.py:" in done.stderr


def test_where_nothing_is_removed_machines_are_told_so(cli, my_model, tmp_path):
    done = cli("prune", f"{my_model}:build", *WANTED, "--json")
    assert done.returncode == 0 and "no residual branch conflicts" in done.stderr
    assert json.loads(done.stdout) == {"event": "done", "folder": "small", "rows": []}
    assert not (tmp_path / "small").exists()


def test_a_model_that_cannot_be_written_down_is_told_all_the_same(cli, my_model):
    done = cli("prune", f"{my_model}:speaking", *WANTED, "--blocks", "1")
    assert done.returncode == 2 and "jax.export cannot write this model" in done.stderr
    assert "Went: sum" in done.stdout
