"""Auto-tuning of a user's architecture: the library function, and the command."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from own_architectures import staged

import cbundles
from cbundles import data
from cbundles.autotuning.progress import Progress
from cbundles.autotuning.trained import Trained, numbers_of, with_numbers
from cbundles.decisions.autotune import decide_on_blocks, prune
from cbundles.decisions.own_blocks import numbers_of_path, places_of_blocks
from cbundles.report import runs

START = (1, 8, 1)


@pytest.fixture(scope="module")
def digits():
    stored = data.load("mnist_mini")
    images = np.float32(stored.train_images[:1500]) / 255
    return images, np.asarray(stored.train_labels[:1500])


@pytest.fixture
def probe(digits):
    images, labels = digits
    return images[:128], labels[:128]


class Loop:
    """A training loop of a user for linen modules; it counts epochs, and may be interrupted."""

    def __init__(self, digits, *, stop_at=None):
        self.images, self.labels = digits
        self.optimizer = optax.sgd(1e-2)
        self.epochs, self.stop_at = 0, stop_at

    def __call__(self, model, epoch):
        self.epochs += 1
        if self.epochs == self.stop_at:
            raise KeyboardInterrupt
        if isinstance(model, nn.Module):
            assert epoch == 1
            params = model.init(jax.random.key(0), self.images[:1])["params"]
            return {"module": model, "params": params, "epoch": epoch}
        assert model["epoch"] == epoch - 1
        module, params = model["module"], model["params"]

        def loss(params, x, y):
            logits = module.apply({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        slopes = jax.jit(jax.grad(loss))(params, self.images[:64], self.labels[:64])
        return {**model, "params": jax.tree.map(lambda p, s: p - 1e-2 * s, params, slopes),
                "epoch": epoch}  # fmt: skip


def tune(digits, probe, *, loop=None, **more):
    said = []
    how = {"check_epochs": 2, "epochs": 3, "say": said.append, **more}
    loop = loop or Loop(digits)
    tuned = cbundles.autotune(staged, START, train=loop, probe=probe, **how)
    return tuned, said, loop


def test_conflicting_blocks_go_until_none_is_left(digits, probe):
    tuned, said, loop = tune(digits, probe)
    assert tuned.restarts >= 1 and len(said) == len(tuned.chain)
    assert tuned.chain[0].blocks == START
    for attempt, following in zip(tuned.chain, tuned.chain[1:], strict=False):
        assert attempt.left == following.blocks == prune(attempt.blocks, attempt.measured)
        assert attempt.epochs == 1 and "first conflicting block" in attempt.decision
    last = tuned.chain[-1]
    assert last.left == last.blocks == tuned.blocks and last.epochs == 3
    assert not tuned.given_up and "no conflict, trained to the end" in said[-1]
    assert loop.epochs == len(tuned.chain) - 1 + 3

    assert len(last.layers) == sum(last.blocks)
    images, labels = probe
    audit = cbundles.audit(tuned.model, images, labels, params=tuned.params, headroom=False)
    assert audit.layers[-1].entropy == last.measured[-1]
    assert tuned.row["blocks"] == list(last.blocks) and tuned.row["restarts"] == tuned.restarts
    sizes = [leaf.size for leaf in jax.tree.leaves(tuned.params)]
    assert tuned.row["parameters"] == sum(sizes)
    assert f"blocks {list(last.blocks)}" in str(tuned)


def test_equal_samples_of_two_classes_are_no_reason_to_prune():
    """No network can tell them apart."""
    inputs = np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32)
    inputs[1], labels = inputs[0], np.arange(64) % 3

    class Model(nnx.Module):
        def __init__(self, count):
            rngs = nnx.Rngs(0)
            self.blocks = nnx.List([nnx.Linear(16, 16, rngs=rngs) for _ in range(count)])
            self.head = nnx.Linear(16, 3, rngs=rngs)

        def __call__(self, x):
            for block in self.blocks:
                x = x + nnx.relu(block(x))
            return self.head(x)

    tuned = cbundles.autotune(
        lambda blocks: Model(*blocks), (2,), train=lambda model, epoch: None,
        probe=(inputs, labels), check_epochs=1, epochs=1, layers="linear", say=lambda line: None,
    )  # fmt: skip
    assert tuned.blocks == (2,) and tuned.restarts == 0
    audit = cbundles.audit(tuned.model, inputs, labels, layers="linear")
    assert all(layer.entropy > 0 for layer in audit.layers)


def test_a_collapsed_network_is_not_excused_by_equal_tokens():
    """Which it could tell apart by their place; told is what it adds to them."""
    ids = np.random.default_rng(0).integers(0, 3, (64, 4))
    labels = np.random.default_rng(1).integers(0, 2, (64, 4))

    def build(blocks):
        def model(params, x):
            for block in range(*blocks):
                x = checkpoint_name(0.0 * x + params["place"], f"s0/b{block}/x")
            return x @ params["out"]

        return lambda x: model(
            {"place": jnp.arange(4.0)[:, None], "out": jnp.ones((1, 2))}, jnp.float32(x)[..., None]
        )

    for criterion in ("entropy", "conflict_rate"):
        said = []
        tuned = cbundles.autotune(
            build, (2,), train=lambda model, epoch: None, probe=(ids, labels), check_epochs=1,
            layers="s0*", rows="tokens", amplitude=1.0, criterion=criterion, say=said.append,
        )  # fmt: skip
        assert "some tokens are equal and have different labels" in said[0]
        assert tuned.given_up and tuned.chain[0].measured[-1] > 0.001


def test_what_was_interrupted_goes_on_from_plain_files(digits, probe, tmp_path):
    whole, told, loop = tune(digits, probe)
    interrupted = Loop(digits, stop_at=2)  # in the second network
    with pytest.raises(KeyboardInterrupt):
        tune(digits, probe, loop=interrupted, folder=tmp_path)
    assert json.loads((tmp_path / "autotune.json").read_text())["ended"] is False
    tuned, said, continued = tune(digits, probe, folder=tmp_path)
    assert said == [f"recorded: {told[0]}", *told[1:]]
    assert tuned.chain == whole.chain and continued.epochs == loop.epochs - 1

    again, said, idle = tune(digits, probe, folder=tmp_path)
    assert idle.epochs == 0 and again.row == tuned.row
    for found, expected in zip(
        jax.tree.leaves(again.params), jax.tree.leaves(tuned.params), strict=True
    ):
        assert np.array_equal(found, expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["autotune.json", "model.npz"]
    (tmp_path / "model.npz").write_bytes(b"damaged")
    assert tune(digits, probe, folder=tmp_path)[2].epochs == 3  # only the last network

    with pytest.raises(ValueError, match=r"of another auto-tuning .check_epochs = 2"):
        tune(digits, probe, folder=tmp_path, check_epochs=1)
    (tmp_path / "autotune.json").write_text("[1")
    with pytest.raises(ValueError, match=r"damaged .*; name another folder"):
        tune(digits, probe, folder=tmp_path)


def test_a_folder_is_of_one_build_and_its_source(digits, probe, tmp_path, monkeypatch):
    source = tmp_path / "their_build.py"
    source.write_text(
        "from own_architectures import staged\ndef build(blocks): return staged(blocks)"
    )
    monkeypatch.syspath_prepend(tmp_path)
    build = importlib.import_module("their_build").build
    how = {"train": Loop(digits), "probe": probe, "check_epochs": 1, "folder": tmp_path,
           "say": lambda line: None}  # fmt: skip
    cbundles.autotune(build, (1, 1), **how)
    cbundles.autotune(build, (1, 1), **how)
    for other in (
        {"build": staged},
        {"stage_of": lambda name: numbers_of_path(name)},
        {"call": lambda module, x: module(x)},
    ):
        with pytest.raises(ValueError, match=r"of another auto-tuning .functions = .*their_build"):
            cbundles.autotune(**{"build": build, "start": (1, 1), **how, **other})
    part = functools.partial(build)
    how_part = {**how, "folder": tmp_path / "part"}
    cbundles.autotune(part, (1, 1), **how_part)
    cbundles.autotune(functools.partial(build), (1, 1), **how_part)
    with pytest.raises(ValueError, match=r"of another auto-tuning .functions = "):
        cbundles.autotune(functools.partial(build, blocks=(1, 1)), (1, 1), **how_part)
    source.write_text(source.read_text() + "\n# said of it\n")
    cbundles.autotune(build, (1, 1), **how)
    source.write_text(source.read_text() + "ANOTHER = 1\n")
    with pytest.raises(ValueError, match=r"of another auto-tuning .functions = .*their_build"):
        cbundles.autotune(build, (1, 1), **how)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"check_epochs": 0}, "check_epochs = 0: must be a whole number, at least 1"),
        ({"epochs": 1}, "epochs = 1: fewer than check_epochs; nearest valid: 2"),
        ({"criterion": "rate"}, r"criterion = 'rate': .valid: conflict_rate, entropy"),
        ({"stage_of": lambda name: None}, r"not those of blocks \[1, 8, 1\].*-> no block"),
        ({"batch_norm": "bach"}, "did you mean 'batch'"),
        ({"check_epochs": "2"}, "check_epochs = '2': must be a whole number"),
        ({"check_epochs": 1.5}, "check_epochs = 1.5: must be a whole number"),
        ({"check_epochs": True}, "check_epochs = True: must be a whole number"),
        ({"epochs": 2.5}, "epochs = 2.5: must be a whole number"),
        ({"probe": None}, "probe = a NoneType: must be a pair, inputs and their labels"),
        ({"probe": (1, 2, 3)}, "probe = a tuple: must be a pair"),
        ({"stage_of": lambda name: 3}, "stage_of returned 3 for .*: must be a pair of numbers"),
        ({"stage_of": lambda name: "ab"}, "stage_of returned 'ab' for .*: must be a pair"),
        ({"stage_of": lambda name: (None, 1)}, r"stage_of returned \(None, 1\) for"),
        ({"folder": __file__}, "cannot be made: a file is in its place"),
        ({"folder": f"{__file__}/below"}, "cannot be made: a file is in its place"),
        ({"folder": "~nobodyhere/kept"}, "folder = '~nobodyhere/kept' cannot be made"),
        ({"folder": 3}, "folder must be a path or None, not 3"),
        ({"learning_rat": 1}, "learning_rat: no argument: did you mean 'learning_rate'"),
        ({"params": {}}, "params: no argument"),
    ],
)
def test_what_cannot_work_is_answered_in_a_sentence(digits, probe, more, message):
    with pytest.raises(ValueError, match=message):
        tune(digits, **{"probe": probe, **more})


def test_a_folder_that_cannot_be_is_told_before_anything_is_trained(digits, probe):
    loop = Loop(digits)
    with pytest.raises(ValueError, match="cannot be made"):
        tune(digits, probe, loop=loop, folder=f"{__file__}/below")
    assert loop.epochs == 0


def test_a_start_must_be_numbers_of_blocks(digits, probe):
    for start in ((0, 0), (1.5,), (-1, 2), (), 5, None, (True, 3), "12", np.array([1.0])):
        with pytest.raises(ValueError, match="must be numbers of blocks, one a stage"):
            cbundles.autotune(staged, start, train=Loop(digits), probe=probe)


def test_a_start_may_be_an_array(digits, probe):
    how = {"train": Loop(digits), "probe": probe, "check_epochs": 1}
    tuned = cbundles.autotune(staged, np.array([1, 1]), **how)
    assert tuned.chain[0].blocks == (1, 1) and type(tuned.blocks[0]) is int


def test_a_linen_module_needs_numbers(probe):
    with pytest.raises(ValueError, match="train returned a Plain for a linen module"):
        cbundles.autotune(staged, START, train=lambda model, epoch: model, probe=probe)


class State(NamedTuple):
    params: Any
    step: int


def test_what_a_loop_returns_is_known_by_what_it_is():
    module = nn.Dense(2)
    variables = module.init(jax.random.key(0), np.ones((1, 3)))
    params = variables["params"]
    for made in (variables, State(params, 1), SimpleNamespace(params=params), (module, variables)):
        found = Trained.of_loop(made, module)
        assert found.model is module and found.params["params"] is params
    nnx_module = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    assert Trained.of_loop(nnx_module, nnx_module).model is nnx_module
    for built in (module, nnx_module):
        for made in ((variables, "state"), (State(params, 1), 0.5), (nnx_module, 0.5), 0.5, None,
                     np.float32(1), jnp.ones(()), params, "text"):  # fmt: skip
            with pytest.raises(ValueError, match=r"train returned a \w+ for a .*: it must return"):
                Trained.of_loop(made, built)


@pytest.mark.parametrize("is_pair_of_function", [False, True])
def test_what_cannot_be_trained_in_place_must_be_returned(probe, is_pair_of_function):
    """Otherwise each epoch would be given the first weights again."""

    def build(blocks):
        module = staged(blocks)
        variables = module.init(jax.random.key(0), probe[0][:1])
        return (module.apply, variables) if is_pair_of_function else (module, variables)

    with pytest.raises(ValueError, match="train returned None, and all weights are those that"):
        cbundles.autotune(build, (1, 1), train=lambda made, epoch: None, probe=probe)


def test_wrong_arguments_of_an_audit_are_found_before_training(digits, probe):
    images, labels = probe
    for more in (
        {"batch_norm": "bogus"},
        {"learning_rate": 0},
        {"layers": 3},
        {"probe": (images, labels + 0.5)},
    ):
        loop = Loop(digits)
        with pytest.raises(ValueError):
            tune(digits, **{"probe": probe, "loop": loop, **more})
        assert not loop.epochs


@pytest.mark.parametrize("whole", [False, True])
def test_other_collections_and_parameters_alone(whole, probe, tmp_path):
    """`train` returns more than `build` did; the second call returns at once."""

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            scale = self.variable("constants", "scale", lambda: jnp.ones(())).value if whole else 1
            x = nn.relu(nn.Dense(784, name="block0")(scale * x.reshape(len(x), -1)))
            return nn.Dense(10, name="head")(x)

    def build(blocks):
        variables = Model().init(jax.random.key(0), probe[0])
        return Model(), variables if whole else variables["params"]

    epochs = []

    def train(model, epoch):
        epochs.append(epoch)
        if not isinstance(model, tuple):
            return model
        return dict(model[1]) if whole else State(model[1], epoch)

    for _ in range(2):
        cbundles.autotune(
            build, (1,), train=train, probe=probe, folder=tmp_path, check_epochs=1,
            layers="linear", say=lambda line: None,
        )  # fmt: skip
    assert epochs == [1]


def test_a_bound_linen_module_is_kept_as_its_numbers(probe, tmp_path):
    """Also where it says a dtype, as many do, which makes it look like an array."""

    class Model(nn.Module):
        count: int
        dtype: Any = jnp.float32

        @nn.compact
        def __call__(self, x):
            x = x.reshape(len(x), -1)
            for number in range(self.count):
                x = nn.relu(nn.Dense(784, name=f"block{number}")(x))
            return nn.Dense(10, name="head")(x)

    def train(model, epoch):
        if model.scope is None:
            return model.bind(model.init(jax.random.key(0), probe[0]))
        module, variables = model.unbind()
        return module.bind(jax.tree.map(lambda leaf: leaf + 1e-3, variables))

    def tune():
        return cbundles.autotune(
            lambda blocks: Model(*blocks), (2,), train=train, probe=probe, folder=tmp_path,
            check_epochs=1, epochs=2, layers="linear", say=lambda line: None,
        )  # fmt: skip

    first, again = tune(), tune()
    assert not again.model.scope and again.row == first.row
    for ours, theirs in zip(*map(jax.tree.leaves, (first.params, again.params)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_probe_may_come_in_batches_once(digits, probe, tmp_path, monkeypatch):
    images, labels = probe
    monkeypatch.setenv("HOME", str(tmp_path))
    whole, *_ = tune(digits, probe)
    for _ in range(2):
        coming = iter([images[:50], images[50:100], images[100:]])
        once, said, _ = tune(digits, (coming, labels), folder="~/kept")
        assert [one.blocks for one in once.chain] == [one.blocks for one in whole.chain]
    assert all(line.startswith("recorded: ") for line in said)
    assert (tmp_path / "kept/autotune.json").exists()


def test_models_of_nnx_are_trained_in_place(probe, tmp_path):
    class Model(nnx.Module):
        def __init__(self, count):
            rngs = nnx.Rngs(0)
            self.blocks = nnx.List([nnx.Linear(784, 784, rngs=rngs) for _ in range(count)])
            self.head = nnx.Linear(784, 10, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)  # whose state holds keys, too

        def __call__(self, x):
            x = x.reshape(len(x), -1)
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    def build(blocks):
        return Model(*blocks)

    def train(model, epoch):
        model.blocks[0].bias[...] += epoch

    how = {"check_epochs": 1, "epochs": 2, "layers": "linear", "folder": tmp_path,
           "say": lambda line: None}  # fmt: skip
    tuned = cbundles.autotune(build, (2,), train=train, probe=probe, **how)
    assert tuned.params is None and float(tuned.model.blocks[0].bias[0]) == 3
    again = cbundles.autotune(build, (2,), train=train, probe=probe, **how)
    assert float(again.model.blocks[0].bias[0]) == 3 and again.row == tuned.row


def number_of_relu(name):
    """relu, relu#2, ...: blocks of one stage."""
    return 1, int(name.partition("#")[2] or 1)


