"""Numbers and nouns in what people read."""

from __future__ import annotations


def counted(number: int, noun: str, form: str = "") -> str:
    """``1 seed``, ``2 seeds``. form: of the number, such as ``,``."""
    return f"{number:{form}} {noun}" if number == 1 else f"{number:{form}} {noun}s"
