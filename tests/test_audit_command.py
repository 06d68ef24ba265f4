"""`cbundles audit` on the command line."""

from __future__ import annotations

import json
import sys

import pytest

from cbundles.report import runs

MODEL = """
import flax.linen as nn
import jax
import numpy as np


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(12, name="hidden")(x.reshape(len(x), -1)))
        return nn.Dense(10, name="head")(x)


def build():
    return Model(), Model().init(jax.random.key(0), np.zeros((1, 28, 28, 1)))


def fails():
    raise RuntimeError("no weights")


def three():
    return 1, 2, 3
"""


@pytest.fixture
def my_model(tmp_path, monkeypatch):
    """A module in the current folder of `cli`."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_model.py").write_text(MODEL)
    yield "my_model:build"
    sys.modules.pop("my_model", None)


def test_a_model_that_a_function_returns(cli, my_model, tmp_path):
    done = cli("audit", my_model, "--dataset", "mnist_mini", "--samples", "300", "--plot", "p.png",
               "--device", "cpu")  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "my_model:build"
    assert lines[3].split()[:4] == ["input", "input", "28x28x1", "300"]
    assert lines[4].split()[:3] == ["Model/relu", "activation", "12"]
    assert "The only layer does not conflict" in done.stdout
    assert lines[-1] == "figure   p.png" and (tmp_path / "p.png").exists()


def test_as_json(cli, my_model):
    wanted = ["--layers", "linear, activation", "--amplitude", "2", "--no-headroom", "--json"]
    done = cli("audit", my_model, "--dataset", "mnist_mini", "--samples", "50", *wanted)
    found = json.loads(done.stdout)
    assert found["model"] == my_model and found["samples"] == 50
    assert [layer["kind"] for layer in found["layers"]] == ["linear", "activation"]
    assert found["amplitude"] == {
        "choice": 2.0,
        "value": 2.0,
        "parameter": None,
        "times_median": None,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "neither the folder of a run nor PACKAGE.MODULE:FUNCTION"),
        (["my_model:build"], "--dataset is missing"),
        (["my_model:build", "--dataset", "mnist_mni"], "did you mean 'mnist_mini'"),
        (["my_modle:build", "--dataset", "mnist_mini"], "no module my_modle, looked for from"),
        (["my_model:biuld", "--dataset", "mnist_mini"], "did you mean 'build'"),
        (["my_model:fails", "--dataset", "mnist_mini"], "RuntimeError: no weights"),
        (["my_model:three", "--dataset", "mnist_mini"], "returned 3 values"),
        (["my_model:build", "--dataset", "spirals"], "the model cannot be called"),
        (
            ["my_model:build", "--dataset", "mnist_mini", "--amplitude", "consumers"],
            "did you mean 'consumer'",
        ),
        ([".", "--dataset", "mnist_mini"], "its networks have their own data"),
        ([".", "--image-size", "32"], "leave out --image-size"),
        (["my_model:build", "--dataset", "mnist_mini", "--image-size", "32"], "only those of"),
    ],
)
def test_mistakes_are_answered(cli, my_model, arguments, message):
    done = cli("audit", *arguments)
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.count("\n") == 1


def test_networks_that_a_run_has_kept(cli, tmp_path):
    (tmp_path / "two.yaml").write_text(
        "model: {family: fc, width: 8, depth: [2, 3]}\n"
        "data: {name: spirals}\n"
        "training: {epochs: 1, batch_size: 32}\n"
        "probe: {samples: 100}\n"
    )
    trained = cli("sweep", "two.yaml", "--keep-weights", "0,last", "--out", "two")
    assert trained.returncode == 0, trained.stderr
    done = cli("audit", "two", "--samples", "100", "--json")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(one["layers"]) for one in found] == [2, 2, 3, 3]
    assert {one["batch_size"] for one in found} == {32}
    histories = [record.history for record in runs.read(tmp_path / "two").sweeps]
    bundles = [layers for history in histories for layers in history.num_bundles]
    rates = [layers for history in histories for layers in history.conflict_rate]
    for one, num_bundles, conflict_rates in zip(found, bundles, rates, strict=True):
        assert [layer["num_bundles"] for layer in one["layers"]] == num_bundles
        audited = [layer["conflict_rate"] for layer in one["layers"]]
        assert audited == pytest.approx(conflict_rates, rel=1e-6)
    nothing = cli("audit", ".")
    assert nothing.returncode == 2