@pytest.mark.parametrize("alone", [False, True])
def test_a_function_with_parameters_is_tuned_and_kept(alone, probe, tmp_path):
    def build(blocks):
        def apply(params, x):
            x = x.reshape(len(x), -1)
            for kernel in params["blocks"]:
                x = jax.nn.relu(x @ kernel)
            return x @ params["head"]

        keys = jax.random.split(jax.random.key(0), sum(blocks) + 1)
        kernels = [jax.random.normal(key, (784, 784)) / 28 for key in keys[1:]]
        return apply, {"blocks": kernels, "head": jax.random.normal(keys[0], (784, 10))}

    def train(model, epoch):
        function, params = model if isinstance(model, tuple) else (None, model)
        params = params | {"head": params["head"] + epoch}
        return params if alone else (function, params)

    how = {"check_epochs": 1, "epochs": 2, "stage_of": number_of_relu, "folder": tmp_path,
           "trainable": "blocks*", "say": lambda line: None}  # fmt: skip
    tuned = cbundles.autotune(build, (2,), train=train, probe=probe, **how)
    assert tuned.row["parameters"] == 2 * 784 * 784
    first = build((2,))[1]["head"]
    np.testing.assert_allclose(tuned.params["head"], first + 3)
    again = cbundles.autotune(build, (2,), train=train, probe=probe, **how)
    np.testing.assert_array_equal(again.params["head"], tuned.params["head"])


