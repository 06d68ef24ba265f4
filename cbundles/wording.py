"""What people read: numbers and nouns, and how wide a line is."""

from __future__ import annotations

import shutil

NARROWEST, WIDEST, WITHOUT_TERMINAL = 80, 120, 100  # columns


def counted(number: float, noun: str, form: str = "") -> str:
    """``1 seed``, ``2 seeds``, ``1.5 bits``. form: of the number, such as ``,`` or ``g``."""
    return f"{number:{form}} {noun}" if number == 1 else f"{number:{form}} {noun}s"


def columns_of_lines() -> int:
    """How wide lines of text are to be: as the terminal is, within limits."""
    there = shutil.get_terminal_size(fallback=(WITHOUT_TERMINAL, 24)).columns
    return min(max(there, NARROWEST), WIDEST)
