"""Small pieces of sentences that tables, captions and findings share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

SIGNS = {
    "H^L": "Hᴸ",
    "H^l": "Hˡ",
    "c^L": "cᴸ",
    ">=": "≥",
    "<=": "≤",
    "+-": "±",
}
ALPHA = re.compile(r"\balpha\b")
TIMES = re.compile(r"(?<=[\w|]) x (?=[\w|])")  # between factors
MINUS = re.compile(r"(?<![\w.])-(?=\d)")  # before a number, and within no word


def lowest_to_highest(values: Sequence[float], form: str = "") -> str:
    """``2 to 4``, each number in this form; one number where they do not differ in it."""
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"


def listed(items: Iterable[object]) -> str:
    """``2``, ``2 and 3``, ``2, 3 and 4``."""
    *others, last = map(str, items)
    return f"{', '.join(others)} and {last}" if others else last


def with_signs(text: str) -> str:
    """A text with the signs that keyboards lack: ``H^L >= -2`` as ``Hᴸ ≥ −2``."""
    for typed, sign in SIGNS.items():
        text = text.replace(typed, sign)
    return MINUS.sub("−", TIMES.sub(" × ", ALPHA.sub("α", text)))