def test_a_model_that_cannot_be_called_itself_is_tuned(probe):
    @dataclasses.dataclass
    class Model:
        kernel: jax.Array

        def forward(self, x):
            return jax.nn.relu(x.reshape(len(x), -1) @ self.kernel) @ jnp.ones((16, 10))

    jax.tree_util.register_dataclass(Model, ["kernel"], [])
    kernel = jax.random.normal(jax.random.key(0), (784, 16))
    tuned = cbundles.autotune(
        lambda blocks: Model(kernel),
        (1,),
        train=lambda model, epoch: Model(model.kernel + 1),
        probe=probe,
        check_epochs=1,
        stage_of=number_of_relu,
        call=lambda model, x: model.forward(x),
        say=lambda line: None,
    )
    np.testing.assert_array_equal(tuned.model.kernel, kernel + 1)


class Dropping(nnx.Module):
    """Its state holds keys and counts of random numbers: two streams of them."""

    def __init__(self, width=784):
        self.rngs = nnx.Rngs(0, dropout=1)
        self.blocks = nnx.List([nnx.Linear(width, width, rngs=self.rngs) for _ in range(2)])
        self.dropout = nnx.Dropout(0.5, deterministic=True, rngs=self.rngs)
        self.head = nnx.Linear(width, 10, rngs=self.rngs)

    def __call__(self, x):
        x = x.reshape(len(x), -1)
        for block in self.blocks:
            x = self.dropout(block(x))
        return self.head(x)


