"""Figures of lesion studies: accuracy by number of removed blocks, the cost of each block alone
beside its scores, and which score predicts that cost."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbundles.decisions import removal
from cbundles.records import LesionRecord, Number
from cbundles.report import drawing, evidence, lesions
from cbundles.report.drawing import DrawnPicture, Panels, Picture
from cbundles.report.words import with_signs

SCORES = {
    "entropy": "H of the branch [nats]",
    "scaled_norm": "RMS of the scaled branch",
    "norm": "‖branch‖ / ‖skip‖",
    "first_order": "|gradient × activation|",
}
AXIS_WIDTH = 16  # letters: the panels of `blocks` are low
COLOURS = {
    removal.CONFLICTING: "#d62728",
    removal.OTHERS: "#2ca02c",
    removal.ALL: "#7f7f7f",
    "entropy": "#d62728",
    "scaled_norm": "#ff7f0e",
    "norm": "#1f77b4",
    "first_order": "#9467bd",
}
DASHED = ("first_order",)  # costs about as little as "norm", which it would hide
CHEAP = 1.0  # points of accuracy, which a block costs at most that hardly matters
GREY: Any = {"color": "grey", "linewidth": 0.8}


def draw_lesions(records: Sequence[LesionRecord], folder: Path) -> list[DrawnPicture]:
    """Draw the figures of studies, for each scale its own."""
    groups = []
    for group in lesions.alike(records):
        caption = caption_of(group)
        pictures = [curves(group, caption), blocks(group, caption), predictors(group, caption)]
        groups.append(pictures)
    return drawing.draw_groups(groups, folder)


def caption_of(group: Sequence[LesionRecord]) -> str:
    """At what scale networks were studied."""
    images, draws = group[0].images, group[0].settings.draws
    return f"{evidence.scale(group)}, {images:,} test images, {draws} draws"


def curves(records: Sequence[LesionRecord], caption: str) -> Picture:
    """Accuracy over the share of removed blocks: groups on the left, rankings on the right."""
    return Picture(
        stem="fig_lesion_curves",
        title=_message_of_curves(records),
        text=(
            "Change of the test accuracy of a trained network by the share of its blocks that are "
            "removed, without retraining. Left: drawn from a group, mean and standard deviation "
            "over draws and seeds. Right: in the order of a score, mean and range over seeds. "
            "Dotted: 60 % of the blocks."
        ),
        caption=caption,
        rows=lesions.curve_rows(records),
        size=(8.4, 4.0),
        panels=(1, 2),
        sharing={"sharey": True},
        draw=lambda figure, panels: _draw_curves(panels[0, 0], panels[0, 1], records),
    )


def _message_of_curves(records: Sequence[LesionRecord]) -> str:
    """How many blocks can go without a significant rise of the error: as drawn, and by the ranking
    that finds most of them."""

    def removable_percent(of: str) -> float:
        curves = [(lesions.curve(record, of), lesions.block_count(record)) for record in records]
        return fmean(100 * lesions.removable(course) / number for course, number in curves)

    drawn = removable_percent(removal.ALL)
    best = max(removal.RANKINGS, key=removable_percent)
    return (
        f"With the whole network's statistics and no significant rise of the error {drawn:.0f} % "
        f"of the blocks can go when drawn, {removable_percent(best):.0f} % by the best ranking "
        f"({lesions.NAMES[best]})"
    )


def _draw_curves(left: Axes, right: Axes, records: Sequence[LesionRecord]) -> None:
    for axes, names in ((left, removal.GROUPS), (right, (removal.ALL, *removal.RANKINGS))):
        for name in names:
            _draw_curve(axes, records, name)
        axes.axvline(100 * lesions.SHARE, **drawing.LIMIT_LINE)
        axes.axhline(0, **GREY)
        axes.set_xlabel("removed blocks [% of all]")
        axes.set_xlim(0, 100)
        axes.legend(fontsize=7, loc="upper right", edgecolor="none", framealpha=0.9)
    left.set_title("drawn from a group")
    right.set_title("in the order of a score")
    left.set_ylabel("change of test accuracy [points]")


def _draw_curve(axes: Axes, records: Sequence[LesionRecord], name: str) -> None:
    number = lesions.block_count(records[0])
    courses = [lesions.curve(record, name) for record in records]
    sizes = sorted({k for course in courses for k in course})
    colour, label = COLOURS[name], with_signs(lesions.NAMES[name])
    members = [lesions.branch_groups(record).get(name, ()) for record in records]
    is_all = name != removal.ALL and all(len(here) == number for here in members)
    if is_all or not sizes:
        axes.plot([], [], color=colour, label=f"{label}: {'all blocks' if sizes else 'none'}")
        return
    middle, low, high = [], [], []
    for k in sizes:
        points = [
            100 * change
            for record, course in zip(records, courses, strict=True)
            for change in lesions.accuracy_changes(record, course.get(k, []))
        ]
        mean, spread = fmean(points), pstdev(points)
        middle.append(mean)
        low.append(mean - spread if name in removal.GROUPS else min(points))
        high.append(mean + spread if name in removal.GROUPS else max(points))
    share = [100 * k / number for k in sizes]
    drawing.line_with_band(
        axes,
        share,
        middle,
        low,
        high,
        band=drawing.FAINT,
        color=colour,
        label=label,
        linewidth=1.2,
        linestyle="--" if name in DASHED else "-",
    )


def blocks(records: Sequence[LesionRecord], caption: str) -> Picture:
    """The cost of each block alone, and every score, by block."""
    return Picture(
        stem="fig_lesion_blocks",
        title=_message_of_blocks(records),
        text=(
            "What each block costs when it alone is removed, and its scores: mean and range over "
            "seeds. Dotted: where a stage begins."
        ),
        caption=caption,
        rows=lesions.block_rows(records),
        size=(7.2, 7.6),
        panels=(1 + len(SCORES), 1),
        sharing={"sharex": True},
        draw=lambda figure, panels: _draw_blocks(figure, panels[:, 0], records),
    )


def _message_of_blocks(records: Sequence[LesionRecord]) -> str:
    """How many blocks cost next to nothing."""
    costs = 100 * np.mean([lesions.cost(record) for record in records], axis=0)
    cheap = int((costs < CHEAP).sum())
    return f"{cheap} of {len(costs)} blocks cost less than {CHEAP:g} point of accuracy, each alone"


def _draw_blocks(figure: Figure, panels: Panels, records: Sequence[LesionRecord]) -> None:
    values: dict[str, Sequence[Sequence[Number]]] = {
        "cost": [[100 * lost for lost in lesions.cost(record)] for record in records]
    }
    for name in SCORES:
        values[name] = [record.blocks.by_ranking[name] for record in records]
    last_of_stages = itertools.accumulate(records[0].cell.blocks)
    borders = [last + 0.5 for last in last_of_stages][:-1]
    for axes, (name, of_networks) in zip(panels, values.items(), strict=True):
        table = np.array(of_networks, float)
        measured = np.isfinite(table).any(0)  # a block that diverged in every seed has no point
        numbers, table = 1 + np.flatnonzero(measured), table[:, measured]
        low, high = np.nanmin(table, 0), np.nanmax(table, 0)
        middle = np.clip(np.nanmean(table, 0), low, high)  # whatever rounding does to the mean
        ranges = (middle - low, high - middle)
        axes.errorbar(numbers, middle, yerr=ranges, fmt="o", markersize=3, linewidth=0.8)
        for border in borders:
            axes.axvline(border, **drawing.LIMIT_LINE)
        if name == "entropy":
            axes.set_ylim(-0.1, max([*high, 1]) * 1.1)
        label = SCORES.get(name, "accuracy lost without it [points]")
        axes.set_ylabel(textwrap.fill(label, AXIS_WIDTH), fontsize=8)
    figure.align_ylabels(panels)
    panels[-1].set_xlabel("block")


def predictors(records: Sequence[LesionRecord], caption: str) -> Picture:
    """The cost of each block alone against each score."""
    return Picture(
        stem="fig_lesion_predictors",
        title=_message_of_predictors(records),
        text=(
            "The cost of each block alone against its scores, a colour for each seed, and the mean "
            "over seeds of the rank correlation (1 predicts perfectly)."
        ),
        caption=caption,
        rows=lesions.block_rows(records),
        size=(8.4, 3.0),
        panels=(1, len(SCORES)),
        sharing={"sharey": True},
        draw=lambda figure, panels: _draw_predictors(panels[0], records),
    )


def _message_of_predictors(records: Sequence[LesionRecord]) -> str:
    """Which score ranks the blocks most as their costs do."""
    ranks = {name: lesions.mean_prediction(records, name) for name in SCORES}
    known = {name: rank for name, rank in ranks.items() if rank is not None}
    if not known:
        return "No score tells blocks apart"
    best, *others = sorted(known, key=lambda name: -known[name])
    text = f"What a block costs goes most with {SCORES[best]} (Spearman {known[best]:.2f})"
    return f"{text}, then with {SCORES[others[0]]} ({known[others[0]]:.2f})" if others else text


def _draw_predictors(panels: Panels, records: Sequence[LesionRecord]) -> None:
    for axes, (name, title) in zip(panels, SCORES.items(), strict=True):
        for record in records:
            scores = np.array(record.blocks.by_ranking[name], float)
            costs = [100 * lost for lost in lesions.cost(record)]
            axes.plot(scores, costs, "o", markersize=2.5, label=f"seed {record.seed}")
        rank = lesions.mean_prediction(records, name)
        mean = "not defined" if rank is None else f"{rank:.2f}"
        axes.set_title(f"Spearman {mean}", fontsize=8)
        axes.set_xlabel(title, fontsize=8)
    panels[0].set_ylabel("accuracy lost [points]")
    panels[0].legend(frameon=False, fontsize=7)
