"""Figures 1, 4, 5 and 6 of the paper, drawn from records of a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbundles.readings import POOLED
from cbundles.records import SweepRecord
from cbundles.report import drawing, layer_maps, resolution_figures, select, summary
from cbundles.report.answer import is_stopped
from cbundles.report.cell_maps import CellMap
from cbundles.report.drawing import DrawnPicture, Picture
from cbundles.report.headroom_figures import headroom_profiles
from cbundles.report.signal_figures import early_signals
from cbundles.report.statistics import finite, spearman_estimate, spearman_text
from cbundles.report.table import Row
from cbundles.report.words import listed
from cbundles.wording import counted

BOUNDARY_COLOUR = "#e6194b"
BOUNDARY_ROOM = 0.3  # of a square, beyond the first and the last one: the line may run there
PROFILES = 6
FEWEST_WITH_ENTROPY = 3  # networks with H > 0: one of six makes a rank correlation of -0.65
NAMES = {"vgg": "VGG", "resnet": "ResNet"}


def draw_sweep(records: Sequence[SweepRecord], folder: Path) -> list[DrawnPicture]:
    """Draw every figure of a sweep that shows something into `folder`; of more settings than
    `summary.MOST_SETTINGS` only those that compare them."""
    first, *others = summary.variants(records)
    groups = []
    if len(others) < summary.MOST_SETTINGS:
        groups = [
            _pictures_of(first),
            *(_pictures_of(group, _is_measured_anew(group)) for group in others),
        ]
    compared = resolution_figures.pictures_of(records)
    return [
        *drawing.draw_groups(groups, folder),
        *drawing.draw_groups(compared, folder),
    ]


def draw_tuned(records: Sequence[SweepRecord], folder: Path) -> list[DrawnPicture]:
    """Draw H by block of the networks that an auto-tuning ended at, where it differs."""
    pictures = []
    if records and layer_maps.entropy_differs(layer_maps.shown_in_maps(records)):
        pictures.append(layer_maps.entropy_maps(records, _caption_of(records)))
    return drawing.draw_groups([pictures], folder)


def _is_measured_anew(group: select.Group[SweepRecord]) -> bool:
    """Whether another group has the same networks, whose bundles were measured in another way."""
    return all(path.startswith("probe.") for path in group.apart)


def _pictures_of(group: select.Group[SweepRecord], known: bool = False) -> list[Picture]:
    """The figures of networks that differ in size and seed alone. One with a single column or row
    is left out, and so is one in which H is everywhere about the same; and where accuracies are
    known, a map whose boundary separates no networks from others.

    known: whether the accuracies are in another group's map
    """
    records = group.records
    caption = "; ".join(filter(None, (_caption_of(records), group.name)))
    further = [*headroom_profiles(records, caption), *early_signals(records, caption)]
    sizes = len(select.widths(records)), len(select.depths(records))
    maps = []
    if layer_maps.entropy_differs(layer_maps.shown_in_maps(records)):
        maps.append(layer_maps.entropy_maps(records, caption))
    if records[0].is_convolutional:
        by_depth = [accuracy_and_entropy_by_depth(records, caption)] if sizes[1] > 1 else []
        return [*by_depth, *maps, *further]
    pictures = []
    above, below = _sides_of_boundary(records)
    if min(sizes) > 1 and ((above and below) or not known):
        pictures.append(accuracy_map(records, caption))
    pictures += maps
    if layer_maps.entropy_differs(
        select.only(records, depth=max(select.depths(records))), first_epoch=True
    ):
        pictures.append(entropy_profiles(records, caption))
    if len({summary.entropy_of(record) for record in records} - {None}) > 1:
        pictures.append(accuracy_against_entropy(records, caption))
    return [*pictures, *further]


def _caption_of(records: Sequence[SweepRecord]) -> str:
    parts = (
        records[0].dataset,
        counted(len(records), "network"),
        counted(records[0].epochs, "epoch"),
        counted(select.seeds(records), "seed"),
    )
    text = f"{', '.join(parts)}; {summary.probe_of(records[0])}; {summary.devices(records)}"
    stopped = sum(map(is_stopped, records))
    if stopped:
        text += f"; {counted(stopped, 'network')} stopped early: theirs is the accuracy then"
    return text


def _columns(rows: Iterable[Row], *keys: str) -> list[Row]:
    """These columns of the table of networks."""
    return [{key: row[key] for key in keys} for row in rows]


def _measured_last(records: Sequence[SweepRecord]) -> str:
    """What H is measured of, in words."""
    return "the pooled features" if records[0].cell.probe.last == POOLED else "the last block"


def accuracy_and_entropy_by_depth(records: Sequence[SweepRecord], caption: str) -> Picture:
    """Figure 6: test accuracy and bundle entropy of the last layer over depth, mean and range over
    seeds; the entropy before training and after the first and the last epoch."""
    return Picture(
        stem="fig6_depth",
        title=_message_of_depths(records),
        text=(
            f"Test accuracy and entropy of {_measured_last(records)} by depth: mean and range over "
            "seeds. "
            "Dotted: chance, and the largest that H can be."
        ),
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


def _message_of_depths(records: Sequence[SweepRecord]) -> str:
    """At which depth accuracy is best, and from which on networks conflict at the end."""
    by_depth = {depth: select.only(records, depth=depth) for depth in select.depths(records)}
    accuracy = {
        depth: 100 * fmean(map(summary.accuracy_of, networks))
        for depth, networks in by_depth.items()
    }
    best = max(accuracy, key=lambda depth: accuracy[depth])
    conflicting: list[int] = [
        depth
        for depth, networks in by_depth.items()
        if any(finite(network.history.last("entropy")[-1]) > 0 for network in networks)
    ]
    if len(conflicting) in (0, len(by_depth)):
        where = f"at the end H {'>' if conflicting else '='} 0 at every depth"
    else:
        where = f"at the end H > 0 only in networks of {listed(conflicting)} layers"
    name = NAMES[records[0].family]
    return f"{name}: most accurate with {best} layers ({accuracy[best]:.0f} %); {where}"


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
    upper.set_ylabel(_on_two_lines(_accuracy_label(records)))
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
        title=_message_of_map(records),
        text=(
            "Test accuracy by width and depth, mean over seeds. Red: the conflicting boundary, "
            "which the deepest network of each width sets after one epoch."
        ),
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
        maps=[_cells_of_map(records)],
    )


def _message_of_map(records: Sequence[SweepRecord]) -> str:
    """What networks on either side of the boundary reach."""
    above, below = _sides_of_boundary(records)
    if not above:
        return f"No network lies above a conflicting boundary; they reach {fmean(below):.0f} %"
    if not below:
        return f"All networks lie above the conflicting boundary; they reach {fmean(above):.0f} %"
    return (
        f"Networks below the conflicting boundary reach {fmean(below):.0f} % on average "
        f"(n = {len(below)}), those above it {fmean(above):.0f} % (n = {len(above)})"
    )


def _sides_of_boundary(records: Sequence[SweepRecord]) -> tuple[list[float], list[float]]:
    """Test accuracies, in percent, of the networks above the conflicting boundary and below it."""
    boundary = summary.boundary(records)
    above: list[float] = []
    below: list[float] = []
    for record in records:
        first = boundary[record.width]
        side = below if first is None or record.depth < first else above
        side.append(100 * summary.accuracy_of(record))
    return above, below


def _cells_of_map(records: Sequence[SweepRecord]) -> CellMap:
    """What a square tells of its networks, means over seeds."""
    widths, depths = select.widths(records), select.depths(records)
    networks = select.by_size(records)
    squares = [[networks.get((width, depth), []) for width in widths] for depth in depths]
    told: dict[str, Callable[[Sequence[SweepRecord]], str | None]] = {
        "test accuracy": lambda some: f"{100 * fmean(map(summary.accuracy_of, some)):.1f} %",
        "H of the last layer, mean over epochs": _told_entropy,
        "first layer with H > 0 after epoch 1": _first_layers,
        "seeds": lambda some: str(len(some)),
    }
    numbers = {
        name: [[tell(some) if some else None for some in line] for line in squares]
        for name, tell in told.items()
    }
    return CellMap("test accuracy by width and depth", "width", "depth", widths, depths, numbers)


def _told_entropy(networks: Sequence[SweepRecord]) -> str | None:
    known = [entropy for entropy in map(summary.entropy_of, networks) if entropy is not None]
    return f"{fmean(known):.3f} nats" if known else None


def _first_layers(networks: Sequence[SweepRecord]) -> str:
    """``none``, ``12``, or of several seeds ``12, none, 14``."""
    return ", ".join(str(summary.first_conflicting_place(r) or "none") for r in networks)


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
        cmap=mpl.colormaps["viridis"].resampled(drawing.COLOURS_OF_SCALE),
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
    figure.colorbar(image, ax=axes, label=_on_two_lines(_accuracy_label(records)))


def _accuracy_label(records: Sequence[SweepRecord]) -> str:
    """What an axis of `summary.accuracy_of` shows: not what a network had after its last epoch."""
    epochs = {summary.epochs_averaged(record) for record in records}
    if epochs == {1}:
        return "test accuracy [%], last epoch"
    number = f"{epochs.pop()} " if len(epochs) == 1 else ""
    return f"test accuracy [%], mean of last {number}epochs"


def _on_two_lines(label: str) -> str:
    """For an axis that is lower than a label is long."""
    return label.replace(", ", ",\n")


def _draw_boundary(axes: Axes, boundary: dict[int, float | None], depths: list[int]) -> None:
    """A step line between the squares: above it, a layer of the deepest network conflicts. It lies
    at the edge where all networks of a width do, or none; there is room for it, and no axis."""
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
        label="above it H > 0 (of layers of the deepest networks, after 1 epoch)",
        path_effects=[patheffects.withStroke(linewidth=4.5, foreground="white")],
    )
    axes.set_ylim(-0.5 - BOUNDARY_ROOM, top + BOUNDARY_ROOM)
    axes.spines[:].set_visible(False)


def entropy_profiles(records: Sequence[SweepRecord], caption: str) -> Picture:
    """Figure 4a as profiles: H^l over the layers of the deepest networks after epoch 1, one line a
    width, mean and range over seeds."""
    depth = max(record.depth for record in records)
    deepest = select.only(records, depth=depth)
    widths = drawing.spread_evenly(select.widths(deepest), PROFILES)
    lines = {width: select.only(deepest, width=width) for width in widths}
    layers = [
        row
        for some in lines.values()
        for record in some
        for row in layer_maps.rows_of_layers(record)
    ]
    return Picture(
        stem="fig4_entropy_profile",
        title=_message_of_profiles(lines, depth),
        text=(
            "Bundle entropy of every layer of the deepest networks after epoch 1: mean and range "
            "over seeds. Dotted: the largest that it can be."
        ),
        caption=caption,
        rows=[row for row in layers if row["epoch"] == 1],
        size=(6.4, 3.6),
        draw=lambda figure, panels: _draw_profiles(
            panels[0, 0], lines, depth, summary.largest_entropy(records)
        ),
    )


def _message_of_profiles(lines: dict[int, list[SweepRecord]], depth: int) -> str:
    """What H is in the last layer of the narrowest and of the widest networks."""
    parts = []
    for width in sorted({min(lines), max(lines)}):
        last = np.array([layer_maps.entropies(record)[1, -1] for record in lines[width]])
        mean = "undefined" if np.isnan(last).any() else f"{last.mean():.2f} nats"
        parts.append(f"{mean} at {summary.width_in_words(lines[width][0])}")
    return f"After epoch 1, H of the last of {depth} layers is {' and '.join(parts)}"


def _draw_profiles(
    axes: Axes, lines: dict[int, list[SweepRecord]], depth: int, limit: float
) -> None:
    layers = np.arange(1, depth + 1)
    dashes = itertools.cycle(drawing.DASHES)  # where widths agree, none hides another
    for networks in lines.values():
        entropy = np.array([layer_maps.entropies(record)[1] for record in networks])
        drawing.line_with_band(
            axes,
            layers,
            entropy.mean(0),
            entropy.min(0),
            entropy.max(0),
            label=f"{summary.width_in_words(networks[0])} (n = {len(networks)})",
            linestyle=next(dashes),
        )
    axes.axhline(limit, **drawing.LIMIT_LINE)
    axes.set_ylim(-0.05 * limit, 1.05 * limit)
    axes.set_xlabel("layer")
    axes.set_ylabel("bundle entropy $H^l$ [nats]")
    drawing.legend_beside(axes)


def _left_out_told(number: int) -> str:
    if not number:
        return ""
    return f" {counted(number, 'network')} left out that diverged or were stopped early."


def accuracy_against_entropy(records: Sequence[SweepRecord], caption: str) -> Picture:
    """Figure 5: each network's test accuracy against the entropy of its last hidden layer."""
    rows = [summary.summary_of(record) for record in records if not is_stopped(record)]
    measured = [row for row in rows if row["bundle_entropy"] is not None and not row["diverged"]]
    left_out = len(records) - len(measured)
    entropy = [row["bundle_entropy"] for row in measured]
    accuracy = [row["test_accuracy"] for row in measured]
    by_shape = [row["depth"] / row["width"] for row in measured if row["width"]]
    beside = ""
    if len(by_shape) == len(measured):
        beside = f" Spearman of depth / width alone: {spearman_text(by_shape, accuracy)}."
    return Picture(
        stem="fig5_accuracy_entropy",
        title=_message_of_relation(entropy, accuracy),
        text=(
            "Test accuracy of each network against the bundle entropy of its last hidden layer, "
            "mean over the epochs. Larger marks are wider networks. Dotted: chance, and the "
            f"largest that H can be.{beside}{_left_out_told(left_out)}"
        ),
        caption=caption,
        rows=_columns(rows, "width", "depth", "seed", "bundle_entropy", "test_accuracy"),
        size=(5.6, 4.2),
        draw=lambda figure, panels: _draw_scatter(
            figure,
            panels[0, 0],
            measured,
            100 / records[0].num_classes,
            summary.largest_entropy(records),
            _accuracy_label(records),
        ),
    )


