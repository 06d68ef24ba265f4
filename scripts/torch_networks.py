"""The networks of `bench_audit.py` as modules of PyTorch."""

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
    """Two convolutions beside a shortcut."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Conv2d(filters, filters, 3, padding=1, bias=False) for _ in range(2)
        )
        self.norm1, self.norm2 = nn.BatchNorm2d(filters), nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        h += x
        return self.relu(h)


class ResNet(nn.Module):
    """Residual blocks of one size behind a stem."""

    def __init__(self, blocks: int, filters: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, filters, 3, stride=4, padding=1)  # 7 x 7 pixels are left
        self.blocks = nn.Sequential(*(Block(filters) for _ in range(blocks)))
        self.head = nn.Linear(filters, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x.movedim(-1, 1)))
        return self.head(self.blocks(x).mean((2, 3)))
