"""What lesion studies say: significance, curves, the 60 % row, and who predicts the cost best.

A lesioned network is compared with the whole one on the same test images (McNemar's exact test):
lost are images that only the whole network classifies correctly, gained those that only the
lesioned one does. A rise of the test error is significant when more are lost than gained, p < 0.05.
"""

from __future__ import annotations

import functools
import json
import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from cbundles.config import Cell
from cbundles.experiments import removal
from cbundles.report import evidence
from cbundles.report.evidence import Record

SIGNIFICANT = 0.05
SHARE = 0.6  # of the layers can go, says the second work
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, SHARE, 0.8, 1.0)
NAMES = {
    removal.CONFLICTING: "conflicting, drawn",
    removal.OTHERS: "non-conflicting, drawn",
    removal.ALL: "any, drawn",
    "entropy": "highest H first",
    "scaled_norm": "smallest scaled branch first",
    "norm": "smallest branch / skip first",
    "first_order": "least gradient x activation first",
}
COLUMNS = {
    "remove": "remove blocks",
    "blocks": "of",
    "change": "accuracy at 60 %",
    "unchanged": "no rise at 60 %",
    "removable": "removable [%]",
    "spearman": "predicts cost",
}
ABOUT = (
    "accuracy at 60 %: its change in points without 60 % of the blocks, mean and standard "
    "deviation over draws and seeds; no rise: share of these networks whose test error is not "
    "significantly higher (McNemar, p < 0.05); removable: the largest share of blocks up to which "
    "most draws show no significant rise, mean over seeds, and the 95 % bootstrap interval over "
    "draws, widest of all seeds; predicts cost: Spearman correlation with the cost of each block "
    "alone, 1 is perfect."
)


@functools.cache
def mcnemar(lost: int, gained: int) -> float:
    """Two-sided p of McNemar's exact test: that so uneven a split of the images on which two
    networks differ is chance."""
    total, fewer = lost + gained, min(lost, gained)
    logs = [math.lgamma(total + 1) - math.lgamma(i + 1) - math.lgamma(total - i + 1)
            for i in range(fewer + 1)]  # fmt: skip
    return min(1.0, 2 * sum(math.exp(log - total * math.log(2)) for log in logs))


def rises(lost: int, gained: int) -> bool:
    """Whether the test error rises significantly."""
    return lost > gained and mcnemar(lost, gained) < SIGNIFICANT


def alike(records: Sequence[Record]) -> list[list[Record]]:
    """Studies of networks that differ in their seed alone, together."""
    found: dict[str, list[Record]] = {}
    for record in records:
        content = Cell.fromdict(record["config"]).asdict()
        del content["training"]["seed"]
        key = json.dumps([content, record["settings"]], sort_keys=True)
        found.setdefault(key, []).append(record)
    return list(found.values())


def groups(record: Record) -> dict[str, tuple[int, ...]]:
    return removal.groups(record["blocks"]["entropy"])


def curve(record: Record, of: str) -> dict[int, list[tuple[int, int]]]:
    """How many blocks are removed -> lost and gained of each draw. A group that is all blocks has
    the curve of all; a group or ranking without any has none."""
    members = groups(record)
    if of in members and len(members[of]) == len(members[removal.ALL]):
        of = removal.ALL
    return {
        entry["k"]: list(zip(entry["lost"], entry["gained"], strict=True))
        for entry in record["curves"]
        if entry["of"] == of
    }


def change(record: Record, draws: Sequence[tuple[int, int]]) -> list[float]:
    """Of the accuracy, in each draw."""
    return [(gained - lost) / record["images"] for lost, gained in draws]


def removable(course: dict[int, list[tuple[int, int]]]) -> int:
    """The largest number of blocks up to which most draws show no significant rise."""
    largest = 0
    for k in sorted(course):
        if 2 * sum(rises(*draw) for draw in course[k]) >= len(course[k]):
            break
        largest = k
    return largest


