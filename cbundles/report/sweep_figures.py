"""Figures 1, 4, 5 and 6 of the paper, drawn from records of a sweep."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cbundles.records import SweepRecord
from cbundles.report import drawing, select, summary, sweep_tables
from cbundles.report.drawing import Panels, Picture
from cbundles.report.headroom_figures import headroom_profiles
from cbundles.report.statistics import finite, spearman
from cbundles.report.table import Row
from cbundles.report.words import counted

BOUNDARY_COLOUR = "#e6194b"
PANEL_WIDTHS, PROFILES = 4, 6
NAMES = {"vgg": "VGG", "resnet": "ResNet"}


def draw_sweep(records: Sequence[SweepRecord], folder: Path) -> list[Path]:
    """Draw every figure of a sweep into `folder`; returns the PNG paths."""
    groups = [_pictures_of(group) for group in summary.variants(records)]
    return drawing.draw_groups(groups, folder)


def _pictures_of(group: select.Group[SweepRecord]) -> list[Picture]:
    records = group.records
    caption = "; ".join(filter(None, (_caption_of(records), group.name)))
    further = headroom_profiles(records, caption)
    if records[0].family != "fc":
        return [accuracy_and_entropy_by_depth(records, caption), *further]
    return [
        accuracy_map(records, caption),
        entropy_maps(records, caption),
        entropy_profiles(records, caption),
        accuracy_against_entropy(records, caption),
        *further,
    ]


def _caption_of(records: Sequence[SweepRecord]) -> str:
    parts = (
        records[0].dataset,
        f"{len(records)} networks",
        counted(records[0].epochs, "epoch"),
        counted(select.seeds(records), "seed"),
    )
    return f"{', '.join(parts)}; {summary.probe_of(records[0])}; {summary.devices(records)}"


def _columns(rows: Iterable[Row], *keys: str) -> list[Row]:
    """These columns of the table of networks."""
    return [{key: row[key] for key in keys} for row in rows]


def _layer_rows(record: SweepRecord) -> list[Row]:
    """The table of layers of a fully connected network, which has no blocks, after epochs."""
    rows = sweep_tables.layer_rows(record)
    return [{key: value for key, value in row.items() if key != "block"} for row in rows]


def _entropies(record: SweepRecord) -> NDArray[np.float64]:
    """H of every layer (columns) at every evaluation (rows), NaN where it was not finite."""
    return np.array(record.history.entropy, float)


def accuracy_and_entropy_by_depth(records: Sequence[SweepRecord], caption: str) -> Picture:
    """Figure 6: test accuracy and bundle entropy of the last block over depth, mean and range over
    seeds; the entropy before training and after the first and the last epoch."""
    name = NAMES[records[0].family]
    return Picture(
        stem="fig6_depth",
        title=f"{name}: accuracy and conflicts by depth (dotted: chance, the largest H)",
        text="Test accuracy and entropy of the last block by depth: mean and range over seeds.",
        caption=caption,
        rows=_columns(
            map(summary.summary_of, records),
            "depth",
            "seed",
            "test_accuracy",
            "bundle_entropy_initial",
            "bundle_entropy_first",
            "bundle_entropy_last",
        ),
        size=(7.0, 5.4),
        panels=(2, 1),
        sharing={"sharex": True},
        draw=lambda figure, panels: _draw_by_depth(panels[0, 0], panels[1, 0], records),
    )


def _draw_by_depth(upper: Axes, lower: Axes, records: Sequence[SweepRecord]) -> None:
    depths, limit = (
        select.depths(records),
        summary.largest_entropy(records),
    )

    def draw_range(
        axes: Axes, value_of: Callable[[SweepRecord], float], label: str, size: float
    ) -> None:
        """Mean over seeds at each depth, and the range between the lowest and the highest."""
        values = [[value_of(r) for r in select.only(records, depth=depth)] for depth in depths]
        middle = [float(np.mean(some)) for some in values]
        low, high = [min(some) for some in values], [max(some) for some in values]
        drawing.line_with_band(
            axes, depths, middle, low, high, marker="o", markersize=size, label=label
        )

    draw_range(upper, lambda r: 100 * summary.accuracy_of(r), "test accuracy", 6)
    upper.axhline(100 / records[0].num_classes, **drawing.LIMIT_LINE)
    upper.set_ylabel(_accuracy_label(records).replace(", ", ",\n"))  # as high as the panel
    upper.set_ylim(0, 100)
    # Smaller and smaller: equal values, which are common, stay visible.
    draw_range(lower, lambda r: finite(r.history.last("entropy")[0]), "initial weights", 9)
    draw_range(lower, lambda r: finite(r.history.last("entropy")[1]), "after epoch 1", 6)
    draw_range(lower, lambda r: finite(r.history.last("entropy")[-1]), "after the last", 3)
    lower.axhline(limit, **drawing.LIMIT_LINE)
    lower.set_ylabel("bundle entropy $H^L$ [nats]")
    lower.set_xlabel("depth (layers)")
    lower.set_xticks(depths)
    lower.set_ylim(-0.1, 1.08 * limit)
    drawing.legend_beside(lower)


def accuracy_map(records: Sequence[SweepRecord], caption: str) -> Picture:
    """Figure 1: test accuracy over width and depth, with the conflicting boundary.

    Depth grows upwards, so networks above the line conflict. Mean over seeds in each square.
    """
    widths, depths = (
        select.widths(records),
        select.depths(records),
    )
    return Picture(
        stem="fig1_accuracy_map",
        title="Test accuracy and conflicting boundary",
        text="Test accuracy by width and depth, mean over seeds, and the conflicting boundary.",
        caption=caption,
        rows=_columns(
            map(summary.summary_of, records),
            "width",
            "depth",
            "seed",
            "test_accuracy",
            "first_conflicting_layer",
        ),
        size=(1.6 + 0.52 * max(len(widths), 7), 1.6 + 0.34 * max(len(depths), 6)),
        draw=lambda figure, panels: _draw_map(figure, panels[0, 0], records),
    )


def _draw_map(figure: Figure, axes: Axes, records: Sequence[SweepRecord]) -> None:
    widths, depths = (
        select.widths(records),
        select.depths(records),
    )
    percent = np.full((len(depths), len(widths)), np.nan)
    for (width, depth), networks in select.by_size(records).items():
        mean = np.mean([summary.accuracy_of(record) for record in networks])
        percent[depths.index(depth), widths.index(width)] = 100 * mean
    image = axes.imshow(
        percent,
        origin="lower",
        aspect="auto",
        vmin=0,
        vmax=100,
        cmap="viridis",
        interpolation="nearest",
    )
    for (i, j), value in np.ndenumerate(percent):
        if np.isfinite(value):
            colour = "white" if value < 60 else "black"
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=7)
    _draw_boundary(axes, summary.boundary(records), depths)
    axes.set_xticks(range(len(widths)), [str(width) for width in widths])
    axes.set_yticks(range(len(depths)), [str(depth) for depth in depths])
    axes.set_xlabel("width (neurons in each hidden layer)")
    axes.set_ylabel("depth (hidden layers)")
    drawing.legend_below(figure)
    figure.colorbar(image, ax=axes, label=_accuracy_label(records))


def _accuracy_label(records: Sequence[SweepRecord]) -> str:
    """What an axis of `summary.accuracy_of` shows: not what a network had after its last epoch."""
    epochs = {summary.epochs_averaged(record) for record in records}
    if epochs == {1}:
        return "test accuracy [%], last epoch"
    number = f"{epochs.pop()} " if len(epochs) == 1 else ""
    return f"test accuracy [%], mean of last {number}epochs"


def _draw_boundary(axes: Axes, boundary: dict[int, float | None], depths: list[int]) -> None:
    """A step line between the squares: above it, a layer of the deepest network conflicts."""
    top = len(depths) - 0.5
    heights = []
    for first in boundary.values():
        conflicting = [i for i, d in enumerate(depths) if first is not None and d >= first]
        heights.append(conflicting[0] - 0.5 if conflicting else top)
    x = np.repeat(np.arange(len(heights) + 1) - 0.5, 2)[1:-1]
    axes.plot(
        x,
        np.repeat(heights, 2),
        color=BOUNDARY_COLOUR,
        linewidth=2.5,
        clip_on=False,
        label="conflicts above (from the deepest networks, after 1 epoch)",
    )
    axes.set_ylim(-0.5, top)


def entropy_maps(records: Sequence[SweepRecord], caption: str) -> Picture:
    """Figure 4: bundle entropy of every layer after every epoch, for some of the networks.

    Columns: up to four widths, spread over the grid. Rows: a shallow and the deepest network.
    """
    shown = _shown_in_maps(records)
    widths = sorted({width for width, _ in shown})
    depths = sorted({depth for _, depth in shown})
    limit = summary.largest_entropy(records)
    return Picture(
        stem="fig4_entropy_by_layer",
        title="Bundle entropy of each layer; epoch 0 is the initial network",
        text="Bundle entropy of every layer after every epoch, of one seed.",
        caption=caption,
        rows=[row for record in shown.values() for row in _layer_rows(record)],
        size=(max(4.6, 1.3 + 2.1 * len(widths)), 0.8 + 2.0 * len(depths)),
        panels=(len(depths), len(widths)),
        note=f"shown: seed {min(record.seed for record in records)}; at most {limit:.2f} nats",
        draw=lambda figure, panels: _draw_maps(figure, panels, shown, limit),
    )


def _shown_in_maps(records: Sequence[SweepRecord]) -> dict[tuple[int, int], SweepRecord]:
    """Networks for `entropy_maps`, by width and depth, of the first seed that was run."""
    depths = select.depths(records)
    deepest = select.only(records, depth=depths[-1])
    widths = drawing.spread_evenly(select.widths(deepest), PANEL_WIDTHS)
    shown: dict[tuple[int, int], SweepRecord] = {}
    for depth in sorted({depths[len(depths) // 2], depths[-1]}):
        for record in sorted(select.only(records, depth=depth), key=lambda record: record.seed):
            if record.width in widths:
                shown.setdefault((record.width, depth), record)
    return shown


def _draw_maps(
    figure: Figure, panels: Panels, shown: dict[tuple[int, int], SweepRecord], limit: float
) -> None:
    widths = sorted({width for width, _ in shown})
    depths = sorted({depth for _, depth in shown})
    places = [(depth, width) for depth in depths for width in widths]
    for axes, (depth, width) in zip(list(panels.flat), places, strict=True):
        if (width, depth) not in shown:
            axes.set_axis_off()
            continue
        record = shown[width, depth]
        image = axes.imshow(
            _entropies(record),
            origin="lower",
            aspect="auto",
            vmin=0,
            vmax=limit,
            cmap="magma",
            interpolation="nearest",
            extent=(0.5, depth + 0.5, -0.5, record.epochs_trained + 0.5),
        )
        where = _where_conflicts_begin(record)
        axes.set_title(f"width {width}, L = {depth}\n{where} (epoch 1)", fontsize=8)
        axes.set_xlabel("layer")
        axes.set_ylabel("epoch")
        axes.yaxis.get_major_locator().set_params(integer=True)
    figure.colorbar(image, ax=panels, label="bundle entropy $H^l$ [nats]")


def _where_conflicts_begin(record: SweepRecord) -> str:
    """After epoch 1, in the few words that a panel has room for."""
    first = summary.first_conflicting_place(record)
    if first is not None:
        return f"first conflict: layer {first}"
    return "diverged" if None in record.history.entropy[1] else "no conflict"


def entropy_profiles(records: Sequence[SweepRecord], caption: str) -> Picture:
    """Figure 4a as profiles: H^l over the layers of the deepest networks after epoch 1, one line a
    width, mean and range over seeds."""
    depth = max(record.depth for record in records)
    deepest = select.only(records, depth=depth)
    widths = drawing.spread_evenly(select.widths(deepest), PROFILES)
    lines = {width: select.only(deepest, width=width) for width in widths}
    layers = [row for some in lines.values() for record in some for row in _layer_rows(record)]
    return Picture(
        stem="fig4_entropy_profile",
        title=f"Bundle entropy after epoch 1, L = {depth} (dotted: the largest it can be)",
        text=(
            "Bundle entropy of every layer of the deepest networks after epoch 1: mean and range "
            "over seeds."
        ),
        caption=caption,
        rows=[row for row in layers if row["epoch"] == 1],
        size=(6.4, 3.6),
        draw=lambda figure, panels: _draw_profiles(
            panels[0, 0], lines, depth, summary.largest_entropy(records)
        ),
    )


def _draw_profiles(
    axes: Axes, lines: dict[int, list[SweepRecord]], depth: int, limit: float
) -> None:
    layers = np.arange(1, depth + 1)
    for width, networks in lines.items():
        entropy = np.array([_entropies(record)[1] for record in networks])
        drawing.line_with_band(
            axes,
            layers,
            entropy.mean(0),
            entropy.min(0),
            entropy.max(0),
            label=f"width {width} (n = {len(networks)})",
        )
    axes.axhline(limit, **drawing.LIMIT_LINE)
    axes.set_ylim(-0.05 * limit, 1.05 * limit)
    axes.set_xlabel("layer")
    axes.set_ylabel("bundle entropy $H^l$ [nats]")
    drawing.legend_beside(axes)


def accuracy_against_entropy(records: Sequence[SweepRecord], caption: str) -> Picture:
    """Figure 5: each network's test accuracy against the entropy of its last hidden layer."""
    rows = [summary.summary_of(record) for record in records]
    measured = [row for row in rows if row["bundle_entropy"] is not None]
    entropy = [row["bundle_entropy"] for row in measured]
    correlation = spearman(entropy, [100 * row["test_accuracy"] for row in measured])
    rank = "not defined" if math.isnan(correlation) else f"{correlation:.2f}"
    return Picture(
        stem="fig5_accuracy_entropy",
        title=f"Accuracy against bundle entropy (Spearman {rank}, n = {len(measured)})",
        text="Test accuracy against the bundle entropy of the last hidden layer.",
        caption=caption,
        rows=_columns(rows, "width", "depth", "seed", "bundle_entropy", "test_accuracy"),
        size=(5.6, 4.2),
        note="larger marks: wider",
        draw=lambda figure, panels: _draw_scatter(
            figure,
            panels[0, 0],
            measured,
            100 / records[0].num_classes,
            summary.largest_entropy(records),
            _accuracy_label(records),
        ),
    )


def _draw_scatter(
    figure: Figure, axes: Axes, rows: Sequence[Row], chance: float, limit: float, accuracy: str
) -> None:
    points = axes.scatter(
        [row["bundle_entropy"] for row in rows],
        [100 * row["test_accuracy"] for row in rows],
        c=[row["depth"] for row in rows],
        s=[8 + row["width"] for row in rows],
        cmap="viridis",
        alpha=0.8,
        edgecolor="black",
        linewidth=0.4,
    )
    axes.axhline(chance, **drawing.LIMIT_LINE)
    across = axes.get_yaxis_transform()  # x from 0 to 1 over the axes, y in data
    axes.text(1.01, chance, "chance", color="grey", fontsize=7, va="center", transform=across)
    axes.axvline(limit, **drawing.LIMIT_LINE)
    axes.set_ylim(0, 100)
    axes.set_xlim(-0.05 * limit, 1.05 * limit)
    axes.set_xlabel("bundle entropy $H^L$ [nats], mean over epochs; dotted: its largest value")
    axes.set_ylabel(accuracy)
    figure.colorbar(points, ax=axes, label="depth (hidden layers)")
