"""Figures of networks that change their depth: what an arm reaches as compute is spent.

Of networks that grow: losses over compute and epochs, and where the sensitivity lies. Of tuned
ones: how their depth and test accuracy move.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cbundles.config import GROW
from cbundles.records import EditedRecord, Event
from cbundles.report import drawing, summary
from cbundles.report.arms import (
    ARMS,
    FIXED,
    LARGE,
    MAX,
    SMALL,
    Arm,
    Setting,
    at_compute,
    difference,
    settings_of,
    spent,
    told_apart,
)
from cbundles.report.drawing import DrawnPicture, Panels, Picture
from cbundles.report.statistics import finite, six_digits
from cbundles.report.table import Row
from cbundles.report.words import lowest_to_highest
from cbundles.wording import counted

ARMS_OF_GROWTH = (
    "Arms: max, min, first and random insert a layer where the sensitivity is largest, smallest, "
    "at the first place, at a random one; small never grows; matched starts with the final depth; "
    "large with more layers."
)
ARMS_OF_TUNING = (
    "Arms: insert, remove and both may insert layers where the sensitivity is largest, remove "
    "conflicting ones, or both; both-random inserts at random places; fixed does neither."
)
# Distinct for colour-blind people too (Okabe and Ito).
COLOURS = {
    "max": "#d55e00",
    "min": "#56b4e9",
    "first": "#009e73",
    "random": "#e69f00",
    "small": "#000000",
    "matched": "#cc79a7",
    "large": "#0072b2",
    "fixed": "#000000",
    "remove": "#0072b2",
    "insert": "#009e73",
    "both": "#d55e00",
    "both-random": "#cc79a7",
}
DASHED = ("small", "matched", "large", "fixed", "both-random")  # change nothing, or choose nothing
LEVELS = {
    "largest": ("largest of the positions", {"color": "#d55e00", "linestyle": "-"}),
    "positions": ("mean of the positions", {"color": "#e69f00", "linestyle": "-"}),
    "existing": ("mean of existing layers", {"color": "#0072b2", "linestyle": "--"}),
}
TUNED = {"depth": (1.0, "layers"), "test_accuracy": (100.0, "test accuracy [%]")}
BOTH = "both"  # the arm that removes and inserts
SETTINGS_DRAWN = 4  # in one figure
POINTS = 200  # of a line
PROFILES = 6  # drawn insertions
PREFIXES = {1e15: "P", 1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k"}
QUARTILES = ("train_loss_quartile_1", "train_loss_median", "train_loss_quartile_3")
SENSITIVITY_KEYS = (
    "setting",
    "insertion",
    "epoch",
    "position",
    "networks",
    "sensitivity",
    "chosen",
    *LEVELS,
)


def draw_arms(records: Sequence[EditedRecord], folder: Path) -> list[DrawnPicture]:
    """Draw the figures of a run, of one that grows each again for every four settings, of a tuned
    one for every setting."""
    settings = settings_of(records)
    if settings[0].kind != GROW:
        return drawing.draw_groups([[tuned_depths(setting)] for setting in settings], folder)
    scored = [setting for setting in settings if _scored_networks(setting)]
    losses = [[growth_losses(part)] for part in _settings_by_figure(settings)]
    sensitivity = [[sensitivities(part)] for part in _settings_by_figure(scored)]
    return drawing.draw_groups(losses, folder) + drawing.draw_groups(sensitivity, folder)


def _settings_by_figure(settings: Sequence[Setting]) -> list[Sequence[Setting]]:
    starts = range(0, len(settings), SETTINGS_DRAWN)
    return [settings[start : start + SETTINGS_DRAWN] for start in starts]


def _line_of(arm: str) -> dict[str, Any]:
    """How the line of an arm is drawn."""
    return {"color": COLOURS[arm], "linestyle": "--" if arm in DASHED else "-"}


def _drawn_arms(settings: Sequence[Setting]) -> list[str]:
    """The arms that any of these settings has."""
    present = {name for setting in settings for name in setting.arm_names}
    return [name for name in ARMS[settings[0].kind] if name in present]


def _compute_unit(setting: Setting) -> tuple[float, str]:
    """A unit in which the FLOPs of its networks are a handy number: its size and its name."""
    most = max(map(spent, setting.records))
    for size, prefix in PREFIXES.items():
        if most >= size:
            return size, f"{prefix}FLOP"
    return 1.0, "FLOP"


def _integers_only(axes: Axes, which: str) -> None:
    """Numbers without a fraction at the ``x`` or ``y`` axis."""
    getattr(axes, f"{which}axis").set_major_locator(MaxNLocator(integer=True))


def _logarithmic(axes: Axes) -> None:
    """Let y be logarithmic, where there is anything above zero."""
    if any((np.asarray(line.get_ydata(), float) > 0).any() for line in axes.lines):
        axes.set_yscale("log")


def _growth_picture(
    settings: Sequence[Setting],
    networks: Sequence[EditedRecord],
    text: str,
    **picture: Any,
) -> Picture:
    """A picture with two panels for each setting, one above the other."""
    _, common = told_apart(settings)
    parts = (common, counted(len(networks), "network"), summary.devices(networks))
    return Picture(
        text=f"{text} {'; '.join(setting.about for setting in settings)}.",
        caption="; ".join(filter(None, parts)),
        panels=(2, len(settings)),
        **picture,
    )


def _title_of_column(name: str, seeds: int) -> str:
    """A setting's name in lines short enough for its column."""
    parts = filter(None, (name, f"n = {counted(seeds, 'seed')}"))
    return textwrap.fill(", ".join(parts), 36, break_on_hyphens=False)


