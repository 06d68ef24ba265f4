"""Pictures of an audit: entropy and headroom along the network, and what a layer bundles."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cbundles.auditing.findings import Findings
from cbundles.bits import HIGHEST
from cbundles.files import write_atomically

NAMED_LAYERS = 30  # with more of them their names would not be legible
CONFLICTING, HEALTHY = "tab:red", "tab:blue"
IMAGES_IN_A_ROW = 8
ROWS_OF_IMAGES = 6


def along_network(findings: Findings) -> Figure:
    """Bundle entropy of every layer, and below it the headroom where it is known."""
    known = any(layer.headroom for layer in findings.layers)
    figure = Figure(figsize=(7, 5 if known else 3), layout="constrained", dpi=150)
    panels = figure.subplots(2 if known else 1, 1, sharex=True, squeeze=False)[:, 0]
    _draw_entropy(panels[0], findings)
    if known:
        _draw_headroom(panels[1], findings)
    names = [layer.name for layer in (findings.input, *findings.layers)]
    if len(names) <= NAMED_LAYERS:
        panels[-1].set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    else:
        panels[-1].set_xlabel("layer")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_entropy(axes: Axes, findings: Findings) -> None:
    layers = (findings.input, *findings.layers)
    entropies = [np.nan if layer.entropy is None else layer.entropy for layer in layers]
    colors = [CONFLICTING if layer.conflicting else HEALTHY for layer in layers]
    axes.plot(entropies, color="lightgrey", zorder=1)
    axes.scatter(range(len(layers)), entropies, c=colors, s=16, zorder=2)
    axes.axhline(findings.input.bundles.largest_entropy, color="grey", linestyle=":", linewidth=0.8)
    axes.set_ylabel("bundle entropy [nats]")
    axes.set_title(
        "dotted: all samples in one bundle; red: the layer conflicts", fontsize=8, loc="left"
    )


def _draw_headroom(axes: Axes, findings: Findings) -> None:
    bits = [np.nan]  # the inputs have none
    bits += [np.nan if one.headroom is None else one.headroom.bits for one in findings.layers]
    colors = [CONFLICTING if value < 0 else HEALTHY for value in bits]
    axes.plot(bits, color="lightgrey", zorder=1)
    axes.scatter(range(len(bits)), bits, c=colors, s=16, zorder=2)
    axes.axhline(0, color="grey", linestyle=":", linewidth=0.8)
    axes.set_ylim(top=HIGHEST + 1)
    axes.set_ylabel("headroom [bits]")


def side_by_side(
    images: NDArray[np.generic], bundles: Sequence[tuple[NDArray[np.int64], Sequence[int]]]
) -> Figure:
    """The images of some bundles, a bundle in a row.

    images: (samples, height, width), or with one or three channels behind.
    bundles: of each the numbers of its samples, and their labels.
    """
    rows = bundles[:ROWS_OF_IMAGES]
    columns = min(IMAGES_IN_A_ROW, max(len(samples) for samples, _ in rows))
    figure = Figure(figsize=(1 + columns, 1.3 * len(rows)), layout="constrained", dpi=150)
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for line, (samples, labels) in zip(panels, rows, strict=True):
        for panel in line:
            panel.set_axis_off()
        chosen = _of_many_classes(labels, columns)
        for panel, place in zip(line, chosen, strict=False):
            panel.imshow(_pixels(images[samples[place]]), cmap="gray")
            panel.set_title(f"{labels[place]}  (#{samples[place]})", fontsize=7)
    return figure


def _of_many_classes(labels: Sequence[int], count: int) -> list[int]:
    """Places of so many samples, first one of each class, then the second ones, and so on."""
    seen: dict[int, int] = {}
    turns = []
    for place, label in enumerate(labels):
        seen[label] = seen.get(label, 0) + 1
        turns.append((seen[label], label, place))
    return [place for _, _, place in sorted(turns)][:count]


def _pixels(image: NDArray[np.generic]) -> NDArray[np.floating]:
    """An image between 0 and 1, grey or in colours."""
    pixels = np.asarray(image, np.float32)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    low, high = float(pixels.min()), float(pixels.max())
    return (pixels - low) / (high - low or 1.0)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure; the ending of the path says how."""
    path = Path(path)
    content = io.BytesIO()  # a full disk is told by `write_atomically` in plain words
    figure.savefig(content, format=path.suffix[1:] or "png")
    write_atomically(path, content.getvalue())
    return path
