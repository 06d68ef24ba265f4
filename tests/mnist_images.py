"""The first images of mnist_mini: few, so that an epoch is short."""

from __future__ import annotations

import dataclasses

from cbundles import data
from cbundles.data.dataset import Dataset


def first_images(train: int, test: int) -> Dataset:
    """So many of each split."""
    stored = data.load("mnist_mini")
    return dataclasses.replace(
        stored,
        train_images=stored.train_images[:train],
        train_labels=stored.train_labels[:train],
        test_images=stored.test_images[:test],
        test_labels=stored.test_labels[:test],
    )
