"""How every figure is drawn and kept: one style; PNG and PDF, with data and caption beside them.

The same records give the same bytes: no dates or versions are written into the files.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cbundles.report import tables
from cbundles.store import write_atomically

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 150,
    "svg.hashsalt": "cbundles",
}


def entitle(figure: Figure, title: str, caption: str) -> None:
    """Put a title over a figure, and below it what is drawn, in lines that fit its width."""
    widest = int(figure.get_figwidth() * 72 / 5.0)  # a letter is about 5 points wide
    narrower = [textwrap.wrap(caption, width, break_on_hyphens=False)
                for width in range(widest, widest // 2, -1)]  # fmt: skip
    lines = [wrapped for wrapped in narrower if len(wrapped) == len(narrower[0])][-1]
    figure.suptitle("\n".join((title, *lines)), fontsize=9)  # as few as fit, of similar lengths


def save(figure: Figure, stem: Path, rows: Sequence[dict[str, Any]], caption: str) -> Path:
    """Write STEM.png, .pdf, .csv (the numbers that are drawn) and .md (what they are); returns the
    PNG's path."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, instead of twice for each format
    png = stem.with_suffix(".png")
    figure.savefig(png, metadata={"Software": None})
    figure.savefig(
        stem.with_suffix(".pdf"),
        metadata={"CreationDate": None, "Producer": None, "Creator": None},
    )
    write_atomically(stem.with_suffix(".csv"), tables.csv_text(rows))
    write_atomically(stem.with_suffix(".md"), f"![{stem.name}]({png.name})\n\n{caption}\n")
    return png