@pytest.mark.parametrize("keeps", [False, True])
def test_models_with_random_numbers_are_tuned_and_kept(keeps, probe, tmp_path):
    def train(model, epoch):
        model.blocks[0].bias[...] += epoch
        model.rngs.dropout()

    how = {"check_epochs": 1, "layers": "linear", "folder": tmp_path if keeps else None}
    for _ in range(2):
        tuned = cbundles.autotune(
            lambda blocks: Dropping(), (2,), train=train, probe=probe, say=lambda line: None, **how
        )
        assert float(tuned.model.blocks[0].bias[0]) == 1
    numbers = numbers_of(Trained(tuned.model, None))
    assert len(numbers) == 6 and not any("rngs" in name for name in numbers)


def test_numbers_of_another_model_are_refused():
    small, large = (Trained(nnx.Linear(2, size, rngs=nnx.Rngs(0)), None) for size in (2, 3))
    numbers = numbers_of(small)
    with pytest.raises(ValueError, match="they are of another model"):
        with_numbers(large, {**numbers, "other": np.zeros(1)})
    with pytest.raises(ValueError, match="they are of another model"):
        with_numbers(large, numbers)


@pytest.mark.parametrize("whole", [True, False])
def test_numbers_of_a_linen_module_are_known_by_their_shapes(whole):
    x = np.ones((2, 3), np.float32)
    module = nn.Dense(4)
    variables = module.init(jax.random.key(0), x)
    numbers = numbers_of(Trained(module, variables if whole else variables["params"]))
    assert set(numbers) == {"params/kernel", "params/bias"}
    again = with_numbers(Trained(module, None), numbers, x)
    found = again.params
    assert np.array_equal(module.apply(found, x), module.apply(variables, x))
    for other in (nn.Dense(5), nn.Dense(4, use_bias=False)):
        with pytest.raises(ValueError, match="they are of another model"):
            with_numbers(Trained(other, None), numbers, x)