def removable_interval(course: dict[int, list[tuple[int, int]]]) -> tuple[float, float]:
    """95 % bootstrap interval of `removable` over the draws (500 resamples); of a ranking, which
    has one draw, the number itself twice."""
    sizes = sorted(course)
    risen = np.array([[rises(*draw) for draw in course[k]] for k in sizes])
    chance = np.random.default_rng(0)
    picks = chance.integers(0, risen.shape[1], (500, *risen.shape))
    most = 2 * np.take_along_axis(risen[None], picks, axis=2).sum(-1) >= risen.shape[1]
    first = np.where(most.any(1), most.argmax(1), len(sizes))
    found = np.array([0, *sizes])[first]
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def cost(record: Record) -> list[float]:
    """Accuracy lost by removing each block alone."""
    pairs = zip(record["blocks"]["lost"], record["blocks"]["gained"], strict=True)
    return [(lost - gained) / record["images"] for lost, gained in pairs]


def harmless(record: Record) -> int:
    """How many blocks can be removed, each alone, without a significant rise of the error."""
    pairs = zip(record["blocks"]["lost"], record["blocks"]["gained"], strict=True)
    return sum(not rises(*pair) for pair in pairs)


def predicts(record: Record, name: str) -> float:
    """Spearman correlation of a score with the cost of each block alone; the sign is such that 1 is
    a perfect prediction. NaN when the score is the same for all blocks."""
    pairs = [(-s if removal.RANKINGS[name] else s, c)
             for s, c in zip(record["blocks"][name], cost(record), strict=True)
             if s is not None]  # fmt: skip
    scores, costs = zip(*pairs, strict=True) if pairs else ((), ())
    return evidence.spearman(scores, costs)


def at_share(record: Record, of: str, share: float = SHARE) -> tuple[int, list[tuple[int, int]]]:
    """The smallest number of blocks that was tried and is at least this share of all, and its
    draws; none when the group is too small."""
    wanted = math.ceil(share * len(record["blocks"]["entropy"]))
    course = curve(record, of)
    k = min((k for k in course if k >= wanted), default=None)
    return (wanted, []) if k is None else (k, course[k])


def rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A row for each group and ranking, over networks that are alike: numbers, None where there
    are none."""
    found = []
    for of, name in NAMES.items():
        here = [record for record in records if curve(record, of)]
        draws = [(record, at_share(record, of)[1]) for record in here]
        changes = [c for record, some in draws for c in change(record, some)]
        risen = [rises(*draw) for _, some in draws for draw in some]
        share = [100 / len(r["blocks"]["entropy"]) for r in here]
        courses = [curve(record, of) for record in here]
        limits = [removable_interval(course) for course in courses]
        ranks = [predicts(record, of) for record in here] if of in removal.RANKINGS else []
        ranks = [rank for rank in ranks if not math.isnan(rank)]
        members = [len(groups(r).get(of, groups(r)[removal.ALL])) for r in records]
        found.append(
            {
                "scale": evidence.scale(records),
                "remove": name,
                "networks": len(here),
                "blocks_min": min(members),
                "blocks_max": max(members),
                "change_mean": statistics.fmean(changes) if changes else None,
                "change_sd": statistics.pstdev(changes) if changes else None,
                "unchanged": 1 - statistics.fmean(risen) if risen else None,
                "removable_percent": _mean(
                    [removable(c) * s for c, s in zip(courses, share, strict=True)]
                ),
                "removable_low": min((v[0] * s for v, s in zip(limits, share, strict=True)),
                                     default=None),
                "removable_high": max((v[1] * s for v, s in zip(limits, share, strict=True)),
                                      default=None),
                "spearman": _mean(ranks),
            }
        )  # fmt: skip
    return found


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def shown(row: dict[str, Any]) -> list[str]:
    """A row as text, in the order of `COLUMNS`."""
    low, high = row["blocks_min"], row["blocks_max"]
    text = {"remove": row["remove"], "blocks": f"{low}" if low == high else f"{low} to {high}"}
    text |= dict.fromkeys(("change", "unchanged", "removable", "spearman"), "-")
    if row["change_mean"] is not None:
        text["change"] = f"{100 * row['change_mean']:+.1f} ± {100 * row['change_sd']:.1f}"
        text["unchanged"] = f"{100 * row['unchanged']:.0f} %"
    if row["removable_percent"] is not None:
        spread = f"({row['removable_low']:.0f} to {row['removable_high']:.0f})"
        text["removable"] = f"{row['removable_percent']:.0f} {spread}"
    if row["spearman"] is not None:
        text["spearman"] = f"{row['spearman']:.2f}"
    return [text[column] for column in COLUMNS]


def group_lines(records: Sequence[Record]) -> list[str]:
    """What a person wants to know of each network first."""
    lines = []
    for record in records:
        blocks, accuracy = record["blocks"], record["correct"] / record["images"]
        conflicting = groups(record)[removal.CONFLICTING]
        numbers = ", ".join(str(block + 1) for block in conflicting)
        lines.append(
            f"{Cell.fromdict(record['config']).label}: {100 * accuracy:.1f} % of "
            f"{record['images']:,} test images; branches of {len(conflicting)} of "
            f"{len(blocks['entropy'])} blocks conflict{': ' + numbers if numbers else ''}; "
            f"{harmless(record)} can go, each alone, without a significant rise"
        )
    return lines


def course_table(records: Sequence[Record]) -> list[list[str]]:
    """Mean change of the accuracy in points by the share of removed blocks, as text: a header, and
    a line for each of `SHARES`; what has no curve there is left out or shown as a dash."""
    lines = [["removed", *NAMES.values()]]
    for share in SHARES:
        line = [f"{100 * share:.0f} %"]
        for of in NAMES:
            changes = [c for r in records for c in change(r, at_share(r, of, share)[1])]
            line.append(f"{100 * statistics.fmean(changes):+.1f}" if changes else "-")
        lines.append(line)
    shown_ = [i for i in range(len(lines[0])) if any(line[i] != "-" for line in lines[1:])]
    return [[line[i] for i in shown_] for line in lines]


def curve_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One row for each network, group or ranking, and k: what is drawn."""
    return [
        {
            "cell": record["cell"],
            "seed": evidence.seed(record),
            "remove": of,
            "k": k,
            "share": round(k / len(record["blocks"]["entropy"]), 4),
            "draws": len(draws),
            "accuracy_change": round(statistics.fmean(change(record, draws)), 6),
            "sd": round(statistics.pstdev(change(record, draws)), 6),
            "significant": sum(rises(*draw) for draw in draws),
        }
        for record in records
        for of in NAMES
        for k, draws in sorted(curve(record, of).items())
    ]


def pruned_row(record: dict[str, Any]) -> dict[str, Any]:
    """A pruned network in a line: before, after, with its own statistics, after the fine-tune."""
    whole, pruned, fitting, tuned = (round(c / record["images"], 4) for c in record["correct"])
    p = [mcnemar(*pair) for pair in zip(record["lost"], record["gained"], strict=True)]
    found = {
        "network": record["cell"],
        "blocks": record["blocks"],
        "removed": len(record["removed"]),
        "accuracy": whole,
        "accuracy_pruned": pruned,
        "p_pruned": float(f"{p[1]:.3g}"),
        "accuracy_recalibrated": fitting,
        "p_recalibrated": float(f"{p[2]:.3g}"),
        "accuracy_tuned": tuned,
        "p_tuned": float(f"{p[3]:.3g}"),
        "epochs_tuned": record["epochs"],
    }
    for key in ("layers", "parameters", "bytes", "flops", "latency_seconds"):
        found[key], found[f"{key}_pruned"] = record[key]
    return found


def block_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One row for each network and block: its scores, and what its removal alone costs."""
    return [
        {
            "cell": record["cell"],
            "seed": evidence.seed(record),
            "block": block + 1,
            **{name: record["blocks"][name][block] for name in (*removal.RANKINGS, "num_bundles")},
            "cost": round(lost, 6),
        }
        for record in records
        for block, lost in enumerate(cost(record))
    ]
