"""Figures 2 and 3 of the paper: training with a fully conflicting bundle, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cbundles.records import TRAINED_CASES, ToyRecord
from cbundles.report import drawing, summary
from cbundles.report.drawing import DrawnPicture, Panels, Picture
from cbundles.report.table import Row

TRAINED = {
    "separate": "(a) no conflict",
    "conflicting": "(b) fully conflicting, balanced",
    "conflicting-imbalanced": "(c) fully conflicting, 66/33",
}
GRADIENTS = {
    "conflicting": "fully conflicting toy",
    "plain": "plain network, 50 layers of 200",
    "standardised": "the same, every layer standardised over the inputs",
}
NEURONS = {"neuron one": "-", "neuron two": "--"}  # dashed: they coincide where they are constant


def draw_toy(records: Sequence[ToyRecord], folder: Path) -> list[DrawnPicture]:
    """Draw figures 2 and 3 from the toy's records."""
    trained = [record for record in records if record.case in TRAINED_CASES]
    seeds = len({record.seed for record in trained})
    precision = trained[0].training.precision
    caption = f"1,000 points, {seeds} seeds, trained in {precision}; {summary.devices(records)}"
    return drawing.draw_groups([[training(trained, caption), gradients(records, caption)]], folder)


def _of_case(records: Sequence[ToyRecord], case: str) -> list[ToyRecord]:
    return [record for record in records if record.case == case]


def training(records: Sequence[ToyRecord], caption: str) -> Picture:
    """Figure 2: a column for each case; outputs over the input, outputs and gradients by epoch."""
    return Picture(
        stem="fig2_toy",
        title=_message_of_training(records),
        text=(
            "Two layers of two ReLU neurons: outputs of both neurons over the input after the last "
            "epoch (seed 0) and over epochs (mean over inputs, range over inputs and seeds), and "
            "the gradient norm, mean over the batches of an epoch, range over seeds; batches of "
            "64, SGD."
        ),
        caption=caption,
        rows=[row for record in records for row in _epoch_rows(record)],
        size=(8.4, 6.6),
        panels=(3, len(TRAINED)),
        sharing={"sharey": "row"},
        draw=lambda figure, panels: _draw_training(panels, records),
    )


def _message_of_training(records: Sequence[ToyRecord]) -> str:
    """How far apart outputs for different inputs are at the end, with a conflict and without."""

    def spread(case: str) -> float:
        outputs = [record.training.history.outputs[-1] for record in _of_case(records, case)]
        return float(np.ptp(outputs, axis=1).max())  # axes: seed, input, neuron

    return (
        f"Outputs for different inputs end up to {spread('separate'):.2f} apart without a "
        f"conflict, up to {spread('conflicting'):.2f} apart in one conflicting bundle"
    )


def _epoch_rows(record: ToyRecord) -> list[Row]:
    """What was measured after every epoch; epoch 0 is the initial network."""
    quantities = ("gradient_norm", "accuracy", "num_bundles", "entropy", "deviation")
    history = record.training.history
    courses = [getattr(history, quantity) for quantity in quantities]
    network = {"case": record.case, "seed": record.seed}
    return [
        {**network, "epoch": epoch, **dict(zip(quantities, values, strict=True))}
        for epoch, values in enumerate(zip(*courses, strict=True))
    ]


def _draw_training(panels: Panels, records: Sequence[ToyRecord]) -> None:
    for column, (case, title) in zip(panels.T, TRAINED.items(), strict=True):
        networks = _of_case(records, case)
        upper, middle, lower = column
        outputs = np.array([record.training.history.outputs for record in networks])
        epochs = np.arange(outputs.shape[1])  # axes: seed, epoch, input, neuron
        for neuron, (name, dash) in enumerate(NEURONS.items()):
            last = outputs[0, -1, :, neuron]
            upper.plot(networks[0].training.inputs, last, label=name, linestyle=dash)
            values = outputs[..., neuron]
            drawing.line_with_band(
                middle,
                epochs,
                values.mean((0, 2)),
                values.min((0, 2)),
                values.max((0, 2)),
                label=name,
                linestyle=dash,
            )
        norms = np.array([record.training.history.gradient_norm[1:] for record in networks])
        drawing.line_with_band(
            lower, epochs[1:], norms.mean(0), norms.min(0), norms.max(0), color="black"
        )
        upper.set_title(title)
        upper.set_xlabel("input x")
        upper.set_ylim(0, 1)
        middle.set_xlabel("epoch")
        middle.set_ylim(0, 1)
        lower.set_xlabel("epoch")
    panels[0, 0].set_ylabel("output after 50 epochs")
    panels[1, 0].set_ylabel("output")
    panels[2, 0].set_ylabel("gradient norm")
    panels[2, 0].set_ylim(bottom=0)
    panels[0, 0].legend(frameon=False, fontsize=8)


def gradients(records: Sequence[ToyRecord], caption: str) -> Picture:
    """Figure 3: gradients by the input, and their autocorrelation over neighbouring inputs."""
    return Picture(
        stem="fig3_gradients",
        title=_message_of_gradients(records),
        text=(
            "Gradient by the input over the sorted inputs, scaled to 1, of untrained networks "
            "(seed 0), and its autocorrelation (median over seeds)."
        ),
        caption=caption,
        rows=[row for record in records for row in _lag_rows(record)],
        size=(7.2, 5.6),
        panels=(len(GRADIENTS), 2),
        sharing={"width_ratios": (2, 1), "sharex": "col"},
        draw=lambda figure, panels: _draw_gradients(panels, records),
    )


def _message_of_gradients(records: Sequence[ToyRecord]) -> str:
    """How alike the gradients of neighbouring inputs are, in each case."""

    def correlation(case: str) -> float:
        networks = _of_case(records, case)
        middle = np.median([network.gradients.autocorrelation[1] for network in networks])
        return round(float(middle), 2) + 0.0  # not -0.00

    return (
        f"Gradients of neighbouring inputs correlate by {correlation('conflicting'):.2f} under "
        f"conflict, by {correlation('plain'):.2f} in 50 plain layers and by "
        f"{correlation('standardised'):.2f} in standardised ones"
    )


def _lag_rows(record: ToyRecord) -> list[Row]:
    network = {"case": record.case, "seed": record.seed}
    return [
        {**network, "lag": lag, "autocorrelation": value}
        for lag, value in enumerate(record.gradients.autocorrelation)
    ]


def _draw_gradients(panels: Panels, records: Sequence[ToyRecord]) -> None:
    for (left, right), (case, title) in zip(panels, GRADIENTS.items(), strict=True):
        networks = _of_case(records, case)
        shown = networks[0].gradients
        left.plot(shown.inputs, shown.values, linewidth=0.6)
        left.set_title(title, fontsize=8)
        left.set_ylim(-1.1, 1.1)
        left.set_ylabel("gradient")
        middle = np.median([record.gradients.autocorrelation for record in networks], axis=0)
        right.plot(middle, marker="o", markersize=3)
        right.axhline(0, **drawing.LIMIT_LINE)
        right.set_ylim(-0.3, 1.1)
        right.set_ylabel("autocorrelation")
        right.set_title(f"{len(networks)} seeds", fontsize=8)
    panels[-1, 0].set_xlabel("input x")
    panels[-1, 1].set_xlabel("lag [points]")
