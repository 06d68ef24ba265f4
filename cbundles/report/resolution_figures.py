"""How many bundles the same networks have when they are measured at several resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbundles.records import SweepRecord
from cbundles.report import drawing, select, summary
from cbundles.report.drawing import Panels, Picture
from cbundles.report.table import Row
from cbundles.wording import counted

# From the finest to the coarsest. Each has a dash and a mark of its own: the coarse ones often have
# one bundle in every layer, and then their lines lie on each other.
STYLES: dict[str, Any] = {
    "float32": {"color": "#000000", "linestyle": "-", "marker": "o"},
    "float16": {"color": "#0072b2", "linestyle": "--", "marker": "s"},
    "bfloat16": {"color": "#d55e00", "linestyle": "-.", "marker": "^"},
    "float8_e4m3fn": {"color": "#009e73", "linestyle": ":", "marker": "D"},
    "float8_e5m2": {"color": "#cc79a7", "linestyle": (0, (1, 3)), "marker": "v"},
}
MARKS = 6  # on a line, about; those of different resolutions take turns
PANELS = 4
SIZE_AND_SEED = ("model.depth", "model.width", select.SEED)


def pictures_of(records: Sequence[SweepRecord]) -> list[list[Picture]]:
    """A figure for each selection of networks that were measured at several resolutions."""
    selections = select.groups(records, across=(*SIZE_AND_SEED, "probe.resolution"))
    return [
        [bundles_by_resolution(group.records, group.name)]
        for group in selections
        if len(_resolutions_of(group.records)) > 1
    ]


def _resolutions_of(records: Sequence[SweepRecord]) -> list[str]:
    """Those that occur, from the finest to the coarsest."""
    present = {record.cell.probe.resolution for record in records}
    return [resolution for resolution in STYLES if resolution in present]


def bundles_by_resolution(records: Sequence[SweepRecord], name: str) -> Picture:
    """A panel for each network size: bundles by layer, a line for each resolution."""
    sizes = sorted(select.by_size(records))
    sizes = [sizes[place] for place in drawing.spread_evenly(range(len(sizes)), PANELS)]
    rows = [row for size in sizes for row in _bundle_rows(select.by_size(records)[size])]
    parts = (
        records[0].dataset,
        counted(records[0].epochs, "epoch"),
        counted(select.seeds(records), "seed"),
        f"probe of {records[0].cell.probe.samples} samples",
    )
    caption = "; ".join(filter(None, (", ".join(parts), name, summary.devices(records))))
    return Picture(
        stem="fig_resolution",
        title=_message_of_resolutions(records),
        text=(
            "Number of bundles by layer after the last epoch, of the same networks, when the "
            "weight update is rounded to several formats: median over seeds. One bundle: no "
            "sample can be told from another by one update in that format."
        ),
        caption=caption,
        rows=rows,
        size=(1.6 + 2.4 * len(sizes), 3.4),
        panels=(1, len(sizes)),
        sharing={"sharey": True},
        draw=lambda figure, panels: _draw_resolutions(figure, panels, sizes, rows),
    )


def _message_of_resolutions(records: Sequence[SweepRecord]) -> str:
    """The median number of bundles at each resolution, over all layers of all networks."""
    parts = []
    for resolution in _resolutions_of(records):
        numbers = [
            number
            for record in records
            if record.cell.probe.resolution == resolution
            for number in record.history.num_bundles[-1]
        ]
        parts.append(f"{resolution} {median(numbers):g}")
    return f"Median number of bundles of a layer: {', '.join(parts)}"


def _bundle_rows(records: Sequence[SweepRecord]) -> list[Row]:
    """The lines of one panel: networks of one size."""
    rows = []
    for resolution in _resolutions_of(records):
        networks = [r for r in records if r.cell.probe.resolution == resolution]
        middle = np.median([record.history.num_bundles[-1] for record in networks], axis=0)
        for layer, bundles in enumerate(middle.tolist(), start=1):
            row = {
                "width": networks[0].width,
                "depth": networks[0].depth,
                "resolution": resolution,
                "layer": layer,
                "networks": len(networks),
                "bundles_median": bundles,
            }
            rows.append(row)
    return rows


def _draw_resolutions(
    figure: Figure, panels: Panels, sizes: Sequence[tuple[int, int]], rows: Sequence[Row]
) -> None:
    for axes, (width, depth) in zip(panels[0], sizes, strict=True):
        here = [row for row in rows if (row["width"], row["depth"]) == (width, depth)]
        _draw_panel(axes, here, depth)
        axes.set_title(f"width {width}, L = {depth}", fontsize=8)
        axes.set_xlabel("layer")
        axes.set_yscale("log")
    panels[0, 0].set_ylabel("bundles")
    present = {row["resolution"] for row in rows}
    handles = [
        drawing.legend_entry(resolution, markersize=4, **style)
        for resolution, style in STYLES.items()
        if resolution in present
    ]
    drawing.legend_below(figure, handles=handles, ncols=len(handles), fontsize=8)


def _draw_panel(axes: Axes, rows: Sequence[Row], depth: int) -> None:
    """The lines of networks of one size; the marks of each begin where those of the others are
    not, and finer ones are drawn thicker, so that they can be seen beneath."""
    step = max(depth // MARKS, 1)
    for number, (resolution, style) in enumerate(STYLES.items()):
        line = [row for row in rows if row["resolution"] == resolution]
        axes.plot(
            [row["layer"] for row in line],
            [row["bundles_median"] for row in line],
            markevery=(number * step // len(STYLES), step),
            markersize=4,
            linewidth=2.4 - 0.4 * number,
            **style,
        )
