"""How every figure is opened, titled and kept: PNG and PDF, with its data and caption beside.

A `Picture` says what a figure shows and holds the function that draws on its axes; all the rest is
done here. The same records give the same bytes: no dates or versions are written into the files.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from cbundles.files import write_atomically
from cbundles.report.table import Row, Table

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 150,
    "svg.hashsalt": "cbundles",
}
LETTER_POINTS = 5.0  # the width of a letter, about
LIMIT_LINE: Any = {"color": "grey", "linewidth": 0.8, "linestyle": ":"}  # a value to compare with
WITH_EDGE: Any = {"alpha": 0.2}  # bands of few networks, which may be as thin as their line
FAINT: Any = {"alpha": 0.15, "linewidth": 0}  # bands that overlap
Panels = NDArray[Any]  # of axes


@dataclass(frozen=True)
class Picture:
    """A figure that is still to be drawn.

    stem: what its files are called
    title: stands over it
    text: what it shows, in sentences
    caption: which networks it shows: data set, how many, seeds, devices
    rows: the numbers that are drawn
    size: width and height in inches
    draw: draws on its panels
    panels: how many rows and columns of them there are
    sharing: which panels share a scale, and other arguments of `Figure.subplots`
    note: follows the caption in the picture itself
    """

    stem: str
    title: str
    text: str
    caption: str
    rows: Sequence[Row]
    size: tuple[float, float]
    draw: Callable[[Figure, Panels], None]
    panels: tuple[int, int] = (1, 1)
    sharing: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


def draw_groups(groups: Sequence[Sequence[Picture]], folder: Path) -> list[Path]:
    """Draw the pictures of each group of networks; returns the paths of the PNG files. Where there
    are several groups, files have the number of theirs."""
    paths = []
    for number, pictures in enumerate(groups, start=1):
        suffix = "" if len(groups) == 1 else f"-{number}"
        for picture in pictures:
            with mpl.rc_context(STYLE):
                paths.append(_save(picture, folder / f"{picture.stem}{suffix}"))
    return paths


def drawn(picture: Picture) -> Figure:
    """The figure of a picture, with all that is in it."""
    figure = Figure(figsize=picture.size, layout="constrained")
    rows, columns = picture.panels
    panels = figure.subplots(rows, columns, squeeze=False, **picture.sharing)
    picture.draw(figure, panels)
    told = f"{picture.caption}; {picture.note}" if picture.note else picture.caption
    figure.suptitle("\n".join([picture.title, *_lines_that_fit(figure, told)]), fontsize=9)
    return figure


def _lines_that_fit(figure: Figure, caption: str) -> list[str]:
    """A caption in as few lines as fit the width of a figure, all of similar lengths."""
    widest = int(figure.get_figwidth() * 72 / LETTER_POINTS)
    lines = _wrapped(caption, widest)
    for width in range(widest - 1, widest // 2, -1):
        narrower = _wrapped(caption, width)
        if len(narrower) == len(lines):
            lines = narrower
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _save(picture: Picture, stem: Path) -> Path:
    """Write STEM.png, .pdf, .csv (the numbers that are drawn) and .md (what they are); returns the
    PNG's path."""
    figure = drawn(picture)
    stem.parent.mkdir(parents=True, exist_ok=True)
    layout = figure.get_layout_engine()
    assert layout is not None  # `drawn` asks for one
    layout.execute(figure)
    figure.set_layout_engine(None)  # or each format would be laid out again, and drawn twice
    png = stem.with_suffix(".png")
    _write_figure(figure, png, {"Software": None})
    undated = {"CreationDate": None, "Producer": None, "Creator": None}
    _write_figure(figure, stem.with_suffix(".pdf"), undated)
    Table(picture.rows).write_csv(stem.with_suffix(".csv"))
    caption = f"![{stem.name}]({png.name})\n\n{picture.text} {picture.caption}.\n"
    write_atomically(stem.with_suffix(".md"), caption)
    return png


def _write_figure(figure: Figure, path: Path, metadata: dict[str, None]) -> None:
    """By way of memory: Matplotlib's writer of PDF answers a full disk with errors of its own."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:], metadata=metadata)
    write_atomically(path, content.getvalue())


def line_with_band(
    axes: Axes,
    x: ArrayLike,
    middle: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    band: Any = WITH_EDGE,
    **line: Any,
) -> None:
    """A line, and around it a band of its colour."""
    (drawn_line,) = axes.plot(x, middle, **line)
    axes.fill_between(x, low, high, color=drawn_line.get_color(), **band)


def legend_beside(axes: Axes) -> None:
    """A legend to the right of the axes."""
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def legend_entry(label: str, **style: Any) -> Line2D:
    """An entry of a legend that stands for lines or marks of this style."""
    return Line2D([], [], label=label, **style)


def legend_below(figure: Figure, **how: Any) -> None:
    """A legend for all panels, below them."""
    figure.legend(loc="outside lower center", frameon=False, **how)


def spread_evenly(values: Sequence[int], count: int) -> list[int]:
    """No more than so many of sorted values, from the first to the last."""
    places = np.linspace(0, len(values) - 1, min(count, len(values)))
    return [values[round(place)] for place in places]
