"""Branches of PyTorch modules switched off by an audit, and layers that do not exist in them; what
works in place, and what is left as it was."""

from __future__ import annotations

import collections
import copy
import dataclasses

import lesioned
import numpy as np
import pytest
from lesioned import BruteForce, compare, labels_near, normal

import cbundles
from cbundles.auditing import batches, judge_orders

torch = pytest.importorskip("torch", reason="torch is not installed: make test-torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch_models import (  # noqa: E402
    CLASSES,
    ResNet,
    assert_same,
    drawn,
    encoder,
    state_of,
)

SAMPLES = 40
IMAGES = normal(SAMPLES, 2, 6, 6)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(batches, "AT_ONCE", lesioned.AT_ONCE)


def without(model, x, gone=(), gates=None, seen=None, extra=None):
    """Written out, nothing in place, in the mode in which the normalisations are. gates: of each
    branch; seen: into which values are put; extra: a kernel behind the first activation."""
    x = torch.relu(model.stem(x))
    if extra is not None:
        x = torch.relu(F.conv2d(x, extra, padding=1))
    for number, block in enumerate(model.blocks):
        branch = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
        skip = x if block.downsample is None else block.downsample(x)
        if gates is not None:
            branch = branch * gates[number][:, None, None, None]
        if seen is not None:
            seen.append((branch, skip))
        x = torch.relu(skip + (0 * branch if number in gone else branch))
    return model.fc(x.mean((2, 3)))


@pytest.fixture
def resnet():
    model = drawn(ResNet((2, 0))).eval()
    x = torch.tensor(IMAGES)
    with torch.no_grad():
        labels = labels_near(without(model, x).numpy())
    return model, x, labels


NAMES = [f"blocks/{number}/branch" for number in range(3)]


def brute_force(model, x, labels):
    def forward(gone):
        with torch.no_grad():
            return without(model, x, gone).numpy()

    return BruteForce(forward, labels)


def test_a_resnet_that_works_in_place(resnet):
    model, x, labels = resnet
    model.train()
    model.stem.weight.requires_grad_(False)
    model.fc.bias.grad = torch.ones(CLASSES)
    before = state_of(model)
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    audit = cbundles.audit(model, IMAGES, labels, lesion=True, insert=True)
    assert_same(before, state_of(model))
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert model.fc.bias.grad.eq(1).all() and model.fc.weight.grad is None
    assert all(norm.momentum == 0.1 for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))
    assert compare(audit.lesions, brute_force(model.eval(), x, labels), NAMES) > 5


def test_statistics_are_taken_anew(resnet):
    model, x, labels = resnet
    found = cbundles.audit(model, IMAGES, labels, lesion=True, headroom=False).lesions
    brute = brute_force(model, x, labels)
    for number, one in enumerate(found.branches):
        fresh = copy.deepcopy(model)
        for norm in fresh.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.reset_running_stats()
                norm.momentum = None  # means over batches, as PyTorch itself has them
        fresh.train()
        with torch.no_grad():
            for start in (0, 14, 26):
                without(fresh, x[start : start + 14], (number,))
            logits = without(fresh.eval(), x, (number,))
        right = logits.numpy().argmax(-1) == labels
        assert (one.anew.lost, one.anew.gained) == brute.counts(right)
    assert any(one.anew != one.difference for one in found.branches)


def test_norms_and_first_order_scores(resnet):
    model, x, labels = resnet
    gates, seen = torch.ones(3, SAMPLES, requires_grad=True), []
    logits = without(model, x, gates=gates, seen=seen)
    loss = F.cross_entropy(logits, torch.tensor(labels), reduction="sum")
    (slopes,) = torch.autograd.grad(loss, gates)
    found = cbundles.audit(model, IMAGES, labels, lesion=True, headroom=False).lesions
    for number, one in enumerate(found.branches):
        branch, skip = (value.detach().flatten(1).norm(dim=1) for value in seen[number])
        assert one.scores["norm"] == pytest.approx(float((branch / skip).mean()), rel=1e-4)
        expected = float(slopes[number].abs().mean())
        assert one.scores["first_order"] == pytest.approx(expected, rel=1e-3)


