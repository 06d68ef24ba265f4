"""The numbers behind a map, so that whoever reads the page can ask a cell for its own.

A picture stays a picture; what each of its cells holds lies beside it. `page.js` finds the cell
under the pointer, or the one that the arrow keys chose, and tells its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Box = tuple[float, float, float, float]  # left, top, width, height, as shares of a drawing
Values = Sequence[Sequence[float | str | None]]  # by line and column


@dataclass(frozen=True)
class CellMap:
    """What the cells of one map hold.

    name: what the map shows
    x, y: what a column stands for, and what a line does
    columns, lines: those that there are, from the left and from the bottom
    numbers: what each cell holds, by its name; None where there is nothing
    """

    name: str
    x: str
    y: str
    columns: Sequence[int]
    lines: Sequence[int]
    numbers: Mapping[str, Values]

    def as_json(self) -> dict[str, Any]:
        """What `page.js` reads."""
        return {
            "x": self.x,
            "y": self.y,
            "columns": list(self.columns),
            "lines": list(self.lines),
            "numbers": self.numbers,
        }


@dataclass(frozen=True)
class PlacedMap:
    """A map, and where its cells lie in a drawing."""

    cells: CellMap
    box: Box
