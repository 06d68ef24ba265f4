"""Monitors in training loops: events are what audits say, files survive kills and restarts."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import os
import re
import runpy
import signal
import subprocess
import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT
from flax import nnx
from flax.training import train_state
from jax.ad_checkpoint import checkpoint_name
from monitored import assert_as_audited, events_in

import cbundles
from cbundles import bundles
from cbundles.monitoring import Measurement

SAMPLES, CLASSES = 60, 3
LABELS = np.arange(SAMPLES) % CLASSES
VECTORS = np.random.default_rng(1).standard_normal((SAMPLES, 6)).astype(np.float32)
RATE = 1e-5  # so low that some samples meet


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        TRACES.append(type(x))
        for number in range(4):
            x = nn.relu(nn.Dense(8, name=f"layer{number + 1}")(x))
        return nn.Dense(CLASSES, name="head")(x)


TRACES: list[type] = []  # of each call of the model in Python


class Modules(nnx.Module):
    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, CLASSES, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.second(self.dropout(nnx.relu(self.first(x))))


def variables(seed=0):
    return Model().init(jax.random.key(seed), VECTORS[:1])


def collapsed(params):
    """Behind its second layer no sample is unlike another."""
    kernel = params["params"]["layer2"]["kernel"]
    others = params["params"] | {"layer2": {"kernel": 0 * kernel, "bias": jnp.ones(8)}}
    return {"params": others}


def with_nan(params):
    others = params["params"] | {
        "layer3": {"kernel": jnp.full((8, 8), jnp.nan), "bias": jnp.ones(8)}
    }
    return {"params": others}


def monitor_in(folder, model=None, **how):
    return cbundles.Monitor(
        Model() if model is None else model, VECTORS, LABELS, folder=folder, **how
    )


# What is measured


def test_events_are_what_an_audit_says(tmp_path):
    how = {"learning_rate": RATE, "batch_size": 16}
    monitor = monitor_in(tmp_path, every=2, headroom=True, **how)
    trained = [variables(seed) for seed in range(5)]
    measured = [monitor(step, params) for step, params in enumerate(trained)]
    assert [one is not None for one in measured] == [True, False, True, False, True]
    for event in events_in(tmp_path):
        audit = cbundles.audit(Model(), VECTORS, LABELS, params=trained[event["step"]], **how)
        assert_as_audited(event, audit)
        assert event["layers"][-1]["headroom"] is not None
    entropies = [layer["entropy"] for event in events_in(tmp_path) for layer in event["layers"]]
    assert min(entropies) == 0 < max(entropies)  # some layers conflict and some do not
    assert monitor.last is measured[4] and str(monitor.last.audit).startswith("layer ")


def test_a_part_of_the_samples_is_measured(tmp_path):
    picked = bundles.evenly_spread(SAMPLES, 20)
    event = monitor_in(tmp_path, samples=20)(0, variables()).to_dict()
    audit = cbundles.audit(
        Model(), VECTORS[picked], LABELS[picked], params=variables(), headroom=False
    )
    assert_as_audited(event, audit)
    assert event["samples"] == 20


def test_the_model_is_traced_once(tmp_path):
    monitor, trained = monitor_in(tmp_path, every=1), [variables(seed) for seed in range(4)]
    monitor(0, trained[0])
    before = len(TRACES)
    for step in range(1, 4):
        monitor(step, trained[step])
    assert len(TRACES) == before


def test_another_form_of_the_parameters_is_traced_anew(tmp_path):
    def function(params, x):
        return jnp.tanh(x @ params["w"]) @ params["head"]

    monitor = monitor_in(tmp_path, function, every=1)
    names = []
    for step, width in enumerate((3, 5)):
        measured = monitor(step, {"w": jnp.ones((6, width)), "head": jnp.ones((width, 3))})
        names.append(measured.audit.layers[0].shape)
    assert names == [(3,), (5,)]


def test_what_a_module_is_made_of_is_looked_at_too(tmp_path):
    """A number that is no array is part of what was traced."""

    class Scaled(nnx.Module):
        def __init__(self):
            self.linear, self.scale = nnx.Linear(6, 8, rngs=nnx.Rngs(0)), 1.0

        def __call__(self, x):
            return nnx.relu(self.linear(x * self.scale))

    model = Scaled()
    monitor = monitor_in(tmp_path, model, every=1)
    bundles_of = [monitor(0).audit.layers[0].num_bundles]
    model.scale = 1e-7
    bundles_of.append(monitor(1).audit.layers[0].num_bundles)
    assert bundles_of[0] == SAMPLES > bundles_of[1]


def test_modules_that_train_in_place_are_looked_at_themselves(tmp_path):
    model = Modules(nnx.Rngs(0))
    monitor = monitor_in(tmp_path, model, every=1, learning_rate=RATE)
    for step in range(3):
        measured = monitor(step)
        audit = cbundles.audit(model, VECTORS, LABELS, learning_rate=RATE, headroom=False)
        assert_as_audited(measured.to_dict(), audit)
        assert not model.dropout.deterministic
        model.first.kernel[...] = 0.1 * model.first.kernel[...]
    values = [event["amplitude"]["value"] for event in events_in(tmp_path)]
    assert values[0] > values[2]
    assert monitor(3, model) is not None  # it may be named, too


def test_functions_and_parameters_alone(tmp_path):
    params = variables()
    by_apply = monitor_in(tmp_path / "a", Model().apply)(0, params).to_dict()
    alone = monitor_in(tmp_path / "b")(0, params["params"]).to_dict()
    for event in (by_apply, alone):
        audit = cbundles.audit(Model(), VECTORS, LABELS, params=params, headroom=False)
        numbers = [
            [layer["entropy"] for layer in one["layers"]] for one in (event, audit.to_dict())
        ]
        assert numbers[0] == numbers[1]


def test_functions_that_hold_their_weights_are_traced_anew(tmp_path):
    """The weights are part of what is traced, and no argument of it."""
    monitor = monitor_in(tmp_path, lambda x: Model().apply(variables(), x), every=1, amplitude=1.0)
    for step, params in enumerate((variables(), collapsed(variables()))):

        def model(x, params=params):
            return Model().apply(params, x)

        found = monitor(step, model).audit
        alone = cbundles.audit(Model(), VECTORS, LABELS, params=params, amplitude=1.0)
        assert [one.num_bundles for one in found.layers] == [
            one.num_bundles for one in alone.layers
        ]


def test_a_state_of_training_may_be_given(tmp_path):
    params = variables()
    state = train_state.TrainState.create(
        apply_fn=Model().apply, params=params["params"], tx=optax.adam(1e-3)
    )
    audit = cbundles.audit(Model(), VECTORS, LABELS, params=params, headroom=False)
    assert_as_audited(monitor_in(tmp_path)(0, state).to_dict(), audit)


def test_a_module_that_is_a_pytree_is_given_as_it_is_now(tmp_path):
    equinox = pytest.importorskip("equinox")
    first, second = (
        equinox.nn.MLP(6, CLASSES, 8, 2, key=jax.random.key(seed)) for seed in range(2)
    )

    def call(module, batch):
        return jax.vmap(module)(batch)

    monitor = monitor_in(tmp_path, first, every=1, call=call)
    for step, module in enumerate((first, second)):
        audit = cbundles.audit(module, VECTORS, LABELS, call=call, headroom=False)
        assert_as_audited(monitor(step, module).to_dict(), audit)


def test_parameters_may_be_donated(tmp_path):
    @jax.jit
    def step_in_place(params):
        return jax.tree.map(lambda leaf: 0.9 * leaf, params)

    donating = jax.jit(step_in_place, donate_argnums=0)
    monitor, params = monitor_in(tmp_path, every=1), variables()
    for step in range(3):
        assert monitor(step, params) is not None
        params = donating(params)


def test_all_samples_as_one_batch(tmp_path):
    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.BatchNorm(use_running_average=not train, name="norm")(nn.Dense(8)(x))
            return nn.Dense(CLASSES)(nn.relu(x))

    how = {"batch_norm": "batch", "call": lambda model, x: model(x, train=True)}
    params = Normalised().init(jax.random.key(0), VECTORS[:1])
    measured = monitor_in(tmp_path, Normalised(), **how)(0, params)
    audit = cbundles.audit(Normalised(), VECTORS, LABELS, params=params, headroom=False, **how)
    assert_as_audited(measured.to_dict(), audit)


# Files


def test_a_restart_goes_on_with_the_file(tmp_path):
    for steps in ((0, 200, 400), (600, 800)):
        monitor = monitor_in(tmp_path)
        for step in steps:
            monitor(step, variables())
    assert [event["step"] for event in events_in(tmp_path)] == [0, 200, 400, 600, 800]
    assert not (tmp_path / "replaced.jsonl").exists()


def test_steps_that_come_again_are_not_doubled(tmp_path, caplog):
    first = monitor_in(tmp_path)
    for step in (0, 200, 400, 600):
        first(step, variables())
    first(600, variables())
    assert not caplog.messages
    replaced = tmp_path / "replaced.jsonl"
    replaced.write_text(replaced.read_text() + '{"step": 7, "ti')  # what a kill leaves
    again = monitor_in(tmp_path)
    for step in (350, 400):
        again(step, variables(1))
    events = events_in(tmp_path)
    assert [event["step"] for event in events] == [0, 200, 350, 400]
    assert events[-1]["amplitude"] != events[0]["amplitude"]
    whole = [line for line in replaced.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["step"] for line in whole] == [600, 400, 600]
    (said,) = caplog.messages
    assert "step 350 comes after step 600" in said and "2 measurements move" in said


def test_of_two_monitors_in_a_folder_the_older_one_writes_no_more(tmp_path, caplog):
    """And measures on, so that nobody's training ends for it."""
    older, newer = (monitor_in(tmp_path, every=10) for _ in range(2))
    older(0, variables())
    older(10, variables())
    newer(10, variables())
    before = (tmp_path / "events.jsonl").read_bytes()
    for step in (10, 20):
        assert older(step, variables()).step == step
    (told,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "A folder belongs to one monitor" in told.getMessage()
    assert (tmp_path / "events.jsonl").read_bytes() == before
    newer(20, variables())
    assert [event["step"] for event in events_in(tmp_path)] == [0, 10, 20]


def test_a_file_that_was_removed_begins_anew(tmp_path):
    monitor = monitor_in(tmp_path, every=10)
    monitor(0, variables())
    (tmp_path / "events.jsonl").unlink()
    monitor(10, variables())
    assert [event["step"] for event in events_in(tmp_path)] == [10]


def test_half_a_line_is_what_a_kill_leaves(tmp_path):
    monitor = monitor_in(tmp_path)
    for step in (0, 200):
        monitor(step, variables())
    path = tmp_path / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-100])
    monitor_in(tmp_path)(200, variables())
    assert [event["step"] for event in events_in(tmp_path)] == [0, 200]


