"""Residual blocks removed from PyTorch modules: what is left equals the module whose branches have
been made zero, needs less, and the module itself stays as it was."""

from __future__ import annotations

import copy
import csv
import json
import re
import runpy
import sys

import numpy as np
import pytest
from conftest import ROOT

import cbundles

torch = pytest.importorskip("torch", reason="torch is not installed: make test-torch")

from torch_models import (  # noqa: E402
    CLASSES,
    IMAGES,
    LABELS,
    SAMPLES,
    VECTORS,
    Block,
    ResNet,
    assert_same,
    drawn,
    encoder,
    normal,
    state_of,
)

nn = torch.nn
F = nn.functional
TEXTS = normal(SAMPLES, 5, 8)


def with_zeros(model, names):
    """A copy in evaluation in which these parameters are zero."""
    zeroed = copy.deepcopy(model).eval()
    with torch.no_grad():
        for name in names:
            zeroed.get_parameter(name).zero_()
    return zeroed


def outputs_of(model, inputs):
    """Those of a module, which are not all alike."""
    with torch.no_grad():
        output = model(torch.tensor(inputs))
    output = output["logits"] if isinstance(output, dict) else output
    assert output.std() > 1e-3
    return output


def assert_equal_to_zeros(removed, model, zeros, inputs):
    """Of all batch sizes, also of one sample."""
    zeroed = with_zeros(model, zeros)
    for size in (1, 2, SAMPLES):
        expected = outputs_of(zeroed, inputs[:size])
        found = removed(inputs[:size])
        found = found["logits"] if isinstance(found, dict) else found
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(outputs_of(removed.model, inputs), expected, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(outputs_of(copy.deepcopy(model).eval(), inputs), expected, rtol=1e-2)


# Residual networks


def last_norm(*blocks):
    return [f"blocks.{block}.bn2.{name}" for block in blocks for name in ("weight", "bias")]


def test_blocks_of_a_resnet_in_place():
    """A strided one with a projection among them."""
    model = drawn(ResNet((2, 1))).train()
    state, images = state_of(model), IMAGES.copy()
    removed = cbundles.remove(model, ["blocks/1/branch", "blocks/2/branch"], inputs=images)
    assert_same(state, state_of(model))
    np.testing.assert_array_equal(images, IMAGES)
    assert_equal_to_zeros(removed, model, last_norm(1, 2), IMAGES)
    assert removed.blocks == ("blocks/1/sum", "blocks/2/sum")
    assert removed.report.gone == removed_names(model, removed)
    assert "blocks.2.downsample.0.weight" in removed.params
    assert "blocks.2.conv1.weight" in removed.report.gone


def removed_names(model, removed):
    names = [*dict(model.named_parameters()), *dict(model.named_buffers())]
    wanted = [name for name in names if not name.endswith("num_batches_tracked")]
    return tuple(name for name in wanted if name not in removed.params)


def test_names_are_those_of_an_audit():
    model = drawn(ResNet((2, 1)))
    audit = cbundles.audit(model, IMAGES, LABELS, layers=["sum", "branch"], headroom=False)
    names = [layer.name for layer in audit.layers]
    assert names == [f"blocks/{n}/{kind}" for n in range(4) for kind in ("branch", "sum")]
    for name in names[4:6]:
        assert cbundles.remove(model, name, inputs=IMAGES).blocks == ("blocks/2/sum",)
    assert cbundles.remove(model, [2, "blocks/[03]/*"], inputs=IMAGES).blocks == (
        "blocks/0/sum",
        "blocks/1/sum",
        "blocks/3/sum",
    )


def test_the_smaller_module_is_a_module_of_its_own():
    model = drawn(ResNet((2, 1)))
    removed = cbundles.remove(model, "blocks/[13]/branch", inputs=torch.tensor(IMAGES))
    small = removed.model
    assert isinstance(small, nn.Module) and removed.params.keys() <= model.state_dict().keys()
    own = {tensor.data_ptr() for tensor in small.state_dict().values()}
    assert own.isdisjoint(tensor.data_ptr() for tensor in model.state_dict().values())
    before = model.fc.weight.clone()
    optimizer = torch.optim.SGD(small.parameters(), 0.1)
    small.train()
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = F.cross_entropy(small(torch.tensor(IMAGES)), torch.tensor(LABELS))
        loss.backward()
        assert all(one.grad is not None for one in small.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.01
    assert torch.equal(model.fc.weight, before)
    assert set(removed.trainable) == set(dict(small.named_parameters()))
    assert "can be trained further; statistics of batch normalisations" in removed.report.training


@pytest.mark.parametrize("which", [[2, 3], [1], [4]])
def test_gradients_are_those_of_the_module_with_zeros(which):
    """Although sums and ReLUs work in place, and twice in a row."""
    model = drawn(ResNet((2, 1)))
    removed = cbundles.remove(model, which, inputs=IMAGES)
    zeroed = with_zeros(model, last_norm(*(number - 1 for number in which)))
    images, labels = torch.tensor(IMAGES), torch.tensor(LABELS)
    for _ in range(2):
        for one in (removed.model, zeroed):
            one.zero_grad()
            F.cross_entropy(one(images), labels).backward()
        for name, parameter in removed.params.items():
            if parameter.requires_grad:
                expected = zeroed.get_parameter(name).grad
                assert expected.abs().max() > 0
                torch.testing.assert_close(parameter.grad, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(images, torch.tensor(IMAGES))
    targets = [str(node.target) for node in removed.model.graph.nodes]
    assert "aten.relu_.default" in targets and "aten.add_.Tensor" in targets


def test_what_wants_no_gradient_still_wants_none():
    model = drawn(ResNet((2, 1)))
    model.stem.requires_grad_(False)
    removed = cbundles.remove(model, [1], inputs=IMAGES)
    assert not removed.params["stem.weight"].requires_grad
    assert "stem.weight" not in removed.trainable and "fc.weight" in removed.trainable
    model.requires_grad_(False)
    frozen = cbundles.remove(model, [1], inputs=IMAGES)
    assert frozen.trainable == () and "None of its parameters" in frozen.report.training


def test_what_is_not_to_be_trained_wants_no_gradient():
    removed = cbundles.remove(drawn(ResNet((2, 1))), [1], inputs=IMAGES, trainable="fc/*")
    assert removed.trainable == ("fc.weight", "fc.bias")


def test_an_exported_file_has_the_same_bits(tmp_path):
    removed = cbundles.remove(drawn(ResNet((2, 1))), [2, 3], inputs=IMAGES)
    with torch.no_grad():
        removed.params["fc.bias"].add_(1)  # as training might
    path, batch = removed.export(tmp_path / "new" / "small.pt2")
    assert batch is None
    loaded = torch.export.load(path).module()
    for size in (1, 2, 7, SAMPLES):
        with torch.no_grad():
            assert torch.equal(loaded(torch.tensor(IMAGES[:size])), removed(IMAGES[:size]))
    with pytest.raises(ValueError, match=r"the name must end with \.pt2"):
        removed.export(tmp_path / "small.onnx")


# What it costs


def test_what_it_costs_before_and_after():
    model = ResNet((4, 3), filters=16)
    images, half = normal(32, 2, 16, 16), "blocks/[12356]/branch"
    report = cbundles.remove(model, half, inputs=images).report
    # 3 x 3 convolutions of 16 filters at 16 x 16 pixels, and of 32 at 8 x 8, cost the same.
    conv = 2 * 9 * 16 * 16 * 16 * 16
    ends = 2 * 9 * 2 * 16 * 16 * 16 + 2 * 32 * CLASSES
    strided = conv / 2 + conv + 2 * 16 * 32 * 8 * 8
    assert report.before.flops == 32 * (ends + 7 * 2 * conv + strided)
    assert report.before.flops - report.after.flops == 32 * 5 * 2 * conv
    floats = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    assert report.before.parameters == sum(tensor.numel() for tensor in floats)
    gone = [model.state_dict()[name].numel() for name in report.gone]
    assert report.before.parameters - report.after.parameters == sum(gone) > 0
    assert report.before.bytes == 4 * report.before.parameters
    assert report.after.seconds < 0.8 * report.before.seconds
    assert report.batch == 32 and report.accuracy is None
    text = str(report)
    assert "GFLOPs a batch" in text and "Went: blocks/1/sum, blocks/2/sum" in text
    json.dumps(report.to_dict())


def test_accuracy_and_statistics_taken_anew():
    model = drawn(ResNet((2, 1))).eval()
    removed = cbundles.remove(model, [2, 3], inputs=IMAGES, labels=LABELS, recalibrate=True)
    report = removed.report
    zeroed = with_zeros(model, last_norm(1, 2))
    for count, one in ((report.before.correct, model), (report.after.correct, zeroed)):
        assert count == int((outputs_of(one, IMAGES).argmax(1).numpy() == LABELS).sum())
    assert report.accuracy == (report.before.correct / SAMPLES, report.after.correct / SAMPLES)

    # As PyTorch itself takes them, in a training that changes nothing else.
    for module in zeroed.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train().reset_running_stats()
            module.momentum = None
    outputs_of(zeroed, IMAGES)
    zeroed.eval()
    expected = outputs_of(zeroed, IMAGES)
    torch.testing.assert_close(removed(IMAGES), expected, rtol=1e-5, atol=1e-5)
    mean = removed.params["blocks.0.bn1.running_mean"]
    torch.testing.assert_close(mean, zeroed.blocks[0].bn1.running_mean, rtol=1e-5, atol=1e-6)
    right = int((expected.argmax(1).numpy() == LABELS).sum())
    assert report.recalibrated == right and "statistics anew" in str(report)


def test_statistics_of_other_inputs():
    model = drawn(ResNet((2, 1)))
    others = 3 * normal(300, 2, 8, 8, seed=2) + 1  # two batches
    removed = cbundles.remove(model, [1], inputs=IMAGES, recalibrate=others)
    stem = F.relu(model.stem(torch.tensor(others)))
    normalised = F.conv2d(F.relu(stem), model.blocks[1].conv1.weight, padding=1)
    mean = removed.params["blocks.1.bn1.running_mean"]
    torch.testing.assert_close(mean, normalised.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert removed.report.recalibrated is None


def test_inputs_in_another_order_of_memory():
    model = drawn(nn.Sequential(Block(2, 2), nn.Flatten(), nn.Linear(128, CLASSES)))
    removed = cbundles.remove(model, 1, inputs=IMAGES)
    channels_last = torch.tensor(IMAGES).to(memory_format=torch.channels_last)
    torch.testing.assert_close(removed.model(channels_last), removed(IMAGES))


# Transformers, functions and operators


@pytest.mark.parametrize("norm_first", [True, False])
def test_blocks_of_a_transformer(norm_first, tmp_path):
    """Attention in one layer and what follows it in the other."""
    model = encoder(batch_first=True, norm_first=norm_first)
    names = ["layers/0/branch", "layers/1/branch#2"]
    removed = cbundles.remove(model, names, inputs=TEXTS)
    assert removed.blocks == ("layers/0/sum", "layers/1/sum#2")
    zeros = ["layers.0.self_attn.out_proj", "layers.1.linear2"]
    zeros = [f"{name}.{kind}" for name in zeros for kind in ("weight", "bias")]
    assert_equal_to_zeros(removed, model, zeros, TEXTS)
    gone = {name.rpartition(".")[0] for name in removed.report.gone}
    assert {"layers.0.self_attn", "layers.1.linear1", "layers.1.linear2"} <= gone
    path, _ = removed.export(tmp_path / "small.pt2")
    with torch.no_grad():
        loaded = torch.export.load(path).module()(torch.tensor(TEXTS[:3]))
    assert torch.equal(loaded, removed(TEXTS[:3]))


def test_samples_along_the_second_axis():
    model = encoder()

    def call(model, batch):
        return model(batch["texts"].transpose(0, 1)).mean(0)

    removed = cbundles.remove(model, "layers/0/*", inputs={"texts": TEXTS}, call=call)
    zeroed = with_zeros(
        model,
        [
            f"layers.0.{name}.{kind}"
            for name in ("self_attn.out_proj", "linear2")
            for kind in ("weight", "bias")
        ],
    )
    for size in (1, 4):
        with torch.no_grad():
            expected = call(zeroed, {"texts": torch.tensor(TEXTS[:size])})
        found = removed({"texts": TEXTS[:size]})
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


class Functional(nn.Module):
    """Sums of functions: in place on the skip, scaled, of another dtype, and into a tensor."""

    def __init__(self):
        super().__init__()
        layers = (nn.Linear(6, 6) for _ in range(5))
        self.first, self.second, self.third, self.fourth, self.stem = layers
        self.fifth, self.out = nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x):
        h = torch.relu(self.stem(x))
        h.add_(self.first(torch.tanh(h)))  # nothing is done with what it returns
        h = torch.add(self.second(torch.relu(h)), h, alpha=0.5)
        h = h + self.third(torch.relu(h)).double()
        h = torch.add(h.float(), other=self.fourth(torch.relu(h.float())), alpha=2)
        total = torch.empty_like(h)
        torch.add(h, self.fifth(torch.sigmoid(h)), out=total)
        return {"logits": self.out(total), "more": [total + 1]}


@pytest.mark.parametrize("which", range(5))
def test_sums_of_functions(which):
    model = drawn(Functional())
    removed = cbundles.remove(model, [which + 1], inputs=VECTORS)
    layer = ("first", "second", "third", "fourth", "fifth")[which]
    assert_equal_to_zeros(removed, model, [f"{layer}.weight", f"{layer}.bias"], VECTORS)
    assert [name.partition(".")[0] for name in removed.report.gone] == [layer, layer]
    assert removed.trainable and removed(VECTORS)["more"][0].shape == (SAMPLES, 6)


def test_what_is_left_can_be_audited_and_made_smaller_again():
    torch.manual_seed(0)
    model = ResNet().eval()
    names = [
        branch.name
        for branch in cbundles.audit(model, IMAGES, LABELS, lesion=True).lesions.branches
    ]
    both = cbundles.remove(model, names[:2], inputs=IMAGES)
    once = cbundles.remove(model, names[:1], inputs=IMAGES)
    audit = cbundles.audit(once.model, IMAGES, LABELS, lesion=True)
    assert audit.layers and len(audit.lesions.branches) == len(names) - 1
    twice = cbundles.remove(once.model, [audit.lesions.branches[0].name], inputs=IMAGES)
    np.testing.assert_allclose(
        outputs_of(twice.model, IMAGES), outputs_of(both.model, IMAGES), atol=1e-6
    )


class WritesToItsInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = x.sub_(0.5).div_(2.0)
        return self.head(x + F.relu(self.inner(x)))


class UnderTwoNames(nn.Module):
    def __init__(self):
        super().__init__()
        block = nn.Linear(6, 6)
        self.blocks = nn.ModuleList([block, nn.Linear(6, 6), block])
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        for block in self.blocks:
            x = x + F.relu(block(x))
        return self.head(x)


@pytest.mark.parametrize("kind", [WritesToItsInput, UnderTwoNames])
def test_modules_that_share_layers_or_write_to_their_input(kind):
    torch.manual_seed(0)
    model, vectors = kind().eval(), normal(SAMPLES, 6)
    name = cbundles.audit(model, vectors, LABELS, lesion=True).lesions.branches[0].name
    removed = cbundles.remove(model, [name], inputs=vectors)
    assert outputs_of(removed.model, vectors).shape == (SAMPLES, 3)


def test_a_module_that_is_used_twice():
    """It stays as long as it is needed somewhere."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.out = nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, CLASSES)

        def forward(self, x):
            x = x + self.inner(x)
            return self.out(x + self.inner(x))

    model = drawn(Twice())
    removed = cbundles.remove(model, "sum#2", inputs=VECTORS)
    assert removed.report.gone == ()
    with torch.no_grad():
        x = torch.tensor(VECTORS)
        assert torch.equal(removed(VECTORS), model.out(x + model.inner(x)))
    assert cbundles.remove(model, "*", inputs=VECTORS).report.gone == (
        "inner.0.weight",
        "inner.0.bias",
    )


def test_tied_weights_are_gone_only_with_the_last_layer_that_has_them():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.out = (nn.Linear(6, size) for size in (6, 6, CLASSES))
            self.second.weight = self.first.weight

        def forward(self, x):
            x = x + torch.tanh(self.first(x))
            return self.out(x + torch.tanh(self.second(x)))

    model = drawn(Tied())
    removed = cbundles.remove(model, 1, inputs=VECTORS)
    assert removed.report.gone == ("first.bias",)
    assert set(removed.params) == {"first.weight", "second.bias", "out.weight", "out.bias"}
    assert cbundles.remove(model, "*", inputs=VECTORS).report.gone == (
        "first.weight",
        "first.bias",
        "second.bias",
    )


class Residual(nn.Module):
    """wrapped: what it returns, made of its scores."""

    def __init__(self, wrapped):
        super().__init__()
        self.inner, self.out, self.wrapped = nn.Linear(6, 6), nn.Linear(6, CLASSES), wrapped

    def forward(self, x):
        return self.wrapped(self.out(x + torch.tanh(self.inner(x))))


def test_nan_is_equal_to_nan_alone():
    def nan_when_written_down(scores):
        is_written_down = isinstance(scores, torch._subclasses.FakeTensor)
        return scores * torch.nan if is_written_down else scores

    with pytest.raises(ValueError, match="differs by inf"):
        cbundles.remove(drawn(Residual(nan_when_written_down)), 1, inputs=VECTORS)
    diverged = cbundles.remove(
        drawn(Residual(lambda scores: scores * torch.nan)), 1, inputs=VECTORS
    )
    assert torch.isnan(diverged(VECTORS)).all()


def test_outputs_that_are_no_real_numbers():
    removed = cbundles.remove(drawn(Residual(lambda scores: scores > 0)), 1, inputs=VECTORS)
    assert removed(VECTORS).dtype == torch.bool


def test_checks_of_tensors_keep_no_branch_alive():
    class Cast(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.inner = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            x = self.stem(x)
            return x + self.inner(torch.relu(x.double()).float()).to(torch.float32)

    model = drawn(Cast())
    removed = cbundles.remove(model, [1], inputs=VECTORS)
    assert removed.report.gone == ("inner.weight", "inner.bias")


@pytest.mark.filterwarnings("ignore")  # of PyTorch, while it compiles
def test_a_compiled_module_is_taken_as_it_was_before():
    model = drawn(ResNet((2, 1)))
    partly = copy.deepcopy(model)
    try:
        partly.blocks[1] = torch.compile(partly.blocks[1], backend="eager")
        partly(torch.tensor(IMAGES))
    except RuntimeError as error:
        pytest.skip(f"nothing can be compiled here: {error}")
    partly.load_state_dict(dict(zip(partly.state_dict(), model.state_dict().values(), strict=True)))
    for one in (torch.compile(model, backend="eager"), partly):
        removed = cbundles.remove(one, ["blocks/0/branch"], inputs=IMAGES)
        assert_equal_to_zeros(removed, model, last_norm(0), IMAGES)
        assert "blocks.1.conv1.weight" in removed.params
        assert all(name.startswith("blocks.0.") for name in removed.report.gone)


# What cannot be removed


class NeededElsewhere(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.inner = nn.LSTM(6, 6, batch_first=True), nn.Linear(6, 6)

    def forward(self, x):
        x = self.lstm(x[:, None])[0][:, 0]
        branch = self.inner(torch.relu(x))
        return x + branch, torch.sigmoid(branch)


class Undecided(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x):
        x = x + self.inner(torch.relu(x))
        return x if float(x.sum()) > 0 else x - 1


def refused(model, blocks, inputs=VECTORS, **wrong):
    with pytest.raises(ValueError) as error:
        cbundles.remove(model, blocks, inputs=inputs, **wrong)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_be_removed_is_said_by_name():
    elsewhere = NeededElsewhere()
    assert refused(elsewhere, [1]) == (
        "sum cannot be removed: its branch is also needed by sigmoid"
    )
    answer = refused(elsewhere, "lstm/lstm")
    assert "lstm/lstm cannot be removed: it is inside lstm, which PyTorch computes as a" in answer
    model = drawn(ResNet((2, 1)))
    answer = refused(model, "fc/linear", IMAGES)
    assert "fc/linear is of kind linear, no residual sum" in answer
    answer = refused(model, "blocks/1/brnch", IMAGES)
    assert "no residual sum is 'blocks/1/brnch': did you mean 'blocks/1/branch'?" in answer
    assert "blocks: 5 is not a number from 1 to 4" in refused(model, [5], IMAGES)
    assert "blocks is empty" in refused(model, [], IMAGES)
    assert "no residual sums" in refused(nn.Linear(6, 6), [1])
    answer = refused(Undecided(), [1])
    assert answer.startswith("torch.export cannot write this module down: ")


def test_wrong_input_is_a_sentence():
    model, without_statistics = drawn(ResNet((2, 1))), drawn(Functional())
    state = state_of(model)
    assert "the model cannot be called with a batch of" in refused(model, [1], IMAGES[:, :1])
    assert "inputs: 2 samples; at least 3" in refused(model, [1], IMAGES[:2])
    assert "inputs have 40 samples, but there are 39 labels" in refused(
        model, [1], IMAGES, labels=LABELS[1:]
    )
    assert "holds its own weights" in refused(model, [1], IMAGES, params={})
    assert "no batch normalisation" in refused(without_statistics, [1], recalibrate=True)
    answer = refused(model, [1], IMAGES, labels=LABELS, call=lambda model, x: model(x).sum())
    assert "no output of the model can be class scores (batch, classes)" in answer
    assert_same(state, state_of(model))


# Examples and the command line


def test_the_example_says_what_changes(tmp_path, monkeypatch, capsys):
    path = ROOT / "examples" / "torch_resnet.py"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), "--remove", "3"])
    runpy.run_path(str(path), run_name="__main__")
    text = capsys.readouterr().out
    for line in ("ms a batch", "MB", "accuracy", "statistics anew"):
        assert f"\n{line}" in text or f"\n  {line}" in text
    assert re.search(r"Went: blocks/\d/sum, blocks/\d/sum, blocks/\d/sum\.", text)
    loaded = torch.export.load(tmp_path / "torch_resnet.pt2").module()
    assert loaded(torch.zeros(5, 1, 28, 28)).shape == (5, 10)


def test_examples_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "remove.md").read_text()
    first, *others = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (of_torch,) = [example for example in others if "torch" in example]
    names: dict[str, object] = {}
    for example in (first, of_torch):  # the first has the images
        exec(compile(example, "docs/remove.md", "exec"), names)


MODEL = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, collapsed):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        if collapsed:
            nn.init.zeros_(self.norm.weight)

    def forward(self, x):
        return x + self.norm(self.conv(torch.relu(x)))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 4, 7, 7), nn.Linear(64, 10)
        self.blocks = nn.Sequential(*(Block(number == 2) for number in range(3)))

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).flatten(1))


def build():
    torch.manual_seed(0)
    return Model()


def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


class Single(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(784, 10)

    def forward(self, x):
        return self.head((x + self.conv(torch.relu(x))).flatten(1))
"""


@pytest.fixture
def my_model(tmp_path, monkeypatch):
    """A module in the current folder of `cli`."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_torch_model.py").write_text(MODEL)
    yield "my_torch_model:build"
    sys.modules.pop("my_torch_model", None)


def test_prune_writes_a_model_and_a_table(cli, my_model, tmp_path):
    done = cli("prune", my_model, "--dataset", "mnist_mini", "--samples", "300",
               "--blocks", "blocks/0/branch, 2", "--recalibrate", "--out", "small",
               "--device", "cpu")  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == my_model and lines[-2:] == [
        "model    small/model.pt2",
        "table    small/pruned.csv",
    ]
    assert "Went: blocks/0/sum, blocks/1/sum." in done.stdout
    with (tmp_path / "small" / "pruned.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["blocks"] == "blocks/0/sum blocks/1/sum" and row["removed"] == "2"
    for key in ("parameters", "bytes", "flops"):
        assert float(row[f"{key}_pruned"]) < float(row[key])
    assert float(row["accuracy_recalibrated"]) > 0
    loaded = torch.export.load(tmp_path / "small" / "model.pt2").module()
    assert loaded(torch.zeros(5, 1, 28, 28)).shape == (5, 10)


def test_prune_by_a_ranking(cli, my_model):
    wanted = ["--dataset", "mnist_mini", "--samples", "200"]
    done = cli("prune", my_model, *wanted, "--blocks", "greedy:2", "--out", "small", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["removed"] == 2
    done = cli("audit", my_model, *wanted, "--lesion", "--json")
    assert done.returncode == 0, done.stderr


def test_prune_takes_conflicting_branches_by_default(cli, my_model):
    wanted = ["--dataset", "mnist_mini", "--samples", "200"]
    done = cli("prune", my_model, *wanted, "--out", "small", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["blocks"] == "blocks/2/sum" and row["accuracy"] == row["accuracy_pruned"]
    done = cli("prune", "my_torch_model:Single", *wanted, "--out", "none")
    assert done.returncode == 0
    assert done.stdout.startswith(
        "my_torch_model:Single: no residual branch conflicts, so none is removed (judged at a "
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--dataset is missing"),
        (["--dataset", "mnist_mni"], "did you mean 'mnist_mini'"),
        (["--dataset", "mnist_mini", "--blocks", "blocks/7/branch"], "did you mean 'blocks/"),
        (["--dataset", "mnist_mini", "--blocks", "4"], "4 is not a number from 1 to 3"),
        (["--dataset", "mnist_mini", "--blocks", "greedy:4"], "the model has 1 to 3 blocks"),
        (["--dataset", "mnist_mini", "--blocks", "greedy"], "say how many, such as greedy:3"),
        (["--dataset", "mnist_mini", "--blocks", "gredy:1"], "did you mean 'greedy'"),
        (["--dataset", "mnist_mini", "--plan"], "leave out --plan"),
        (["--dataset", "mnist_mini", "--epochs", "1"], "leave out --epochs"),
    ],
)
def test_mistakes_on_the_command_line(cli, my_model, arguments, message):
    done = cli("prune", my_model, "--out", "small", "--samples", "50", *arguments)
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.count("\n") == 1


def test_prune_of_what_is_no_residual_model(cli, my_model):
    known = ["--dataset", "mnist_mini", "--samples", "50"]
    done = cli("prune", "my_torch_model:plain", *known, "--out", "small")
    assert done.returncode == 2 and "this model has no residual branches" in done.stderr
    done = cli("prune", "my_torch_model:buidl", *known, "--out", "small")
    assert done.returncode == 2 and "prune my_torch_model:buidl" in done.stderr
    assert "did you mean 'build'" in done.stderr
    done = cli("prune", my_model, *known)
    assert done.returncode == 2 and "--out is missing" in done.stderr
    done = cli("prune", "nowhere", "--dataset", "mnist_mini")
    expected = "prune nowhere: neither the folder of a run nor PACKAGE.MODULE:FUNCTION"
    assert done.returncode == 2 and expected in done.stderr
