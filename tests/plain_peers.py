"""The peers of the bundle entropy, written down once more as their formulas stand in the papers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest


def effective_rank(rows):
    singular = np.linalg.svd(rows.astype(np.float64), compute_uv=False)
    shares = singular / singular.sum()
    return math.exp(-sum(p * math.log(p) for p in shares if p > 1e-6))


def class_cosine(rows, labels):
    rows = rows.astype(np.float64)
    rows, labels = rows[rows.any(1)], labels[rows.any(1)]
    means = []
    for one, other in itertools.combinations(sorted(set(labels.tolist())), 2):
        cosines = [
            x @ z / (np.linalg.norm(x) * np.linalg.norm(z))
            for x in rows[labels == one]
            for z in rows[labels == other]
        ]
        means.append(np.mean(cosines))
    return float(np.mean(means))


def relu_state_entropy(rows):
    entropies = []
    for unit in rows.T:
        on = np.mean(unit > 0)
        entropies.append(-sum(p * math.log2(p) for p in (on, 1 - on) if p > 0))
    return float(np.mean(entropies))


def block_change(inputs, outputs):
    inputs, outputs = inputs.astype(np.float64), outputs.astype(np.float64)
    lengths = np.linalg.norm(inputs, axis=1) * np.linalg.norm(outputs, axis=1)
    return float(np.mean(1 - (inputs * outputs).sum(1) / lengths))


def batch_entropy(rows):
    deviations = np.std(rows.astype(np.float64), axis=0, ddof=1)
    return float(np.mean(0.5 * np.log(np.pi * np.e * deviations**2 + 1)))


def norm(*gradients):
    return math.sqrt(sum(float((np.asarray(one, np.float64) ** 2).sum()) for one in gradients))


def compare(peers, value, labels, *, branch=None, states=True):
    """What was measured of a layer with its value (samples, ...), which is not a wide one."""
    rows = value.reshape(len(labels), -1)
    assert peers.effective_rank == pytest.approx(effective_rank(rows), rel=1e-5)
    assert peers.class_cosine == pytest.approx(class_cosine(rows, labels), abs=1e-6)
    assert peers.batch_entropy == pytest.approx(batch_entropy(rows), rel=1e-5)
    if states:
        assert peers.relu_state_entropy == pytest.approx(relu_state_entropy(rows), rel=1e-9)
    else:
        assert peers.relu_state_entropy is None
    if branch is None:
        assert peers.block_change is None
    else:
        before = rows - branch.reshape(len(labels), -1)
        assert peers.block_change == pytest.approx(block_change(before, rows), rel=1e-4)
