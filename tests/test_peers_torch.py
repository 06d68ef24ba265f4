"""Peers of the bundle entropy of PyTorch modules: each equals a plain NumPy version on values
that are computed by hand, and the module stays as it was."""

from __future__ import annotations

import copy

import numpy as np
import plain_peers
import pytest

import cbundles
from cbundles.auditing import batches

torch = pytest.importorskip("torch", reason="torch is not installed: make test-torch")

from torch_models import CLASSES, IMAGES, SAMPLES, VECTORS, drawn, normal  # noqa: E402

nn = torch.nn


LABELS = (np.arange(SAMPLES) * 7 % CLASSES).astype(np.int64)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Several of them, of which the last overlaps the one before it."""
    monkeypatch.setattr(batches, "AT_ONCE", 16)


class Block(nn.Module):
    """As in torchvision: what works in place overwrites branches and sums."""

    def __init__(self, before, after, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1)
        self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Conv2d(before, after, 1, stride)

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.blocks = nn.Sequential(Block(3, 3), Block(3, 4, stride=2))
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        x = self.blocks(torch.relu(self.stem(x)))
        return {"logits": self.head(self.dropout(x.mean((2, 3))))}


def values_of_resnet(model, x):
    """The values of all sites by hand, and the branches of sums: nothing in place."""
    x = torch.relu(model.stem(x))
    values, branches = {"relu": x}, {}
    for number, block in enumerate(model.blocks):
        identity = x if block.downsample is None else block.downsample(x)
        inner = torch.relu(block.bn1(block.conv1(x)))
        branch = block.bn2(block.conv2(inner))
        x = torch.relu(branch + identity)
        place = f"blocks/{number}"
        values |= {f"{place}/relu/relu": inner, f"{place}/sum": branch + identity}
        values |= {f"{place}/relu/relu#2": x}
        branches[f"{place}/sum"] = branch
    return values, branches


def gradients_of(model, inputs, labels=LABELS):
    """By names of parameters, those of the mean cross-entropy of all samples."""
    model = copy.deepcopy(model).eval().requires_grad_(True)
    output = model(torch.tensor(inputs))
    logits = output["logits"] if isinstance(output, dict) else output
    nn.functional.cross_entropy(logits, torch.tensor(labels)).backward()
    return {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}


def norm_of(gradients, *modules):
    return plain_peers.norm(*(one for name, one in gradients.items() if name.startswith(modules)))


@pytest.mark.parametrize("frozen", [False, True])
def test_in_place_and_projection(frozen):
    model = drawn(ResNet()).requires_grad_(not frozen)  # a module of which nothing wants gradients
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    audit = cbundles.audit(model, IMAGES, LABELS, peers=True, headroom=False)

    with torch.no_grad():
        still = copy.deepcopy(model).eval()
        values, branches = values_of_resnet(still, torch.tensor(IMAGES))
    assert [one.layer for one in audit.peers] == list(values)
    for one, value in zip(audit.peers, values.values(), strict=True):
        branch = branches.get(one.layer)
        branch = None if branch is None else branch.numpy()
        plain_peers.compare(one, value.numpy(), LABELS, branch=branch, states="relu" in one.layer)

    gradients = gradients_of(model, IMAGES)
    first, second = "blocks.0.", "blocks.1."
    expected = [
        norm_of(gradients, "stem"),
        norm_of(gradients, first + "conv1", first + "bn1"),
        norm_of(gradients, first + "conv2", first + "bn2"),
        None,
        norm_of(gradients, second + "conv1", second + "bn1"),
        norm_of(gradients, second + "conv2", second + "bn2", second + "downsample"),
        None,
    ]
    for one, norm in zip(audit.peers, expected, strict=True):
        assert one.gradient_norm == (None if norm is None else pytest.approx(norm, rel=1e-4))

    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(one.grad is None for one in model.parameters())
    assert [one.requires_grad for one in model.parameters()] == [not frozen] * len(gradients)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.mark = nn.Parameter(torch.zeros(6))
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, norm_first=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.head(self.layer(x * self.mark).mean(1))


def test_attention_has_all_its_parameters():
    """Also those of its projection, which the program of calls does not show; and the layer that
    makes the output gives none to others."""
    model = drawn(Transformer())
    inputs = normal(SAMPLES, 4, 6)
    audit = cbundles.audit(model, inputs, LABELS, peers=True, headroom=False)
    gradients = gradients_of(model, inputs)
    norms = {one.layer: one.gradient_norm for one in audit.peers}
    assert norms == {
        "layer/sum": pytest.approx(
            norm_of(gradients, "mark", "layer.self_attn", "layer.norm1"), rel=1e-4
        ),
        "layer/relu": pytest.approx(norm_of(gradients, "layer.linear1", "layer.norm2"), rel=1e-4),
        "layer/sum#2": pytest.approx(norm_of(gradients, "layer.linear2"), rel=1e-4),
    }


class Stopped(nn.Module):
    def __init__(self, end):
        super().__init__()
        self.hidden, self.head = nn.Linear(6, 5), nn.Linear(5, CLASSES)
        self.end = end

    def forward(self, x):
        return self.end(self.head(torch.relu(self.hidden(x))))


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (torch.no_grad()(lambda logits: logits * 2), None),
        (lambda logits: logits.detach(), "the loss has no gradient: RuntimeError: "),
        (lambda logits: logits.argmax(1), "no output of the model can be class scores"),
    ],
)
def test_why_there_is_no_gradient(end, reason):
    model = drawn(Stopped(end))
    (one,) = cbundles.audit(model, VECTORS, LABELS, peers=True, headroom=False).peers
    assert one.effective_rank is not None and one.gradient_norm is None
    assert one.undefined["gradient_norm"].startswith(reason or "the loss has no gradient")


def test_a_diverged_layer():
    model = drawn(Stopped(lambda logits: logits))
    with torch.no_grad():
        model.hidden.bias[0] = float("inf")
    (one,) = cbundles.audit(model, VECTORS, LABELS, peers=True, headroom=False).peers
    assert "diverged" in one.undefined["effective_rank"] and one.batch_entropy is None