class Scaled(nn.Module):
    """Sums that scale an operand themselves, in every way to call them."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(4)])
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x):
        first, second, third, fourth = self.layers
        x = torch.add(x, torch.tanh(first(x)), alpha=0.5)
        x = x.clone().add_(torch.tanh(second(x)), alpha=0.5).add(1, alpha=0.25)
        x = torch.add(input=x, other=torch.tanh(third(x)), alpha=0.5)
        return self.out(torch.add(torch.tanh(fourth(x)), x, alpha=2))


def test_the_scale_of_a_sum_belongs_to_the_branch():
    model, pairs = drawn(Scaled()), []
    vectors = normal(SAMPLES, 6)
    with torch.no_grad():
        x = torch.tensor(vectors)
        for number, layer in enumerate(model.layers):
            branch = torch.tanh(layer(x)) * (0.5 if number < 3 else 1)
            skip = x if number < 3 else 2 * x
            pairs.append((branch, skip))
            x = skip + branch + (0.25 if number == 1 else 0)
        labels = labels_near(model.out(x).numpy())
    audit = cbundles.audit(model, vectors, labels, lesion=True, peers=True, headroom=False)
    changes = [one.block_change for one in audit.peers if one.block_change is not None]
    for one, change, (branch, skip) in zip(audit.lesions.branches, changes, pairs, strict=True):
        norms = branch.norm(dim=1) / skip.norm(dim=1)
        assert one.scores["norm"] == pytest.approx(float(norms.mean()), rel=1e-4)
        turned = 1 - F.cosine_similarity(skip, skip + branch)
        assert change == pytest.approx(float(turned.mean()), rel=1e-3)


def test_sensitivities_are_those_of_an_inserted_layer(resnet):
    model, x, labels = resnet
    kernel = torch.zeros(4, 4, 3, 3)
    kernel[range(4), range(4), 1, 1] = 1
    kernel.requires_grad_(True)
    logits = without(model, x, extra=kernel)
    loss = F.cross_entropy(logits, torch.tensor(labels))
    head = model.fc.weight
    by_kernel, by_head = torch.autograd.grad(loss, [kernel, head])
    audit = cbundles.audit(model, IMAGES, labels, insert=True, headroom=False)
    found = {one.name: one for one in audit.insertions.places}
    assert len(found) == 7
    assert found["relu"].shape == (3, 3, 4, 4)
    assert found["relu"].sensitivity == pytest.approx(float(by_kernel.square().sum()), rel=1e-4)
    existing = {one.name: one.sensitivity for one in audit.insertions.existing}
    assert existing["fc/weight"] == pytest.approx(float(by_head.square().sum()), rel=1e-4)


def test_a_transformer_encoder():
    """Both branches of each layer, also behind attention that is one step."""
    model = nn.Sequential(encoder(batch_first=True), nn.Flatten(), nn.LazyLinear(CLASSES)).eval()
    x = normal(SAMPLES, 5, 8)
    model(torch.tensor(x))
    drawn(model)
    layers = list(model[0].layers)

    def forward(gone):
        with torch.no_grad():
            h = torch.tensor(x)
            for number, layer in enumerate(layers):
                for half in range(2):
                    norm = layer.norm2 if half else layer.norm1
                    if 2 * number + half not in gone:
                        h = h + (layer._ff_block(h) if half else layer._sa_block(h, None, None))
                    h = norm(h)
            return model[2](h.flatten(1)).numpy()

    labels = labels_near(forward(frozenset()))
    found = cbundles.audit(model, x, labels, lesion=True, headroom=False).lesions
    names = [one.name for one in found.branches]
    assert len(names) == 2 * len(layers)
    assert compare(found, BruteForce(forward, labels), names) > 5
    assert found.no_anew == "the model has no batch normalisation"


class OfViews(nn.Module):
    """A branch that is a view of what is used elsewhere, and lies in a tuple."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(6, 12), nn.Linear(12, CLASSES)

    def forward(self, x, gone=False):
        both = torch.tanh(self.inner(x))
        branch, other = both.chunk(2, dim=1)
        if gone:
            branch = torch.zeros_like(branch)
        return self.head(torch.cat([x + branch, both[:, :6] * other], 1))


def test_a_branch_that_is_a_view_leaves_the_rest_as_it_is():
    model = drawn(OfViews()).eval()
    x = torch.tensor(normal(SAMPLES, 6))

    def forward(gone):
        with torch.no_grad():
            return model(x, gone=bool(gone)).numpy()

    labels = labels_near(forward(()))
    found = cbundles.audit(model, x, labels, lesion=True, headroom=False).lesions
    assert compare(found, BruteForce(forward, labels), ["branch"]) > 0


