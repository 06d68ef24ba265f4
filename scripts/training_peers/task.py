"""What all sides of the comparison of trainings have in common: networks, images, first weights.

A side is a way to train: it is a `Trainer`, made for a `Task` in a process of its own. All start
from the same weights and see the same images in the same order, so their losses must agree.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from cbundles import data, train
from cbundles.config import PAPER_BLOCKS
from cbundles.data.pipelines import NONE, ORIGINAL
from cbundles.networks import network
from cbundles.networks.conv import Unit
from cbundles.networks.shape import ConvShape, FcShape, Shape

BATCH, LEARNING_RATE, WEIGHT_DECAY, CLASSES, SEED = 64, 1e-3, 1e-2, 10, 0
FC, VGG = "fc", "vgg"


class Trainer(Protocol):
    """One way to train.

    networks: how many it trains at once
    """

    networks: int

    def first_losses(self, steps: int) -> list[float]:
        """The losses of the first steps of the network whose seed is `SEED`, each before its
        update, without augmentation."""

    def train_for_a_turn(self) -> None:
        """Do the steps of a turn and wait for the last one."""


@dataclass(frozen=True)
class Task:
    """A network, and how long a turn is.

    width: of hidden layers, or filters of the first stage
    steps: of a turn, each with `BATCH` images
    augmented: whether images are augmented as the original augments MNIST
    """

    family: str
    depth: int
    width: int
    steps: int
    augmented: bool = False

    @property
    def name(self) -> str:
        """As it stands in a table."""
        if self.family == VGG:
            return f"VGG-{self.depth}, {self.width} filters"
        augmented = ", augmented" if self.augmented else ""
        return f"FC, {self.depth} layers of {self.width}{augmented}"

    @property
    def shape(self) -> Shape:
        """The same network as the product knows it."""
        if self.family == VGG:
            return ConvShape((32, 32, 3), PAPER_BLOCKS[self.depth], self.width, False, CLASSES)
        return FcShape(28 * 28, self.depth, self.width, CLASSES)

    @property
    def flops_of_step(self) -> float:
        """Of one network: forward, and twice as much backward."""
        return 3.0 * BATCH * self.shape.flops

    def recipe(self, *, augmented: bool) -> train.Recipe:
        """How the product trains it."""
        augmentation = ORIGINAL["mnist"] if augmented else NONE
        return train.Recipe(BATCH, LEARNING_RATE, WEIGHT_DECAY, augmentation)

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """uint8 images of a turn, real digits or noise in colour, and their labels."""
        count = self.steps * BATCH
        if self.family == FC:
            stored = data.load("mnist_mini")
            rows = np.arange(count) % len(stored.train_labels)
            return stored.train_images[rows], stored.train_labels[rows]
        chance = np.random.default_rng(0)
        images = chance.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        return images, chance.integers(0, CLASSES, count).astype(np.int32)

    def batches(self) -> tuple[np.ndarray, np.ndarray]:
        """float32 images in the order in which the product trains on them, and their labels."""
        images, labels = self.images()
        order = train.plan(self.recipe(augmented=False), SEED, 1, len(labels)).order.ravel()
        return images[order].astype(np.float32) * np.float32(1 / 255), labels[order]


class FirstWeights(NamedTuple):
    """What all sides start from, layer by layer.

    convolutions: with their normalisations; none in a fully connected network
    dense: kernels and biases of fully connected layers, the output last
    """

    convolutions: list[Unit]
    dense: list[tuple[np.ndarray, np.ndarray]]


@functools.cache
def first_weights(task: Task) -> FirstWeights:
    """The weights of the product's network with the seed `SEED`."""
    shape = task.shape
    params = network.views(shape)[0](network.initial(shape, SEED, shape).params)
    last = (params.last, params.last_bias)
    if isinstance(shape, FcShape):
        hidden = zip(params.hidden, params.hidden_bias, strict=True)
        return FirstWeights([], [(params.first, params.first_bias), *hidden, last])
    units = [params.stem]
    for stage in params.stages:
        units += stage.first
        if stage.rest:
            for block in range(len(stage.rest[0].kernel)):
                units += [Unit(*(array[block] for array in unit)) for unit in stage.rest]
    return FirstWeights(units, [last])


def strides_of(task: Task) -> list[int]:
    """Of the 3x3 convolutions in their order: each later stage begins with one that halves."""
    strides: list[int] = []
    for stage, blocks in enumerate(PAPER_BLOCKS[task.depth]):
        for block in range(blocks):
            strides += [2 if stage and not block else 1, 1]
    return strides
