"""Two spirals: points in the plane, an arm for each class (the third work's first data set)."""

from __future__ import annotations

import numpy as np

from cbundles.chance import SPIRALS_SPLIT, generator

PER_CLASS, TRAIN_SHARE = 300, 0.75


def arrays() -> dict[str, np.ndarray]:
    """Points float32 (N, 1, 1, 2) and labels int32 (N,) of both splits, as `dataset.write` takes
    them. Point i of n in an arm has angle 2 pi i / n and radius 0.5 + i / n; class 0 is class 1
    mirrored at the origin. Three quarters, a fixed draw, are for training."""
    i = np.arange(PER_CLASS)
    angle, radius = 2 * np.pi * i / PER_CLASS, 0.5 + i / PER_CLASS
    arm = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = np.concatenate([-arm, arm]).astype(np.float32).reshape(-1, 1, 1, 2)
    labels = np.repeat(np.arange(2, dtype=np.int32), PER_CLASS)
    chance = generator(0, SPIRALS_SPLIT)
    order = chance.permutation(len(labels))
    train, test = np.split(order, [round(TRAIN_SHARE * len(order))])
    return {
        "train_images": points[train], "train_labels": labels[train],
        "test_images": points[test], "test_labels": labels[test],
    }  # fmt: skip
