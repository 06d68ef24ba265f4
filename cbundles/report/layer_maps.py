"""Maps of H by layer and epoch, figure 4 of the paper: a panel for each network that is shown.

Of a fully connected grid they stand as in the grid, widths beside each other and depths one above
the other; VGGs and ResNets, of which a grid has one width, stand in a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cbundles.records import SweepRecord
from cbundles.report import drawing, select, summary, sweep_tables
from cbundles.report.cell_maps import CellMap
from cbundles.report.drawing import Panels, Picture
from cbundles.report.table import Row
from cbundles.report.words import listed

PANELS_BESIDE = 4
TICKS = 5  # of an axis, at most about
# Nats, the end of the scale of colours; less than that, but not zero, joins it.
LEAST_ENTROPY = 1e-3
NO_ENTROPY_COLOUR, DIVERGED_COLOUR = "#ffffff", "#9aa5b1"
VISIBLY_MORE = 1.5  # times as much H has another colour
Shown = list[list[SweepRecord | None]]  # networks by row and column of panels


def entropy_maps(records: Sequence[SweepRecord], caption: str) -> Picture:
    """Figure 4: bundle entropy of every layer after every epoch, for some of the networks.

    Of fully connected ones up to four widths, spread over the grid, in columns, and a shallow and
    the deepest network in rows; of VGGs and ResNets up to four depths.
    """
    panels = _panels_of(records)
    shown = shown_in_maps(records)
    limit = summary.largest_entropy(records)
    rows, columns = len(panels), len(panels[0])
    return Picture(
        stem="fig4_entropy_by_layer",
        title=_message_of(shown),
        text=(
            f"Bundle entropy H of every {_unit(shown[0])} after every epoch, of one network of "
            "each size; epoch 0 is the initial network. White: H = 0. Grey: the network diverged."
        ),
        caption=caption,
        rows=[row for record in shown for row in rows_of_layers(record)],
        size=(max(4.6, 1.3 + 2.1 * columns), 0.8 + 2.0 * rows),
        panels=(rows, columns),
        note=f"shown: {_seeds_of(shown)}; at most {limit:.2f} nats",
        draw=lambda figure, axes: _draw_maps(figure, axes, panels, limit),
        maps=[cells_of_layers(one) if one else None for line in panels for one in line],
    )


def shown_in_maps(records: Sequence[SweepRecord]) -> list[SweepRecord]:
    """The networks of which `entropy_maps` has a panel."""
    return [record for line in _panels_of(records) for record in line if record is not None]


def _panels_of(records: Sequence[SweepRecord]) -> Shown:
    """Of each size the network of the first seed that was run."""
    depths = select.depths(records)
    first: dict[tuple[int, int], SweepRecord] = {}
    for record in sorted(records, key=lambda record: record.seed):
        first.setdefault((record.width, record.depth), record)
    if records[0].is_convolutional:
        width = records[0].width
        beside = drawing.spread_evenly(depths, PANELS_BESIDE)
        return [[first.get((width, depth)) for depth in beside]]
    deepest = select.only(records, depth=depths[-1])
    widths = drawing.spread_evenly(select.widths(deepest), PANELS_BESIDE)
    above = sorted({depths[len(depths) // 2], depths[-1]})
    return [[first.get((width, depth)) for width in widths] for depth in above]


def _unit(record: SweepRecord) -> str:
    """What is measured of a network, in its order."""
    return "block" if record.is_convolutional else "layer"


def _message_of(shown: Sequence[SweepRecord]) -> str:
    """Where H > 0 is first found in the deepest networks that are shown, or in all in a row. The
    answers of a table go by conflict rates, so that theirs may be another layer."""
    of_seed = f"({_seeds_of(shown)})"
    if shown[0].is_convolutional:
        return f"After epoch 1, {_message_of_row(shown)} {of_seed}"
    deepest = max(record.depth for record in shown)
    parts = [
        f"{_first_place(record)} at {summary.width_in_words(record)}"
        for record in sorted(shown, key=lambda record: record.width)
        if record.depth == deepest
    ]
    where = ", ".join(parts)
    return f"Of {deepest} layers, the first with H > 0 after epoch 1 is {where} {of_seed}"


def _seeds_of(shown: Sequence[SweepRecord]) -> str:
    """``seed 0``, or one for each network from left to right where they differ."""
    seeds = list(dict.fromkeys(record.seed for record in shown))
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {listed(seeds)}"


def _message_of_row(shown: Sequence[SweepRecord]) -> str:
    """``H > 0 first in block 11 of 120 layers; nowhere in networks of 4 and 30 layers``."""
    first = [(record, summary.first_conflicting_place(record)) for record in shown]
    begin = [
        f"{summary.place_in_words(place, record)} of {record.depth} layers"
        for record, place in first
        if place
    ]
    without = [record.depth for record, place in first if not place]
    said = [f"H > 0 first in {listed(begin)}"] if begin else []
    if without:
        none = "nowhere in" if begin else "H = 0 in all blocks of"
        said.append(f"{none} networks of {listed(without)} layers")
    return "; ".join(said)


def _first_place(record: SweepRecord) -> str:
    """``layer 12``, or ``no layer``."""
    first = summary.first_conflicting_place(record)
    return f"no {_unit(record)}" if first is None else summary.place_in_words(first, record)


def rows_of_layers(record: SweepRecord) -> list[Row]:
    """The table of layers of a network after epochs; a fully connected one has no blocks."""
    rows = sweep_tables.layer_rows(record)
    if record.is_convolutional:
        return rows
    return [{key: value for key, value in row.items() if key != "block"} for row in rows]


def entropies(record: SweepRecord) -> NDArray[np.float64]:
    """H of every layer (columns) at every evaluation (rows), NaN where it was not finite."""
    return np.array(record.history.entropy, float)


def entropy_differs(records: Iterable[SweepRecord], first_epoch: bool = False) -> bool:
    """Whether H is seen to differ between layers, networks or epochs: in epoch 1, or in any."""
    epochs = slice(1, 2) if first_epoch else slice(None)
    measured = np.concatenate([_on_scale(entropies(record)[epochs]).ravel() for record in records])
    known = measured[np.isfinite(measured)]
    diverged = 0 < len(known) < len(measured)
    return diverged or (len(known) > 0 and known.max() > VISIBLY_MORE * known.min())


def cells_of_layers(record: SweepRecord) -> CellMap:
    """What a cell tells of a layer, or block, after an epoch."""
    return CellMap(
        f"H by {_unit(record)} and epoch, {summary.width_in_words(record)}, {record.depth} layers",
        summary.axis_of_places(record),
        "epoch",
        range(1, len(record.history.entropy[0]) + 1),
        range(record.epochs_trained + 1),
        {
            "H in nats": [[_rounded(h) for h in layers] for layers in record.history.entropy],
            "bundles": record.history.num_bundles,
        },
    )


def _rounded(entropy: float | None) -> float | None:
    """To three digits, which the smallest H needs as much as the largest."""
    return None if entropy is None else float(f"{entropy:.3g}")


def _draw_maps(figure: Figure, panels: Panels, shown: Shown, limit: float) -> None:
    # Dark is bad, as in the map of accuracies, and no colour of the scale is near that of zero.
    colours = mpl.colormaps["viridis_r"].resampled(drawing.COLOURS_OF_SCALE)
    colours = colours.with_extremes(under=NO_ENTROPY_COLOUR, bad=DIVERGED_COLOUR)
    # Of one class no entropy is possible, and the scale is wanted all the same.
    scale = LogNorm(LEAST_ENTROPY, max(limit, 10 * LEAST_ENTROPY))
    networks = [record for line in shown for record in line]
    for axes, record in zip(list(panels.flat), networks, strict=True):
        if record is None:
            axes.set_axis_off()
            continue
        image = axes.imshow(
            _on_scale(entropies(record)),
            origin="lower",
            aspect="auto",
            norm=scale,
            cmap=colours,
            interpolation="nearest",
            extent=(0.5, len(record.history.entropy[0]) + 0.5, -0.5, record.epochs_trained + 0.5),
        )
        _describe_panel(axes, record)
    bar = figure.colorbar(image, ax=panels, extend="min", label="bundle entropy $H^l$ [nats]")
    ticks = {0.001: "≤ 0.001", 0.01: "0.01", 0.1: "0.1", 1.0: "1"}
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.ax.minorticks_off()
    bar.ax.text(0.5, -0.075, "0", transform=bar.ax.transAxes, ha="center", va="top", fontsize=9)


def _describe_panel(axes: Axes, record: SweepRecord) -> None:
    unit = _unit(record)
    size = f"{summary.width_in_words(record)}, L = {record.depth}"
    if unit == "block":
        size = f"{record.depth} layers"
    axes.spines[:].set(visible=True, linewidth=0.5)  # white cells end somewhere, too
    where = _first_in_words(record)
    axes.set_title(f"{size}\n{where} (epoch 1)", fontsize=8)
    axes.set_xlabel(summary.axis_of_places(record))
    axes.set_ylabel("epoch")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(TICKS, integer=True, min_n_ticks=1))


def _on_scale(entropy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropies for a logarithmic scale of colours, which begins above zero: zero lies below it,
    and everything above zero within it."""
    raised = np.maximum(entropy, LEAST_ENTROPY)
    return np.where(entropy == 0, LEAST_ENTROPY / 2, raised)


def _first_in_words(record: SweepRecord) -> str:
    """Where H > 0 is first found after epoch 1, in the few words that a panel has room for."""
    first = summary.first_conflicting_place(record)
    if first is not None:
        return f"first H > 0: {summary.place_in_words(first, record).removeprefix('the ')}"
    return "diverged" if None in record.history.entropy[1] else "H = 0"
