"""What lesion studies say: significance, curves, the 60 % row, and who predicts the cost best.

A lesioned network is compared with the whole one on the same test images (McNemar's exact test):
lost are images that only the whole network classifies correctly, gained those that only the
lesioned one does. A rise of the test error is significant when more are lost than gained, p < 0.05.
No significant rise is no proof of no rise: `smallest_rise_text` says from which rise on the test
would have seen one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median_low, pstdev

import numpy as np

from cbundles.decisions import removal
from cbundles.decisions.paired import fewest_lost, mcnemar, rises, smallest_rise
from cbundles.records import LesionRecord, PrunedRecord
from cbundles.report import evidence, select
from cbundles.report.statistics import mean_or_none, spearman
from cbundles.report.table import MISSING, Column, Row, Table, formatted
from cbundles.report.words import lowest_to_highest

SHARE = 0.6  # of the layers can go, says the second work
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, SHARE, 0.8, 1.0)
RESAMPLES = 500
NAMES = {
    removal.CONFLICTING: "conflicting, drawn",
    removal.OTHERS: "non-conflicting, drawn",
    removal.ALL: "any, drawn",
    "entropy": "highest H first",
    "scaled_norm": "smallest scaled branch first",
    "norm": "smallest branch / skip first",
    "first_order": "least gradient x activation first",
}
ABOUT = (
    "accuracy at 60 %: its change in points without 60 % of the blocks, mean and standard "
    "deviation over draws and seeds; no rise: share of these networks whose test error is not "
    "significantly higher (McNemar, p < 0.05); removable: the largest share of blocks up to which "
    "most draws show no significant rise, mean over seeds, and the 95 % bootstrap interval over "
    "draws, widest of all seeds; predicts cost: Spearman correlation with the cost of each block "
    "alone, 1 is perfect."
)
Draw = tuple[int, int]  # how many test images are lost and gained
Curve = dict[int, list[Draw]]  # by the number of removed blocks


def alike(records: Sequence[LesionRecord]) -> list[list[LesionRecord]]:
    """Studies of networks that differ in their seed alone, together."""
    groups = select.groups(records, across=(select.SEED,), also=lambda r: r.settings)
    return [group.records for group in groups]


def block_count(record: LesionRecord) -> int:
    """How many blocks with a skip the network has."""
    return len(record.blocks)


def branch_groups(record: LesionRecord) -> dict[str, tuple[int, ...]]:
    """The blocks whose branch conflicts, the others, and all."""
    return removal.groups(record.blocks.entropy)


def curve(record: LesionRecord, of: str) -> Curve:
    """How many blocks are removed -> lost and gained of each draw. A group that is all blocks has
    the curve of all; a group or ranking without any has none."""
    return curve_among(record.curves, record, of)


def curve_among(curves: Sequence[removal.Curve], record: LesionRecord, of: str) -> Curve:
    """The same, of other curves of this network."""
    members = branch_groups(record)
    if of in members and len(members[of]) == len(members[removal.ALL]):
        of = removal.ALL
    return {
        found.k: list(zip(found.lost, found.gained, strict=True))
        for found in curves
        if found.of == of
    }


def accuracy_changes(record: LesionRecord, draws: Sequence[Draw]) -> list[float]:
    """Of the test accuracy, in each draw."""
    return [(gained - lost) / record.images for lost, gained in draws]


def removable(course: Curve) -> int:
    """The largest number of blocks up to which most draws show no significant rise."""
    largest = 0
    for k in sorted(course):
        if 2 * sum(rises(*draw) for draw in course[k]) >= len(course[k]):
            break
        largest = k
    return largest


def removable_interval(course: Curve) -> tuple[float, float]:
    """95 % bootstrap interval of `removable` over the draws (500 resamples); of a ranking, which
    has one draw, the number itself twice."""
    sizes = sorted(course)
    risen = np.array([[rises(*draw) for draw in course[k]] for k in sizes])
    draws = risen.shape[1]
    picks = np.random.default_rng(0).integers(0, draws, (RESAMPLES, *risen.shape))
    resampled = np.take_along_axis(risen[None], picks, axis=2)
    most_rise = 2 * resampled.sum(-1) >= draws
    first = np.where(most_rise.any(1), most_rise.argmax(1), len(sizes))
    low, high = np.percentile(np.array([0, *sizes])[first], [2.5, 97.5])
    return float(low), float(high)


def _alone(record: LesionRecord) -> list[Draw]:
    """What is lost and gained by removing each block alone."""
    return list(zip(record.blocks.lost, record.blocks.gained, strict=True))


def cost(record: LesionRecord) -> list[float]:
    """Accuracy lost by removing each block alone."""
    return [(lost - gained) / record.images for lost, gained in _alone(record)]


def harmless(record: LesionRecord) -> int:
    """How many blocks can be removed, each alone, without a significant rise of the error."""
    return sum(not rises(*draw) for draw in _alone(record))


def smallest_rise_text(records: Sequence[LesionRecord]) -> str:
    """The smallest rise of the error that the test could have seen: in the best case, when no image
    is gained, and with as many changed answers as removing one harmless block typically makes."""
    images = records[0].images
    number = fewest_lost()
    text = (
        f"on {images:,} test images the test sees a rise of {100 * number / images:.2g} points at "
        f"best ({number} images lost, none gained)"
    )
    changed = median_low(
        [lost + gained for r in records for lost, gained in _alone(r) if not rises(lost, gained)]
        or [0]
    )
    typical = smallest_rise(changed)
    if typical is None:
        return text
    return (
        f"{text}, and of {100 * typical / images:.2g} when {changed} images change their answer, "
        "the median of the blocks without one"
    )


def predicts(record: LesionRecord, name: str) -> float:
    """Spearman correlation of a score with the cost of each block alone; the sign is such that 1 is
    a perfect prediction. NaN when the score is the same for all blocks."""
    sign = -1 if removal.RANKINGS[name] else 1  # high scores go first: they should cost little
    scores, costs = [], []
    for score, lost in zip(record.blocks.by_ranking[name], cost(record), strict=True):
        if score is not None:
            scores.append(sign * score)
            costs.append(lost)
    return spearman(scores, costs)


def mean_prediction(records: Sequence[LesionRecord], name: str) -> float | None:
    """The mean of `predicts` over the networks in which it is defined; None without any."""
    ranks = [predicts(record, name) for record in records]
    return mean_or_none([rank for rank in ranks if not math.isnan(rank)])


def at_share(record: LesionRecord, of: str, share: float = SHARE) -> tuple[int, list[Draw]]:
    """The smallest number of blocks that was tried and is at least this share of all, and its
    draws; none when the group is too small."""
    return at_count(curve(record, of), math.ceil(share * block_count(record)))


def at_count(course: Curve, wanted: int) -> tuple[int, list[Draw]]:
    """The smallest number of blocks that was tried and is at least this one, and its draws."""
    k = min((k for k in course if k >= wanted), default=None)
    return (wanted, []) if k is None else (k, course[k])


def _changes_at(records: Sequence[LesionRecord], of: str, share: float) -> list[float]:
    """Changes of the accuracy without this share of the blocks, of all draws and networks."""
    changes = []
    for record in records:
        _, draws = at_share(record, of, share)
        changes += accuracy_changes(record, draws)
    return changes


def removal_table(records: Sequence[LesionRecord]) -> Table:
    """A line for each group and ranking, over networks that are alike: numbers, None where there
    are none."""
    return Table([_removal_row(records, of) for of in NAMES], REMOVAL_COLUMNS)


def removal_rows(records: Sequence[LesionRecord]) -> list[Row]:
    """The rows of `removal_table`, of every scale among the studies."""
    return [row for group in alike(records) for row in removal_table(group).rows]


def _removal_row(records: Sequence[LesionRecord], of: str) -> Row:
    studied = [record for record in records if curve(record, of)]
    changes = _changes_at(studied, of, SHARE)
    risen = [rises(*draw) for record in studied for draw in at_share(record, of)[1]]
    mean, low, high = [], [], []  # of each network, in percent of its blocks
    for record in studied:
        percent, course = 100 / block_count(record), curve(record, of)
        least, most = removable_interval(course)
        mean.append(removable(course) * percent)
        low.append(least * percent)
        high.append(most * percent)
    members = [len(branch_groups(r).get(of, branch_groups(r)[removal.ALL])) for r in records]
    return {
        "scale": evidence.scale(records),
        "remove": NAMES[of],
        "networks": len(studied),
        "blocks_min": min(members),
        "blocks_max": max(members),
        "change_mean": mean_or_none(changes),
        "change_sd": pstdev(changes) if changes else None,
        "unchanged": 1 - fmean(risen) if risen else None,
        "removable_percent": mean_or_none(mean),
        "removable_low": min(low, default=None),
        "removable_high": max(high, default=None),
        "spearman": mean_prediction(studied, of) if of in removal.RANKINGS else None,
    }


def _show_change(row: Row) -> str:
    if row["change_mean"] is None:
        return MISSING
    return f"{100 * row['change_mean']:+.1f} ± {100 * row['change_sd']:.1f}"


def _show_removable(row: Row) -> str:
    if row["removable_percent"] is None:
        return MISSING
    low, high = row["removable_low"], row["removable_high"]
    return f"{row['removable_percent']:.0f} ({low:.0f} to {high:.0f})"


def _show_blocks(row: Row) -> str:
    return lowest_to_highest([row["blocks_min"], row["blocks_max"]])


REMOVAL_COLUMNS = [
    Column("remove", "remove blocks"),
    Column("blocks", "of", _show_blocks),
    Column("change", "accuracy at 60 %", _show_change),
    Column("unchanged", "no rise at 60 %", formatted("unchanged", "{:.0f} %", 100)),
    Column("removable", "removable [%]", _show_removable),
    Column("spearman", "predicts cost", formatted("spearman", "{:.2f}")),
]


def group_lines(records: Sequence[LesionRecord]) -> list[str]:
    """What a person wants to know of each network first; then what the test could have seen."""
    lines = []
    for record in records:
        accuracy = 100 * record.correct / record.images
        conflicting = branch_groups(record)[removal.CONFLICTING]
        numbers = ", ".join(str(block + 1) for block in conflicting)
        listed = f": {numbers}" if numbers else ""
        lines.append(
            f"{record.cell.label}: {accuracy:.1f} % of "
            f"{record.images:,} test images; branches of {len(conflicting)} of "
            f"{block_count(record)} blocks conflict{listed}; "
            f"{harmless(record)} can go, each alone, without a significant rise"
        )
    return [*lines, f"without a significant rise: {smallest_rise_text(records)}"]


def course_table(records: Sequence[LesionRecord]) -> Table:
    """Mean change of the accuracy in points by the share of removed blocks, a line for each of
    `SHARES`; groups and rankings that have no curve are left out."""
    rows: list[Row] = []
    for share in SHARES:
        row: Row = {"removed": 100 * share}
        for of in NAMES:
            row[of] = mean_or_none(_changes_at(records, of, share))
        rows.append(row)
    columns = [Column("removed", "removed", formatted("removed", "{:.0f} %"), to_the_right=True)]
    for of, name in NAMES.items():
        if any(row[of] is not None for row in rows):
            columns.append(Column(of, name, formatted(of, "{:+.1f}", 100), to_the_right=True))
    return Table(rows, columns)


def curve_rows(records: Sequence[LesionRecord]) -> list[Row]:
    """One row for each network, group or ranking, and k: what is drawn."""
    rows = []
    for record in records:
        for of in NAMES:
            for k, draws in sorted(curve(record, of).items()):
                changes = accuracy_changes(record, draws)
                row = {
                    "cell": record.id,
                    "seed": record.seed,
                    "remove": of,
                    "k": k,
                    "share": round(k / block_count(record), 4),
                    "draws": len(draws),
                    "accuracy_change": round(fmean(changes), 6),
                    "sd": round(pstdev(changes), 6),
                    "significant": sum(rises(*draw) for draw in draws),
                }
                rows.append(row)
    return rows


def block_rows(records: Sequence[LesionRecord]) -> list[Row]:
    """One row for each network and block: its scores, and what its removal alone costs."""
    rows = []
    for record in records:
        for block, lost in enumerate(cost(record)):
            scores = {name: values[block] for name, values in record.blocks.by_ranking.items()}
            row = {
                "cell": record.id,
                "seed": record.seed,
                "block": block + 1,
                **scores,
                "num_bundles": record.blocks.num_bundles[block],
                "cost": round(lost, 6),
            }
            rows.append(row)
    return rows


def pruned_row(record: PrunedRecord) -> Row:
    """A pruned network in a line: before, after, with its own statistics, after the fine-tune."""
    compared = record.compared
    whole, pruned, fitting, tuned = (round(c / compared.images, 4) for c in compared.correct)
    p = [mcnemar(*draw) for draw in zip(compared.lost, compared.gained, strict=True)]
    row = {
        "network": record.id,
        "blocks": record.blocks,
        "removed": len(compared.removed),
        "accuracy": whole,
        "accuracy_pruned": pruned,
        "p_pruned": float(f"{p[1]:.3g}"),
        "accuracy_recalibrated": fitting,
        "p_recalibrated": float(f"{p[2]:.3g}"),
        "accuracy_tuned": tuned,
        "p_tuned": float(f"{p[3]:.3g}"),
        "epochs_tuned": compared.epochs,
    }
    for key in ("layers", "parameters", "bytes", "flops", "latency_seconds"):
        row[key], row[f"{key}_pruned"] = getattr(compared, key)
    return row


def study_page(name: str, groups: Sequence[Sequence[LesionRecord]]) -> str:
    """The studies of a run in Markdown: for each scale its networks and its table."""
    page = f"# {name}: removing blocks\n"
    for group in groups:
        networks = "".join(f"- {line}\n" for line in group_lines(group))
        page += f"\n{evidence.scale(group)}:\n\n{networks}\n{removal_table(group).markdown()}"
    return f"{page}\n{ABOUT}\n"
