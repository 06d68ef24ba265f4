"""Training of a module of PyTorch on small images, an epoch at a time, from a checkpoint on.

Stochastic gradient descent with momentum; the learning rate rises for an epoch and then falls to
zero on a straight line. Images are shifted by up to four pixels and mirrored. What chance decides
in an epoch hangs on the seed and the number of the epoch alone, so a resumed training repeats it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cbundles.data import Dataset

SHIFT = 4  # pixels, at most
AT_ONCE = 500  # images, where nothing is learned


@dataclass(frozen=True)
class Images:
    """The channels first, standardised by the images of training."""

    train: torch.Tensor
    train_labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor


def standardized(dataset: Dataset) -> Images:
    """All images and labels of a data set, as tensors."""
    train, test = (
        torch.from_numpy(np.array(pixels)).movedim(-1, 1).float()
        for pixels in (dataset.train_images, dataset.test_images)
    )
    deviation, mean = torch.std_mean(train, (0, 2, 3), keepdim=True)
    train_labels, test_labels = (
        torch.from_numpy(np.array(labels, np.int64))
        for labels in (dataset.train_labels, dataset.test_labels)
    )
    return Images((train - mean) / deviation, train_labels, (test - mean) / deviation, test_labels)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    epochs: int
    seed: int
    batch_size: int = 128
    learning_rate: float = 0.1  # the highest
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warm_up: float = 1.0  # epochs

    @property
    def in_words(self) -> str:
        """What is not told by numbers alone."""
        return (
            f"momentum {self.momentum:g}, weight decay {self.weight_decay:g}, learning rate up to "
            f"{self.learning_rate:g} after {self.warm_up:g} epoch, then down to 0; images shifted "
            f"by up to {SHIFT} pixels and mirrored"
        )

    def rate(self, epoch: float) -> float:
        """The learning rate, in fractions of the highest, after so many epochs."""
        falling = (self.epochs - epoch) / (self.epochs - self.warm_up)
        return min((epoch + 0.01) / self.warm_up, falling)


def train(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, recipe: Recipe, checkpoint: Path
) -> float:
    """Train a module, or what is left to do of it, in place. Returns the seconds that it took."""
    optimizer = torch.optim.SGD(
        model.parameters(),
        recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    first, seconds = 0, 0.0
    if checkpoint.exists():
        # Numbers and plain containers alone: nothing in the file is executed.
        kept = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        first, seconds = kept["epochs"], kept["seconds"]
    for epoch in range(first, recipe.epochs):
        started = time.perf_counter()
        loss = _one_epoch(model, optimizer, images, labels, recipe, epoch)
        seconds += time.perf_counter() - started
        print(f"epoch {epoch + 1} of {recipe.epochs}: loss {loss:.4f}, {seconds:.0f} s", flush=True)
        state: dict[str, Any] = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        staging = checkpoint.with_suffix(".part")
        torch.save({**state, "epochs": epoch + 1, "seconds": seconds}, staging)
        staging.replace(checkpoint)
    return seconds


def _one_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    recipe: Recipe,
    epoch: int,
) -> float:
    """The mean loss of an epoch; what is left over at its end is dropped."""
    model.train()
    chance = np.random.default_rng([recipe.seed, epoch])
    order = torch.from_numpy(chance.permutation(len(images)))
    steps = len(images) // recipe.batch_size
    total = 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * recipe.rate(epoch + step / steps)
        picked = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        batch = _shifted_and_mirrored(images[picked], chance)
        loss = nn.functional.cross_entropy(model(batch), labels[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        if step % 100 == 99:
            print(f"  step {step + 1} of {steps}: loss {total / (step + 1):.4f}", flush=True)
    return total / steps


def _shifted_and_mirrored(batch: torch.Tensor, chance: np.random.Generator) -> torch.Tensor:
    height, width = batch.shape[2:]
    padded = nn.functional.pad(batch, [SHIFT] * 4)
    corners = chance.integers(0, 2 * SHIFT + 1, (len(batch), 2)).tolist()
    crops = [
        image[:, top : top + height, left : left + width]
        for image, (top, left) in zip(padded, corners, strict=True)
    ]
    mirrored = torch.from_numpy(chance.random(len(batch)) < 0.5)[:, None, None, None]
    shifted = torch.stack(crops)
    return torch.where(mirrored, shifted.flip(3), shifted)


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Of a module in evaluation, between 0 and 1."""
    model.eval()
    right = 0
    with torch.no_grad():
        for batch, classes in zip(images.split(AT_ONCE), labels.split(AT_ONCE), strict=True):
            right += int((model(batch).argmax(1) == classes).sum())
    return right / len(labels)