LOOP = """
import os, signal, sys
import flax.linen as nn, jax, numpy as np
import cbundles

class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(8)(0 * x)))

def die(found):
    if found.step == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)

x = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)
params = Model().init(jax.random.key(0), x[:1])
monitor = cbundles.Monitor(
    Model(), x, np.arange(60) % 3, every=10, tensorboard=sys.argv[3] == "yes", on_measure=die
)
for step in range(int(sys.argv[2]), 100):
    monitor(step, params)
"""


def test_a_killed_process_leaves_all_that_it_measured(tmp_path):
    installed = importlib.util.find_spec("tensorboardX") is not None

    def train(dies_at, begins_at):
        arguments = [str(dies_at), str(begins_at), "yes" if installed else "no"]
        return subprocess.run(
            [sys.executable, "-c", LOOP, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    killed = train(50, 0)
    assert killed.returncode == -signal.SIGKILL
    folder = tmp_path / "runs" / "monitor"
    assert [event["step"] for event in events_in(folder)] == [0, 10, 20, 30, 40, 50]
    # All samples are the same behind the inputs. It is said on stderr, without any set-up, once.
    (said,) = [line for line in killed.stderr.splitlines() if "conflict" in line]
    assert said.startswith(
        "cbundles, step 0: Model/relu (layer 1 of 1) begins to conflict: H = 1.0"
    )

    finished = train(-1, 45)
    assert finished.returncode == 0, finished.stderr
    steps = [event["step"] for event in events_in(folder)]
    assert steps == [0, 10, 20, 30, 40, 45, 50, 60, 70, 80, 90]
    assert "begins to conflict" not in finished.stderr  # which was said before


def test_no_folder_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = []
    cbundles.Monitor(Model(), VECTORS, LABELS, folder=None, on_measure=found.append)(3, variables())
    assert [one.step for one in found] == [3]
    assert not list(tmp_path.iterdir())


# TensorBoard

READ = """
import json, sys
import tensorflow as tf

found = []
for path in sorted(sys.argv[1:]):
    for event in tf.compat.v1.train.summary_iterator(path):
        if event.HasField("summary"):
            numbers = {value.tag: value.simple_value for value in event.summary.value}
            found.append([event.step, event.wall_time, numbers])
        elif event.HasField("session_log"):
            found.append([event.step, "start", event.session_log.status])
print(json.dumps(found))
"""


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboardX") is None, reason="tensorboardX is not installed"
)
@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
)
def test_tensorflow_reads_what_was_written(tmp_path):
    monitor = monitor_in(tmp_path, every=1, tensorboard=True, learning_rate=RATE, headroom=True)
    for step, params in enumerate((variables(), with_nan(variables()), variables(2))):
        monitor(step, params)
    files = list(map(str, tmp_path.glob("events.out.tfevents.*")))
    assert len(files) == 1
    done = subprocess.run(
        [sys.executable, "-c", READ, *files], capture_output=True, text=True, check=True
    )
    start, *read = json.loads(done.stdout.splitlines()[-1])
    assert start == [0, "start", 1]  # so that TensorBoard forgets what was replaced
    assert len(read) == 3
    for (step, time, numbers), event in zip(read, events_in(tmp_path), strict=True):
        assert (step, time) == (event["step"], event["time"])
        for place, layer in enumerate(event["layers"]):
            name = "Model/relu" + (f".{place + 1}" if place else "")
            for chart, key in (
                ("bundle_entropy", "entropy"),
                ("conflict_rate", "conflict_rate"),
                ("bundles", "num_bundles"),
                ("headroom", "headroom"),
            ):
                is_known = layer[key] is not None and not layer["diverged"]
                expected = np.float32(layer[key]) if is_known else None
                assert numbers.get(f"{chart}/{name}") == expected
        assert numbers["diverged_layers"] == sum(layer["diverged"] for layer in event["layers"])
        conflicting = sum(bool(layer["conflicting"]) for layer in event["layers"])
        assert numbers["conflicting_layers"] == conflicting