def test_numbers_of_every_type_and_name_come_back(tmp_path):
    numbers = {
        "file": np.arange(3.0),
        "params/file:1": np.ones((2, 3), jnp.bfloat16),
        "single": np.array(0.1, jnp.bfloat16),
        "small": np.arange(4).astype(jnp.float8_e4m3fn),
        "whole": np.array([True, False]),
        "empty": np.zeros((0, 2), np.complex64),
    }
    progress = Progress.begun(tmp_path, {})
    progress.keep(numbers)
    kept = progress.kept()
    assert kept.keys() == numbers.keys()
    for name, array in numbers.items():
        assert kept[name].dtype == array.dtype and np.array_equal(kept[name], array)


def test_a_last_network_of_other_widths_is_trained_and_measured_anew(digits, probe, tmp_path):
    width = 16

    def build(blocks):
        return staged(blocks, width)

    said = []
    how = {"probe": probe, "check_epochs": 1, "folder": tmp_path, "say": said.append}
    before = cbundles.autotune(build, (1, 1), train=Loop(digits), **how)
    width = 12
    loop = Loop(digits)
    tuned = cbundles.autotune(build, (1, 1), train=loop, **how)
    assert loop.epochs == 1 and "model.npz: not the last network's numbers" in said[1]
    assert tuned.row["parameters"] < before.row["parameters"]
    images, labels = probe
    audit = cbundles.audit(tuned.model, images, labels, params=tuned.params, headroom=False)
    assert audit.layers[-1].entropy == tuned.chain[-1].measured[-1]
    again = cbundles.autotune(build, (1, 1), train=Loop(digits), **how)
    assert again.chain == tuned.chain and again.row == tuned.row


