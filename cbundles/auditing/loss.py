"""The loss of a classifier whose output may be logits or, behind a softmax, probabilities.

Functions here work on the arrays of any library.
"""

from __future__ import annotations

from typing import Any

SMALLEST = 1e-30  # of a probability whose logarithm is taken
ROUNDED = 1e-2  # by less than this, bfloat16 probabilities miss a sum of 1


def are_probabilities(scores: Any) -> Any:
    """Whether numbers for classes are never negative and add up to 1. Their logarithms are logits
    of the same loss, since a softmax of them changes nothing."""
    return ((abs(scores.sum(-1) - 1) < ROUNDED) & (scores.min() >= 0)).all()
