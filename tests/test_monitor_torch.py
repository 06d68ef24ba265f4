"""Monitors in loops of PyTorch: events are what audits say, and the module stays as it was."""

from __future__ import annotations

import json
import re
import runpy
import sys

import numpy as np
import pytest
from conftest import ROOT
from monitored import assert_as_audited, events_in

import cbundles

torch = pytest.importorskip("torch", reason="torch is not installed: make test-torch")

from torch_models import (  # noqa: E402
    CLASSES,
    IMAGES,
    LABELS,
    VECTORS,
    ResNet,
    assert_same,
    drawn,
    state_of,
)

nn = torch.nn
F = nn.functional
RATE = 1e-5  # so low that some samples meet


class Dropping(nn.Module):
    """With layers that behave otherwise in training, and what works in place."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.norm, self.drop = nn.BatchNorm1d(6), nn.Dropout(0.5)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        for layer in self.layers:
            x = F.relu_(self.norm(layer(x)))
        return self.head(self.drop(x))


def train_step(model, optimizer):
    optimizer.zero_grad()
    F.cross_entropy(model(torch.tensor(VECTORS)), torch.tensor(LABELS)).backward()
    optimizer.step()


def test_events_are_what_an_audit_says_and_nothing_else_changes(tmp_path):
    model = drawn(Dropping())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = cbundles.Monitor(
        model, VECTORS, LABELS, every=2, folder=tmp_path, learning_rate=RATE, headroom=True
    )
    for step in range(5):
        before = state_of(model)
        gradients = {
            name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None
        }
        measured = monitor(step)
        assert_same(before, state_of(model))
        for name, gradient in gradients.items():
            assert torch.equal(model.get_parameter(name).grad, gradient)
        assert (measured is None) == (step % 2 == 1)
        if measured is not None:
            audit = cbundles.audit(model, VECTORS, LABELS, learning_rate=RATE)
            assert_as_audited(measured.to_dict(), audit)
        train_step(model, optimizer)
    events = events_in(tmp_path)
    assert [event["step"] for event in events] == [0, 2, 4]
    assert len({json.dumps(event["layers"]) for event in events}) == 3  # the module was trained


def test_training_is_the_same_with_a_monitor(tmp_path):
    numbers = []
    for watched in (False, True):
        torch.manual_seed(0)
        model = drawn(Dropping())
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        monitor = cbundles.Monitor(model, VECTORS, LABELS, every=2, folder=tmp_path)
        for step in range(6):
            if watched:
                monitor(step)
            train_step(model, optimizer)
        numbers.append(model.state_dict())
    for name, tensor in numbers[0].items():
        assert torch.equal(tensor, numbers[1][name]), name


def test_the_calls_are_recorded_once(tmp_path):
    model, batches = drawn(ResNet()), []

    def call(model, batch):
        batches.append(len(batch))
        return model(batch)

    monitor = cbundles.Monitor(model, IMAGES, LABELS, every=1, folder=tmp_path, call=call)
    monitor(0)
    assert batches == [2, 3, len(IMAGES)]
    monitor(1, model)  # which may be named
    assert batches == [2, 3, len(IMAGES), len(IMAGES)]


def test_layers_that_are_frozen_later_are_seen(tmp_path):
    model = drawn(Dropping())
    monitor = cbundles.Monitor(model, VECTORS, LABELS, every=1, folder=tmp_path)
    monitor(0)
    with torch.no_grad():
        model.head.weight[0, 0] = 100.0
    assert monitor(1).audit.amplitude.parameter == "head/weight"
    model.head.requires_grad_(False)
    measured = monitor(2)
    assert measured.audit.amplitude.parameter != "head/weight"
    assert_as_audited(measured.to_dict(), cbundles.audit(model, VECTORS, LABELS, headroom=False))


def test_a_module_that_diverges(tmp_path, caplog):
    model = drawn(Dropping())
    monitor = cbundles.Monitor(model, VECTORS, LABELS, every=1, folder=tmp_path)
    monitor(0)
    with torch.no_grad():
        model.layers[1].weight.fill_(np.nan)
    for step in (1, 2):
        assert monitor(step).scalars["diverged_layers"] > 0
    assert sum("hold NaN or infinity" in message for message in caplog.messages) == 1
    assert [event["step"] for event in events_in(tmp_path)] == [0, 1, 2]


def test_wrong_input_is_a_sentence(tmp_path):
    monitor = cbundles.Monitor(drawn(Dropping()), VECTORS, LABELS, folder=tmp_path)
    with pytest.raises(ValueError, match="a PyTorch module holds its own weights"):
        monitor(0, {"head.weight": 1})
    other = cbundles.Monitor(drawn(Dropping()), VECTORS[:, :5], LABELS, folder=tmp_path)
    with pytest.raises(ValueError, match=r"float32\[2, 5\]|float32\[40, 5\]"):
        other(0)


# Examples


def test_examples_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "monitor.md").read_text()
    first, *others = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (of_torch,) = [example for example in others if "torch" in example]
    names: dict[str, object] = {}
    for example in (first, of_torch):  # the first has the images
        exec(compile(example, "docs/monitor.md", "exec"), names)
    steps = [event["step"] for event in events_in(tmp_path / "runs" / "torch")]
    assert steps == [0, 20, 40]


def test_the_example_writes_its_events(tmp_path, monkeypatch):
    path = ROOT / "examples" / "torch_monitor.py"
    assert len(path.read_text().splitlines()) < 60
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path)])
    train = runpy.run_path(str(path))["train"]
    monitor = train(steps=200)
    (first, last) = events_in(tmp_path / "runs" / "monitor")
    assert first["first_conflict"] == last["first_conflict"] == "14/relu"
    assert monitor.last.step == last["step"] == 200


class Growing(nn.Module):
    """Uses more of its layers later, without another parameter."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.head, self.active = nn.Linear(6, CLASSES), 1

    def forward(self, x):
        for layer in self.layers[: self.active]:
            x = F.relu(layer(x))
        return self.head(x)


def test_a_forward_that_changes_is_seen_anew(tmp_path):
    model = drawn(Growing())
    monitor = cbundles.Monitor(model, VECTORS, LABELS, every=1, folder=tmp_path)
    monitor(0)
    model.active = 3
    monitor(1)
    assert [len(event["layers"]) for event in events_in(tmp_path)] == [1, 3]
