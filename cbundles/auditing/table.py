"""The layers of an audit as a table of text that fits a terminal, and as rows of plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cbundles import bits
from cbundles.auditing.findings import Findings, Layer

HEADS = ("layer", "kind", "shape", "bundles", "H", "conflicts", "headroom", "")
WORDS = ("kind", "")  # columns under these heads, and the first one, hold no numbers
NAME_AT_LEAST = 12  # letters


def text_of_layers(findings: Findings, width: int) -> str:
    """A line for the inputs and for each layer, no wider than that if it can be."""
    lines = [HEADS, *(_cells(layer) for layer in (findings.input, *findings.layers))]
    if all(layer.headroom is None for layer in findings.layers):
        place = HEADS.index("headroom")
        lines = [(*line[:place], *line[place + 1 :]) for line in lines]
    return aligned(lines, width)


def aligned(lines: Sequence[Sequence[str]], width: int) -> str:
    """Lines of cells, the first of which are the heads and the names of layers or others, as a
    table no wider than that if it can be."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rest = sum(widths[1:]) + 2 * (len(widths) - 1)
    widths[0] = min(widths[0], max(NAME_AT_LEAST, width - rest))
    return "\n".join(_line(cells, widths, lines[0]) for cells in lines)


def _line(cells: Sequence[str], widths: Sequence[int], heads: Sequence[str]) -> str:
    name, *others = cells
    if len(name) > widths[0]:  # the end of a name says more than its beginning
        name = "…" + name[len(name) - widths[0] + 1 :]
    padded = [name.ljust(widths[0])]
    for cell, size, head in zip(others, widths[1:], heads[1:], strict=True):
        padded.append(cell.ljust(size) if head in WORDS else cell.rjust(size))
    return "  ".join(padded).rstrip()


def _cells(layer: Layer) -> tuple[str, ...]:
    mark = "conflicts" if layer.conflicting else ""
    return (
        layer.name,
        layer.kind,
        "x".join(map(str, layer.shape)) or "1",
        str(layer.num_bundles),
        "-" if layer.entropy is None else f"{layer.entropy:.3f}",
        "-" if layer.conflict_rate is None else f"{layer.conflict_rate:.2g}",
        "" if layer.headroom is None else bits.in_short(layer.headroom.bits),
        "diverged" if layer.diverged else mark,
    )


def row_of(layer: Layer) -> dict[str, Any]:
    """A layer as plain numbers and text."""
    return {
        "name": layer.name,
        "kind": layer.kind,
        "shape": list(layer.shape),
        "num_bundles": layer.num_bundles,
        "entropy": layer.entropy,
        "conflict_rate": layer.conflict_rate,
        "headroom": None if layer.headroom is None else layer.headroom.bits,
        "conflicting": layer.conflicting,
        "diverged": layer.diverged,
        "amplitude": finite_or_none(layer.amplitude),
        "resolution": finite_or_none(layer.resolution),
    }


def finite_or_none(number: float | None) -> float | None:
    """JSON has no NaN and no infinity, which weights may hold."""
    return number if number is not None and math.isfinite(number) else None