def test_without_tensorboardx_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match=re.escape("pip install 'cbundles[tensorboard]'")):
        monitor_in(tmp_path, tensorboard=True)


def test_names_are_ones_that_dashboards_take(tmp_path):
    names = monitor_in(tmp_path)(0, variables()).scalars
    assert {"bundle_entropy/Model/relu.4", "conflicting_layers"} <= names.keys()
    assert all(re.fullmatch(r"[\w\-. /]+", name, re.ASCII) for name in names)  # those of MLflow


def test_names_without_such_letters_have_charts_of_their_own(tmp_path):
    def model(params, x):
        for name in "αβ":
            x = checkpoint_name(x @ params, name)
        return x

    monitor = monitor_in(tmp_path, model, layers=["α", "β"])
    charts = monitor(0, jnp.eye(6)).scalars
    assert len([name for name in charts if name.startswith("bundle_entropy/")]) == 2


def test_branches_do_not_count_in_charts_either(tmp_path):
    def model(params, x):
        for number in range(2):
            x = x + jnp.tanh(0.0 * (x @ params[number]))
        return x @ params[2]

    monitor = monitor_in(tmp_path, model, layers=["branch", "sum"])
    found = monitor(0, [jnp.eye(6)] * 3)
    assert any(layer.conflicting and layer.kind == "branch" for layer in found.audit.layers)
    assert found.scalars["conflicting_layers"] == 0


