"""Lesions that are compared with brute force: models whose branches were zeroed by hand, run apart,
and counted in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

AT_ONCE = 16  # samples in a batch, of 40: the last batch overlaps the one before it


def normal(*shape, seed=1, scale=1.0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * np.float32(scale)


def labels_near(logits, seed=0, kept=0.7):
    """Labels that a model with these logits mostly gets right."""
    random = np.random.default_rng(seed)
    predicted = np.asarray(logits).argmax(-1)
    drawn = random.integers(0, logits.shape[-1], predicted.shape)
    return np.where(random.random(predicted.shape) < kept, predicted, drawn)


def binomial_p(lost, gained):
    """McNemar's exact test from the definition."""
    return stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0


class BruteForce:
    """forward(branches that are off) -> logits of all samples."""

    def __init__(self, forward, labels):
        self.right = {}
        self.forward = forward
        self.labels = labels

    def right_without(self, gone):
        key = frozenset(gone)
        if key not in self.right:
            logits = np.asarray(self.forward(key))
            self.right[key] = (logits.argmax(-1) == self.labels).reshape(-1)
        return self.right[key]

    def counts(self, right):
        whole = self.right_without(())
        return int((whole & ~right).sum()), int((~whole & right).sum())

    def greedy(self, branches):
        """The accuracy after each step."""
        gone, accuracies = [], []
        for _ in range(branches):
            left = [one for one in range(branches) if one not in gone]
            accuracy = {one: self.right_without([*gone, one]).mean() for one in left}
            gone.append(max(left, key=lambda one: (accuracy[one], one)))
            accuracies.append(accuracy[gone[-1]])
        return gone, accuracies


def compare(lesions, brute, names):
    """All costs and curves of some lesions with brute force; returns how many answers changed."""
    assert [one.name for one in lesions.branches] == names
    assert lesions.samples == brute.right_without(()).size
    assert lesions.accuracy == pytest.approx(brute.right_without(()).mean())
    changed = 0
    for number, one in enumerate(lesions.branches):
        lost, gained = brute.counts(brute.right_without([number]))
        assert (one.difference.lost, one.difference.gained) == (lost, gained), one.name
        assert one.cost == pytest.approx(100 * (lost - gained) / lesions.samples)
        assert one.difference.p == pytest.approx(binomial_p(lost, gained), rel=1e-9)
        changed += lost + gained
    for curve in lesions.curves.values():
        assert sorted(curve.order) == sorted(names)
        order = [names.index(name) for name in curve.order]
        for k in range(1, len(names) + 1):
            right = brute.right_without(order[:k])
            found = curve.differences[k - 1]
            assert (found.lost, found.gained) == brute.counts(right), (curve.by, k)
            assert curve.accuracies[k - 1] == pytest.approx(right.mean())
    gone, accuracies = brute.greedy(len(names))
    assert lesions.curves["greedy"].order == tuple(names[one] for one in gone)
    assert list(lesions.curves["greedy"].accuracies) == pytest.approx(accuracies)
    if "cost" in lesions.curves:
        costs = [lesions.branch(name).cost for name in lesions.curves["cost"].order]
        assert costs == sorted(costs)
    return changed
