"""Figures of lesion studies: accuracy by number of removed blocks, the cost of each block alone
beside its scores, and which score predicts that cost."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbundles.experiments import removal
from cbundles.report import drawing, evidence, lesions
from cbundles.report.evidence import Record

SCORES = {
    "entropy": "H of the branch [nats]",
    "scaled_norm": "RMS of the scaled branch",
    "norm": "||branch|| / ||skip||",
    "first_order": "|gradient x activation|",
}

COLOURS = dict(zip(lesions.NAMES, ("#d62728", "#2ca02c", "#7f7f7f", "#d62728", "#ff7f0e", "#1f77b4",
                                   "#9467bd"), strict=True))  # fmt: skip


def draw_all(records: Sequence[Record], folder: Path) -> list[Path]:
    """Draw the figures of studies, for each scale its own; returns the PNG paths."""
    groups = lesions.alike(records)
    paths = []
    for number, group in enumerate(groups, start=1):
        suffix = "" if len(groups) == 1 else f"-{number}"
        caption = (
            f"{evidence.scale(group)}, {group[0]['images']:,} test images, "
            f"{group[0]['settings']['draws']} draws"
        )
        with mpl.rc_context(drawing.STYLE):
            for name, (text, draw, rows) in FIGURES.items():
                figure, stem = draw(group, caption), folder / f"{name}{suffix}"
                paths.append(drawing.save(figure, stem, rows(group), f"{text} {caption}."))
    return paths


def curves(records: Sequence[Record], caption: str) -> Figure:
    """Accuracy over the share of removed blocks: groups on the left, rankings on the right."""
    figure = Figure(figsize=(8.4, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, names in ((left, removal.GROUPS), (right, (removal.ALL, *removal.RANKINGS))):
        for name in names:
            _curve(axes, records, name)
        axes.axvline(100 * lesions.SHARE, color="grey", linestyle=":", linewidth=0.8)
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.set_xlabel("removed blocks [% of all]")
        axes.set_xlim(0, 100)
        axes.legend(frameon=False, fontsize=7, loc="upper right")
    left.set_title("drawn from a group")
    right.set_title("in the order of a score")
    left.set_ylabel("change of test accuracy [points]")
    drawing.entitle(figure, "Removing blocks of trained ResNets", caption)
    return figure


def _curve(axes: Axes, records: Sequence[Record], name: str) -> None:
    number = len(records[0]["blocks"]["entropy"])
    courses = [(record, lesions.curve(record, name)) for record in records]
    sizes = sorted({k for _, course in courses for k in course})
    colour, label = COLOURS[name], lesions.NAMES[name]
    members = [lesions.groups(record).get(name, ()) for record in records]
    if not sizes or (name != removal.ALL and all(len(here) == number for here in members)):
        axes.plot([], [], color=colour, label=f"{label}: {'all blocks' if sizes else 'none'}")
        return
    points = [
        [100 * c for record, course in courses for c in lesions.change(record, course.get(k, []))]
        for k in sizes
    ]
    share = [100 * k / number for k in sizes]
    mean = np.array([statistics.fmean(values) for values in points])
    axes.plot(share, mean, color=colour, label=label, linewidth=1.2)
    if name in removal.GROUPS:
        spread = np.array([statistics.pstdev(values) for values in points])
        low, high = mean - spread, mean + spread
    else:
        low, high = np.array([min(v) for v in points]), np.array([max(v) for v in points])
    axes.fill_between(share, low, high, color=colour, alpha=0.15, linewidth=0)


def blocks(records: Sequence[Record], caption: str) -> Figure:
    """The cost of each block alone, and every score, by block."""
    figure = Figure(figsize=(7.2, 7.6), layout="constrained")
    grid = figure.subplots(1 + len(SCORES), 1, sharex=True)
    values = {"cost": [[100 * c for c in lesions.cost(record)] for record in records]}
    values |= {name: [record["blocks"][name] for record in records] for name in SCORES}
    stages = [int(n) for n in records[0]["config"]["model"]["blocks"].split(",")]
    for axes, (name, rows) in zip(grid, values.items(), strict=True):
        table = np.array(rows, float)
        measured = np.isfinite(table).any(0)  # a block that diverged in every seed has no point
        numbers, table = 1 + np.flatnonzero(measured), table[:, measured]
        low, high = np.nanmin(table, 0), np.nanmax(table, 0)
        middle = np.clip(np.nanmean(table, 0), low, high)  # whatever rounding does to the mean
        axes.errorbar(numbers, middle, yerr=(middle - low, high - middle), fmt="o", markersize=3,
                      linewidth=0.8)  # fmt: skip
        for start in itertools.accumulate(stages[:-1]):
            axes.axvline(start + 0.5, color="grey", linestyle=":", linewidth=0.8)
        if name == "entropy":
            axes.set_ylim(-0.1, max([*high, 1]) * 1.1)
        axes.set_ylabel(SCORES.get(name, "accuracy lost\nwithout it [points]"), fontsize=8)
    grid[-1].set_xlabel("block")
    drawing.entitle(figure, "Each block of trained ResNets", caption)
    return figure


def predictors(records: Sequence[Record], caption: str) -> Figure:
    """The cost of each block alone against each score."""
    figure = Figure(figsize=(8.4, 3.0), layout="constrained")
    row = figure.subplots(1, len(SCORES), sharey=True)
    for axes, (name, title) in zip(row, SCORES.items(), strict=True):
        for record in records:
            scores = [np.nan if s is None else s for s in record["blocks"][name]]
            costs = [100 * c for c in lesions.cost(record)]
            axes.plot(scores, costs, "o", markersize=2.5, label=f"seed {evidence.seed(record)}")
        ranks = [rank for record in records if (rank := lesions.predicts(record, name)) == rank]
        mean = f"{statistics.fmean(ranks):.2f}" if ranks else "not defined"
        axes.set_title(f"Spearman {mean}", fontsize=8)
        axes.set_xlabel(title, fontsize=8)
    row[0].set_ylabel("accuracy lost [points]")
    row[0].legend(frameon=False, fontsize=7)
    drawing.entitle(figure, "Who predicts the cost of a block?", caption)
    return figure


FIGURES = {
    "fig_lesion_curves": (
        "Change of the test accuracy of a trained network by the share of its blocks that are "
        "removed, without retraining. Left: drawn from a group, mean and standard deviation over "
        "draws and seeds. Right: in the order of a score, mean and range over seeds. Dotted: 60 % "
        "of the blocks.",
        curves,
        lesions.curve_rows,
    ),
    "fig_lesion_blocks": (
        "What each block costs when it alone is removed, and its scores: mean and range over "
        "seeds. Dotted: where a stage begins.",
        blocks,
        lesions.block_rows,
    ),
    "fig_lesion_predictors": (
        "The cost of each block alone against its scores, a colour for each seed, and the mean "
        "over seeds of the rank correlation (1 predicts perfectly).",
        predictors,
        lesions.block_rows,
    ),
}
