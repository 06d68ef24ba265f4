"""Where one more layer would help, in words."""

from __future__ import annotations

import numpy as np

from cbundles.auditing.insertion_findings import Insertion, Insertions
from cbundles.auditing.table import aligned

HEADS: tuple[str, ...] = ("one more layer behind", "kind", "weights", "sensitivity", "/ existing")
SHOWN = 8  # places


def text_of_insertions(insertions: Insertions, width: int) -> str:
    """A table of the places with the largest sensitivities, no wider than that if it can be."""
    median = _median_per_weight(insertions)
    table = [HEADS]
    table += [_cells(one, median) for one in insertions.places[:SHOWN]]
    left_out = len(insertions.places) - SHOWN
    more = [f"and behind {left_out} more"] if left_out > 0 else []
    return "\n".join([aligned(table, width), *more])


def sentences(insertions: Insertions) -> list[str]:
    """What it means."""
    reasons = dict.fromkeys(one.reason for one in insertions.skipped)
    if not insertions.places:
        why = "; ".join(reasons) or "the model has no activation"
        return [f"No place for another layer is known: {why}."]
    told = [
        f"A layer would help most behind {insertions.places[0].name}, as far as the gradient on "
        f"{insertions.samples:,} samples tells: how fast the loss would begin to fall, not where "
        "it ends."
    ]
    if insertions.existing:
        told.append(
            "/ existing: the sensitivity of a weight there over that of a weight in the median of "
            f"the {len(insertions.existing)} layers that exist."
        )
    if insertions.skipped:
        told.append(
            f"Left out were {len(insertions.skipped)} activations, because: {'; '.join(reasons)}."
        )
    return told


def _cells(one: Insertion, median: float | None) -> tuple[str, ...]:
    ratio = f"{one.per_weight / median:.2g}" if median else "-"
    shape = "x".join(map(str, one.shape))
    return one.name, one.kind, shape, f"{one.sensitivity:.3g}", ratio


def _median_per_weight(insertions: Insertions) -> float | None:
    each = [one.per_weight for one in insertions.existing if one.per_weight is not None]
    return float(np.median(each)) if each else None