# What is said


def test_a_conflict_is_said_once_and_again_when_it_was_over(tmp_path, caplog):
    caplog.set_level(logging.INFO, "cbundles.monitor")
    monitor = monitor_in(tmp_path, every=1)
    good, bad = variables(), collapsed(variables())
    for step, params in enumerate((good, good, bad, bad, good, bad, good, good, good, bad, bad)):
        monitor(step, params)
    begin, end, anew = caplog.records
    assert begin.levelno == logging.WARNING and begin.getMessage().startswith(
        "cbundles, step 2: 3 of 4 layers begin to conflict, first Model/relu#2: H = 1.09"
    )
    assert end.levelno == logging.INFO
    assert end.getMessage() == "cbundles, step 7: 3 layers no longer conflict, first Model/relu#2"
    assert anew.levelno == logging.WARNING and anew.getMessage().startswith(
        "cbundles, step 9: 3 of 4 layers conflict again, first Model/relu#2: H = 1.09"
    )
    caplog.clear()
    again = monitor_in(tmp_path)  # what the file has was said
    again(11, bad)
    assert not caplog.messages


def test_a_new_training_in_an_old_folder_is_told_its_own_conflicts(tmp_path, caplog):
    monitor_in(tmp_path)(200, collapsed(variables()))
    caplog.clear()
    monitor_in(tmp_path)(0, collapsed(variables()))
    assert ["comes after" in one or "begin to conflict" in one for one in caplog.messages] == [
        True, True,
    ]  # fmt: skip


