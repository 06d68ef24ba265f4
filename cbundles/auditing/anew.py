"""Statistics of batch normalisation, taken anew: those of the whole model do not fit one that has
lost branches, which is much of the damage when many go."""

from __future__ import annotations

import jax
from jaxtyping import PyTree

from cbundles.auditing.batches import Batches
from cbundles.auditing.subject import Kept, Subject


def statistics_anew(subject: Subject, batches: Batches, kept: Kept) -> PyTree:
    """Means of the statistics of all batches, while some branches are left out. Raises ValueError
    where they cannot be taken, see `Subject.no_statistics`."""
    if subject.no_statistics is not None:
        raise ValueError(subject.no_statistics)
    parts = [subject.statistics(batch, kept) for _, batch in batches]
    return jax.tree.map(lambda *each: sum(each[1:], each[0]) / len(each), *parts)