def test_names_tell_blocks():
    assert numbers_of_path("Net/layer1/2/conv3/relu#4") == (1, 2)
    assert numbers_of_path("Net/Block_3/relu[2]") == (3, 2)
    assert numbers_of_path("relu4") == ()
    names = ["stem", "s1/b1/a", "s1/b1/b", "s1/b2/a", "s3/b1/a"]
    assert places_of_blocks(names, (2, 0, 1)) == [2, 3, 4]
    assert places_of_blocks([*names, "pooled"], (2, 0, 1)) == [2, 3, 4, 5]
    assert places_of_blocks(["b0/a", "b1/a"], (2,)) == [0, 1]
    for blocks in ((2, 1), (2, 1, 0), (3, 0, 1), (0, 0, 0)):
        with pytest.raises(ValueError, match="are not those of blocks"):
            places_of_blocks(names, blocks)
    with pytest.raises(ValueError, match="are not those of blocks"):
        places_of_blocks(["s0/b1/a", "s1/b0/a", "s0/b0/a"], (2, 1))


def test_a_number_in_the_name_of_a_class_is_no_stage():
    names = ["VGG16/stem/relu", "VGG16/s0_b0/relu", "VGG16/s0_b1/relu", "VGG16/s1_b0/relu"]
    assert places_of_blocks(names, (2, 1)) == [1, 2, 3]
    assert places_of_blocks([*names, "VGG16/pooled"], (2, 1)) == [1, 2, 3, 4]
    assert places_of_blocks(["Stage1/Block0/a", "Stage2/Block0/a"], (1, 1)) == [0, 1]
    assert places_of_blocks(["layer1/0/relu", "layer1/1/relu"], (2, 0)) == [0, 1]
    with pytest.raises(
        ValueError, match=r"VGG16/stem/relu -> no block; VGG16/s0_b0/relu -> .0, 0."
    ):
        places_of_blocks(names, (1, 1))