def _message_of_relation(entropy: Sequence[float], accuracy: Sequence[float]) -> str:
    """How accuracy goes with H; a direction only where the interval excludes that there is none."""
    found = spearman_estimate(entropy, accuracy)
    bundled = sum(value > 0 for value in entropy)
    if bundled < FEWEST_WITH_ENTROPY:
        return f"Too few networks to relate: {bundled} of {len(entropy)} with H > 0"
    said = "Accuracy and bundle entropy are not clearly related"
    if found.high < 0 or found.low > 0:
        direction = "lower" if found.mean < 0 else "higher"
        said = f"The larger the bundle entropy, the {direction} the accuracy"
    return f"{said} (Spearman {spearman_text(entropy, accuracy)}, n = {len(entropy)})"


def _draw_scatter(
    figure: Figure, axes: Axes, rows: Sequence[Row], chance: float, limit: float, accuracy: str
) -> None:
    points = axes.scatter(
        [row["bundle_entropy"] for row in rows],
        [100 * row["test_accuracy"] for row in rows],
        c=[row["depth"] for row in rows],
        s=[8 + (row["width"] or 0) for row in rows],
        cmap=mpl.colormaps["viridis"].resampled(drawing.COLOURS_OF_SCALE),
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
    axes.set_xlabel("bundle entropy $H^L$ [nats], mean over epochs")
    axes.set_ylabel(accuracy)
    figure.colorbar(points, ax=axes, label="depth (hidden layers)")