def test_training_that_collapses_says_so(tmp_path, caplog):
    """A real loop: with a decay of the weights that is far too strong, all layers collapse."""
    optimizer = optax.adamw(1e-2, weight_decay=30.0)
    params = variables()
    state = optimizer.init(params)

    @jax.jit
    def train_step(params, state):
        def loss(params):
            logits = Model().apply(params, VECTORS)
            return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    monitor = monitor_in(tmp_path, every=10, learning_rate=1e-2)
    for step in range(81):
        monitor(step, params)
        params, state = train_step(params, state)
    conflicts = [event["first_conflict"] for event in events_in(tmp_path)]
    assert conflicts[0] is None and conflicts[-1] is not None
    assert caplog.messages
    named = re.findall(r"Model/relu(?:#\d)?", " ".join(caplog.messages))
    assert len(named) == len(set(named))


def test_divergence_is_said_and_training_goes_on(tmp_path, caplog):
    monitor = monitor_in(tmp_path, every=1)
    for step in range(3):
        monitor(step, with_nan(variables()) if step else variables())
    (said,) = caplog.messages
    assert said == (
        "cbundles, step 1: the weights hold NaN or infinity, in layer3/kernel: neither entropy "
        "nor conflicts mean anything beside it"
    )
    last = events_in(tmp_path)[-1]
    assert last["layers"][-1]["diverged"] and last["layers"][-1]["entropy"] is None
    assert "diverged_layers" in monitor.last.scalars
    for chart in ("bundle_entropy", "conflict_rate", "bundles", "headroom"):
        assert f"{chart}/Model/relu.4" not in monitor.last.scalars


# Mistakes


