"""What predicts the final accuracy, and when: a figure of every grid that was measured early."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbundles.records import SweepRecord
from cbundles.report import drawing, select, signals, summary
from cbundles.report.drawing import Panels, Picture
from cbundles.report.signals import Place, Signal
from cbundles.report.statistics import Estimate, area_estimate, six_digits, spearman_estimate
from cbundles.report.table import Row

FEWEST_NETWORKS, FEWEST_SIZES = 20, 3  # a grid, of which a correlation can be told
TICKS = 14
SIDEWAYS = 0.07  # of the distance of two places
RANK, AREA = "Spearman with the final accuracy", "AUC: near the best of its width"
Told = dict[tuple[str, str, int], Estimate]  # by panel, signal and number of the place


def early_signals(records: Sequence[SweepRecord], caption: str) -> list[Picture]:
    """How what is known of networks goes with their final accuracy, over the steps of training. No
    picture of fewer networks or sizes than a grid has, of records that do not say how many steps an
    epoch has, and where networks diverged in all."""
    sound = [record for record in records if not summary.is_diverged(record)]
    sizes = min(len(select.widths(sound)), len(select.depths(sound)))
    if len(sound) < FEWEST_NETWORKS or sizes < FEWEST_SIZES or sound[0].family != "fc":
        return []
    known = signals.places_measured(sound)
    if len(known) < 3:
        return []
    told = _told_at(sound, known)
    return [
        Picture(
            stem="fig_early_signals",
            title=_message_of_signals(known, told),
            text=(
                "How well each signal orders the networks of a grid by their final accuracy, and "
                "how well it tells those within 3 points of the best of their width, by when it "
                "was taken. Signs are turned so that more is better. Bars: 95 % bootstrap "
                "intervals over networks. Dotted and dashed: depth and depth / width, which cost "
                "nothing."
            ),
            caption=caption,
            rows=_rows_of_signals(known, told),
            size=(9.6, 4.4),
            panels=(1, 2),
            note=(
                f"n = {len(sound)}, seeds {_seeds_in_words(sound)}; final accuracy: "
                f"{summary.accuracy_epochs_text(sound)}"
            ),
            draw=lambda figure, panels: _draw_signals(figure, panels, known, told),
        )
    ]


def _seeds_in_words(records: Sequence[SweepRecord]) -> str:
    return ", ".join(map(str, sorted({record.seed for record in records})))


def _told_at(records: Sequence[SweepRecord], known: Sequence[Place]) -> Told:
    """What every signal tells at every place, where it was measured and differs among networks."""
    final = [summary.accuracy_of(record) for record in records]
    near = signals.are_near_the_best(records)
    panels: dict[str, Callable[[Sequence[float]], Estimate]] = {
        RANK: partial(spearman_estimate, y=final),
        AREA: partial(area_estimate, labels=near),
    }
    told: Told = {}
    for signal in (*signals.MEASURED_SIGNALS, *signals.FREE_SIGNALS):
        for number, place in enumerate(known):
            values = signal.values(records, place)
            if values is None:
                continue
            for panel, estimate_of in panels.items():
                told[panel, signal.name, number] = estimate_of(values)
    return {key: estimate for key, estimate in told.items() if not math.isnan(estimate.mean)}


def _message_of_signals(known: Sequence[Place], told: Told) -> str:
    """What ranks best at the first place after some training, beside what costs nothing."""
    first = next(number for number, place in enumerate(known) if place.steps)
    ranks = {
        signal.name: told[RANK, signal.name, first].mean
        for signal in signals.MEASURED_SIGNALS
        if (RANK, signal.name, first) in told
    }
    if not ranks:
        return f"After {known[first].text} nothing ranks the networks yet"
    best = max(ranks, key=lambda name: ranks[name])
    text = (
        f"Of what is measured after {known[first].text}, {best} goes most with the final accuracy "
        f"(Spearman {ranks[best]:.2f})"
    )
    free = told.get((RANK, signals.DEPTH_BY_WIDTH.name, first))
    if free is None:
        return text
    more = "more" if free.mean > ranks[best] else "less"
    return f"{text}; {signals.DEPTH_BY_WIDTH.name}, which costs nothing, {more} ({free.mean:.2f})"


def _rows_of_signals(known: Sequence[Place], told: Told) -> list[Row]:
    return [
        {
            "quantity": "spearman" if panel == RANK else "auc",
            "signal": name,
            "steps": known[number].steps,
            "epoch": known[number].epoch,
            "networks": estimate.n,
            "value": six_digits(estimate.mean),
            "low": six_digits(estimate.low),
            "high": six_digits(estimate.high),
        }
        for (panel, name, number), estimate in told.items()
    ]


def _draw_signals(figure: Figure, panels: Panels, known: Sequence[Place], told: Told) -> None:
    for axes, panel in zip(panels[0], (RANK, AREA), strict=True):
        for number, signal in enumerate(signals.MEASURED_SIGNALS):
            _draw_signal(axes, panel, signal, number, told)
        for signal, dashes in zip(signals.FREE_SIGNALS, (":", "--"), strict=True):
            estimate = told.get((panel, signal.name, 0))
            if estimate is not None:
                label = f"{signal.name} (free)"
                axes.axhline(
                    estimate.mean, color="black", linewidth=1, linestyle=dashes, label=label
                )
        _scale_of_places(axes, known)
        axes.set_ylabel(panel)
    handles, labels = panels[0][0].get_legend_handles_labels()
    drawing.legend_below(figure, handles=handles, labels=labels, ncols=5, fontsize=8)


def _draw_signal(axes: Axes, panel: str, signal: Signal, number: int, told: Told) -> None:
    """A line over the places where it was measured, if anywhere. number: of the signal, by which it
    has its colour and is moved to the side: bars would cover each other."""
    at = {
        place: estimate
        for (of_panel, name, place), estimate in told.items()
        if (of_panel, name) == (panel, signal.name)
    }
    if not at:
        return
    where = [place + SIDEWAYS * (number - len(signals.MEASURED_SIGNALS) / 2) for place in at]
    middle = [estimate.mean for estimate in at.values()]
    colour = f"C{number}"
    axes.plot(
        where,
        middle,
        label=signal.name,
        color=colour,
        linewidth=1.2,
        marker="o",
        markersize=3,
    )
    low, high = ([getattr(one, end) for one in at.values()] for end in ("low", "high"))
    axes.vlines(where, low, high, colors=colour, linewidth=0.8)


def _scale_of_places(axes: Axes, known: Sequence[Place]) -> None:
    """Places at equal distances: most lie close together at the start."""
    shown = drawing.spread_evenly(range(len(known)), TICKS)
    axes.set_xticks(shown, [_label_of_place(known[number]) for number in shown], rotation=60)
    (steps,) = {place.steps for place in known if place.epoch == 1}
    axes.set_xlabel(f"steps seen (epochs of {steps:,})")


def _label_of_place(place: Place) -> str:
    if place.epoch is None:
        return f"{place.steps:,}"
    return f"epoch {place.epoch}" if place.epoch else "untrained"
