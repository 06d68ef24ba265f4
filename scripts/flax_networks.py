"""Modules of Flax that benches measure, for images of one channel and ten classes."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array

CLASSES = 10


class Perceptron(nn.Module):
    """Hidden layers of one width."""

    depth: int
    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.reshape(len(x), -1)
        for _ in range(self.depth):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(CLASSES)(x)


class ResNet(nn.Module):
    """Residual blocks of one size behind a stem."""

    blocks: int
    filters: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def convolved(x: Array) -> Array:
            x = nn.Conv(self.filters, (3, 3), use_bias=False)(x)
            return nn.BatchNorm(use_running_average=True)(x)

        x = nn.relu(nn.Conv(self.filters, (3, 3), 4)(x))  # 7 x 7 pixels are left
        for _ in range(self.blocks):
            x = nn.relu(x + convolved(nn.relu(convolved(x))))
        return nn.Dense(CLASSES)(x.mean((1, 2)))


class Vgg(nn.Module):
    """A stem, then convolutions of 3x3, each with its normalisation. strides: of the latter."""

    filters: int
    strides: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def normalised(x: Array) -> Array:
            return nn.relu(nn.BatchNorm(use_running_average=False, epsilon=1e-3)(x))

        filters = self.filters
        x = normalised(nn.Conv(filters, (7, 7), 2)(x))
        for stride in self.strides:
            filters *= stride
            x = normalised(nn.Conv(filters, (3, 3), stride)(x))
        return nn.Dense(CLASSES)(x.mean((1, 2)))
