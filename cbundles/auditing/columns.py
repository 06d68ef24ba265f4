"""Columns of text, one under the other."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(table: Sequence[Sequence[str]], *, to_the_left: int) -> list[str]:
    """A line for each row. to_the_left: so many columns begin at their left; the others end at
    their right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = []
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            cells.append(cell.ljust(width) if place < to_the_left else cell.rjust(width))
        lines.append("  ".join(cells).rstrip())
    return lines
