"""Figures 1, 4, 5 and 6 of the paper, drawn from records."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from cbundles.report import drawing, evidence, summary, tables

BOUNDARY_COLOUR = "#e6194b"
PANEL_WIDTHS, PROFILES = 4, 6
NAMES = {"vgg": "VGG", "resnet": "ResNet"}


def draw_all(records: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Draw every figure of a sweep into `folder`; returns the PNG paths."""
    paths: list[Path] = []
    groups = summary.variants(records)
    with mpl.rc_context(drawing.STYLE):
        for number, (name, group) in enumerate(groups.items(), start=1):
            suffix = "" if len(groups) == 1 else f"-{number}"
            caption = "; ".join(filter(None, (_caption(group), name)))
            for stem, (shown, draw, rows) in _figures_of(group).items():
                figure, path = draw(group, caption), folder / f"{stem}{suffix}"
                paths.append(drawing.save(figure, path, rows, f"{shown} {caption}."))
    return paths


Draw = Callable[[Sequence[dict[str, Any]], str], Figure]
BY_WIDTH = ("width", "depth", "seed", "test_accuracy", "first_conflicting_layer")
BY_ENTROPY = ("width", "depth", "seed", "bundle_entropy", "test_accuracy")
BY_DEPTH = ("depth", "seed", "test_accuracy", "bundle_entropy_initial", "bundle_entropy_first",
            "bundle_entropy_last")  # fmt: skip


def _figures_of(
    group: Sequence[dict[str, Any]],
) -> dict[str, tuple[str, Draw, list[dict[str, Any]]]]:
    """Name -> what it shows, how it is drawn, and the numbers in it."""

    def rows(columns: Sequence[str]) -> list[dict[str, Any]]:
        return [{key: row[key] for key in columns} for row in map(summary.row, group)]

    if group[0]["config"]["model"]["family"] != "fc":
        shown = "Test accuracy and entropy of the last block by depth: mean and range over seeds."
        return {"fig6_depth": (shown, accuracy_and_entropy_by_depth, rows(BY_DEPTH))}
    layers = [row for record in _panels(group).values() for row in _layer_rows(record)]
    profiles = [row for record in _deepest(group) for row in _layer_rows(record)
                if row["epoch"] == 1]  # fmt: skip
    return {
        "fig1_accuracy_map": (
            "Test accuracy by width and depth, mean over seeds, and the conflicting boundary.",
            accuracy_map, rows(BY_WIDTH),
        ),
        "fig4_entropy_by_layer": (
            "Bundle entropy of every layer after every epoch, of one seed.", entropy_maps, layers,
        ),
        "fig4_entropy_profile": (
            "Bundle entropy of every layer of the deepest networks after epoch 1: mean and range "
            "over seeds.", entropy_profiles, profiles,
        ),
        "fig5_accuracy_entropy": (
            "Test accuracy against the bundle entropy of the last hidden layer.",
            accuracy_against_entropy, rows(BY_ENTROPY),
        ),
    }  # fmt: skip