def test_wrong_input_is_a_sentence(tmp_path, unchecked):
    def refused(model=None, *, inputs=VECTORS, labels=LABELS, step=0, params="init", **how):
        with pytest.raises(ValueError) as error:
            monitor = cbundles.Monitor(
                Model() if model is None else model, inputs, labels, folder=tmp_path, **how
            )
            monitor(step, variables() if params == "init" else params)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "events.jsonl").exists()
        return str(error.value)

    assert "every must be at least 1" in refused(every=0)
    assert "samples must be a whole number" in refused(samples=2.5)
    assert "did you mean 'consumer'" in refused(amplitude="consumr")
    assert "did you mean 'running'" in refused(batch_norm="runing")
    assert "give its largest rate" in refused(learning_rate=lambda step: 1e-3)
    assert "inputs have 60 samples, but there are 59 labels" in refused(labels=LABELS[1:])
    one_hot = np.eye(CLASSES, dtype=int)[LABELS]
    assert "not (60, 1); give labels[:, 0]" in refused(labels=LABELS[:, None])
    assert "one-hot, so give labels.argmax(1)" in refused(labels=one_hot)
    assert "float64; they are one-hot, so give labels.argmax(1)" in refused(labels=one_hot / 1)
    assert "not float64; give labels.astype(int)" in refused(labels=LABELS / 1)
    assert refused(labels=LABELS - 1).endswith("label -1 is outside 0..1")
    assert "inputs hold NaN" in refused(inputs=VECTORS * np.nan)
    assert "step must be a whole number, not 'one'" in refused(step="one")
    assert "step must be a whole number, not 1.5" in refused(step=1.5)
    assert "from 0 on, not -1" in refused(step=-1)
    assert "params is missing" in refused(params=None)
    assert "params is missing" in refused(lambda x: jnp.tanh(x), params=None)
    assert "an nnx module holds its own weights" in refused(Modules(nnx.Rngs(0)))
    assert "no site is 'rleu'" in refused(layers="rleu")
    assert "Nothing could be measured" in refused(lambda params, x: x + 1.0)
    with pytest.raises(ValueError, match="tensorboard=True needs a folder="):
        cbundles.Monitor(Model(), VECTORS, LABELS, folder=None, tensorboard=True)


def test_wrong_arguments_are_refused_when_a_monitor_is_made(tmp_path, unchecked):
    (tmp_path / "file").write_text("")

    def refused(**how):
        with pytest.raises(ValueError) as error:
            cbundles.Monitor(Model(), VECTORS, LABELS, **{"folder": None, **how})
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "folder must be a path or None, not 3" in refused(folder=3)
    assert "cannot be made: a file is in its place" in refused(folder=tmp_path / "file")
    assert "cannot be made: a file is in its place" in refused(folder=tmp_path / "file" / "a")
    assert "cannot be made" in refused(folder="/proc/nothing")
    (tmp_path / "taken" / "events.jsonl").mkdir(parents=True)
    assert "events.jsonl is no file" in refused(folder=tmp_path / "taken")
    assert "layers must be a name, a list of names or None, not 3" in refused(layers=3)
    assert "not [3]" in refused(layers=[3])
    assert "trainable must be a name, a list of names or None, not 3" in refused(trainable=3)
    assert "amplitude = None: must be global, consumer or a number" in refused(amplitude=None)
    assert "on_measure must be a function or None, not 'x'" in refused(on_measure="x")
    assert "call must be a function or None, not 'x'" in refused(call="x")


def test_the_home_of_the_user_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monitor_in("~/runs")(0, variables())
    assert [event["step"] for event in events_in(tmp_path / "runs")] == [0]


def test_a_measurement_that_fails_is_not_tried_in_every_step(tmp_path):
    calls = []

    def broken(params, x):
        calls.append(x)
        raise ValueError("broken")

    monitor, failed = monitor_in(tmp_path, broken, every=10), []
    for step in range(3, 25):
        try:
            monitor(step, variables())
        except ValueError:
            failed.append(step)
    assert failed == [3, 10, 20] and len(calls) >= 3
    assert monitor.last is None


def test_inside_of_jit_it_says_so(tmp_path):
    monitor = monitor_in(tmp_path)

    @jax.jit
    def step_inside(step, params):
        monitor(step, params)
        return params

    @jax.jit
    def params_inside(params):
        monitor(0, params)
        return params

    of_nnx = monitor_in(tmp_path, Modules(nnx.Rngs(0)))

    @nnx.jit
    def module_inside(model):
        of_nnx(0, model)

    with pytest.raises(ValueError, match="called outside of jit"):
        module_inside(Modules(nnx.Rngs(0)))
    with pytest.raises(ValueError, match="called outside of jit"):
        step_inside(0, variables())
    with pytest.raises(ValueError, match="called outside of jit"):
        params_inside(variables())


