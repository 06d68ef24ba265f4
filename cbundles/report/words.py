"""Small pieces of sentences that tables, captions and findings share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def counted(number: int, noun: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def lowest_to_highest(values: Sequence[float], form: str = "") -> str:
    """``2 to 4``, each number in this form; one number where they do not differ in it."""
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"


def listed(items: Iterable[object]) -> str:
    """``2``, ``2 and 3``, ``2, 3 and 4``."""
    *others, last = map(str, items)
    return f"{', '.join(others)} and {last}" if others else last