def _layer_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Of a fully connected network, which has no blocks."""
    return [{key: value for key, value in row.items() if key != "block"}
            for row in tables.layer_rows(record)]  # fmt: skip


def _axis(records: Sequence[dict[str, Any]], key: str) -> list[int]:
    return sorted({r["config"]["model"][key] for r in records})


def _caption(records: Sequence[dict[str, Any]]) -> str:
    config = records[0]["config"]
    seeds = len({r["config"]["training"]["seed"] for r in records})
    epochs = config["training"]["epochs"]
    devices = ", ".join(sorted({f"{r['device']} ({r['processor']})" for r in records}))
    return (
        f"{config['data']['name']}, {len(records)} networks, "
        f"{epochs} epoch{'s' * (epochs != 1)}, {seeds} seed{'s' * (seeds != 1)}; "
        f"{summary.probe(records[0])}; {devices}"
    )


def accuracy_and_entropy_by_depth(records: Sequence[dict[str, Any]], caption: str) -> Figure:
    """Figure 6: test accuracy and bundle entropy of the last block over depth, mean and range over
    seeds; the entropy before training and after the first and the last epoch."""
    depths = _axis(records, "depth")
    classes, family = records[0]["num_classes"], records[0]["config"]["model"]["family"]
    limit = summary.largest_entropy(records)

    def entropy(epoch: int) -> Callable[[dict[str, Any]], float]:
        def value(record: dict[str, Any]) -> float:
            found = record["history"][epoch]["entropy"][-1]
            return math.nan if found is None else float(found)

        return value

    figure = Figure(figsize=(7.0, 5.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    _band(upper, records, depths, lambda r: 100 * summary.row(r)["test_accuracy"], "test accuracy")
    upper.axhline(100 / classes, color="grey", linewidth=0.8, linestyle=":")
    upper.set_ylabel("test accuracy [%]")
    upper.set_ylim(0, 100)
    # Smaller and smaller: equal values, which are common, stay visible.
    for epoch, label, size in ((0, "initial weights", 9), (1, "after epoch 1", 6),
                               (-1, "after the last", 3)):  # fmt: skip
        _band(lower, records, depths, entropy(epoch), label, size)
    lower.axhline(limit, color="grey", linewidth=0.8, linestyle=":")
    lower.set_ylabel("bundle entropy $H^L$ [nats]")
    lower.set_xlabel("depth (layers)")
    lower.set_xticks(depths)
    lower.set_ylim(-0.1, 1.08 * limit)
    lower.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    title = f"{NAMES[family]}: accuracy and conflicts by depth (dotted: chance, the largest H)"
    drawing.entitle(figure, title, caption)
    return figure


def _band(
    axes: Any,
    records: Sequence[dict[str, Any]],
    depths: list[int],
    value: Callable[[dict[str, Any]], float],
    label: str,
    size: float = 6,
) -> None:
    """Mean over seeds at each depth, and the range between the lowest and the highest."""
    values = [
        [value(r) for r in records if r["config"]["model"]["depth"] == depth] for depth in depths
    ]
    (line,) = axes.plot(depths, [float(np.mean(v)) for v in values], marker="o", markersize=size,
                        label=label)  # fmt: skip
    low, high = [min(v) for v in values], [max(v) for v in values]
    axes.fill_between(depths, low, high, color=line.get_color(), alpha=0.2)


def accuracy_map(records: Sequence[dict[str, Any]], caption: str) -> Figure:
    """Figure 1: test accuracy over width and depth, with the conflicting boundary.

    Depth grows upwards, so networks above the line conflict. Mean over seeds in each square.
    """
    widths, depths = _axis(records, "width"), _axis(records, "depth")
    accuracy = np.full((len(depths), len(widths)), np.nan)
    rows = [summary.row(r) for r in records]
    for i, depth in enumerate(depths):
        for j, width in enumerate(widths):
            here = [r["test_accuracy"] for r in rows if r["depth"] == depth and r["width"] == width]
            if here:
                accuracy[i, j] = 100 * np.mean(here)

    size = (1.6 + 0.52 * max(len(widths), 7), 1.6 + 0.34 * max(len(depths), 6))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(
        accuracy, origin="lower", aspect="auto", vmin=0, vmax=100, cmap="viridis",
        interpolation="nearest",
    )  # fmt: skip
    for (i, j), value in np.ndenumerate(accuracy):
        if np.isfinite(value):
            colour = "white" if value < 60 else "black"
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=7)
    _draw_boundary(axes, summary.boundary(records), widths, depths)
    axes.set_xticks(range(len(widths)), [str(w) for w in widths])
    axes.set_yticks(range(len(depths)), [str(d) for d in depths])
    axes.set_xlabel("width (neurons in each hidden layer)")
    axes.set_ylabel("depth (hidden layers)")
    drawing.entitle(figure, "Test accuracy and conflicting boundary", caption)
    figure.legend(loc="outside lower center", frameon=False)
    figure.colorbar(image, ax=axes, label="test accuracy [%]")
    return figure


def _draw_boundary(
    axes: Any, boundary: dict[int, float | None], widths: list[int], depths: list[int]
) -> None:
    """A step line between the squares: above it, a layer of the deepest network conflicts."""
    top = len(depths) - 0.5
    heights = []
    for width in widths:
        first = boundary[width]
        index = next((i for i, d in enumerate(depths) if first is not None and d >= first), None)
        heights.append(top if index is None else index - 0.5)
    x = np.repeat(np.arange(len(widths) + 1) - 0.5, 2)[1:-1]
    axes.plot(
        x,
        np.repeat(heights, 2),
        color=BOUNDARY_COLOUR,
        linewidth=2.5,
        clip_on=False,
        label="conflicts above (from the deepest networks, after 1 epoch)",
    )
    axes.set_ylim(-0.5, top)


def entropy_maps(records: Sequence[dict[str, Any]], caption: str) -> Figure:
    """Figure 4: bundle entropy of every layer after every epoch, for some of the networks.

    Columns: up to four widths, spread over the grid. Rows: a shallow and the deepest network.
    """
    panels = _panels(records)
    widths, chosen = (sorted(set(values)) for values in zip(*panels, strict=True))
    limit = summary.largest_entropy(records)
    figure = Figure(
        figsize=(max(4.6, 1.3 + 2.1 * len(widths)), 0.8 + 2.0 * len(chosen)), layout="constrained"
    )
    grid = figure.subplots(len(chosen), len(widths), squeeze=False)
    image = None
    for line, depth in zip(grid, chosen, strict=True):
        for axes, width in zip(line, widths, strict=True):
            record = panels.get((width, depth))
            if record is None:
                axes.set_axis_off()
                continue
            entropy = np.array(
                [[np.nan if h is None else h for h in e["entropy"]] for e in record["history"]]
            )
            image = axes.imshow(
                entropy, origin="lower", aspect="auto", vmin=0, vmax=limit, cmap="magma",
                interpolation="nearest", extent=(0.5, depth + 0.5, -0.5, len(entropy) - 0.5),
            )  # fmt: skip
            first = summary.first_conflicting_place(record["history"][1])
            where = "no conflict" if first is None else f"first conflict: layer {first}"
            axes.set_title(f"width {width}, L = {depth}\n{where} (epoch 1)", fontsize=8)
            axes.set_xlabel("layer")
            axes.set_ylabel("epoch")
            axes.yaxis.get_major_locator().set_params(integer=True)
    if image is not None:
        seed = min(r["config"]["training"]["seed"] for r in records)
        figure.colorbar(image, ax=grid, label="bundle entropy $H^l$ [nats]")
        title = "Bundle entropy of each layer; epoch 0 is the initial network"
        about = f"{caption}; shown: seed {seed}; at most {limit:.2f} nats"
        drawing.entitle(figure, title, about)
    return figure


def entropy_profiles(records: Sequence[dict[str, Any]], caption: str) -> Figure:
    """Figure 4a as profiles: H^l over the layers of the deepest networks after epoch 1, one line a
    width, mean and range over seeds."""
    deepest = _deepest(records)
    depth = deepest[0]["config"]["model"]["depth"]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for width in _axis(deepest, "width"):
        entropy = np.array(
            [
                [np.nan if h is None else h for h in record["history"][1]["entropy"]]
                for record in deepest
                if record["config"]["model"]["width"] == width
            ]
        )
        layers = np.arange(1, depth + 1)
        (line,) = axes.plot(layers, entropy.mean(0), label=f"width {width} (n = {len(entropy)})")
        axes.fill_between(layers, entropy.min(0), entropy.max(0), color=line.get_color(), alpha=0.2)
    limit = summary.largest_entropy(records)
    axes.axhline(limit, color="grey", linewidth=0.8, linestyle=":")
    axes.set_ylim(-0.05 * limit, 1.05 * limit)
    axes.set_xlabel("layer")
    axes.set_ylabel("bundle entropy $H^l$ [nats]")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    title = f"Bundle entropy after epoch 1, L = {depth} (dotted: the largest it can be)"
    drawing.entitle(figure, title, caption)
    return figure


def _spread(values: list[int], count: int) -> list[int]:
    if len(values) <= count:
        return values
    places = np.linspace(0, len(values) - 1, count).round().astype(int)
    return [values[i] for i in places]


def _panels(records: Sequence[dict[str, Any]]) -> dict[tuple[int, int], dict[str, Any]]:
    """Networks for `entropy_maps`, by width and depth, of the first seed that was run."""
    depths = _axis(records, "depth")
    widths = _spread(_axis(_of_depth(records, depths[-1]), "width"), PANEL_WIDTHS)
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for depth in sorted({depths[len(depths) // 2], depths[-1]}):
        for record in _of_depth(records, depth):
            place = (record["config"]["model"]["width"], depth)
            seed = record["config"]["training"]["seed"]
            if place[0] in widths and (
                place not in found or seed < found[place]["config"]["training"]["seed"]
            ):
                found[place] = record
    return found


def _of_depth(records: Sequence[dict[str, Any]], depth: int) -> list[dict[str, Any]]:
    return [record for record in records if record["config"]["model"]["depth"] == depth]


def _deepest(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The deepest networks of up to six widths, spread over the grid."""
    deepest = _of_depth(records, _axis(records, "depth")[-1])
    widths = _spread(_axis(deepest, "width"), PROFILES)
    return [r for width in widths for r in deepest if r["config"]["model"]["width"] == width]


