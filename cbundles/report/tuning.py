"""What tuned networks say: how good they end and how deep, by arm and by the depth they start from.

Every arm gets the same compute, so values of the last evaluation are compared at equal compute.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from cbundles.config import TUNING_ARMS
from cbundles.report import arms, tables
from cbundles.report.arms import Estimate, Setting
from cbundles.report.evidence import Record, counted

FIXED, RANDOM = "fixed", "both-random"
ARMS = TUNING_ARMS[1:]
REFERENCES = (FIXED, RANDOM)
MEASURES = ("test_accuracy", "test_loss")
EVENTS = {"insert": "inserted", "remove": "removed", "accept": "accepted", "undo": "undone"}
COLUMNS = {
    "start": "layers at the start",
    "arm": "arm",
    "networks": "n",
    "depth": "at the end",
    "test_accuracy": "test accuracy [%]",
    "test_loss": "test loss",
    "edits": "edits accepted / undone",
    "fixed": "accuracy - fixed's [points]",
    "random": "accuracy - both-random's [points]",
}
ABOUT = (
    "An arm removes from the first layer on whose H is above that of layer 1, or, where there is "
    "none, inserts where the sensitivity is largest; an edit stays when the held-out loss has "
    "fallen after a trial. "
    "Test accuracy and loss when the compute is spent: mean over seeds and 95 % t-interval; "
    "differences are paired by seed, with the arm that starts from the same depth. Layers at the "
    "end: mean (fewest to most). Edits: sums over all networks. n: networks; diverged ones are in "
    "no mean."
)


def final(record: Record, key: str) -> float:
    """When the compute is spent; NaN for a network that diverged."""
    return math.nan if diverged(record) else arms.last(record, key)


def diverged(record: Record) -> bool:
    return any(math.isnan(arms.last(record, loss)) for loss in ("train_loss", "test_loss"))


def events(record: Record, kind: str) -> int:
    """How often a network was edited, or an edit judged, in this way."""
    return sum(event["kind"] == kind for event in record["events"])


def difference(setting: Setting, start: int, arm: str, reference: str, key: str) -> Estimate:
    """Of an arm's final value from a reference's that starts from the same depth."""
    ours, theirs = (
        {s: final(r, key) for s, r in setting.of(name, start).items()} for name in (arm, reference)
    )
    return arms.paired(ours, theirs)


def present(setting: Setting, start: int) -> list[str]:
    """The arms that start from a depth."""
    return [arm for arm in ARMS if setting.of(arm, start)]


def rows(setting: Setting) -> list[dict[str, Any]]:
    """A row for each depth at the start and arm: numbers, None where there are none."""
    return [_row(setting, start, arm)
            for start in setting.starts for arm in present(setting, start)]  # fmt: skip


def _row(setting: Setting, start: int, arm: str) -> dict[str, Any]:
    records = list(setting.of(arm, start).values())
    depths = [arms.final_depth(record) for record in records]
    row: dict[str, Any] = {
        "setting": setting.name,
        "start": start,
        "arm": arm,
        "networks": len(records),
        "diverged": sum(map(diverged, records)),
        "depth_mean": arms.number(statistics.fmean(depths)),
        "depth_min": min(depths),
        "depth_max": max(depths),
        **{name: sum(events(r, kind) for r in records) for kind, name in EVENTS.items()},
        "epochs": arms.number(statistics.fmean(r["history"][-1]["epoch"] for r in records)),
        "flops": arms.number(statistics.fmean(map(arms.spent, records))),
    }
    for key in MEASURES:
        row |= arms.estimate([final(record, key) for record in records]).row(key)
    for reference in REFERENCES:
        for key in MEASURES:
            compared = difference(setting, start, arm, reference, key)
            row |= compared.row(f"{key}_vs_{reference}")
        row |= {f"pairs_vs_{reference}": compared.n, f"left_out_vs_{reference}": compared.left_out}
    row["seconds"] = arms.number(statistics.fmean(record["seconds"] for record in records))
    return row


def shown(setting: Setting) -> list[list[str]]:
    """A row for each depth at the start and arm as people read it, in the order of `COLUMNS`."""
    return [_shown(setting, start, arm)
            for start in setting.starts for arm in present(setting, start)]  # fmt: skip


def _shown(setting: Setting, start: int, arm: str) -> list[str]:
    """An arm as people read it, in the order of `COLUMNS`."""
    records = list(setting.of(arm, start).values())
    depths = [arms.final_depth(record) for record in records]
    accuracy, loss = (arms.estimate([final(r, key) for r in records]) for key in MEASURES)
    spread = f" ({min(depths)} to {max(depths)})" if len(set(depths)) > 1 else ""
    return [
        str(start),
        arm,
        f"{len(records)}" + (f", {accuracy.left_out} diverged" if accuracy.left_out else ""),
        f"{statistics.fmean(depths):.3g}{spread}",
        accuracy.text(factor=100, form=".1f"),
        loss.text(),
        f"{sum(events(r, 'accept') for r in records)} / {sum(events(r, 'undo') for r in records)}",
        *(
            "-"
            if arm == reference
            else difference(setting, start, arm, reference, "test_accuracy").text(
                factor=100, form=".1f", signed=True
            )
            for reference in REFERENCES
        ),
    ]


def markdown(name: str, settings: Sequence[Setting]) -> str:
    """A table for each setting."""
    lines = [f"# {name}: removing and inserting layers while training"]
    for setting in settings:
        lines += ["", f"{about(setting)}:", ""]
        lines += [tables.markdown_row(list(COLUMNS.values()))]
        lines += [tables.markdown_row(["---"] * len(COLUMNS))]
        lines += map(tables.markdown_row, shown(setting))
    return "\n".join([*lines, "", ABOUT, ""])


def about(setting: Setting) -> str:
    """A setting with the compute of its arms and its seeds."""
    cell = setting.cell
    return (
        f"{setting.name}, compute of {counted(cell.training.epochs, 'epoch')} at depth "
        f"{cell.tuning.budget_depth}, {counted(setting.seeds, 'seed')}"
    )
