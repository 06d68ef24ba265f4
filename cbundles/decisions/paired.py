"""Two networks on the same examples: which differences chance would not have made.

Lost are examples that only the first network classifies correctly, gained those that only the
second one does. McNemar's exact test asks how likely so uneven a split of the two is by chance; on
all other examples both networks say the same, and they tell nothing. No significant rise of the
error is no proof that there is none: `smallest_rise` says from where on one would have been seen.

SciPy does the statistics; its import takes a second, so the function that needs it imports it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

SIGNIFICANT = 0.05


@functools.cache
def mcnemar(lost: int, gained: int) -> float:
    """Two-sided p of McNemar's exact test: how likely so uneven a split of the images on which two
    networks differ is by chance."""
    from scipy import special  # its binomial distribution: 400 times as fast as stats.binomtest

    uneven = special.bdtr(min(lost, gained), lost + gained, 0.5)
    return min(1.0, 2 * float(uneven))


def rises(lost: int, gained: int) -> bool:
    """Whether the test error rises significantly, when so many images are lost and gained."""
    return lost > gained and mcnemar(lost, gained) < SIGNIFICANT


def smallest_rise(changed: int) -> int | None:
    """The smallest surplus of lost over gained images that `rises` sees when so many images change
    their answer; None when so few change that it sees nothing."""
    for surplus in range(changed % 2, changed + 1, 2):
        lost = (changed + surplus) // 2
        if rises(lost, changed - lost):
            return surplus
    return None


@functools.cache
def fewest_lost() -> int:
    """The fewest lost images that `rises` sees, when none is gained: the best case."""
    return next(changed for changed in itertools.count(1) if rises(changed, 0))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values of several tests, corrected after Holm: below 0.05 for any of them only with a
    probability of 5 %, if chance alone makes all differences.

    >>> holm([0.04, 0.01, 0.03])
    [0.06, 0.03, 0.06]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected
