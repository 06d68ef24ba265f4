"""Lesions in words: a table of branches, one of removal curves, and how far both can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

from cbundles.auditing.lesion_findings import FITTED, WORDS, Lesion, Lesions
from cbundles.auditing.table import aligned
from cbundles.decisions.paired import SIGNIFICANT, fewest_lost

SHOWN = 10  # branches
COUNTS_SHOWN = 7  # of branches that go at once


def text_of_lesions(lesions: Lesions, width: int) -> str:
    """A table of branches and one of removal curves, no wider than that if they can be."""
    cheapest = sorted(lesions.branches, key=lambda one: one.cost)[:SHOWN]
    heads = ["branch", "points", "lost", "gained", "p", "could see"]
    with_anew = lesions.no_anew is None
    table = [[*heads, "anew"] if with_anew else heads]
    table += [_branch_cells(one, with_anew) for one in cheapest]
    left_out = len(lesions.branches) - len(cheapest)
    more = [f"and {left_out} more that cost at least as much"] if left_out else []
    return "\n".join([aligned(table, width), *more, "", aligned(_curve_table(lesions), width)])


def sentences(lesions: Lesions) -> list[str]:
    """What it means, and what the tests could not have seen."""
    number = len(lesions.branches)
    told = [
        f"Without a branch: {len(lesions.harmless)} of {number} can be switched off, each alone, "
        f"without a significant rise of the error (McNemar's exact test, p < {SIGNIFICANT:g}, not "
        f"corrected). On {lesions.samples:,} samples the test sees a rise of "
        f"{lesions.smallest_rise:.2g} points at best ({fewest_lost()} lost, none gained); for each "
        "branch stands what it could see with as many changed answers. Corrected after Holm for "
        f"{number} tests, {_surely_costly(lesions)} are costly."
    ]
    best = max(lesions.curves.values(), key=lambda curve: curve.removable)
    if best.removable:
        told.append(
            f"Most go together by the ranking {WORDS[best.by]!r}: {best.removable} of {number} "
            "before the first significant rise."
        )
    told.append(
        f"{_words(FITTED)} are chosen on these very samples, and so flatter themselves: judge what "
        "you remove on others."
    )
    if lesions.accuracy_anew is not None:
        told.append(
            "Anew: points after the statistics of batch normalisation were taken on these samples; "
            f"the whole model has an accuracy of {100 * lesions.accuracy_anew:.1f} % with them, "
            f"{100 * lesions.accuracy:.1f} % as it is."
        )
    elif lesions.no_anew is not None:
        told.append(f"No statistics were taken anew: {lesions.no_anew}.")
    return told


def _surely_costly(lesions: Lesions) -> int:
    return sum(one.cost > 0 and one.p_corrected < SIGNIFICANT for one in lesions.branches)


def _words(names: Sequence[str]) -> str:
    return " and ".join(f"{WORDS[name]!r}" for name in names)


def _branch_cells(one: Lesion, with_anew: bool) -> list[str]:
    found = one.difference
    cells = [
        one.name,
        f"{found.points:+.2f}",
        str(found.lost),
        str(found.gained),
        f"{found.p:.2g}",
        f"{found.smallest_rise:.2g}",
    ]
    if with_anew:
        cells.append("-" if one.anew is None else f"{one.anew.points:+.2f}")
    return cells


def _curve_table(lesions: Lesions) -> list[list[str]]:
    number = len(lesions.branches)
    step = max(1, -(-number // COUNTS_SHOWN))
    counts = sorted({1, *range(step, number, step), number})
    table = [["accuracy [%] without the first", *map(str, counts)]]
    for name, curve in lesions.curves.items():
        table.append([WORDS[name], *(f"{100 * curve.accuracies[k - 1]:.1f}" for k in counts)])
    return table
