"""What tests of PyTorch modules share: small models, their weights, and what must not change."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: make test-torch")
nn = torch.nn
F = nn.functional
torch.set_num_threads(1)  # the processes of the tests have one core each

SAMPLES, CLASSES = 40, 3
LABELS = np.arange(SAMPLES) % CLASSES


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


VECTORS, IMAGES = normal(SAMPLES, 6), normal(SAMPLES, 2, 8, 8)


def drawn(model, seed=0):
    """The model with weights and running statistics that are unlike those of its initialisation."""
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(0.4 * torch.randn(tensor.shape, generator=chance))
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return model


def state_of(model):
    """All that an audit or a removal might change."""
    return {
        "numbers": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "tensors": {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()},
        "modes": [module.training for module in model.modules()],
        "tracking": [getattr(module, "track_running_stats", None) for module in model.modules()],
        "gradients": [(one.requires_grad, one.grad is None) for one in model.parameters()],
        "hooks": [len(module._forward_hooks) for module in model.modules()],
        "every hook": len(nn.modules.module._global_forward_hooks),
        "chance": torch.get_rng_state().tolist(),
    }


def assert_same(before, after):
    for name, tensor in before.pop("numbers").items():
        assert torch.equal(tensor, after["numbers"][name]), name
    assert before == {key: after[key] for key in before}


class Block(nn.Module):
    """As in torchvision, also with a projection for a shortcut: what works in place overwrites
    branches and sums."""

    def __init__(self, before, after, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.downsample = None
        if stride > 1:
            skip = nn.Conv2d(before, after, 1, stride, bias=False)
            self.downsample = nn.Sequential(skip, nn.BatchNorm2d(after))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """Two stages. blocks: how many come before the one that begins the second stage, and how many
    after it."""

    def __init__(self, blocks=(1, 0), filters=4):
        super().__init__()
        before, after = blocks
        self.stem = nn.Conv2d(2, filters, 3, padding=1)
        first = [Block(filters, filters) for _ in range(before)]
        second = [Block(2 * filters, 2 * filters) for _ in range(after)]
        self.blocks = nn.Sequential(*first, Block(filters, 2 * filters, stride=2), *second)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(2 * filters, CLASSES)

    def forward(self, x):
        x = self.blocks(F.relu(self.stem(x), inplace=True))
        return self.fc(self.dropout(x.mean((2, 3))))


def encoder(**how):
    layer = nn.TransformerEncoderLayer(8, 2, 12, activation="gelu", **how)
    return drawn(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
