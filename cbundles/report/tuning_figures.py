"""Figure of tuned networks: how their depth and test accuracy move as compute is spent."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cbundles.report import arms, drawing, tuning
from cbundles.report.arms import Setting
from cbundles.report.evidence import Record, counted
from cbundles.report.growth_figures import prefixed

# Distinct for colour-blind people too (Okabe and Ito); what chooses nothing is dashed.
COLOURS = {
    "fixed": "#000000",
    "remove": "#0072b2",
    "insert": "#009e73",
    "both": "#d55e00",
    "both-random": "#cc79a7",
}
DASHED = ("fixed", "both-random")
POINTS = 200
PANELS = {"depth": (1.0, "layers"), "test_accuracy": (100.0, "test accuracy [%]")}


def draw_all(records: Sequence[Record], folder: Path) -> list[Path]:
    """Draw the figure for each setting; returns the PNG paths."""
    settings, paths = arms.settings(records), []
    for number, setting in enumerate(settings, start=1):
        suffix = "" if len(settings) == 1 else f"-{number}"
        networks = counted(len(setting.records), "network")
        devices = arms.devices(setting.records)
        caption = f"{tuning.about(setting)}, {networks}; {devices}"
        text = (
            "Layers (top) and test accuracy (bottom) over the FLOPs spent, by the depth at the "
            "start: a thin line for each seed, and their mean. Arms are shifted a little in depth "
            "so that none hides another; diverged networks are in no mean from there on. " + caption
        )
        with mpl.rc_context(drawing.STYLE):
            figure, stem = depth(setting, caption), folder / f"fig_tuning_depth{suffix}"
            paths.append(drawing.save(figure, stem, rows(setting), f"{text}."))
    return paths


def rows(setting: Setting) -> list[dict[str, Any]]:
    """What the thick lines show, at 200 points of the compute; a thin line is in the record."""
    return [row for start in setting.starts for arm in tuning.present(setting, start)
            for row in course(setting, start, arm)]  # fmt: skip


def course(setting: Setting, start: int, arm: str) -> list[dict[str, Any]]:
    """Means over seeds of depth and test accuracy after so many FLOPs."""
    records = list(setting.of(arm, start).values())
    found = []
    for flops in np.linspace(0, max(map(arms.spent, records)), POINTS):
        sound = [r for r in records
                 if not math.isnan(arms.at_compute(r, flops, "test_loss"))]  # fmt: skip
        means = {
            key: statistics.fmean(arms.at_compute(r, flops, key) for r in sound) if sound else None
            for key in PANELS
        }
        where = {"setting": setting.name, "start": start, "arm": arm, "flops": float(flops)}
        found.append({**where, "networks": len(sound), **means})
    return found


def depth(setting: Setting, caption: str) -> Figure:
    """A column for each depth at the start: depth and test accuracy over compute."""
    starts = setting.starts
    figure = Figure(figsize=(max(5.6, 1.2 + 2.8 * len(starts)), 6.0), layout="constrained")
    grid = figure.subplots(2, len(starts), squeeze=False, sharex=True, sharey="row")
    size, unit = prefixed(max(map(arms.spent, setting.records)))
    shown = [arm for arm in tuning.ARMS if setting.of(arm)]
    extent = max(entry["depth"] for record in setting.records for entry in record["history"])
    for column, start in zip(grid.T, starts, strict=True):
        for number, arm in enumerate(tuning.present(setting, start)):
            networks = list(setting.of(arm, start).values())
            middle = course(setting, start, arm)
            for axes, (key, (factor, label)) in zip(column, PANELS.items(), strict=True):
                shift = 0.003 * extent * (number - 2) * (key == "depth")
                for record in networks:
                    x = [entry["flops"] / size for entry in record["history"]]
                    y = [factor * entry[key] + shift for entry in record["history"]]
                    axes.plot(x, y, color=COLOURS[arm], linewidth=0.4, alpha=0.25,
                              drawstyle="steps-post" if key == "depth" else "default")  # fmt: skip
                x = [row["flops"] / size for row in middle]
                y = factor * np.array([row[key] for row in middle], float) + shift
                axes.plot(x, y, color=COLOURS[arm], linestyle=_style(arm), linewidth=1.8)
                axes.set_ylabel(label if axes in grid[:, 0] else "")
        seeds = max(len(setting.of(arm, start)) for arm in shown)
        n = counted(seeds, "seed")
        column[0].set_title(f"from {counted(start, 'layer')}, n = {n} an arm", fontsize=8)
        column[1].set_xlabel(f"compute [{unit}]")
    grid[0, 0].set_ylim(bottom=0)
    grid[0, 0].yaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [Line2D([], [], color=COLOURS[arm], linestyle=_style(arm), linewidth=1.8, label=arm)
               for arm in shown]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False,
                  fontsize=8)  # fmt: skip
    drawing.entitle(figure, "Removing and inserting layers while training", caption)
    return figure


def _style(arm: str) -> Literal["-", "--"]:
    return "--" if arm in DASHED else "-"
