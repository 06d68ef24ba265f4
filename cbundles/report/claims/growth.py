"""Claim C18: inserting layers while training (the third work).

Judged beside the larger network, `large`; beside `matched`, which has the final depth from the
start, stands the same. Where a layer is inserted is judged by the controls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from cbundles.config import GROW
from cbundles.decisions.paired import SIGNIFICANT
from cbundles.report import arms, select
from cbundles.report.arms import CONTROLS, LARGE, MATCHED, MAX, SMALL, Setting
from cbundles.report.claims.finding import SECOND_READING, Finding, trial_of
from cbundles.report.runs import Run
from cbundles.wording import counted

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
    judged = [_judged_setting(setting) for setting in settings]
    held = [holds for holds, _ in judged]
    details = []
    for name, setting, (_, text) in zip(names, settings, judged, strict=True):
        sentences = "; ".join([text, *_beside_matched(setting), *_positions(setting)])
        details.append(f"{name}: {sentences}" if name else sentences)
    number = counted(len(settings), "setting")
    ours = f"(a) and (b) hold in {sum(held)} of {number}"
    if left_out := len(every) - len(settings):
        ours += f" ({counted(left_out, 'setting')} with fewer than {SEEDS} seeds left out)"
    records = [r for setting in settings for r in setting.records if r.arm in NEEDED]
    epochs = " or ".join(dict.fromkeys(str(s.cell.training.epochs) for s in settings))
    scale = (
        f"{common}, {number}, {epochs} epochs, "
        f"{len(records)} networks, {select.seeds(records)} seeds"
    )
    cells = tuple(record.id for record in records)
    trial = trial_of(held, "setting", _why_settings_are_no_test(settings))
    reproduced = 2 * sum(held) >= len(settings)
    return Finding(scale, ours, reproduced, (run.name,), cells, trial, tuple(details))


def _has_enough_seeds(setting: Setting) -> bool:
    """Whether the three arms share enough seeds, of networks that diverged or not."""
    seeds = [set(setting.arm(name).networks) for name in NEEDED]
    return len(set.intersection(*seeds)) >= SEEDS


def _why_settings_are_no_test(settings: Sequence[Setting]) -> str:
    """Why settings are no test, where too few of them have enough pairs without divergence."""
    tested = [setting for setting in settings if _pairs_left(setting) >= SEEDS]
    if 2 * len(tested) >= len(settings):
        return ""
    return f"that is so in {len(tested)} of {len(settings)}"


def _pairs_left(setting: Setting) -> int:
    """How many seeds both criteria can be applied to."""
    whole = arms.difference(setting, MAX, SMALL, "train_loss")
    return min(whole.n, len(arms.reach(setting, MAX).ratios))


def _judged_setting(setting: Setting) -> tuple[bool, str]:
    """Whether both criteria hold in a setting, and its numbers. A pair with a diverged network
    says nothing about the difference; where this leaves too few, a setting does not hold."""
    whole = arms.difference(setting, MAX, SMALL, "train_loss")
    equal = arms.difference_at_equal_compute(setting, MAX)
    reach, unchanged = arms.reach(setting, MAX), arms.reach(setting, SMALL)
    is_lower = whole.n >= SEEDS and whole.high < 0
    is_cheaper = len(reach.ratios) >= SEEDS and median(reach.ratios) < 1
    text = (
        f"(a) {_holds(is_lower)}, train loss max - small {whole.text(signed=True)}, "
        f"{whole.n} pairs; at equal compute {equal.text(signed=True)}; (b) {_holds(is_cheaper)}, "
        f"large's loss {reach.text()}; small, which never grows: {unchanged.text()}"
    )
    for name in NEEDED:
        if lost := sum(map(arms.has_no_end, setting.arm(name).records)):
            text += f"; {counted(lost, f'{name} network')} diverged"
    if _pairs_left(setting) < SEEDS:
        text += f"; fewer than {SEEDS} pairs are left"
    return is_lower and is_cheaper, text


def _beside_matched(setting: Setting) -> list[str]:
    """(b) beside the network that has the final depth from the start."""
    if not setting.arm(MATCHED).networks:
        return []
    loss = arms.difference(setting, MAX, MATCHED, "train_loss")
    reach = arms.reach(setting, MAX, MATCHED)
    return [
        f"{SECOND_READING}beside matched, which has as many layers from the start: its loss "
        f"{reach.text()}, train loss max - matched {loss.text(signed=True)}"
    ]


def _positions(setting: Setting) -> list[str]:
    """Where inserting at the largest sensitivity makes a difference from the controls."""
    sentences = []
    for control in CONTROLS:
        loss = arms.difference(setting, MAX, control, "train_loss")
        if not loss.n:
            continue
        p = arms.train_loss_p(setting, MAX, control)
        how = "not told apart from"
        if p < SIGNIFICANT:  # not so where all pairs differ equally, and there is no test
            how = "worse than" if loss.mean > 0 else "better than"
        test = "no t-test" if math.isnan(p) else f"paired t-test p = {p:.2g} uncorrected"
        sentences.append(
            f"{how} position {control} (train loss {loss.text(signed=True)}, {test}, n = {loss.n})"
        )
    return [f"position by sensitivity: {', '.join(sentences)}"] if sentences else []


def _holds(criterion: bool) -> str:
    return "holds" if criterion else "does not hold"
