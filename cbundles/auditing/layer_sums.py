"""What `peer_sums` left of a layer's batches, added up in float64, and the measures that follow."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Integer

from cbundles import peer_measures
from cbundles.auditing.peer_sums import BatchSums, folded_width, number_of_units


class LayerSums:
    """The sums of all rows of a layer so far.

    features: of a row.
    num_classes: of the labels.
    """

    def __init__(self, features: int, num_classes: int) -> None:
        width, units = folded_width(features), number_of_units(features)
        self.rows = 0
        self.lowest = math.inf
        self._gram = np.zeros((width, width))
        self._directions = np.zeros((num_classes, width))  # the sum of those of each class
        self._counts = np.zeros(num_classes, np.int64)  # how many these are
        self._on = np.zeros(units, np.int64)
        self._mean = np.zeros(units)
        self._spread = np.zeros(units)
        self._change = 0.0
        self._changed = 0

    def add(
        self,
        sums: BatchSums,
        labels: Integer[np.ndarray, " rows"],
        is_new: Bool[np.ndarray, " rows"],
    ) -> None:
        """Add those of a batch, whose rows have these labels."""
        rows = np.asarray(sums.folded, np.float64)[is_new]
        self._gram += peer_measures.gram_of(rows)
        directions, has_one = peer_measures.directions_of(rows)
        of_classes, counts = peer_measures.class_sums(
            directions[has_one], labels[is_new][has_one], len(self._counts)
        )
        self._directions += of_classes
        self._counts += counts
        self._on += np.asarray(sums.on)
        self._add_variances(np.asarray(sums.mean, np.float64), np.asarray(sums.spread), len(rows))
        self.rows += len(rows)
        self.lowest = min(self.lowest, float(sums.lowest))
        self._change += float(sums.change)
        self._changed += int(sums.changed)

    def _add_variances(self, mean: np.ndarray, spread: np.ndarray, rows: int) -> None:
        """Join means, and squared distances from them, of the rows so far and of so many new ones.
        Sums of squares would cancel (Chan, Golub and LeVeque, 1983)."""
        together = self.rows + rows
        apart = mean - self._mean
        self._spread += spread + np.square(apart) * (self.rows * rows / together)
        self._mean += apart * (rows / together)

    @property
    def effective_rank(self) -> float | None:
        return peer_measures.effective_rank_of_gram(self._gram)

    @property
    def class_cosine(self) -> float | None:
        return peer_measures.class_cosine_of_sums(self._directions, self._counts)

    @property
    def relu_state_entropy(self) -> float | None:
        return peer_measures.relu_state_entropy_of_counts(self._on, self.rows)

    @property
    def block_change(self) -> float | None:
        return self._change / self._changed if self._changed else None

    @property
    def batch_entropy(self) -> float | None:
        if self.rows < 2:
            return None
        return peer_measures.batch_entropy_of_variances(self._spread / (self.rows - 1))