def growth_losses(settings: Sequence[Setting]) -> Picture:
    """A column for each setting: the training loss over compute, and over epochs."""
    rows = [row for one in settings for arm in one.arms for row in losses_of(one, arm)]
    return _growth_picture(
        settings,
        networks=[record for setting in settings for record in setting.records],
        text=(
            "Training loss over the FLOPs spent (top) and over epochs (bottom): median and "
            "quartiles over seeds. Triangles: the arm max inserts a layer in at least one seed. "
            f"{ARMS_OF_GROWTH}"
        ),
        rows=rows,
        stem="fig_growth_loss",
        title=_message_of_losses(settings),
        size=(1.8 + 3.0 * len(settings), 6.4),
        sharing={"sharey": "col"},
        draw=lambda figure, panels: _draw_losses(figure, panels, settings, rows),
    )


def _message_of_losses(settings: Sequence[Setting]) -> str:
    """Which arms the arm max ends clearly below, after as many epochs."""
    parts = []
    for other in (SMALL, LARGE):
        found = [
            difference(setting, MAX, other, "train_loss")
            for setting in settings
            if {MAX, other} <= set(setting.arm_names)
        ]
        if found:
            lower = sum(difference.high < 0 for difference in found)
            parts.append(f"below {other}'s in {lower} of {counted(len(found), 'setting')}")
    if not parts:
        return "Inserting layers while training"
    return (
        f"The arm max ends with a training loss {' and '.join(parts)} (95 % interval of the paired "
        "difference below 0)"
    )


def losses_of(setting: Setting, arm: Arm) -> list[Row]:
    """The training loss of an arm over epochs and over compute: quartiles over seeds, at no more
    than 200 of its evaluations; diverged networks are left out from there on."""
    evaluations = [_by_epoch(record) for record in arm.records]
    epochs = drawing.spread_evenly(sorted(set().union(*evaluations)), POINTS)
    evaluated = [[some[epoch] for some in evaluations if epoch in some] for epoch in epochs]
    compute = [median(flops for flops, _ in here) for here in evaluated]
    at_equal = np.array([at_compute(record, compute, "train_loss") for record in arm.records])
    rows = []
    for point, (epoch, flops) in enumerate(zip(epochs, compute, strict=True)):
        losses = {
            "epochs": [loss for _, loss in evaluated[point]],
            "compute": at_equal[:, point].tolist(),
        }
        for over, values in losses.items():
            sound = [loss for loss in values if not math.isnan(loss)]
            quartiles = np.percentile(sound, [25, 50, 75]) if sound else [math.nan] * 3
            low, middle, high = map(six_digits, quartiles)
            row = {
                "setting": setting.name,
                "arm": arm.name,
                "over": over,
                "epoch": epoch,
                "flops": flops,
                "networks": len(sound),
                "train_loss_median": middle,
                "train_loss_quartile_1": low,
                "train_loss_quartile_3": high,
            }
            rows.append(row)
    return rows


