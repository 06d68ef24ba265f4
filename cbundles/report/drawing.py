"""How every figure is opened, titled and kept: PNG and PDF, with its data beside.

A `Picture` says what a figure shows and holds the function that draws on its axes; all the rest is
done here. Its title is the message, which stands above; where its numbers come from is small print
below. A `DrawnPicture` is what the report's page needs of it: the drawing alone, since on a page
title and small print are text, and the numbers of its cells, where it is a map. The same records
give the same bytes: no dates or versions are written into the files.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from cbundles.files import write_atomically
from cbundles.report.cell_maps import CellMap, PlacedMap
from cbundles.report.table import Row, Table
from cbundles.report.words import with_signs

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 150,
    "svg.hashsalt": "cbundles",
}
TITLE_POINTS, SMALL_POINTS = 10.0, 7.0
BOLD_WIDTH, LETTER_WIDTH = 0.64, 0.56  # of a letter, about, for each point of its size
LINE_HEIGHT = 1.3  # likewise
MARGIN_POINTS = 5.0  # above and below the small print
SMALL_PRINT_COLOUR = "#555555"
COLOURS_OF_SCALE = 40  # of a map: more would not fit the palette of its PNG
COLOURS_KEPT = 192  # in a PNG: with a palette it is a third as large
LIMIT_LINE: Any = {"color": "grey", "linewidth": 0.8, "linestyle": ":"}  # a value to compare with
WITH_EDGE: Any = {"alpha": 0.2}  # bands of few networks, which may be as thin as their line
FAINT: Any = {"alpha": 0.15, "linewidth": 0}  # bands that overlap
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))  # lines that may coincide
Panels = NDArray[Any]  # of axes
Part = tuple[int, int, int, int]  # left, top, right, bottom, in pixels from the top left


@dataclass(frozen=True)
class Picture:
    """A figure that is still to be drawn.

    stem: what its files are called
    title: its message, which stands over it
    text: what it shows, in sentences
    caption: which networks it shows: data set, how many, seeds, devices
    rows: the numbers that are drawn
    size: width and height in inches
    draw: draws on its panels
    panels: how many rows and columns of them there are
    sharing: which panels share a scale, and other arguments of `Figure.subplots`
    note: follows the caption in the small print
    maps: what the cells of its first panels hold, where these are maps
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
    maps: Sequence[CellMap | None] = ()

    @property
    def small_print(self) -> str:
        """Where its numbers come from."""
        return f"{self.caption}; {self.note}" if self.note else self.caption


@dataclass(frozen=True)
class DrawnPicture:
    """A figure that was drawn.

    path: its PNG, beside which PDF and numbers lie
    title, text, small_print: see `Picture`
    drawing: the PNG without title and small print
    width, height: of the drawing, in pixels
    maps: where in the drawing there are cells, and what they hold
    """

    path: Path
    title: str
    text: str
    small_print: str
    drawing: bytes
    width: int
    height: int
    maps: Sequence[PlacedMap]


def draw_groups(groups: Sequence[Sequence[Picture]], folder: Path) -> list[DrawnPicture]:
    """Draw the pictures of each group of networks. Where there are several groups, files have the
    number of theirs."""
    pictures = []
    for number, group in enumerate(groups, start=1):
        suffix = "" if len(groups) == 1 else f"-{number}"
        for picture in group:
            with mpl.rc_context(STYLE):
                pictures.append(_save(picture, folder / f"{picture.stem}{suffix}"))
    return pictures


def drawn(picture: Picture) -> Figure:
    """The figure of a picture, with all that is in it."""
    figure = Figure(figsize=picture.size)
    origin = with_signs(picture.small_print)
    small_print = _lines_that_fit(figure, origin, SMALL_POINTS * LETTER_WIDTH)
    below = _small_print_share(figure, len(small_print))
    figure.set_layout_engine("constrained", rect=(0, below, 1, 1 - below))
    rows, columns = picture.panels
    panels = figure.subplots(rows, columns, squeeze=False, **picture.sharing)
    picture.draw(figure, panels)
    title = _lines_that_fit(figure, with_signs(picture.title), TITLE_POINTS * BOLD_WIDTH)
    figure.suptitle("\n".join(title), fontsize=TITLE_POINTS, fontweight="bold")
    figure.text(
        0.5,
        below / 2,
        "\n".join(small_print),
        fontsize=SMALL_POINTS,
        color=SMALL_PRINT_COLOUR,
        horizontalalignment="center",
        verticalalignment="center",
    )
    return figure


