"""Tables of networks that change their depth: `growth.*` and `tuning.*`.

Both compare arms by how good their networks end, with differences paired by seed. What grows spends
unequal compute, so it is also compared at equal compute and by the compute until large's loss. What
is tuned spends the same in every arm, so values of the last evaluation are at equal compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from cbundles.config import GROW
from cbundles.files import write_atomically
from cbundles.records import EditedRecord
from cbundles.report import summary
from cbundles.report.arms import (
    CONTROLS,
    FIXED,
    LARGE,
    MATCHED,
    MAX,
    RANDOM,
    SMALL,
    Arm,
    Setting,
    best_fixed,
    difference,
    difference_at_equal_compute,
    final_depth,
    has_no_end,
    reach,
    settings_of,
    spent,
    train_loss_p,
)
from cbundles.report.statistics import estimate, paired, six_digits
from cbundles.report.table import Column, Row, Table
from cbundles.report.words import lowest_to_highest
from cbundles.wording import counted

GROWTH_REFERENCES = (SMALL, *CONTROLS, MATCHED, LARGE)
GROWTH_QUANTITIES = ("train_loss", "test_loss", "test_accuracy")
TUNING_REFERENCES = (FIXED, RANDOM)
TUNING_QUANTITIES = ("test_accuracy", "test_loss")
EDITS = {"insert": "inserted", "remove": "removed", "accept": "accepted", "undo": "undone"}


@dataclass(frozen=True)
class Study:
    """How the runs of one command are told.

    stem: what their files are called
    heading: what their networks do
    row_of: the row of an arm
    columns: as people read that row
    about: what the columns mean
    """

    stem: str
    heading: str
    row_of: Callable[[Setting, Arm], Row]
    columns: Sequence[Column]
    about: str


def study_of(kind: str) -> Study:
    """How runs of this kind are told."""
    return GROWTH if kind == GROW else TUNING


def arms_table(setting: Setting) -> Table:
    """A row for each arm, and for each depth at the start.

    Numbers, None where there are none. QUANTITY_vs_REFERENCE columns are paired differences with
    their intervals, pairs how many, left_out how many had a diverged network.
    """
    study = study_of(setting.kind)
    return Table([study.row_of(setting, arm) for arm in setting.arms], study.columns)


def write_arms(name: str, records: Sequence[EditedRecord], folder: Path) -> None:
    """Write the tables of a run, and where its networks were trained: growth.* or tuning.*."""
    settings = settings_of(records)
    study = study_of(settings[0].kind)
    rows: list[Row] = []
    page = f"# {name}: {study.heading}\n"
    for setting in settings:
        table = arms_table(setting)
        rows += table.rows
        page += f"\n{setting.about}:\n\n{table.markdown()}"
        if lines := _max_against_others(setting) or _about_best_fixed(setting):
            page += "\n" + "".join(f"- {line}\n" for line in lines)
    origins = "".join(f"- {line}\n" for line in summary.origin_lines(records))
    page += f"\n{study.about}\n\n{origins}"
    Table(rows).write_csv(folder / f"{study.stem}.csv")
    write_atomically(folder / f"{study.stem}.md", page)


def growth_row(setting: Setting, arm: Arm) -> Row:
    """An arm of networks that grow."""
    return {
        "setting": setting.name,
        "arm": arm.name,
        **_networks(arm),
        "parameters": _mean(arm, lambda record: record.parameters),
        "flops": _mean(arm, spent),
        **_finals(arm, GROWTH_QUANTITIES),
        "train_loss_vs_small_at_equal_compute": difference_at_equal_compute(setting, arm.name),
        **_differences(setting, arm, GROWTH_REFERENCES, GROWTH_QUANTITIES),
        "large_loss": reach(setting, arm.name),
        "matched_loss": reach(setting, arm.name, MATCHED),
        "seconds": _mean(arm, lambda record: record.seconds),
    }


def tuning_row(setting: Setting, arm: Arm) -> Row:
    """An arm of tuned networks that start from the same depth."""
    return {
        "setting": setting.name,
        "start": arm.start,
        "arm": arm.name,
        **_networks(arm),
        **{name: _edit_count(arm, kind) for kind, name in EDITS.items()},
        "epochs": _mean(arm, lambda record: record.history.epoch[-1]),
        "flops": _mean(arm, spent),
        **_finals(arm, TUNING_QUANTITIES),
        **_differences(setting, arm, TUNING_REFERENCES, TUNING_QUANTITIES),
        **_difference_from_best_fixed(setting, arm),
        "seconds": _mean(arm, lambda record: record.seconds),
    }


def _difference_from_best_fixed(setting: Setting, arm: Arm) -> Row:
    """What finding the depth costs: the accuracy of fixed networks of the best depth among those
    that were started from, and the difference from theirs, paired by seed."""
    best = best_fixed(setting)
    if best is None:
        return {"best_fixed_start": None, "test_accuracy_vs_best_fixed": estimate([])}
    difference = paired(arm.finals("test_accuracy"), best.finals("test_accuracy"))
    return {"best_fixed_start": best.start, "test_accuracy_vs_best_fixed": difference}


def _networks(arm: Arm) -> Row:
    ended = [record for record in arm.records if not has_no_end(record)]
    depths = list(map(final_depth, ended or arm.records))
    return {
        "networks": len(arm.records),
        "diverged": sum(map(has_no_end, arm.records)),
        "depth_mean": six_digits(fmean(depths)),
        "depth_min": min(depths),
        "depth_max": max(depths),
    }


def _mean(arm: Arm, value_of: Callable[[EditedRecord], float]) -> float | None:
    return six_digits(fmean(map(value_of, arm.records)))


def _edit_count(arm: Arm, kind: str) -> int:
    """How often networks were edited, or an edit judged, in this way."""
    return sum(event.kind == kind for record in arm.records for event in record.events)


def _finals(arm: Arm, quantities: Sequence[str]) -> Row:
    return {name: estimate(list(arm.finals(name).values())) for name in quantities}


def _differences(
    setting: Setting, arm: Arm, references: Sequence[str], quantities: Sequence[str]
) -> Row:
    row: Row = {}
    for reference in references:
        for name in quantities:
            compared = difference(setting, arm.name, reference, name, arm.start)
            row[f"{name}_vs_{reference}"] = compared
        row[f"pairs_vs_{reference}"] = compared.n
        row[f"left_out_vs_{reference}"] = compared.left_out
    return row


def _show_networks(row: Row) -> str:
    diverged = f", {row['diverged']} diverged" if row["diverged"] else ""
    return f"{row['networks']}{diverged}"


def _show_depths(row: Row) -> str:
    return lowest_to_highest([row["depth_min"], row["depth_max"]])


def _show_mean_depth(row: Row) -> str:
    mean = f"{row['depth_mean']:.3g}"
    return mean if row["depth_min"] == row["depth_max"] else f"{mean} ({_show_depths(row)})"


def _show_edits(row: Row) -> str:
    return f"{row['accepted']} / {row['undone']}"


def _show_reach(key: str) -> Callable[[Row], str]:
    """How soon an arm gets to the loss of a fixed one."""
    return lambda row: str(row[key].text())


def _show_cost_of_finding(row: Row) -> str:
    """The difference from the best fixed depth; a dash in the row of those networks themselves."""
    is_best = row["arm"] == FIXED and row["start"] == row["best_fixed_start"]
    if is_best:
        return "-"
    return str(row["test_accuracy_vs_best_fixed"].text(percent=True, signed=True))


def _estimate(key: str, *, percent: bool = False) -> Callable[[Row], str]:
    """Mean and interval of a quantity."""
    return lambda row: str(row[key].text(percent=percent))


def _difference_from(reference: str, key: str, *, percent: bool = False) -> Callable[[Row], str]:
    """Mean and interval of a paired difference; a dash in the row of the reference itself."""

    def show(row: Row) -> str:
        return "-" if row["arm"] == reference else str(row[key].text(percent=percent, signed=True))

    return show


def _about_best_fixed(setting: Setting) -> list[str]:
    """Which depth that is, and that nobody knew it beforehand."""
    best = best_fixed(setting)
    if best is None:
        return []
    accuracy = estimate(list(best.finals("test_accuracy").values())).text(percent=True)
    return [
        f"best fixed depth, known only afterwards: {best.start} layers, {accuracy} % test accuracy"
    ]


def _max_against_others(setting: Setting) -> list[str]:
    """What it matters where a layer is inserted, and that it is inserted: a line for each arm that
    max is compared with; none of tuned networks."""
    lines = []
    for other in GROWTH_REFERENCES:
        loss, test, accuracy = (difference(setting, MAX, other, q) for q in GROWTH_QUANTITIES)
        if not loss.n and not loss.left_out:
            continue
        p = train_loss_p(setting, MAX, other)
        by_test = "" if math.isnan(p) else f" (paired t-test, p = {p:.2g} uncorrected)"
        line = (
            f"max - {other}: train loss {loss.text(signed=True)}{by_test}, test loss "
            f"{test.text(signed=True)}, test accuracy "
            f"{accuracy.text(percent=True, signed=True)} points; {counted(loss.n, 'pair')}"
        )
        if loss.left_out:
            line += f", {loss.left_out} with a diverged network left out"
        lines.append(line)
    return lines


GROWTH = Study(
    stem="growth",
    heading="inserting layers while training",
    row_of=growth_row,
    columns=(
        Column("arm", "arm"),
        Column("networks", "n", _show_networks),
        Column("depth", "layers", _show_depths),
        Column("train_loss", "train loss", _estimate("train_loss")),
        Column("test_loss", "test loss", _estimate("test_loss")),
        Column("test_accuracy", "test accuracy [%]", _estimate("test_accuracy", percent=True)),
        Column(
            "difference", "train loss - small's", _difference_from(SMALL, "train_loss_vs_small")
        ),
        Column(
            "equal",
            "the same at equal compute",
            _difference_from(SMALL, "train_loss_vs_small_at_equal_compute"),
        ),
        Column("reach", "FLOPs to large's loss / large's", _show_reach("large_loss")),
        Column("reach_matched", "FLOPs to matched's loss / matched's", _show_reach("matched_loss")),
    ),
    about=(
        "Losses and accuracy after the last epoch: mean over seeds and 95 % t-interval. "
        "Differences are paired by seed; at equal compute: the arm's loss when it had spent as "
        "many FLOPs as small in all. n: networks; diverged ones are in no mean. FLOPs to large's "
        "loss: the first evaluation with a training loss no higher than the last one of large "
        "with the same seed, also for large itself; median of the ratios, infinite where it is "
        "never reached; to matched's loss likewise."
    ),
)
TUNING = Study(
    stem="tuning",
    heading="removing and inserting layers while training",
    row_of=tuning_row,
    columns=(
        Column("start", "layers at the start"),
        Column("arm", "arm"),
        Column("networks", "n", _show_networks),
        Column("depth", "at the end", _show_mean_depth),
        Column("test_accuracy", "test accuracy [%]", _estimate("test_accuracy", percent=True)),
        Column("test_loss", "test loss", _estimate("test_loss")),
        Column("edits", "edits accepted / undone", _show_edits),
        Column(
            "fixed",
            "accuracy - fixed's [points]",
            _difference_from(FIXED, "test_accuracy_vs_fixed", percent=True),
        ),
        Column(
            "random",
            "accuracy - both-random's [points]",
            _difference_from(RANDOM, "test_accuracy_vs_both-random", percent=True),
        ),
        Column("best_fixed", "accuracy - best fixed depth's [points]", _show_cost_of_finding),
    ),
    about=(
        "An arm removes from the first layer on whose H is above that of layer 1, or, where there "
        "is none, inserts where the sensitivity is largest; an edit stays when the held-out loss "
        "has fallen after a trial. Test accuracy and loss when the compute is spent: mean over "
        "seeds and 95 % t-interval; differences are paired by seed, with the arm that starts from "
        "the same depth, and in the last column with the arm fixed of the start whose networks end "
        "with the best mean accuracy. Layers at the end: mean (fewest to most). Edits: "
        "sums over all networks. n: networks; diverged ones are in no mean."
    ),
)
