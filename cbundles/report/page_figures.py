"""The figures on the report's page, folded by run, and which of them show what a claim says."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cbundles.report.cell_maps import PlacedMap
from cbundles.report.page_parts import Html, anchor_of, filled, one_after_another, verbatim
from cbundles.report.runs import Run
from cbundles.wording import counted

if TYPE_CHECKING:
    from cbundles.report.drawing import DrawnPicture

Figures = Mapping[str, Sequence["DrawnPicture"]]  # by the name of their run
SCALE = 0.75  # of a drawing: its letters are then as large as the page's
LEAST_SCALE = 0.45  # smaller letters could not be read, so it scrolls
# What figures are called in a link, by the stem of their files.
NAMES = {
    "fig1_accuracy_map": "accuracy by width and depth",
    "fig2_toy": "outputs and their gradients",
    "fig3_gradients": "gradients by the input",
    "fig4_entropy_by_layer": "H by layer and epoch",
    "fig4_entropy_profile": "H by layer",
    "fig5_accuracy_entropy": "accuracy against H",
    "fig6_depth": "accuracy and H by depth",
    "fig_early_signals": "what predicts the final accuracy, and when",
    "fig_growth_loss": "loss of growing networks",
    "fig_lesion_blocks": "cost of each block",
    "fig_lesion_curves": "removed blocks",
    "fig_lesion_fair": "removed blocks, statistics taken anew",
    "fig_resolution": "bundles by resolution",
}
SHOWN_IN = {
    "C1": ("fig2_toy",),
    "C2": ("fig2_toy",),
    "C3": ("fig2_toy",),
    "C4": ("fig2_toy",),
    "C5": ("fig3_gradients",),
    "C6": ("fig4_entropy_profile", "fig4_entropy_by_layer"),
    "C7": ("fig4_entropy_profile", "fig4_entropy_by_layer"),
    "C8": ("fig1_accuracy_map", "fig4_entropy_by_layer"),
    "C9": ("fig4_entropy_by_layer",),
    "C10": ("fig1_accuracy_map",),
    "C11": ("fig5_accuracy_entropy",),
    "C12": ("fig6_depth",),
    "C13": ("fig6_depth",),
    "C14": ("fig6_depth",),
    "C17": ("fig_lesion_curves", "fig_lesion_fair", "fig_lesion_blocks"),
    "C18": ("fig_growth_loss",),
    "C19": ("fig_resolution",),
    "C20": ("fig1_accuracy_map",),
    "N1": ("fig1_accuracy_map",),
    "N2": ("fig_early_signals",),
    "N7": ("fig_early_signals",),
}
IN_TABLE_1 = ("C15", "C16")  # auto-tuned networks have no figure


def links_to_figures(claim: str, runs: Iterable[str], figures: Figures) -> Html:
    """Where to see what a claim says, in these runs; nothing where no figure shows it.

    claim: its identity
    runs: their names
    """
    links = [
        filled("link", anchor=_anchor(run, picture), text=f"{NAMES[_kind_of(picture)]} ({run})")
        for run in dict.fromkeys(runs)
        for picture in figures.get(run, ())
        if _kind_of(picture) in SHOWN_IN.get(claim, ())
    ]
    if claim in IN_TABLE_1:
        links.append(filled("link", anchor="table1", text="table 1"))
    return filled("shown_in", links=one_after_another(links, ", ")) if links else Html()


def figures_by_run(runs: Sequence[Run], figures: Figures) -> Html:
    """Every figure of these runs; a run that has none is left out."""
    folded = [
        filled(
            "figures_of_run",
            name=verbatim(run.name),
            about=f"{run.kind}, {counted(len(figures[run.name]), 'figure')}",
            figures=one_after_another((figure_html(run.name, p) for p in figures[run.name]), "\n"),
        )
        for run in runs
        if figures[run.name]
    ]
    return one_after_another(folded, "\n")


def _kind_of(picture: DrawnPicture) -> str:
    """The stem of a picture's files without its number."""
    return picture.path.stem.split("-")[0]


def _anchor(run: str, picture: DrawnPicture) -> Html:
    return anchor_of(run, picture.path.stem)


def figure_html(run: str, picture: DrawnPicture) -> Html:
    """A figure with its title and caption. run: the name of its run, or worked study."""
    return filled(
        "figure",
        anchor=_anchor(run, picture),
        title=picture.title,
        shown_width=str(round(SCALE * picture.width)),
        least_width=str(round(LEAST_SCALE * picture.width)),
        width=str(picture.width),
        height=str(picture.height),
        data=base64.b64encode(picture.drawing).decode(),
        maps=_maps(picture.maps) if picture.maps else Html(),
        text=picture.text,
        small_print=picture.small_print,
    )


def _maps(maps: Sequence[PlacedMap]) -> Html:
    """Areas for the pointer and the keyboard over a drawing, and the numbers of their cells."""
    numbers = json.dumps([placed.cells.as_json() for placed in maps], separators=(",", ":"))
    return filled(
        "maps",
        areas=one_after_another(map(_area, maps)),
        numbers=Html(numbers.replace("<", "\\u003c")),  # nothing ends the script but its end
    )


def _area(placed: PlacedMap) -> Html:
    left, top, width, height = (f"{100 * share:.3f}%" for share in placed.box)
    return filled(
        "map",
        name=f"{placed.cells.name}; arrow keys choose a cell",
        left=left,
        top=top,
        width=width,
        height=height,
    )
