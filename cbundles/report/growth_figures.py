"""Figures of growing networks: losses over compute and epochs, and where the sensitivity lies."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cbundles.report import arms, drawing, growth
from cbundles.report.arms import Setting
from cbundles.report.evidence import Record, counted

# Distinct for colour-blind people too (Okabe and Ito); what never has a layer inserted is dashed.
COLOURS = {
    "max": "#d55e00",
    "min": "#56b4e9",
    "first": "#009e73",
    "random": "#e69f00",
    "small": "#000000",
    "matched": "#cc79a7",
    "large": "#0072b2",
}
DASHED = ("small", "matched", "large")
COLUMNS, POINTS, PROFILES = 4, 200, 6  # settings of a figure, points of a line, drawn insertions
PREFIXES = {1e15: "P", 1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k"}


def draw_all(records: Sequence[Record], folder: Path) -> list[Path]:
    """Draw both figures, each again for every four settings; returns the PNG paths."""
    settings, paths = arms.settings(records), []
    for stem, (text, draw, rows, drawn) in FIGURES.items():
        shown = [setting for setting in settings if drawn(setting)]
        parts = [shown[i : i + COLUMNS] for i in range(0, len(shown), COLUMNS)]
        for number, part in enumerate(parts, start=1):
            suffix = "" if len(parts) == 1 else f"-{number}"
            networks = [record for setting in part for record in drawn(setting)]
            names, common = arms.told_apart([setting.name for setting in part])
            told_of = (common, counted(len(networks), "network"), arms.devices(networks))
            caption = "; ".join(filter(None, told_of))
            with mpl.rc_context(drawing.STYLE):
                figure = draw(part, names, caption)
                numbers = [row for setting in part for row in rows(setting)]
                told = f"{text} {'; '.join(map(growth.about, part))}. {caption}."
                paths.append(drawing.save(figure, folder / f"{stem}{suffix}", numbers, told))
    return paths


def title(name: str, seeds: int) -> str:
    """A setting's name in lines short enough for its column."""
    parts = filter(None, (name, f"n = {counted(seeds, 'seed')}"))
    return textwrap.fill(", ".join(parts), 36, break_on_hyphens=False)


def prefixed(most: float) -> tuple[float, str]:
    """A unit in which so many FLOPs are a handy number: its size and its name."""
    for size, prefix in PREFIXES.items():
        if most >= size:
            return size, f"{prefix}FLOP"
    return 1.0, "FLOP"


def course(setting: Setting, arm: str) -> list[dict[str, Any]]:
    """The training loss of an arm over epochs and over compute: quartiles over seeds, at no more
    than 200 of its evaluations; diverged networks are left out from there on."""
    records = list(setting.of(arm).values())
    entries = [{entry["epoch"]: entry for entry in record["history"]} for record in records]
    epochs = sorted(set().union(*entries))
    kept = sorted({epochs[round(i)] for i in np.linspace(0, len(epochs) - 1, POINTS)})
    found = []
    for epoch in kept:
        here = [entry[epoch] for entry in entries if epoch in entry]
        flops = statistics.median(entry["flops"] for entry in here)
        values = {
            "epochs": [arms.finite(entry["train_loss"]) for entry in here],
            "compute": [arms.at_compute(record, flops, "train_loss") for record in records],
        }
        for over, losses in values.items():
            sound = [loss for loss in losses if not math.isnan(loss)]
            low, middle, high = np.percentile(sound, [25, 50, 75]) if sound else [math.nan] * 3
            found.append(
                {
                    "setting": setting.name,
                    "arm": arm,
                    "over": over,
                    "epoch": epoch,
                    "flops": flops,
                    "networks": len(sound),
                    "train_loss_median": arms.number(middle),
                    "train_loss_quartile_1": arms.number(low),
                    "train_loss_quartile_3": arms.number(high),
                }
            )
    return found


def _courses(setting: Setting) -> list[dict[str, Any]]:
    return [row for arm in growth.present(setting) for row in course(setting, arm)]


