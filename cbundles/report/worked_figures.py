"""The figure of a worked study: accuracy by the number of blocks that are gone, a line an order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cbundles.records.worked import BY_ANSWERS, JudgedOrder, WorkedStudy
from cbundles.report import drawing
from cbundles.report.drawing import DrawnPicture, Panels, Picture
from cbundles.report.table import Row
from cbundles.report.words import with_signs
from cbundles.report.worked_study import (
    accuracies_of,
    answers_of,
    blocks_in,
    controls,
    counts_told,
    most_accurate,
    orders_chosen,
)
from cbundles.wording import counted

FITTED: Any = {"linewidth": 2.2}  # chosen by what is measured here, on other images
OF_CONTROLS: Any = {"linewidth": 0.9, "color": "grey", "zorder": 3}  # seen where lines coincide
COLOURS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C8", "C9")  # C7 is grey
LEGEND_COLUMNS = 3


def draw_study(study: WorkedStudy, folder: Path) -> list[DrawnPicture]:
    """Draw the figure of a study."""
    return drawing.draw_groups([[curves_of_orders(study)]], folder)


def curves_of_orders(study: WorkedStudy) -> Picture:
    """Left the network as it is, right with statistics taken anew."""
    network = study.network
    k = counts_told(study)[0]
    words, accuracy = most_accurate(study, orders_chosen(study), k, anew=True)
    control, of_control = most_accurate(study, controls(study), k, anew=True)
    return Picture(
        stem="fig_worked_study",
        title=(
            f"Without {k} of {blocks_in(study)} blocks, statistics taken anew: "
            f"{100 * accuracy:.1f} % by the best order ({_named(words)}), "
            f"{100 * of_control:.1f} % by the best control ({_named(control)}); "
            f"all blocks {100 * study.correct / study.images:.1f} %"
        ),
        text=(
            "Test accuracy without the first blocks of each order, without retraining. Left: the "
            "network as it is. Right: with the statistics of batch normalisation taken anew on "
            "images of training. Thick: chosen by answers, on images of training. Grey: controls, "
            "which know nothing of the network. Dotted: the whole network as it is."
        ),
        caption=(
            f"{network.data}, {network.description}, "
            f"{counted(network.epochs, 'epoch')}; n = 1 network, seed "
            f"{network.seed}; ranked on {study.audited:,} images of training, judged on "
            f"{study.images:,} test images"
        ),
        rows=curve_rows_of(study),
        size=(8.4, 5.2),
        panels=(1, 2),
        sharing={"sharey": True},
        draw=lambda figure, panels: _draw_orders(figure, panels, study),
    )


def _named(orders: Sequence[str]) -> str:
    return orders[0] if len(orders) == 1 else f"{len(orders)} alike"


def curve_rows_of(study: WorkedStudy) -> list[Row]:
    """A line for each order and number of blocks."""
    rows: list[Row] = []
    for order in study.orders:
        for anew in (False, True):
            accuracies = accuracies_of(study, order, anew=anew)[1:]
            for k, (lost, gained) in enumerate(answers_of(order, anew=anew)):
                rows.append(
                    {
                        "order": order.words,
                        "chosen": order.chosen,
                        "anew": anew,
                        "removed": k + 1,
                        "block": order.order[k],
                        "accuracy": accuracies[k],
                        "lost": lost,
                        "gained": gained,
                    }
                )
    return rows


def _draw_orders(figure: Figure, panels: Panels, study: WorkedStudy) -> None:
    for axes, anew in zip(panels[0], (False, True), strict=True):
        _draw_one_way(axes, study, anew)
    panels[0, 0].set_ylabel("test accuracy [%]")
    panels[0, 0].set_title("as it is")
    panels[0, 1].set_title("statistics taken anew")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    drawing.legend_below(figure, handles=handles, labels=labels, ncols=LEGEND_COLUMNS, fontsize=8)


def _draw_one_way(axes: Axes, study: WorkedStudy, anew: bool) -> None:
    for number, order in enumerate(controls(study)):
        style = OF_CONTROLS | {"linestyle": drawing.DASHES[number % len(drawing.DASHES)]}
        _draw_order(axes, study, order, anew, style)
    for number, order in enumerate(orders_chosen(study)):
        style = {"marker": ".", "color": COLOURS[number % len(COLOURS)]}
        if order.chosen == BY_ANSWERS:
            style |= FITTED
        _draw_order(axes, study, order, anew, style)
    axes.axhline(100 * study.correct / study.images, **drawing.LIMIT_LINE)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"blocks gone, of {blocks_in(study)}")


def _draw_order(
    axes: Axes, study: WorkedStudy, order: JudgedOrder, anew: bool, style: dict[str, Any]
) -> None:
    accuracies = [100 * share for share in accuracies_of(study, order, anew=anew)]
    axes.plot(range(len(accuracies)), accuracies, label=with_signs(order.words), **style)
