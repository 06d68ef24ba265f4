"""Auto-tuning of a module of PyTorch, in a training loop of its own."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: make test-torch")

import cbundles  # noqa: E402
from cbundles.decisions.autotune import prune  # noqa: E402

nn = torch.nn
CLASSES, SAMPLES = 4, 96


class VGG(nn.Module):
    """Stages of convolutions with batch normalisation, which here are far too deep."""

    def __init__(self, blocks, filters=4):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, filters, 3, 2, 1), nn.ReLU())
        self.stages = nn.ModuleList()
        for count in blocks:
            stage = [self.block(filters) for _ in range(count)]
            self.stages.append(nn.Sequential(*stage))
        self.head = nn.Linear(filters, CLASSES)

    @staticmethod
    def block(filters):
        convolution = nn.Conv2d(filters, filters, 3, 1, 1)
        return nn.Sequential(convolution, nn.ReLU(inplace=True))

    def forward(self, x):
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean((2, 3)))


def probe():
    chance = np.random.default_rng(0)
    images = torch.from_numpy(chance.standard_normal((SAMPLES, 1, 8, 8), np.float32))
    return images, torch.arange(SAMPLES) % CLASSES


def build(blocks):
    torch.manual_seed(0)
    return VGG(blocks)


class Loop:
    def __init__(self, *, in_place):
        self.epochs, self.in_place = 0, in_place
        self.images, self.labels = probe()

    def __call__(self, model, epoch):
        self.epochs += 1
        optimizer = torch.optim.SGD(model.parameters(), 1e-2)
        loss = nn.functional.cross_entropy(model(self.images), self.labels)
        loss.backward()
        optimizer.step()
        return None if self.in_place else model


@pytest.mark.parametrize("in_place", [True, False])
def test_a_module_is_tuned_and_comes_back_from_plain_files(in_place, tmp_path):
    said = []
    how = {"check_epochs": 1, "epochs": 2, "folder": tmp_path, "say": said.append}
    loop = Loop(in_place=in_place)
    tuned = cbundles.autotune(build, (1, 9), train=loop, probe=probe(), **how)
    assert tuned.restarts >= 1 and loop.epochs == tuned.restarts + 2
    for attempt in tuned.chain:
        assert len(attempt.layers) == sum(attempt.blocks)
        assert attempt.layers[0].startswith("stages/0/0")
    for attempt in tuned.chain[:-1]:
        assert attempt.left == prune(attempt.blocks, attempt.measured)
    assert tuned.params is None and isinstance(tuned.model, VGG)
    assert tuned.row["parameters"] == sum(one.numel() for one in tuned.model.parameters())

    idle = Loop(in_place=in_place)
    again = cbundles.autotune(build, (1, 9), train=idle, probe=probe(), **how)
    assert idle.epochs == 0 and again.chain == tuned.chain
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, tuned.model.state_dict()[name])
    with np.load(tmp_path / "model.npz", allow_pickle=False) as archive:
        assert set(archive) == {f"float32:{name}" for name in tuned.model.state_dict()}


def test_numbers_of_another_width_are_trained_anew(tmp_path):
    said = []
    how = {"probe": probe(), "check_epochs": 1, "folder": tmp_path, "say": said.append}
    for filters in (4, 6):
        loop = Loop(in_place=True)
        tuned = cbundles.autotune(lambda blocks: VGG(blocks, filters), (1, 1), train=loop, **how)  # noqa: B023
        assert loop.epochs == 1 and tuned.model.head.in_features == filters
    assert said[1] == "model.npz: not the last network's numbers; it is trained anew"


def test_numbers_of_bfloat16_come_back(tmp_path):
    def build(blocks):
        return VGG(blocks).to(torch.bfloat16)

    def train(model, epoch):
        with torch.no_grad():
            model.head.bias += 1 / 3

    images, labels = probe()
    how = {"probe": (images.to(torch.bfloat16), labels), "check_epochs": 1, "folder": tmp_path}
    tuned = cbundles.autotune(build, (1, 1), train=train, **how)
    again = cbundles.autotune(build, (1, 1), train=train, **how)
    for name, tensor in again.model.state_dict().items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, tuned.model.state_dict()[name])