def loss(settings: Sequence[Setting], names: Sequence[str], caption: str) -> Figure:
    """A column for each setting: the training loss over compute, and over epochs."""
    figure = Figure(figsize=(1.8 + 3.0 * len(settings), 6.4), layout="constrained")
    grid = figure.subplots(2, len(settings), squeeze=False, sharey="col")
    for (upper, lower), setting, name in zip(grid.T, settings, names, strict=True):
        size, unit = prefixed(max(map(arms.spent, setting.records)))
        for arm in growth.present(setting):
            lines = course(setting, arm)
            for axes, over, key, step in ((upper, "compute", "flops", size),
                                          (lower, "epochs", "epoch", 1.0)):  # fmt: skip
                rows = [row for row in lines if row["over"] == over]
                _band(axes, [row[key] / step for row in rows], rows, arm)
        _logarithmic(upper)
        for epoch, flops in _insertions(setting):
            for axes, x in ((upper, flops / size), (lower, epoch)):
                axes.plot(x, 0.03, "^", color=COLOURS[growth.MAX], markersize=5, clip_on=False,
                          markeredgewidth=0, transform=axes.get_xaxis_transform())  # fmt: skip
        upper.set_title(title(name, setting.seeds), fontsize=8)
        upper.set_xlabel(f"training compute [{unit}]")
        lower.set_xlabel("epoch")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (upper, lower):
            axes.set_xlim(left=0)
            axes.margins(y=0.1)  # room for the triangles
    for axes in grid[:, 0]:
        axes.set_ylabel("training loss [nats]")
    shown = [arm for arm in growth.ARMS if any(setting.of(arm) for setting in settings)]
    handles = [Line2D([], [], color=COLOURS[arm], linestyle=_style(arm), label=arm)
               for arm in shown]  # fmt: skip
    if any(setting.of(growth.MAX) for setting in settings):
        handles.append(Line2D([], [], color=COLOURS[growth.MAX], marker="^", linestyle="",
                              label="insertion of max"))  # fmt: skip
    columns = len(handles) if len(settings) > 1 else (len(handles) + 1) // 2
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False,
                  fontsize=8)  # fmt: skip
    drawing.entitle(figure, "Inserting layers while training", caption)
    return figure


def _logarithmic(axes: Axes) -> None:
    """Let y be logarithmic, where there is anything above zero."""
    if any((np.asarray(line.get_ydata(), float) > 0).any() for line in axes.lines):
        axes.set_yscale("log")


def _style(arm: str) -> Literal["-", "--"]:
    return "--" if arm in DASHED else "-"


def _band(axes: Axes, x: Sequence[float], rows: Sequence[dict[str, Any]], arm: str) -> None:
    middle, low, high = (
        np.array([row[f"train_loss_{name}"] for row in rows], float)
        for name in ("median", "quartile_1", "quartile_3")
    )
    axes.plot(x, middle, color=COLOURS[arm], linestyle=_style(arm), linewidth=1.2)
    axes.fill_between(x, low, high, color=COLOURS[arm], alpha=0.15, linewidth=0)


def _insertions(setting: Setting) -> list[tuple[int, float]]:
    """Epochs after which the arm max inserted in any seed, and the FLOPs spent by then (median)."""
    found: dict[int, list[float]] = {}
    for record in setting.of(growth.MAX).values():
        for event in record["events"]:
            if event["kind"] == "insert":
                spent = [e["flops"] for e in record["history"] if e["epoch"] <= event["epoch"]]
                found.setdefault(event["epoch"], []).append(spent[-1])
    return [(epoch, statistics.median(flops)) for epoch, flops in sorted(found.items())]


def _scored(record: Record) -> Iterator[tuple[dict[str, Any], list[float]]]:
    """Every insertion of a network, with the sensitivities that it was chosen by."""
    scores = {entry["epoch"]: entry["sensitivities"] for entry in record["scores"]}
    for event in record["events"]:
        if event["kind"] == "insert" and event["epoch"] in scores:
            yield event, [arms.finite(value) for value in scores[event["epoch"]]]


def profiles(setting: Setting) -> list[dict[str, Any]]:
    """Of the arm max: the sensitivity of each position at its first insertion, its second, and so
    on, mean over seeds, and how many seeds chose the position."""
    found: dict[tuple[int, int], list[float]] = {}
    chosen: dict[tuple[int, int], int] = {}
    epochs: dict[int, list[int]] = {}
    for record in setting.of(growth.MAX).values():
        for number, (event, values) in enumerate(_scored(record), start=1):
            epochs.setdefault(number, []).append(event["epoch"])
            key = (number, event["position"])
            chosen[key] = chosen.get(key, 0) + 1
            for position, value in enumerate(values):
                if not math.isnan(value):
                    found.setdefault((number, position), []).append(value)
    return [
        {
            "setting": setting.name,
            "insertion": number,
            "epoch": statistics.median(epochs[number]),
            "position": position,
            "networks": len(values),
            "sensitivity": arms.number(statistics.fmean(values)),
            "chosen": chosen.get((number, position), 0),
        }
        for (number, position), values in sorted(found.items())
    ]


def levels(setting: Setting) -> list[dict[str, Any]]:
    """Of the arm max, whenever it was scored: largest and mean sensitivity of the positions and
    the mean of the existing layers, means over seeds."""
    found: dict[int, list[tuple[float, float, float]]] = {}
    for record in setting.of(growth.MAX).values():
        for entry in record["scores"]:
            positions = [v for v in map(arms.finite, entry["sensitivities"]) if not math.isnan(v)]
            existing = [v for v in map(arms.finite, entry["existing"]) if not math.isnan(v)]
            if positions and existing:
                values = (max(positions), statistics.fmean(positions), statistics.fmean(existing))
                found.setdefault(entry["epoch"], []).append(values)
    return [
        {
            "setting": setting.name,
            "epoch": epoch,
            "networks": len(values),
            **{name: arms.number(statistics.fmean(column))
               for name, column in zip(LEVELS, zip(*values, strict=True), strict=True)},
        }
        for epoch, values in sorted(found.items())
    ]  # fmt: skip


