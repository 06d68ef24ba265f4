"""Figure of lesion studies that are judged fairly: accuracy by number of removed blocks, with the
statistics of the whole network and with statistics taken anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbundles.decisions import orders, removal
from cbundles.records import LesionRecord
from cbundles.report import drawing, fair_lesions, lesion_figures, lesions
from cbundles.report.drawing import DrawnPicture, Panels, Picture
from cbundles.report.fair_lesions import NAMES, SCORES, Changes, FairLesion
from cbundles.report.words import with_signs

COLOURS = lesion_figures.COLOURS | {
    "conflict_rate": "#8c564b",
    "block_change": "#17becf",
    "relu_state_entropy": "#e377c2",
    orders.LAST_FIRST: "#7f7f7f",
    orders.FIRST_FIRST: "#7f7f7f",
    orders.GREEDY: "black",
}
STYLES = {
    orders.LAST_FIRST: "--",
    orders.FIRST_FIRST: ":",
    orders.GREEDY: "--",
    # Nearly the same order as that of the smallest branch / skip, whose line shows in the gaps.
    "block_change": (0, (3, 3)),
}
DRAWN = (removal.ALL, *SCORES, *orders.BY_PLACE, orders.GREEDY)
ChangesOf = Callable[[FairLesion, str], Changes]
CONTROL: Any = {"linewidth": 0.8, "linestyle": "-."}


def draw_fair_lesions(records: Sequence[LesionRecord], folder: Path) -> list[DrawnPicture]:
    """Draw the figure, for each scale its own; none of studies without a fair part."""
    groups = []
    for group in lesions.alike(records):
        studies = fair_lesions.fair_lesions(group)
        if studies:
            groups.append([curves_as_it_is_and_anew(studies, lesion_figures.caption_of(group))])
    return drawing.draw_groups(groups, folder)


def curves_as_it_is_and_anew(studies: Sequence[FairLesion], caption: str) -> Picture:
    """Accuracy over the share of removed blocks: as it is on the left, anew on the right."""
    return Picture(
        stem="fig_lesion_fair",
        title=_message_of_fair_curves(studies),
        text=(
            "Change of the test accuracy of a trained network by the share of its blocks that are "
            "removed, without retraining: mean over draws and seeds, of drawn blocks with the "
            "range. Left: with the statistics of the whole network. Right: with statistics taken "
            "anew on images of training. Dash-dotted: the whole network with statistics taken "
            "anew, and after one more epoch. Greedy removal chose on images of training, too."
        ),
        caption=caption,
        rows=fair_lesions.fair_curve_rows(studies),
        size=(8.4, 4.6),
        panels=(1, 2),
        sharing={"sharey": True},
        draw=lambda figure, panels: _draw_both_statistics(figure, panels, studies),
    )


def _message_of_fair_curves(studies: Sequence[FairLesion]) -> str:
    """How many blocks can go without a significant rise of the error, once statistics are taken
    anew: drawn, by the best score, greedily."""

    def removable_percent(of: str) -> float:
        return fmean(study.removable_percent(study.anew(of)) for study in studies)

    best = max(SCORES, key=removable_percent)
    return (
        "With statistics taken anew, without a significant rise of the error "
        f"{removable_percent(removal.ALL):.0f} % of the blocks can go when drawn, "
        f"{removable_percent(best):.0f} % by the best score ({NAMES[best]}), "
        f"{removable_percent(orders.GREEDY):.0f} % greedily"
    )


def _draw_both_statistics(figure: Figure, panels: Panels, studies: Sequence[FairLesion]) -> None:
    left, right = panels[0]
    _draw_courses(left, studies, lambda study, of: study.changes_as_it_is(of))
    _draw_courses(right, studies, lambda study, of: study.changes_anew(of))
    left.set_title("statistics of the whole network")
    right.set_title("statistics taken anew")
    left.set_ylabel("change of test accuracy [points]")
    controls = {
        "all blocks, statistics anew": [s.fair.controls.recalibrated for s in studies],
        "all blocks, one more epoch": [s.fair.controls.trained_on for s in studies],
    }
    for (label, draws), colour in zip(controls.items(), ("#1a9850", "#a6761d"), strict=True):
        pairs = zip(studies, draws, strict=True)
        changes = [lesions.accuracy_changes(study.record, [draw])[0] for study, draw in pairs]
        for axes in (left, right):
            axes.axhline(100 * fmean(changes), color=colour, label=label, **CONTROL)
    drawing.legend_below(figure, handles=left.get_lines(), ncols=3, fontsize=7)


def _draw_courses(axes: Axes, studies: Sequence[FairLesion], changes_of: ChangesOf) -> None:
    for of in DRAWN:
        courses = [changes_of(study, of) for study in studies]
        if any(courses):
            _draw_course(axes, of, courses, studies[0].blocks)
    axes.set_xlabel("removed blocks [% of all]")
    axes.set_xlim(0, 100)


def _draw_course(axes: Axes, of: str, courses: Sequence[Changes], blocks: int) -> None:
    sizes = sorted({k for course in courses for k in course})
    middle, low, high = [], [], []
    for k in sizes:
        points = [100 * change for course in courses for change in course.get(k, [])]
        middle.append(fmean(points))
        low.append(min(points) if of == removal.ALL else middle[-1])
        high.append(max(points) if of == removal.ALL else middle[-1])
    drawing.line_with_band(
        axes,
        [100 * k / blocks for k in sizes],
        middle,
        low,
        high,
        band=drawing.FAINT,
        color=COLOURS[of],
        label=with_signs(NAMES[of]),
        linewidth=1.2,
        linestyle=STYLES.get(of, "-"),
    )