def _by_epoch(record: EditedRecord) -> dict[int, tuple[float, float]]:
    """FLOPs spent and training loss at each evaluation, by its epoch."""
    history = record.history
    spent_and_lost = zip(history.flops, map(finite, history.train_loss), strict=True)
    return dict(zip(history.epoch, spent_and_lost, strict=True))


def _draw_losses(
    figure: Figure, panels: Panels, settings: Sequence[Setting], rows: Sequence[Row]
) -> None:
    names, _ = told_apart(settings)
    for (upper, lower), setting, name in zip(panels.T, settings, names, strict=True):
        size, unit = _compute_unit(setting)
        for arm in setting.arm_names:
            of_arm = [r for r in rows if (r["setting"], r["arm"]) == (setting.name, arm)]
            compute = [row for row in of_arm if row["over"] == "compute"]
            epochs = [row for row in of_arm if row["over"] == "epochs"]
            _draw_quartiles(upper, arm, [row["flops"] / size for row in compute], compute)
            _draw_quartiles(lower, arm, [row["epoch"] for row in epochs], epochs)
        _logarithmic(upper)
        for epoch, flops in _insertions(setting):
            _draw_triangle(upper, flops / size)
            _draw_triangle(lower, epoch)
        upper.set_title(_title_of_column(name, setting.seeds), fontsize=8)
        upper.set_xlabel(f"training compute [{unit}]")
        lower.set_xlabel("epoch")
        _integers_only(lower, "x")
        for axes in (upper, lower):
            axes.set_xlim(left=0)
            axes.margins(y=0.1)  # room for the triangles
    for axes in panels[:, 0]:
        axes.set_ylabel("training loss [nats]")
    arms = _drawn_arms(settings)
    handles = [drawing.legend_entry(arm, **_line_of(arm)) for arm in arms]
    if MAX in arms:
        triangle = {"color": COLOURS[MAX], "marker": "^", "linestyle": ""}
        handles.append(drawing.legend_entry("insertion of max", **triangle))
    columns = len(handles) if len(settings) > 1 else (len(handles) + 1) // 2
    drawing.legend_below(figure, handles=handles, ncols=columns, fontsize=8)


def _draw_quartiles(axes: Axes, arm: str, x: Sequence[float], rows: Sequence[Row]) -> None:
    low, middle, high = (np.array([row[key] for row in rows], float) for key in QUARTILES)
    style = _line_of(arm)
    drawing.line_with_band(axes, x, middle, low, high, band=drawing.FAINT, linewidth=1.2, **style)


def _draw_triangle(axes: Axes, x: float) -> None:
    """Mark an insertion at the lower end of the axes."""
    axes.plot(
        x,
        0.03,
        "^",
        color=COLOURS[MAX],
        markersize=5,
        clip_on=False,
        markeredgewidth=0,
        transform=axes.get_xaxis_transform(),
    )


def _insertions(setting: Setting) -> list[tuple[int, float]]:
    """Epochs after which the arm max inserted in any seed, and the FLOPs spent by then (median)."""
    spent_by_epoch: dict[int, list[float]] = {}
    for record in setting.arm(MAX).records:
        evaluated = list(zip(record.history.epoch, record.history.flops, strict=True))
        for event in record.events:
            if event.kind == "insert":
                until = [flops for epoch, flops in evaluated if epoch <= event.epoch]
                spent_by_epoch.setdefault(event.epoch, []).append(until[-1])
    return [(epoch, median(flops)) for epoch, flops in sorted(spent_by_epoch.items())]