LEVELS: dict[str, tuple[str, str, Literal["-", "--"]]] = {
    "largest": ("largest of the positions", "#d55e00", "-"),
    "positions": ("mean of the positions", "#e69f00", "-"),
    "existing": ("mean of existing layers", "#0072b2", "--"),
}


def sensitivity(settings: Sequence[Setting], names: Sequence[str], caption: str) -> Figure:
    """A column for each setting: sensitivities by position at each insertion, and over epochs."""
    figure = Figure(figsize=(1.8 + 3.0 * len(settings), 6.6), layout="constrained")
    grid = figure.subplots(2, len(settings), squeeze=False)
    for (upper, lower), setting, name in zip(grid.T, settings, names, strict=True):
        seeds = len(_scored_networks(setting))
        _profiles(upper, profiles(setting), seeds)
        rows = levels(setting)
        epochs = [row["epoch"] for row in rows]
        for level, (label, colour, style) in LEVELS.items():
            lower.plot(epochs, [row[level] for row in rows], style, color=colour, label=label,
                       marker="o", markersize=3, linewidth=1.2)  # fmt: skip
        upper.set_title(title(name, seeds), fontsize=8)
        upper.set_xlabel("position (0: the first)")
        lower.set_xlabel("epoch")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (upper, lower):
            _logarithmic(axes)
            axes.margins(y=0.15)
    for axes in grid[:, 0]:
        axes.set_ylabel("sensitivity S, mean over seeds")
    handles = [Line2D([], [], color=colour, linestyle=style, marker="o", markersize=3, label=label)
               for label, colour, style in LEVELS.values()]  # fmt: skip
    handles.append(
        Line2D(
            [],
            [],
            color="grey",
            marker="o",
            linestyle="",
            markersize=8,
            markerfacecolor="none",
            label="chosen (larger: by more seeds)",
        )
    )
    figure.legend(handles=handles, loc="outside lower center", frameon=False, fontsize=8,
                  ncols=len(handles) if len(settings) > 2 else 2)  # fmt: skip
    drawing.entitle(figure, "Sensitivity of positions, arm max", caption)
    return figure


def _profiles(axes: Axes, rows: Sequence[dict[str, Any]], seeds: int) -> None:
    """A line for each insertion, or for six of them, from the first to the last."""
    numbers = sorted({row["insertion"] for row in rows})
    kept = sorted({numbers[round(i)] for i in np.linspace(0, len(numbers) - 1, PROFILES)})
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(kept)))
    for number, colour in zip(kept, colours, strict=True):
        line = [row for row in rows if row["insertion"] == number]
        x, y = [row["position"] for row in line], [row["sensitivity"] for row in line]
        label = f"{number}., epoch {line[0]['epoch']:g}"
        axes.plot(x, y, color=colour, marker="o", markersize=2, linewidth=1.0, label=label)
        sizes = [200 * row["chosen"] / seeds for row in line]
        axes.scatter(x, y, s=sizes, facecolors="none", edgecolors=[colour])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=7, title="insertion", title_fontsize=7)


def _scored_networks(setting: Setting) -> list[Record]:
    return [r for r in setting.of(growth.MAX).values() if any(_scored(r))]


Draw = Callable[[Sequence[Setting], Sequence[str], str], Figure]
Rows = Callable[[Setting], list[dict[str, Any]]]
FIGURES: dict[str, tuple[str, Draw, Rows,
                         Callable[[Setting], list[Record]]]] = {
    "fig_growth_loss": (
        "Training loss over the FLOPs spent (top) and over epochs (bottom): median and quartiles "
        "over seeds. Triangles: the arm max inserts a layer in at least one seed.",
        loss,
        _courses,
        lambda setting: setting.records,
    ),
    "fig_growth_sensitivity": (
        "Sensitivity S by which the arm max chooses, mean over seeds. Top: of each position at "
        "each insertion (of many, six); a ring's area is the share of seeds that chose it. Bottom: "
        "over epochs, beside that of the existing layers.",
        sensitivity,
        lambda setting: [*_told(profiles(setting)), *_told(levels(setting))],
        _scored_networks,
    ),
}  # fmt: skip
KEYS = ("setting", "insertion", "epoch", "position", "networks", "sensitivity", "chosen", *LEVELS)


def _told(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of either panel with the columns of both."""
    return [{key: row.get(key) for key in KEYS} for row in rows]
