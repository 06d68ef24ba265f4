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
Lines = dict[str, list[SweepRecord]]  # networks by what tells them apart, such as ``width 10``


def headroom_profiles(records: Sequence[SweepRecord], caption: str) -> list[Picture]:
    """Headroom over the layers after the last epoch, median and range over seeds: of the deepest
    fully connected networks a line for each width, of VGGs and ResNets one for each depth. No
    picture where it was not measured, or all of these networks diverged."""
    lines = _lines_of(records)
    if not lines:
        return []
    picture = Picture(
        stem="fig_headroom_profile",
        title=f"After the last epoch, {_message(lines)}",
        text=(
            "Headroom of every layer after the last epoch: by how many bits the learning rate may "
            "fall before the layer conflicts; below 0 it conflicts already. Median and range over "
            f"seeds; {bits.HIGHEST:g} is so much or more."
        ),
        caption=caption,
        rows=[row for some in lines.values() for record in some for row in _rows_drawn(record)],
        size=(6.4, 3.6),
        note=f"below 0 a layer conflicts; {bits.LOWEST:g} to {bits.HIGHEST:g} bits were tried",
        draw=lambda figure, panels: _draw_profiles_of_headroom(panels[0, 0], lines),
    )
    return [picture]


def _lines_of(records: Sequence[SweepRecord]) -> Lines:
    known = [r for r in records if summary.least_headroom(r.history, -1) is not None]
    if records[0].is_convolutional or not records[0].width:
        depths = drawing.spread_evenly(select.depths(known), LINES)
        return {f"depth {depth}": select.only(known, depth=depth) for depth in depths}
    deepest = select.only(known, depth=max(record.depth for record in records))
    widths = drawing.spread_evenly(select.widths(deepest), LINES)
    return {f"width {width}": select.only(deepest, width=width) for width in widths}


def _message(lines: Lines) -> str:
    """What the networks with the least headroom say."""
    least_of = {name: float(_headroom_of(some).min()) for name, some in lines.items()}
    conflicting = [name for name, least in least_of.items() if least < 0]
    if len(conflicting) == len(lines) > 1:
        quantity = conflicting[0].partition(" ")[0]
        return f"layers conflict at every {quantity}"
    if conflicting:
        return f"layers conflict with {', '.join(conflicting)}"
    name = min(least_of, key=lambda name: least_of[name])
    return f"no layer conflicts: least headroom {bits.in_short(least_of[name])} bits, with {name}"


def _headroom_of(networks: Sequence[SweepRecord]) -> NDArray[np.float64]:
    """After the last epoch: networks by layers."""
    measured = [record.history.headroom for record in networks]
    return np.array([each[-1] for each in measured if each is not None], float)


def _rows_drawn(record: SweepRecord) -> list[Row]:
    rows = sweep_tables.layer_rows(record, with_headroom=True)
    last = [row for row in rows if row["epoch"] == record.epochs_trained]
    return [row for row in last if row["headroom"] is not None]  # the own reading alone has it


def _draw_profiles_of_headroom(axes: Axes, lines: Lines) -> None:
    lowest = highest = 0.0
    for name, networks in lines.items():
        headroom = _headroom_of(networks)
        lowest, highest = min(lowest, headroom.min()), max(highest, headroom.max())
        drawing.line_with_band(
            axes,
            np.arange(1, headroom.shape[1] + 1),
            np.median(headroom, axis=0),  # a mean would take what ends at 14 bits as 14
            headroom.min(0),
            headroom.max(0),
            label=f"{name} (n = {len(networks)})",
        )
    axes.axhline(0, **drawing.LIMIT_LINE)
    axes.set_ylim(lowest - 1, highest + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    (first, *_), *_ = lines.values()
    along = summary.axis_of_places(first)
    axes.set_xlabel(
        f"{along} (of the deepest networks)"
        if first.width and not first.is_convolutional
        else along
    )
    axes.set_ylabel("headroom [bits of the learning rate]")
    drawing.legend_beside(axes)