def sensitivities(settings: Sequence[Setting]) -> Picture:
    """A column for each setting: sensitivities by position at each insertion, and over epochs."""
    return _growth_picture(
        settings,
        networks=[record for setting in settings for record in _scored_networks(setting)],
        text=(
            "Sensitivity S by which the arm max chooses, mean over seeds. Top: of each position "
            "at each insertion (of many, six); a ring's area is the share of seeds that chose it. "
            "Bottom: over epochs, beside that of the existing layers."
        ),
        rows=[row for setting in settings for row in _sensitivity_rows(setting)],
        stem="fig_growth_sensitivity",
        title=_message_of_sensitivities(settings),
        size=(1.8 + 3.0 * len(settings), 6.6),
        draw=lambda figure, panels: _draw_sensitivities(figure, panels, settings),
    )


def _message_of_sensitivities(settings: Sequence[Setting]) -> str:
    """How the best position compares with the layers that there are."""
    rows = [row for setting in settings for row in level_rows(setting)]
    ratios = [row["largest"] / row["existing"] for row in rows if row["existing"] > 0]
    if not ratios:
        return "Sensitivity of positions, arm max"
    times = lowest_to_highest(ratios, ".1f")
    return f"The best position is {times} times as sensitive as the mean of the existing layers"


def _sensitivity_rows(setting: Setting) -> list[Row]:
    """Rows of either panel with the columns of both."""
    rows = [*position_rows(setting), *level_rows(setting)]
    return [{key: row.get(key) for key in SENSITIVITY_KEYS} for row in rows]


def _scored_insertions(record: EditedRecord) -> list[tuple[Event, list[float]]]:
    """Every insertion of a network, with the sensitivities that it was chosen by."""
    scores = {scoring.epoch: scoring.sensitivities for scoring in record.scores}
    return [
        (event, [finite(score) for score in scores[event.epoch]])
        for event in record.events
        if event.kind == "insert" and event.epoch in scores
    ]


def _scored_networks(setting: Setting) -> list[EditedRecord]:
    return [record for record in setting.arm(MAX).records if _scored_insertions(record)]


def position_rows(setting: Setting) -> list[Row]:
    """Of the arm max: the sensitivity of each position at its first insertion, its second, and so
    on, mean over seeds, and how many seeds chose the position."""
    scores: dict[tuple[int, int], list[float]] = {}
    chosen: dict[tuple[int, int], int] = {}
    epochs: dict[int, list[int]] = {}
    for record in setting.arm(MAX).records:
        for insertion, (event, values) in enumerate(_scored_insertions(record), start=1):
            epochs.setdefault(insertion, []).append(event.epoch)
            choice = (insertion, event.position)
            chosen[choice] = chosen.get(choice, 0) + 1
            for position, value in enumerate(values):
                if not math.isnan(value):
                    scores.setdefault((insertion, position), []).append(value)
    return [
        {
            "setting": setting.name,
            "insertion": insertion,
            "epoch": median(epochs[insertion]),
            "position": position,
            "networks": len(values),
            "sensitivity": six_digits(fmean(values)),
            "chosen": chosen.get((insertion, position), 0),
        }
        for (insertion, position), values in sorted(scores.items())
    ]


def level_rows(setting: Setting) -> list[Row]:
    """Of the arm max, whenever it was scored: largest and mean sensitivity of the positions and
    the mean of the existing layers, means over seeds."""
    levels: dict[int, list[tuple[float, float, float]]] = {}
    for record in setting.arm(MAX).records:
        for scoring in record.scores:
            positions = [score for score in scoring.sensitivities if score is not None]
            existing = [score for score in scoring.existing if score is not None]
            if positions and existing:
                values = (max(positions), fmean(positions), fmean(existing))
                levels.setdefault(scoring.epoch, []).append(values)
    rows = []
    for epoch, of_networks in sorted(levels.items()):
        means = [six_digits(fmean(column)) for column in zip(*of_networks, strict=True)]
        row = {"setting": setting.name, "epoch": epoch, "networks": len(of_networks)}
        rows.append({**row, **dict(zip(LEVELS, means, strict=True))})
    return rows


