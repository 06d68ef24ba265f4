"""Claim C18: inserting layers while training (the third work)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from cbundles.config import GROW
from cbundles.report import arms, evidence, growth
from cbundles.report.arms import Setting
from cbundles.report.claims.finding import Finding
from cbundles.report.evidence import counted
from cbundles.report.growth import LARGE, MAX, SMALL
from cbundles.report.runs import Run

SEEDS = 20
NEEDED = (MAX, SMALL, LARGE)


def insertion(runs: Sequence[Run]) -> list[Finding]:
    """Judged on every complete run that has settings with enough seeds, over all of these."""
    return [
        _judged(run, settings)
        for run in runs
        if run.kind == GROW and not run.unfinished and (settings := _enough(run))
    ]


def _enough(run: Run) -> list[Setting]:
    """Settings in which the three arms share enough seeds, whether or not some diverged."""
    return [
        setting
        for setting in arms.settings(run.records)
        if len(set.intersection(*(set(setting.of(arm)) for arm in NEEDED))) >= SEEDS
    ]


def _judged(run: Run, settings: Sequence[Setting]) -> Finding:
    told = [_setting(setting) for setting in settings]
    held = sum(holds for holds, _ in told)
    ours = f"(a) and (b) hold in {held} of {counted(len(told), 'setting')}"
    names, common = arms.told_apart([setting.name for setting in settings])
    if left_out := len(arms.settings(run.records)) - len(settings):
        ours += f" ({counted(left_out, 'setting')} with fewer than {SEEDS} seeds left out)"
    records = [r for s in settings for r in s.records if arms.arm_of(r) in NEEDED]
    epochs = " or ".join(dict.fromkeys(str(s.cell.training.epochs) for s in settings))
    scale = (
        f"{common}, {counted(len(told), 'setting')}, {epochs} epochs, "
        f"{len(records)} networks, {evidence.seeds(records)} seeds"
    )
    cells = tuple(record["cell"] for record in records)
    details = tuple(": ".join(filter(None, (name, text)))
                    for name, (_, text) in zip(names, told, strict=True))  # fmt: skip
    return Finding(scale, ours, 2 * held >= len(told), (run.name,), cells, details)


def _setting(setting: Setting) -> tuple[bool, str]:
    """Whether both criteria hold in a setting, and its numbers. A pair with a diverged network
    says nothing about the difference; where this leaves too few, a setting does not hold."""
    whole = growth.difference(setting, MAX, SMALL, "train_loss")
    equal = growth.difference_at_equal_compute(setting, MAX)
    ratios = growth.reach(setting, MAX)
    lower = whole.n >= SEEDS and whole.high < 0
    cheaper = len(ratios) >= SEEDS and statistics.median(ratios) < 1
    text = (
        f"(a) {_yes(lower)}, train loss max - small {whole.text(signed=True)}, "
        f"{whole.n} pairs; at equal compute {equal.text(signed=True)}; (b) {_yes(cheaper)}, "
        f"large's loss {growth.reach_text(ratios)}"
    )
    for arm in NEEDED:
        if lost := sum(map(growth.diverged, setting.of(arm).values())):
            text += f"; {counted(lost, f'{arm} network')} diverged"
    if min(whole.n, len(ratios)) < SEEDS:
        text += f"; fewer than {SEEDS} pairs are left"
    return lower and cheaper, text


def _yes(holds: bool) -> str:
    return "holds" if holds else "does not hold"