def test_inside_of_jit_it_says_so_whatever_is_traced(tmp_path):
    """Where no number of the model is an argument of the program, too."""
    params, model = variables(), Modules(nnx.Rngs(0))
    by_params, of_nnx = monitor_in(tmp_path / "a"), monitor_in(tmp_path / "b", model)
    programs = [
        lambda: jax.jit(lambda x: (by_params(0, params), x)[1])(1.0),
        lambda: jax.lax.scan(lambda x, _: (x, by_params(0, params) is None), 1.0, length=2),
        lambda: nnx.jit(lambda x: (of_nnx(0), x)[1])(1.0),
        lambda: nnx.jit(lambda module: (of_nnx(0), module(VECTORS))[1])(model),
    ]
    for program in programs:
        with pytest.raises(ValueError, match="called outside of jit"):
            program()
    assert by_params(0, params) is not None
    for step, program in ((200, programs[0]), (400, programs[1])):  # traced already
        by_params(step, params)
        with pytest.raises(ValueError, match="called outside of jit"):
            program()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"step": 0, "loss": 2.3}\n{"step": 1, "loss": 2.1}\n', 1),
        ('{"step": 0, "loss": 2.3}', 1),
        ('{"step": 1, "layers": [{"name": "a"}]}\n', 1),
        ("something else", 1),
        ("{OURS}something else\n", 2),
        ("{OURS}something else", 2),
        ("[1, 2]\n", 1),
    ],
)
def test_another_file_of_this_name_is_left_alone(text, line, tmp_path):
    path = tmp_path / "events.jsonl"
    if "{OURS}" in text:
        monitor_in(tmp_path)(0, variables())
        text = text.replace("{OURS}", path.read_text())
    path.write_text(text)
    with pytest.raises(ValueError, match=f"events.jsonl, line {line}: it is no event") as error:
        monitor_in(tmp_path)
    assert "give another folder=" in str(error.value)
    assert path.read_text() == text
    assert not (tmp_path / "replaced.jsonl").exists()


@pytest.mark.parametrize("letters", [1, 9, 11, 15, 60])
def test_a_kill_in_the_first_line_leaves_its_beginning(letters, tmp_path):
    monitor_in(tmp_path)(0, variables())
    path = tmp_path / "events.jsonl"
    path.write_bytes(path.read_bytes()[:letters])
    monitor_in(tmp_path)(0, variables())
    assert [event["step"] for event in events_in(tmp_path)] == [0]


# Examples


def test_the_page_names_all_that_a_measurement_has():
    page = (ROOT / "docs" / "monitor.md").read_text()
    named = re.findall(r"^\| `(\w+)(?:\(\))?` \|", page, re.MULTILINE)
    fields = {field.name for field in dataclasses.fields(Measurement)}
    assert set(named) == fields | {name for name in vars(Measurement) if not name.startswith("_")}


class Sent(types.ModuleType):
    """In the place of a library that sends numbers elsewhere: keeps what it was given."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


def test_the_page_of_examples_runs(tmp_path, monkeypatch):
    """Weights & Biases and MLflow are no part of this: modules that keep what they are given show
    that the lines say what they should."""
    monkeypatch.chdir(tmp_path)
    libraries = {name: Sent(name) for name in ("wandb", "mlflow")}
    for name, library in libraries.items():
        monkeypatch.setitem(sys.modules, name, library)
    page = (ROOT / "docs" / "monitor.md").read_text()
    examples = re.findall(r"```py(?:thon)?\n(.*?)```", page, re.DOTALL)
    examples = [example for example in examples if "torch" not in example]  # test_monitor_torch
    assert len(examples) == 5
    names: dict[str, object] = {}
    for example in examples:
        exec(compile(example, "docs/monitor.md", "exec"), names)
        if "on_measure" in example:
            names["monitor"](600, names["params"])
    first = names["monitor"].last.scalars
    (_, (logged,), options) = libraries["wandb"].calls[-1]
    assert logged.keys() == first.keys() and options == {"step": 600}
    assert libraries["mlflow"].calls[-1] == ("log_metrics", (first, 600), {})


def test_the_example_writes_its_events(tmp_path, monkeypatch, capsys):
    path = ROOT / "examples" / "monitor.py"
    assert len(path.read_text().splitlines()) < 60
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    assert "of 20 layers conflict" in capsys.readouterr().out
    steps = [event["step"] for event in events_in(tmp_path / "runs" / "monitor")]
    assert steps == [0, 200, 400, 600, 800, 1000]
