"""The figure of headroom by layer, drawn from records of a sweep that measured it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cbundles import bits
from cbundles.records import SweepRecord
from cbundles.report import drawing, select, summary, sweep_tables
from cbundles.report.drawing import Picture
from cbundles.report.table import Row

LINES = 6
Lines = dict[int, list[SweepRecord]]  # networks by their width, or number of filters


def headroom_profiles(records: Sequence[SweepRecord], caption: str) -> list[Picture]:
    """Headroom over the layers of the deepest networks after the last epoch, one line a width, mean
    and range over seeds. No picture where it was not measured, or these networks diverged."""
    depth = max(record.depth for record in records)
    deepest = select.only(records, depth=depth)
    known = [r for r in deepest if summary.least_headroom(r.history, -1) is not None]
    if not known:
        return []
    widths = drawing.spread_evenly(select.widths(known), LINES)
    lines = {width: select.only(known, width=width) for width in widths}
    picture = Picture(
        stem="fig_headroom_profile",
        title=f"{_message(lines)} (after the last epoch, L = {depth})",
        text=(
            "Headroom of every layer of the deepest networks after the last epoch: by how many "
            "bits the learning rate may fall before the layer conflicts; below 0 it conflicts "
            "already. Mean and range over seeds."
        ),
        caption=caption,
        rows=[row for some in lines.values() for record in some for row in _rows_drawn(record)],
        size=(6.4, 3.6),
        note=f"looked for from {bits.LOWEST:g} to {bits.HIGHEST:g} bits",
        draw=lambda figure, panels: _draw_profiles_of_headroom(panels[0, 0], lines),
    )
    return [picture]


def _message(lines: Lines) -> str:
    """What the networks with the least headroom say."""
    least_of = {width: float(_headroom_of(some).min()) for width, some in lines.items()}
    conflicting = [str(width) for width, least in least_of.items() if least < 0]
    if conflicting:
        name = _name_of_width(lines)
        return f"Headroom below 0: layers conflict with {name} {', '.join(conflicting)}"
    return f"No layer conflicts: headroom of {bits.in_short(min(least_of.values()))} bits"


def _headroom_of(networks: Sequence[SweepRecord]) -> NDArray[np.float64]:
    """After the last epoch: networks by layers."""
    measured = [record.history.headroom for record in networks]
    return np.array([each[-1] for each in measured if each is not None], float)


def _name_of_width(lines: Lines) -> str:
    family = next(iter(lines.values()))[0].family
    return "width" if family == "fc" else "filters"


def _rows_drawn(record: SweepRecord) -> list[Row]:
    rows = sweep_tables.layer_rows(record, with_headroom=True)
    last = [row for row in rows if row["epoch"] == record.epochs_trained]
    return [row for row in last if row["headroom"] is not None]  # the own reading alone has it


def _draw_profiles_of_headroom(axes: Axes, lines: Lines) -> None:
    name, lowest, highest = _name_of_width(lines), 0.0, 0.0
    for width, networks in lines.items():
        headroom = _headroom_of(networks)
        lowest, highest = min(lowest, headroom.min()), max(highest, headroom.max())
        drawing.line_with_band(
            axes,
            np.arange(1, headroom.shape[1] + 1),
            headroom.mean(0),
            headroom.min(0),
            headroom.max(0),
            label=f"{name} {width} (n = {len(networks)})",
        )
    axes.axhline(0, **drawing.LIMIT_LINE)
    axes.set_ylim(lowest - 1, highest + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("layer" if name == "width" else "block")
    axes.set_ylabel("headroom [bits of the learning rate]")
    drawing.legend_beside(axes)
