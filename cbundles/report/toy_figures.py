"""Figures 2 and 3 of the paper: training with a fully conflicting bundle, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from cbundles.report import drawing

TITLES = {
    "separate": "(a) no conflict",
    "conflicting": "(b) fully conflicting, balanced",
    "conflicting-imbalanced": "(c) fully conflicting, 66/33",
}
NEURONS = ("neuron one", "neuron two")


def draw_all(records: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Draw figures 2 and 3 from the toy's records; returns the PNG paths."""
    seeds = len({r["seed"] for r in records if r["case"] in TITLES})
    devices = ", ".join(sorted({f"{r['device']} ({r['processor']})" for r in records}))
    caption = f"1,000 points, {seeds} seeds; {devices}"
    with mpl.rc_context(drawing.STYLE):
        toys = [record for record in records if record["case"] in TITLES]
        text = (
            "Outputs of both neurons over the input after the last epoch (seed 0) and over epochs "
            "(mean over inputs, range over inputs and seeds), and the gradient norm, mean over the "
            f"batches of an epoch, range over seeds; batches of 64, SGD. {caption}."
        )
        figures = [drawing.save(training(toys, caption), folder / "fig2_toy", _epochs(toys), text)]
        text = (
            "Gradient by the input over the sorted inputs, scaled to 1, of untrained networks "
            f"(seed 0), and its autocorrelation (median over seeds). {caption}."
        )
        rows = [
            {"case": r["case"], "seed": r["seed"], "lag": lag, "autocorrelation": value}
            for r in records
            for lag, value in enumerate(r["autocorrelation"])
        ]
        figures.append(
            drawing.save(gradients(records, caption), folder / "fig3_gradients", rows, text)
        )
    return figures


def _epochs(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = ("gradient_norm", "accuracy", "num_bundles", "entropy", "deviation")
    return [
        {"case": r["case"], "seed": r["seed"], "epoch": epoch, **{key: e[key] for key in keys}}
        for r in records
        for epoch, e in enumerate(r["history"])
    ]


def training(records: Sequence[dict[str, Any]], caption: str) -> Figure:
    """Figure 2: a column for each case; outputs over the input, outputs and gradients by epoch."""
    figure = Figure(figsize=(8.4, 6.6), layout="constrained")
    grid = figure.subplots(3, len(TITLES), sharey="row")
    for column, (case, title) in zip(grid.T, TITLES.items(), strict=True):
        runs = [record for record in records if record["case"] == case]
        upper, middle, lower = column
        final = np.array(runs[0]["history"][-1]["outputs"])
        courses = np.array([[e["outputs"] for e in run["history"]] for run in runs])
        epochs = range(courses.shape[1])
        for neuron, name in enumerate(NEURONS):
            upper.plot(runs[0]["inputs"], final[:, neuron], label=name)
            values = courses[..., neuron]
            (line,) = middle.plot(epochs, values.mean((0, 2)), label=name)
            low, high = values.min((0, 2)), values.max((0, 2))
            middle.fill_between(epochs, low, high, color=line.get_color(), alpha=0.2)
        norms = np.array([[e["gradient_norm"] for e in run["history"][1:]] for run in runs])
        lower.plot(epochs[1:], norms.mean(0), color="black")
        lower.fill_between(epochs[1:], norms.min(0), norms.max(0), color="black", alpha=0.2)
        upper.set_title(title)
        upper.set_xlabel("input x")
        upper.set_ylim(0, 1)
        middle.set_xlabel("epoch")
        middle.set_ylim(0, 1)
        lower.set_xlabel("epoch")
    for axes, label in zip(grid[:, 0], ("output after 50 epochs", "output", "gradient norm"),
                           strict=True):  # fmt: skip
        axes.set_ylabel(label)
    grid[2, 0].set_ylim(bottom=0)
    grid[0, 0].legend(frameon=False, fontsize=8)
    drawing.entitle(figure, "Toy: two layers of two ReLU neurons", caption)
    return figure


GRADIENTS = {
    "conflicting": "fully conflicting toy",
    "plain": "plain network, 50 layers of 200",
    "standardised": "the same, every layer standardised over the inputs",
}


def gradients(records: Sequence[dict[str, Any]], caption: str) -> Figure:
    """Figure 3: gradients by the input, and their autocorrelation over neighbouring inputs."""
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    grid = figure.subplots(len(GRADIENTS), 2, width_ratios=(2, 1), sharex="col")
    for (left, right), (case, title) in zip(grid, GRADIENTS.items(), strict=True):
        runs = [record for record in records if record["case"] == case]
        left.plot(runs[0]["gradient_inputs"], runs[0]["gradients"], linewidth=0.6)
        left.set_title(title, fontsize=8)
        left.set_ylim(-1.1, 1.1)
        left.set_ylabel("gradient")
        middle = np.median([run["autocorrelation"] for run in runs], axis=0)
        right.plot(middle, marker="o", markersize=3)
        right.axhline(0, color="grey", linewidth=0.8, linestyle=":")
        right.set_ylim(-0.3, 1.1)
        right.set_ylabel("autocorrelation")
        right.set_title(f"{len(runs)} seeds", fontsize=8)
    grid[-1, 0].set_xlabel("input x")
    grid[-1, 1].set_xlabel("lag [points]")
    drawing.entitle(figure, "Gradients by the input", caption)
    return figure
