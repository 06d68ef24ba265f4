"""By what a layer conflicts: the paper's word is H > 0; beside it stands the conflict rate.

A single pair of samples can cause H > 0, and more samples make that more likely. The conflict rate
does not depend on the number of samples; it counts as a conflict above `CLEAR_RATE`.
"""

from __future__ import annotations

OFF = "off"
ENTROPY = "entropy"
CONFLICT_RATE = "conflict_rate"
CHOICES = (OFF, ENTROPY, CONFLICT_RATE)
CLEAR_RATE = 1e-3  # one pair of two classes in a thousand
LIMITS = {ENTROPY: 0.0, CONFLICT_RATE: CLEAR_RATE}


def conflicts(criterion: str, measured: float | None) -> bool:
    """Whether a layer conflicts by a criterion, of which this was measured. So does one that is not
    finite (None): the network diverged."""
    return measured is None or measured > LIMITS[criterion]
