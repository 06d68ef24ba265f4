"""Claim C18: inserting layers while training (the third work)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from cbundles.config import GROW
from cbundles.report import arms, select
from cbundles.report.arms import LARGE, MAX, SMALL, Setting
from cbundles.report.claims.finding import Finding
from cbundles.report.runs import Run
from cbundles.report.words import counted

SEEDS = 20
NEEDED = (MAX, SMALL, LARGE)


def complete_growths(runs: Sequence[Run]) -> list[Run]:
    """Complete runs of networks that grow."""
    return [run for run in runs if run.kind == GROW and not run.unfinished]


def insertion_is_faster_and_cheaper(run: Run) -> Finding | None:
    """Judged over all settings that have enough seeds."""
    every = arms.settings_of(run.edited)
    settings = [setting for setting in every if _has_enough_seeds(setting)]
    if not settings:
        return None
    names, common = arms.told_apart(settings)
    held, details = 0, []
    for name, setting in zip(names, settings, strict=True):
        holds, text = _judged_setting(setting)
        held += holds
        details.append(f"{name}: {text}" if name else text)
    number = counted(len(settings), "setting")
    ours = f"(a) and (b) hold in {held} of {number}"
    if left_out := len(every) - len(settings):
        ours += f" ({counted(left_out, 'setting')} with fewer than {SEEDS} seeds left out)"
    records = [r for setting in settings for r in setting.records if r.arm in NEEDED]
    epochs = " or ".join(dict.fromkeys(str(s.cell.training.epochs) for s in settings))
    scale = (
        f"{common}, {number}, {epochs} epochs, "
        f"{len(records)} networks, {select.seeds(records)} seeds"
    )
    cells = tuple(record.id for record in records)
    return Finding(scale, ours, 2 * held >= len(settings), (run.name,), cells, tuple(details))


def _has_enough_seeds(setting: Setting) -> bool:
    """Whether the three arms share enough seeds, of networks that diverged or not."""
    seeds = [set(setting.arm(name).networks) for name in NEEDED]
    return len(set.intersection(*seeds)) >= SEEDS


def _judged_setting(setting: Setting) -> tuple[bool, str]:
    """Whether both criteria hold in a setting, and its numbers. A pair with a diverged network
    says nothing about the difference; where this leaves too few, a setting does not hold."""
    whole = arms.difference(setting, MAX, SMALL, "train_loss")
    equal = arms.difference_at_equal_compute(setting, MAX)
    reach = arms.reach(setting, MAX)
    is_lower = whole.n >= SEEDS and whole.high < 0
    is_cheaper = len(reach.ratios) >= SEEDS and median(reach.ratios) < 1
    text = (
        f"(a) {_holds(is_lower)}, train loss max - small {whole.text(signed=True)}, "
        f"{whole.n} pairs; at equal compute {equal.text(signed=True)}; (b) {_holds(is_cheaper)}, "
        f"large's loss {reach.text()}"
    )
    for name in NEEDED:
        if lost := sum(map(arms.has_no_end, setting.arm(name).records)):
            text += f"; {counted(lost, f'{name} network')} diverged"
    if min(whole.n, len(reach.ratios)) < SEEDS:
        text += f"; fewer than {SEEDS} pairs are left"
    return is_lower and is_cheaper, text


def _holds(criterion: bool) -> str:
    return "holds" if criterion else "does not hold"