def _draw_sensitivities(figure: Figure, panels: Panels, settings: Sequence[Setting]) -> None:
    names, _ = told_apart(settings)
    for (upper, lower), setting, name in zip(panels.T, settings, names, strict=True):
        seeds = len(_scored_networks(setting))
        _draw_positions(upper, position_rows(setting), seeds)
        rows = level_rows(setting)
        epochs = [row["epoch"] for row in rows]
        for level, (label, style) in LEVELS.items():
            values = [row[level] for row in rows]
            lower.plot(
                epochs, values, label=label, marker="o", markersize=3, linewidth=1.2, **style
            )
        upper.set_title(_title_of_column(name, seeds), fontsize=8)
        upper.set_xlabel("position (0: the first)")
        lower.set_xlabel("epoch")
        _integers_only(lower, "x")
        for axes in (upper, lower):
            _logarithmic(axes)
            axes.margins(y=0.15)
    for axes in panels[:, 0]:
        axes.set_ylabel("sensitivity S, mean over seeds")
    handles = [
        drawing.legend_entry(label, marker="o", markersize=3, **style)
        for label, style in LEVELS.values()
    ]
    ring = {"color": "grey", "marker": "o", "linestyle": "", "markerfacecolor": "none"}
    handles.append(drawing.legend_entry("chosen (larger: by more seeds)", markersize=8, **ring))
    columns = len(handles) if len(settings) > 2 else 2
    drawing.legend_below(figure, handles=handles, ncols=columns, fontsize=8)


def _draw_positions(axes: Axes, rows: Sequence[Row], seeds: int) -> None:
    """A line for each insertion, or for six of them, from the first to the last."""
    insertions = sorted({row["insertion"] for row in rows})
    kept = drawing.spread_evenly(insertions, PROFILES)
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(kept)))
    for insertion, colour in zip(kept, colours, strict=True):
        line = [row for row in rows if row["insertion"] == insertion]
        x, y = [row["position"] for row in line], [row["sensitivity"] for row in line]
        label = f"{insertion}., epoch {line[0]['epoch']:g}"
        axes.plot(x, y, color=colour, marker="o", markersize=2, linewidth=1.0, label=label)
        areas = [200 * row["chosen"] / seeds for row in line]
        axes.scatter(x, y, s=areas, facecolors="none", edgecolors=[colour])
    _integers_only(axes, "x")
    axes.legend(frameon=False, fontsize=7, title="insertion", title_fontsize=7)


def tuned_depths(setting: Setting) -> Picture:
    """A column for each depth at the start: depth and test accuracy over compute."""
    networks = counted(len(setting.records), "network")
    starts = len(setting.starts)
    rows = [row for arm in setting.arms for row in tuned_means(setting, arm)]
    return Picture(
        stem="fig_tuning_depth",
        title=_message_of_tuning(setting, rows),
        text=(
            "Layers (top) and test accuracy (bottom) over the FLOPs spent, by the depth at the "
            "start: a thin line for each seed, and their mean. Arms are shifted a little in depth "
            "so that none hides another; diverged networks are in no mean from there on. "
            f"{ARMS_OF_TUNING}"
        ),
        caption=f"{setting.about}, {networks}; {summary.devices(setting.records)}",
        rows=rows,
        size=(max(5.6, 1.2 + 2.8 * starts), 6.0),
        panels=(2, starts),
        sharing={"sharex": True, "sharey": "row"},
        draw=lambda figure, panels: _draw_tuned_depths(figure, panels, setting, rows),
    )


