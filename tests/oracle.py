"""Bundles and bundle entropy in plain NumPy and Python, written from the paper's equations.

Shares no code and no method with `cbundles.bundles`: dictionaries instead of hashing and sorting,
explicit sums over bundles and classes in float64 instead of run lengths.
"""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np


def weight_update(
    activations: np.ndarray,
    amplitude: float,
    learning_rate: float,
    batch_size: int,
    resolution: str = "float32",
) -> np.ndarray:
    """q = w - a * alpha * (1/|B|), each operation rounded to float32, then stored in a format."""
    stored = np.dtype(getattr(ml_dtypes, resolution, resolution))
    w = _stored(np.float32(amplitude), stored).astype(np.float32)
    scaled = np.multiply(activations.astype(np.float32), np.float32(learning_rate))
    scaled = np.multiply(scaled, np.float32(1.0 / batch_size))
    return _stored(np.subtract(w, scaled), stored)


def _stored(x: np.ndarray, kind: np.dtype) -> np.ndarray:
    if kind == ml_dtypes.float8_e4m3fn:  # has no infinity: the largest number, 448, instead
        x = np.clip(x, np.float32(-448), np.float32(448))
    return np.asarray(x).astype(kind)


def bundle_ids(q: np.ndarray) -> np.ndarray:
    """0-based in order of first occurrence. -0.0 equals 0.0; a row with a NaN equals nothing."""
    seen: dict[object, int] = {}
    ids = []
    for position, row in enumerate(q.reshape(len(q), -1)):
        key: object = tuple(float(v) + 0.0 for v in row)
        if any(math.isnan(v) for v in row):
            key = ("NaN", position)
        ids.append(seen.setdefault(key, len(seen)))
    return np.array(ids)


def entropy(ids: np.ndarray, labels: np.ndarray, num_classes: int) -> float:
    """Equations 2 and 3 with eps = 1e-5, floored at 0 for each bundle."""
    total = 0.0
    for bundle in range(ids.max() + 1):
        members = labels[ids == bundle]
        shares = [float(np.mean(members == n)) for n in range(num_classes)]
        surprise = -sum(p * math.log(p + 1e-5) for p in shares)
        total += len(members) * max(surprise, 0.0)
    return total / len(labels)


def conflict_rate(ids: np.ndarray, labels: np.ndarray) -> float:
    """Share of the pairs of samples of different classes that are in one bundle, counted."""
    together = possible = 0
    for i in range(len(ids)):
        for j in range(i):
            if labels[i] != labels[j]:
                possible += 1
                together += int(ids[i] == ids[j])
    return together / possible if possible else 0.0


def leader_ids(activations: np.ndarray, factor: np.float32, gamma: float) -> np.ndarray:
    """Equation 1 with leaders: each sample joins the first leader within gamma, or becomes one."""
    leaders: list[np.ndarray] = []
    ids = []
    for row in activations.reshape(len(activations), -1).astype(np.float32):
        for number, leader in enumerate(leaders):
            if factor * np.max(np.abs(row - leader)) <= np.float32(gamma):
                ids.append(number)
                break
        else:
            ids.append(len(leaders))
            leaders.append(row)
    return np.array(ids)


def headroom(
    activations: np.ndarray,
    labels: np.ndarray,
    amplitude: float,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    own: float = 0.0,
    resolution: str = "float32",
    gamma: float | None = None,
) -> float:
    """The first half bit by which the learning rate may not fall, less half a bit; 14 if none.
    gamma: by equation 1 within this tolerance, not beside the weight."""
    for half_bits in range(-20, 29):
        rate = learning_rate / 2 ** (half_bits / 2)
        if gamma is None:
            q = weight_update(activations, amplitude, rate, batch_size, resolution)
            ids = bundle_ids(q)
        else:
            factor = np.float32(rate) * np.float32(1.0 / batch_size)
            ids = leader_ids(activations, factor, gamma)
        if conflict_rate(ids, labels) > own + 0.001:
            return (half_bits - 1) / 2
    return 14.0