def _small_print_share(figure: Figure, lines: int) -> float:
    """How much of a figure's height so many lines of small print take."""
    points = lines * SMALL_POINTS * LINE_HEIGHT + 2 * MARGIN_POINTS
    return points / 72 / figure.get_figheight()


def _lines_that_fit(figure: Figure, text: str, letter_points: float) -> list[str]:
    """A text in as few lines as fit the width of a figure, all of similar lengths.

    letter_points: how wide a letter is
    """
    widest = int(figure.get_figwidth() * 72 / letter_points)
    lines = _wrapped(text, widest)
    for width in range(widest - 1, widest // 2, -1):
        narrower = _wrapped(text, width)
        if len(narrower) == len(lines):
            lines = narrower
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _save(picture: Picture, stem: Path) -> DrawnPicture:
    """Write STEM.png, .pdf and .csv (the numbers that are drawn)."""
    figure = drawn(picture)
    _lay_out(figure)
    pixels = _pixels_of(figure)
    part = _drawing_alone(figure, pixels)
    drawing = pixels.crop(part)
    png = stem.with_suffix(".png")
    write_atomically(png, _png_of(pixels, small=False))
    _write_pdf(figure, stem.with_suffix(".pdf"))
    Table(picture.rows).write_csv(stem.with_suffix(".csv"))
    return DrawnPicture(
        path=png,
        title=picture.title,
        text=picture.text,
        small_print=picture.small_print,
        drawing=_png_of(drawing, small=True),
        width=drawing.width,
        height=drawing.height,
        maps=_placed_maps(figure, picture.maps, pixels.height, part),
    )


def _lay_out(figure: Figure) -> None:
    """Give everything its place, once: each format would lay the figure out again."""
    layout = figure.get_layout_engine()
    assert layout is not None  # `drawn` sets one
    layout.execute(figure)
    rect = layout.get()["rect"]
    figure.set_layout_engine(None)
    for legend in figure.legends:  # Matplotlib leaves room above the small print, but not its place
        legend.set_bbox_to_anchor(rect, transform=figure.transFigure)


def _pixels_of(figure: Figure) -> Image.Image:
    """A figure as pixels, with no more colours than a palette holds."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    coloured = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    return coloured.quantize(COLOURS_KEPT, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def blank_pixels(figure: Figure) -> Image.Image:
    """As many pixels, for who needs files that are figures and not what they show."""
    return Image.new("P", figure.canvas.get_width_height())


def _png_of(pixels: Image.Image, *, small: bool) -> bytes:
    """small: a tenth smaller, in eight times the time"""
    content = io.BytesIO()
    pixels.save(content, "PNG", optimize=small)
    return content.getvalue()


def _drawing_alone(figure: Figure, pixels: Image.Image) -> Part:
    """The part of a figure between its title and its small print."""
    *_, title, small_print = figure.texts
    top = pixels.height - math.floor(title.get_window_extent().y0)
    bottom = pixels.height - math.ceil(small_print.get_window_extent().y1)
    return (0, top, pixels.width, bottom)


def _placed_maps(
    figure: Figure, maps: Sequence[CellMap | None], height: int, part: Part
) -> list[PlacedMap]:
    """Where the cells of each map lie within a part of the figure, which is so many pixels high."""
    left, top, right, bottom = part
    placed = []
    for axes, cells in zip(figure.axes, maps, strict=False):  # colour bars follow the panels
        if cells is not None:
            (image,) = axes.images
            where = image.get_window_extent()  # from the bottom
            box = (
                (where.x0 - left) / (right - left),
                (height - where.y1 - top) / (bottom - top),
                where.width / (right - left),
                where.height / (bottom - top),
            )
            placed.append(PlacedMap(cells, box))
    return placed


def _write_pdf(figure: Figure, path: Path) -> None:
    """By way of memory: Matplotlib's writer of PDF answers a full disk with errors of its own."""
    content = io.BytesIO()
    undated = {"CreationDate": None, "Producer": None, "Creator": None}
    figure.savefig(content, format="pdf", metadata=undated)
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