def test_channels_that_a_matrix_reads_come_last():
    """A ConvNeXt moves them behind the pixels, and back."""

    class Next(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(2, 3, 3)
            self.wider, self.narrower = nn.Linear(3, 5), nn.Linear(5, 3)
            self.head = nn.Linear(3, CLASSES)

        def forward(self, x, kernel=None):
            x = self.stem(x)
            h = F.gelu(self.wider(x.permute(0, 2, 3, 1)))
            if kernel is not None:
                h = h + torch.tanh(F.conv2d(h.permute(0, 3, 1, 2), kernel, padding=1)).permute(
                    0, 2, 3, 1
                )
            x = torch.relu(x + self.narrower(h).permute(0, 3, 1, 2))
            return self.head(x.mean((2, 3)))

    model, labels = drawn(Next()).eval(), np.arange(SAMPLES) % CLASSES
    kernel = torch.zeros(5, 5, 3, 3, requires_grad=True)
    loss = F.cross_entropy(model(torch.tensor(IMAGES), kernel), torch.tensor(labels))
    (slope,) = torch.autograd.grad(loss, kernel)
    audit = cbundles.audit(model, IMAGES, labels, insert=True, headroom=False)
    found = {one.name: one for one in audit.insertions.places}
    assert {name: one.shape for name, one in found.items()} == {
        "gelu": (3, 3, 5, 5),
        "relu": (3, 3, 3, 3),
    }
    assert found["gelu"].sensitivity == pytest.approx(float(slope.square().sum()), rel=1e-4)


def test_a_layer_under_a_convolution_along_one_axis_is_left_out():
    model = nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Conv1d(3, 4, 3), nn.Flatten(), nn.LazyLinear(CLASSES)
    )
    x = normal(SAMPLES, 2, 9)
    model(torch.tensor(x))
    audit = cbundles.audit(model, x, np.arange(SAMPLES) % CLASSES, insert=True, headroom=False)
    (one,) = audit.insertions.skipped
    assert one.name == "1/relu" and one.reason.startswith("a convolution along one axis reads it")


def test_outputs_that_are_no_class_scores():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(6, 6), nn.Linear(6, CLASSES)

        def forward(self, x):
            h = x + torch.tanh(self.inner(x))
            return h, self.head(h)

    model, x, labels = Two(), normal(SAMPLES, 6), np.arange(SAMPLES) % CLASSES
    with pytest.raises(ValueError, match="no output of the model can be class scores"):
        cbundles.audit(model, x, labels, lesion=True, output=0, num_classes=7, headroom=False)
    found = [
        cbundles.audit(model, x, labels, lesion=True, output=output, headroom=False).lesions
        for output in (1, None)  # the features are more than there are classes
    ]
    assert len(found[0].branches) == 1 and found[0].to_dict() == found[1].to_dict()


def test_orders_are_judged_with_statistics_of_other_samples(resnet):
    model, x, labels = resnet
    others = normal(16, 2, 6, 6, seed=3)  # one batch
    before = state_of(model)
    judged = judge_orders(model, {"one": NAMES[1:2]}, IMAGES, labels, recalibrate=others)
    assert_same(before, state_of(model))
    fresh = copy.deepcopy(model)
    for norm in fresh.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        without(fresh.train(), torch.tensor(others), (1,))
        right = without(fresh.eval(), x, (1,)).numpy().argmax(-1) == labels
    brute = brute_force(model, x, labels)
    (as_it_is,) = judged.curves["one"].differences
    (anew,) = judged.curves_anew["one"].differences
    assert (as_it_is.lost, as_it_is.gained) == brute.counts(brute.right_without((1,)))
    assert (anew.lost, anew.gained) == brute.counts(right)


class Answer(collections.OrderedDict):
    """As some libraries return it: JAX takes it for a leaf."""


@dataclasses.dataclass
class Scored:
    logits: torch.Tensor
    features: torch.Tensor


def test_outputs_with_names():
    class Named(nn.Module):
        def __init__(self, made):
            super().__init__()
            self.inner, self.head, self.made = nn.Linear(6, 6), nn.Linear(6, CLASSES), made

        def forward(self, x):
            h = x + torch.tanh(self.inner(x))
            return self.made(logits=self.head(h), features=h)

    x, labels = normal(SAMPLES, 6), np.arange(SAMPLES) % CLASSES
    found = [
        cbundles.audit(drawn(Named(made)), x, labels, lesion=True, output=output, headroom=False)
        for made in (Answer, Scored)
        for output in (None, "logits")
    ]
    assert all(one.lesions.to_dict() == found[0].lesions.to_dict() for one in found[1:])