def accuracy_against_entropy(records: Sequence[dict[str, Any]], caption: str) -> Figure:
    """Figure 5: each network's test accuracy against the entropy of its last hidden layer."""
    rows = [r for r in map(summary.row, records) if r["bundle_entropy"] is not None]
    entropy = np.array([r["bundle_entropy"] for r in rows])
    accuracy = np.array([100 * r["test_accuracy"] for r in rows])
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    points = axes.scatter(
        entropy, accuracy, c=[r["depth"] for r in rows], s=[8 + r["width"] for r in rows],
        cmap="viridis", alpha=0.8, edgecolor="black", linewidth=0.4,
    )  # fmt: skip
    classes = records[0]["num_classes"]
    axes.axhline(100 / classes, color="grey", linewidth=0.8, linestyle=":")
    across = axes.get_yaxis_transform()  # x from 0 to 1 over the axes, y in data
    axes.text(1.01, 100 / classes, "chance", color="grey", fontsize=7, va="center",
              transform=across)  # fmt: skip
    limit = summary.largest_entropy(records)
    axes.axvline(limit, color="grey", linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 100)
    axes.set_xlim(-0.05 * limit, 1.05 * limit)
    axes.set_xlabel("bundle entropy $H^L$ [nats], mean over epochs; dotted: its largest value")
    axes.set_ylabel("test accuracy [%]")
    correlation = evidence.spearman(list(entropy), list(accuracy))
    rank = "not defined" if math.isnan(correlation) else f"{correlation:.2f}"
    title = f"Accuracy against bundle entropy (Spearman {rank}, n = {len(rows)})"
    drawing.entitle(figure, title, f"{caption}; larger marks: wider")
    figure.colorbar(points, ax=axes, label="depth (hidden layers)")
    return figure