def _message_of_tuning(setting: Setting, rows: Sequence[Row]) -> str:
    """Where the arm that does most and the one that does nothing end, from the deepest start."""
    start = max(setting.starts)
    arms = [name for name in (BOTH, FIXED) if name in setting.arm_names]
    parts = []
    for arm in arms:
        known = [row for row in rows if (row["start"], row["arm"]) == (start, arm)]
        last = known[-1] if known else None
        if last is not None and last["depth"] is not None:
            accuracy = 100 * last["test_accuracy"]
            parts.append(f"arm {arm} with {last['depth']:.1f} layers at {accuracy:.0f} %")
    if not parts:
        return "Removing and inserting layers while training"
    return f"From {counted(start, 'layer')}, mean at the end: {', '.join(parts)}"


def tuned_means(setting: Setting, arm: Arm) -> list[Row]:
    """What the thick lines show: means over seeds of depth and test accuracy after so many FLOPs,
    at 200 points; a thin line is in the record."""
    points = np.linspace(0, max(map(spent, arm.records)), POINTS)
    losses = np.array([at_compute(record, points, "test_loss") for record in arm.records])
    values = {
        quantity: np.array([at_compute(record, points, quantity) for record in arm.records])
        for quantity in TUNED
    }
    rows = []
    for point, flops in enumerate(points):
        sound = ~np.isnan(losses[:, point])
        row = {
            "setting": setting.name,
            "start": arm.start,
            "arm": arm.name,
            "flops": float(flops),
            "networks": int(sound.sum()),
        }
        for quantity in TUNED:
            row[quantity] = fmean(values[quantity][sound, point]) if sound.any() else None
        rows.append(row)
    return rows


def _draw_tuned_depths(
    figure: Figure, panels: Panels, setting: Setting, rows: Sequence[Row]
) -> None:
    size, unit = _compute_unit(setting)
    deepest = max(max(record.history.depth) for record in setting.records)
    for column, start in zip(panels.T, setting.starts, strict=True):
        arms = [arm for arm in setting.arms if arm.start == start]
        for number, arm in enumerate(arms):
            shift = 0.003 * deepest * (number - 2)  # so that no arm hides another
            means = [r for r in rows if (r["start"], r["arm"]) == (start, arm.name)]
            _draw_tuned_arm(column[0], arm, means, "depth", size, shift)
            _draw_tuned_arm(column[1], arm, means, "test_accuracy", size, 0)
        seeds = max(len(arm.networks) for arm in arms)
        layers, n = counted(start, "layer"), counted(seeds, "seed")
        column[0].set_title(f"from {layers}, n = {n} an arm", fontsize=8)
        column[1].set_xlabel(f"compute [{unit}]")
    for axes, (_, label) in zip(panels[:, 0], TUNED.values(), strict=True):
        axes.set_ylabel(label)
    panels[0, 0].set_ylim(bottom=0)
    _integers_only(panels[0, 0], "y")
    arms_drawn = _drawn_arms([setting])
    handles = [drawing.legend_entry(arm, linewidth=1.8, **_line_of(arm)) for arm in arms_drawn]
    drawing.legend_below(figure, handles=handles, ncols=len(handles), fontsize=8)


def _draw_tuned_arm(
    axes: Axes, arm: Arm, means: Sequence[Row], quantity: str, unit: float, shift: float
) -> None:
    """A thin line for each network, and a thick one for their mean."""
    factor, _ = TUNED[quantity]
    steps = "steps-post" if quantity == "depth" else "default"
    for record in arm.records:
        x = np.array(record.history.flops) / unit
        y = factor * np.array(record.course(quantity)) + shift
        axes.plot(x, y, color=COLOURS[arm.name], linewidth=0.4, alpha=0.25, drawstyle=steps)
    x = np.array([row["flops"] for row in means]) / unit
    y = factor * np.array([row[quantity] for row in means], float) + shift
    axes.plot(x, y, linewidth=1.8, **_line_of(arm.name))
