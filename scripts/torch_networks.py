"""Modules of PyTorch: the networks of `bench_audit.py`, and that of `study_torch_resnet.py`."""

from __future__ import annotations

import itertools

import torch
from torch import nn


def perceptron(depth: int, width: int, classes: int) -> nn.Module:
    """Hidden layers of one width, for images of 28 x 28 pixels."""
    widths = [28 * 28, *[width] * depth]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(width, classes))


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is a projection where the shape changes."""

    def __init__(self, before: int, filters: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, filters, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(filters), nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != filters:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        h += self.shortcut(x)
        return self.relu(h)


class ResNet(nn.Module):
    """Residual blocks of one size behind a stem."""

    def __init__(self, blocks: int, filters: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, filters, 3, stride=4, padding=1)  # 7 x 7 pixels are left
        self.blocks = nn.Sequential(*(Block(filters, filters) for _ in range(blocks)))
        self.head = nn.Linear(filters, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x.reshape(len(x), 1, *x.shape[1:3])))
        return self.head(self.blocks(x).mean((2, 3)))


class StagedResNet(nn.Module):
    """A ResNet for small images, the channels first: the first block of every later stage halves
    their sides, and has twice the filters."""

    def __init__(self, stages: int, blocks: int, filters: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, filters, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.Sequential()
        before = filters
        for stage, block in itertools.product(range(stages), range(blocks)):
            after = filters * 2**stage
            self.blocks.append(Block(before, after, stride=2 if stage and not block else 1))
            before = after
        self.head = nn.Linear(before, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))
