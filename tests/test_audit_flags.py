"""`cbundles audit --lesion --insert`: what is printed, drawn and refused."""

from __future__ import annotations

import json
import sys

import pytest

MODEL = """
import flax.linen as nn
import jax
import numpy as np


class Residual(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(12, name="stem")(x.reshape(len(x), -1)))
        for number in range(2):
            x = x + nn.tanh(nn.Dense(12, name=f"layer{number}")(x))
        return nn.Dense(10, name="head")(x)


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.relu(nn.Dense(12)(x.reshape(len(x), -1))))


def with_params(model):
    return model, model.init(jax.random.key(0), np.zeros((1, 28, 28, 1)))


def residual():
    return with_params(Residual())


def plain():
    return with_params(Plain())
"""
OPTIONS = ("--dataset", "mnist_mini", "--samples", "200", "--no-headroom", "--lesion")


@pytest.fixture
def my_models(tmp_path, monkeypatch):
    """A module in the current folder of `cli`."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_residual_models.py").write_text(MODEL)
    yield "my_residual_models"
    sys.modules.pop("my_residual_models", None)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--plot", "audit.xyz"), "--plot audit.xyz: "),
        (("--plot", "audit.pgn"), "did you mean 'png'"),
        (("--plot", "audit.pgf"), "--plot audit.pgf: "),
        (("--plot", "."), "--plot .: is a folder; name a file in it"),
        (("--dataset", "MNIST_mini"), "did you mean 'mnist_mini'"),
        (("--learning-rate", "0"), "learning_rate"),
        (("--batch-size", "0"), "batch"),
    ],
)
def test_what_cannot_be_is_refused(cli, my_models, tmp_path, flags, said):
    done = cli("audit", f"{my_models}:plain", "--dataset", "mnist_mini", *flags)
    assert done.returncode == 2 and said in done.stderr and not done.stdout


def test_tables_and_pictures(cli, my_models, tmp_path):
    done = cli("audit", f"{my_models}:residual", *OPTIONS, "--insert", "--plot", "p.png")
    assert done.returncode == 0, done.stderr
    assert "Without a branch: " in done.stdout and "A layer would help most" in done.stdout
    assert "accuracy [%] without the first" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["figure   p.png", "figure   p-lesions.png"]
    assert (tmp_path / "p-lesions.png").exists()


def test_as_json(cli, my_models):
    done = cli("audit", f"{my_models}:residual", *OPTIONS, "--insert", "--json")
    found = json.loads(done.stdout)
    assert len(found["lesions"]["branches"]) == 2
    assert {one["name"] for one in found["insertions"]["places"]} == {
        "Residual/relu", "Residual/tanh", "Residual/tanh#2"
    }  # fmt: skip


def test_without_a_branch(cli, my_models):
    done = cli("audit", f"{my_models}:plain", *OPTIONS)
    assert done.returncode == 2
    assert "the model has no residual branch to switch off" in done.stderr
