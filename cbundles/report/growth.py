"""What growing networks say: losses of arms, seed by seed, and the compute that they take.

Losses and accuracies are those of the last evaluation, after all epochs. The arm max inserts where
the sensitivity is largest; the others are what it is compared with.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from cbundles.config import GROWTH_ARMS, INSERTING
from cbundles.report import arms, tables
from cbundles.report.arms import Estimate, Setting
from cbundles.report.evidence import Record, counted

MAX, SMALL, LARGE = "max", "small", "large"
ARMS = GROWTH_ARMS[1:]
REFERENCES = (SMALL, *INSERTING[1:], "matched", LARGE)
MEASURES = ("train_loss", "test_loss", "test_accuracy")
COLUMNS = {
    "arm": "arm",
    "networks": "n",
    "depth": "layers",
    "train_loss": "train loss",
    "test_loss": "test loss",
    "test_accuracy": "test accuracy [%]",
    "difference": "train loss - small's",
    "equal": "the same at equal compute",
    "reach": "FLOPs to large's loss / large's",
}
ABOUT = (
    "Losses and accuracy after the last epoch: mean over seeds and 95 % t-interval. Differences "
    "are paired by seed; at equal compute: the arm's loss when it had spent as many FLOPs as small "
    "in all. n: networks; diverged ones are in no mean. FLOPs to large's loss: the first "
    "evaluation with a training loss no higher than the last one of large with the same seed, also "
    "for large itself; median of the ratios, infinite where it is never reached."
)


def final(record: Record, key: str) -> float:
    """After all epochs; NaN for a network that diverged or did not get there."""
    whole = record["history"][-1]["epoch"] >= record["config"]["training"]["epochs"]
    lost = any(math.isnan(arms.last(record, loss)) for loss in ("train_loss", "test_loss"))
    return arms.last(record, key) if whole and not lost else math.nan


def diverged(record: Record) -> bool:
    return math.isnan(final(record, "train_loss"))


def difference(setting: Setting, arm: str, reference: str, key: str) -> Estimate:
    """Of an arm's final value from a reference's."""
    ours, theirs = (
        {s: final(r, key) for s, r in setting.of(name).items()} for name in (arm, reference)
    )
    return arms.paired(ours, theirs)


def difference_at_equal_compute(setting: Setting, arm: str) -> Estimate:
    """Of an arm's training loss, when it had spent as much as small in all, from small's."""
    small = setting.of(SMALL)
    ours = {
        s: math.nan if diverged(r) else arms.at_compute(r, arms.spent(small[s]), "train_loss")
        for s, r in setting.of(arm).items()
        if s in small
    }
    return arms.paired(ours, {s: final(r, "train_loss") for s, r in small.items()})


def flops_to(record: Record, loss: float) -> float:
    """Spent at the first evaluation after some training with a training loss no higher than this;
    infinite when there is none."""
    for entry in record["history"]:
        if entry["epoch"] > 0 and arms.finite(entry["train_loss"]) <= loss:
            return float(entry["flops"])
    return math.inf


def reach(setting: Setting, arm: str) -> list[float]:
    """For each seed: FLOPs to the final training loss of large, as a share of what large itself
    takes; infinite where the arm never gets there. Seeds whose large network diverged have none."""
    found, large = [], setting.of(LARGE)
    for number, record in setting.of(arm).items():
        target = final(large[number], "train_loss") if number in large else math.nan
        if not math.isnan(target):
            found.append(flops_to(record, target) / flops_to(large[number], target))
    return found


def reach_text(ratios: Sequence[float]) -> str:
    """``reached by 18 of 20, median ratio 0.63``."""
    if not ratios:
        return "-"
    reached = sum(map(math.isfinite, ratios))
    middle = statistics.median(ratios)
    ratio = "infinite" if math.isinf(middle) else f"{middle:.3g}"
    return f"reached by {reached} of {len(ratios)}, median ratio {ratio}"


def present(setting: Setting) -> list[str]:
    """The arms that a setting has."""
    return [arm for arm in ARMS if setting.of(arm)]


def rows(setting: Setting) -> list[dict[str, Any]]:
    """A row for each arm: numbers, None where there are none. ARM_vs_REFERENCE columns are paired
    differences with their intervals, pairs how many, left_out how many had a diverged network."""
    return [_row(setting, arm) for arm in present(setting)]


def _row(setting: Setting, arm: str) -> dict[str, Any]:
    records = list(setting.of(arm).values())
    depths = [arms.final_depth(record) for record in records]
    row: dict[str, Any] = {
        "setting": setting.name,
        "arm": arm,
        "networks": len(records),
        "diverged": sum(map(diverged, records)),
        "depth_mean": arms.number(statistics.fmean(depths)),
        "depth_min": min(depths),
        "depth_max": max(depths),
        "parameters": arms.number(statistics.fmean(r["parameters"] for r in records)),
        "flops": arms.number(statistics.fmean(map(arms.spent, records))),
    }
    for key in MEASURES:
        row |= arms.estimate([final(record, key) for record in records]).row(key)
    equal = difference_at_equal_compute(setting, arm)
    row |= equal.row("train_loss_vs_small_at_equal_compute")
    for reference in REFERENCES:
        for key in MEASURES:
            compared = difference(setting, arm, reference, key)
            row |= compared.row(f"{key}_vs_{reference}")
        row |= {f"pairs_vs_{reference}": compared.n, f"left_out_vs_{reference}": compared.left_out}
    ratios = reach(setting, arm)
    row["large_loss_reached"] = sum(map(math.isfinite, ratios)) if ratios else None
    row["large_loss_compared"] = len(ratios)
    row["large_loss_flops_ratio"] = arms.number(statistics.median(ratios)) if ratios else None
    row["seconds"] = arms.number(statistics.fmean(record["seconds"] for record in records))
    return row


def shown(setting: Setting) -> list[list[str]]:
    """A row for each arm as people read it, in the order of `COLUMNS`."""
    return [_shown(setting, arm) for arm in present(setting)]


def _shown(setting: Setting, arm: str) -> list[str]:
    """An arm as people read it, in the order of `COLUMNS`."""
    records = list(setting.of(arm).values())
    depths = sorted({arms.final_depth(record) for record in records})
    values = {key: arms.estimate([final(record, key) for record in records]) for key in MEASURES}
    lost = values["train_loss"].left_out
    return [
        arm,
        f"{len(records)}" + (f", {lost} diverged" if lost else ""),
        f"{depths[0]}" if len(depths) == 1 else f"{depths[0]} to {depths[-1]}",
        values["train_loss"].text(),
        values["test_loss"].text(),
        values["test_accuracy"].text(factor=100, form=".1f"),
        "-" if arm == SMALL else difference(setting, arm, SMALL, "train_loss").text(signed=True),
        "-" if arm == SMALL else difference_at_equal_compute(setting, arm).text(signed=True),
        reach_text(reach(setting, arm)),
    ]


def _against_controls(setting: Setting) -> list[str]:
    """What it matters where a layer is inserted, and that it is inserted: a line for each arm that
    max is compared with."""
    lines = []
    for control in REFERENCES:
        loss, test, accuracy = (difference(setting, MAX, control, key) for key in MEASURES)
        if loss.n or loss.left_out:
            without = f", {loss.left_out} with a diverged network left out" * (loss.left_out > 0)
            lines.append(
                f"max - {control}: train loss {loss.text(signed=True)}, test loss "
                f"{test.text(signed=True)}, test accuracy "
                f"{accuracy.text(factor=100, form='.1f', signed=True)} points; "
                f"{loss.n} pairs{without}"
            )
    return lines


def markdown(name: str, settings: Sequence[Setting]) -> str:
    """A table for each setting, and what max differs by from every other arm."""
    lines = [f"# {name}: inserting layers while training"]
    for setting in settings:
        lines += ["", f"{about(setting)}:", ""]
        lines += [tables.markdown_row(list(COLUMNS.values()))]
        lines += [tables.markdown_row(["---"] * len(COLUMNS))]
        lines += map(tables.markdown_row, shown(setting))
        differences = [f"- {line}" for line in _against_controls(setting)]
        lines += ["", *differences] if differences else []
    return "\n".join([*lines, "", ABOUT, ""])


def about(setting: Setting) -> str:
    """A setting with its epochs and seeds."""
    epochs = counted(setting.cell.training.epochs, "epoch")
    return f"{setting.name}, {epochs}, {counted(setting.seeds, 'seed')}"