def test_a_conflict_of_one_pair_is_not_told_as_none():
    text = str(decide_on_blocks((2, 2), 1, [0, 0, 0, 0.00014], by="entropy", checks=3))
    assert "at the end of each stage 0.000 0.00014;" in text and "removes 1 block:" in text


def test_decisions_on_blocks_say_why():
    last = decide_on_blocks((1, 2), 1, [0.0, 0.0, 0.0, 0.7], by="entropy", checks=1)
    assert last.left == (1, 1) and "only what is behind conflicts, so the last block, 3" in str(
        last
    )
    late = decide_on_blocks((1, 2), 2, [0.0, 0.1, 0.7], by="entropy", checks=1)
    assert late.left == (1, 2) and "conflicts only after the checks" in str(late)


COMMAND = ("autotune", "own_architectures:staged", "--dataset", "mnist_mini", "--seeds", "1",
           "--set", "training.epochs=1", "--set", "probe.samples=128", "--out", "run")  # fmt: skip


def test_the_command_follows_conflicts_and_continues(cli):
    done = cli(*COMMAND)
    assert done.returncode == 0, done.stderr
    assert "first conflicting block" in done.stdout and "seed 0: 1,8,1 -> 1," in done.stdout
    run = runs.read(Path("run"))
    attempts = run.description["attempts"][0]
    by_id = run.by_cell
    chain = [by_id[cell].cell.blocks for cell in attempts]
    for cell, following in zip(attempts, chain[1:], strict=False):
        record = by_id[cell]
        places = places_of_blocks(record.layers, record.cell.blocks)
        measured = [record.history.entropy[-1][place] for place in places]
        assert prune(record.cell.blocks, measured) == following
    assert Path("run/table.csv").is_file()
    again = cli(*COMMAND)
    assert again.returncode == 0 and "recorded: seed 0, epoch 1" in again.stdout
    as_data = json.loads(cli(*COMMAND, "--json").stdout.splitlines()[-1])
    assert as_data["chains"][0]["blocks"] == [",".join(map(str, blocks)) for blocks in chain]
    assert cli("report", ".").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("own_architectures:staged",), "autotune: --dataset is missing"),
        (("own_architectures:mlp",), "model.depth: missing; a keyword of own_architectures:mlp"),
        (("own_architectures:raising",), "raising: it needs a keyword blocks, the number"),
        (("own_architectures:staged", "--blocks", "1,x"), "--blocks 1,x: must be whole numbers"),
        (("own_architectures:staged", "--blocks", "0,0"), "blocks = [0, 0]: must be a list of"),
        (("own_architectures:staged", "--blocks", "2,-1"), "blocks = [2, -1]: must be a list of"),
        (("own_architectures:counted",), "blocks = 4: must be a list of whole numbers, the blocks"),
        (("own_architectures:undecided",), "blocks to start from: --blocks 3,8,3"),
        (("own_architectures:staged", "--baseline", "resnet-50"), "--baseline: has no effect with"),
        (("own_architectures:staged", "--paper"), "--paper: has no effect with"),
        (
            ("own_architectures:staged", "--set", "model.name_of=block{number}of{stage}"),
            "are not those of blocks",
        ),
        (("staged",), "model.build = 'staged': must be PACKAGE.MODULE:FUNCTION"),
    ],
)
def test_the_command_says_what_is_wrong_before_anything_is_trained(cli, arguments, message):
    data_set = () if "missing" in message and "dataset" in message else ("--dataset", "mnist_mini")
    failed = cli("autotune", *arguments, *data_set, "--plan", "--out", "run")
    assert failed.returncode == 2 and message in failed.stderr


def test_the_example_in_a_loop_of_its_own(digits, tmp_path):
    from examples.my_vgg import build, own_loop

    images, labels = (array[:500] for array in digits)
    tuned = cbundles.autotune(
        build,
        (1, 2, 1),
        train=own_loop(images, labels, optax.adam(1e-3)),
        probe=(images[:100], labels[:100]),
        check_epochs=1,
        epochs=2,
        say=lambda line: None,
    )
    assert tuned.blocks == (1, 2, 1) and tuned.chain[0].layers[-1] == "VGG/stage2_block0/relu"
