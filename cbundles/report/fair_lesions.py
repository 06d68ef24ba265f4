"""What lesion studies say when they are judged fairly: with statistics of batch normalisation taken
anew, by orders that others would choose, beside controls.

A network with statistics taken anew is tested beside the whole one with statistics taken anew, too,
on the same test images (see `lesions`): that alone may change the accuracy, which is a control.
Changes of the accuracy are told from the network as it was trained throughout. A study that was not
asked for this says so in one line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from cbundles.decisions import orders, removal
from cbundles.decisions.paired import mcnemar
from cbundles.records import FairStudy, LesionRecord, Number
from cbundles.report import evidence, lesions
from cbundles.report.lesions import SHARE, Curve, Draw
from cbundles.report.statistics import Estimate, estimate, mean_or_none, spearman
from cbundles.report.table import Column, Row, Table, formatted
from cbundles.report.words import listed
from cbundles.wording import counted

NOT_MEASURED = "with batch-norm statistics taken anew: not measured in these records"
NAMES = lesions.NAMES | {
    "conflict_rate": "most conflicts first",
    "block_change": "least 1 - cos(in, out) first",
    "relu_state_entropy": "lowest ReLU-state entropy first",
    orders.LAST_FIRST: "last blocks first",
    orders.FIRST_FIRST: "first blocks first",
    orders.GREEDY: "greedy",
}
BRANCHES, OUTPUTS = "branches", "outputs"  # where H is measured, see `records.AtBatchSize`
# Scores of blocks, which know what a block does, unlike orders by place, and are not tried, unlike
# the greedy order.
SCORES = {**removal.RANKINGS, **orders.PEERS}
ABOUT = (
    "As it is: with the statistics of batch normalisation that the whole network holds. Anew: with "
    "statistics that are taken without the blocks, on images of training, and tested beside the "
    "whole network with statistics taken anew, too. Predicts cost: Spearman "
    "correlation of an order with the cost of each block alone, mean over seeds, 1 is perfect. "
    "Accuracy at 60 %: its change in points without 60 % of the blocks, mean over draws and seeds. "
    "Removable: the largest share of blocks up to which most draws show no significant rise of the "
    "error (McNemar, p < 0.05), mean over seeds. The greedy order was found by trying, on images "
    "of training, and stands for what a score could know; a strict bound it is not."
)
# Facts about other works, with their sources.
ELSEWHERE = (
    "Elsewhere, on other networks and data, so not to be compared number by number: a policy that "
    "chooses blocks for each image makes a ResNet-101 20 % faster on average, and up to 36 %, at "
    "the same 76.4 % on ImageNet (Wu et al., BlockDrop, CVPR 2018, abstract); layers of a "
    "ResNet-50 whose weights can be drawn again at little cost were removed with 39.29 % of the "
    "parameters and 15.59 % of the FLOPs, for 0.6 points of accuracy on ImageNet (Tang et al., "
    "SR-init, ICASSP 2023, abstract); the entropy of ReLU states, which is among the scores here, "
    "chooses which activations become linear, with training in between (Quétu et al., EASIER, ECML "
    "PKDD 2024). Here nothing is trained after a removal, and all images take the same way."
)


Changes = dict[int, list[float]]  # by the number of removed blocks


@dataclass(frozen=True)
class FairLesion:
    """A study and its fair part."""

    record: LesionRecord
    fair: FairStudy

    @property
    def blocks(self) -> int:
        return lesions.block_count(self.record)

    def as_it_is(self, of: str) -> Curve:
        """See `lesions.curve`; also by the orders of `decisions.orders`."""
        curves = [*self.record.curves, *self.fair.curves]
        return lesions.curve_among(curves, self.record, of)

    def anew(self, of: str) -> Curve:
        """The same with statistics taken anew."""
        return lesions.curve_among(self.fair.curves_anew, self.record, of)

    @property
    def cost_anew(self) -> list[float]:
        """Accuracy lost by removing each block alone, with statistics taken anew."""
        pairs = zip(self.fair.blocks.lost, self.fair.blocks.gained, strict=True)
        return [(lost - gained) / self.record.images for lost, gained in pairs]

    def places(self, of: str) -> list[Number]:
        """A number for each block; the smaller it is, the earlier the order says that it can go."""
        blocks = self.blocks
        if of == orders.LAST_FIRST:
            return [float(-block) for block in range(blocks)]
        if of == orders.FIRST_FIRST:
            return [float(block) for block in range(blocks)]
        if of == orders.GREEDY:
            return [float(self.fair.greedy.order.index(block)) for block in range(blocks)]
        own = of in removal.RANKINGS or of == "conflict_rate"
        scores: list[Number] = getattr(self.record.blocks if own else self.fair.blocks, of)
        return _high_first(scores) if SCORES[of] else scores

    def predicts(self, of: str, costs: Sequence[float]) -> float:
        """Spearman correlation of an order with the costs of blocks, 1 is perfect; NaN where all
        blocks have the same score."""
        return _agreement(self.places(of), costs)

    def predicts_by_entropy(self, batch_size: int) -> float:
        """The same, of H of the branches at another batch size, highest first, with the costs
        after statistics were taken anew."""
        sizes = {entry.batch_size: entry.branches for entry in self.fair.by_batch_size}
        return _agreement(_high_first(sizes[batch_size]), self.cost_anew)

    def changes_as_it_is(self, of: str) -> Changes:
        """Of the test accuracy, by how many blocks are removed, in each draw."""
        course = self.as_it_is(of)
        return {k: lesions.accuracy_changes(self.record, draws) for k, draws in course.items()}

    def changes_anew(self, of: str) -> Changes:
        """The same with statistics taken anew; from the network as it was trained, too."""
        (of_all,) = lesions.accuracy_changes(self.record, [self.fair.controls.recalibrated])
        return {
            k: [of_all + change for change in lesions.accuracy_changes(self.record, draws)]
            for k, draws in self.anew(of).items()
        }

    def removable_percent(self, course: Curve) -> float:
        return 100 * lesions.removable(course) / self.blocks


def _high_first(scores: Sequence[Number]) -> list[Number]:
    """Numbers that are the smaller the higher a score is."""
    return [None if score is None else -score for score in scores]


def _agreement(places: Sequence[Number], costs: Sequence[float]) -> float:
    """Spearman correlation of places and costs, over the blocks that have both."""
    pairs = zip(places, costs, strict=True)
    known = [(place, cost) for place, cost in pairs if place is not None]
    return spearman([place for place, _ in known], [cost for _, cost in known])


def fair_lesions(records: Sequence[LesionRecord]) -> list[FairLesion]:
    """Those of the studies that have a fair part."""
    return [FairLesion(record, record.fair) for record in records if record.fair is not None]


def predictions_anew(studies: Sequence[FairLesion], of: str) -> Estimate:
    """How well an order predicts the cost of each block after statistics were taken anew, over the
    networks."""
    return estimate([study.predicts(of, study.cost_anew) for study in studies])


def order_table(studies: Sequence[FairLesion]) -> Table:
    """A line for each group, ranking and further order that has a curve."""
    rows = [_order_row(studies, of) for of in NAMES if any(study.anew(of) for study in studies)]
    return Table(rows, ORDER_COLUMNS)


def _order_row(studies: Sequence[FairLesion], of: str) -> Row:
    studied = [study for study in studies if study.anew(of)]
    is_order = of not in removal.GROUPS
    costs = [lesions.cost(study.record) for study in studied]
    pairs = zip(studied, costs, strict=True)
    as_it_is = [study.predicts(of, cost) for study, cost in pairs] if is_order else []
    anew = [study.predicts(of, study.cost_anew) for study in studied] if is_order else []
    return {
        "remove": NAMES[of],
        "networks": len(studied),
        "spearman": _mean_of_defined(as_it_is),
        "spearman_anew": _mean_of_defined(anew),
        "change": _mean_at_share([(s.blocks, s.changes_as_it_is(of)) for s in studied]),
        "change_anew": _mean_at_share([(s.blocks, s.changes_anew(of)) for s in studied]),
        "removable_percent": fmean(s.removable_percent(s.as_it_is(of)) for s in studied),
        "removable_percent_anew": fmean(s.removable_percent(s.anew(of)) for s in studied),
    }


def _mean_of_defined(values: Sequence[float]) -> float | None:
    return mean_or_none([value for value in values if not math.isnan(value)])


def _mean_at_share(courses: Sequence[tuple[int, Changes]]) -> float | None:
    """The mean change without a share of the blocks, of networks with so many, over all draws."""
    found: list[float] = []
    for blocks, changes in courses:
        wanted = math.ceil(SHARE * blocks)
        found += changes[min(k for k in changes if k >= wanted)] if max(changes) >= wanted else []
    return mean_or_none(found)


ORDER_COLUMNS = [
    Column("remove", "remove blocks"),
    Column("spearman", "predicts cost, as it is", formatted("spearman", "{:.2f}"), True),
    Column("spearman_anew", "anew", formatted("spearman_anew", "{:.2f}"), True),
    Column("change", "accuracy at 60 %, as it is", formatted("change", "{:+.1f}", 100), True),
    Column("change_anew", "anew", formatted("change_anew", "{:+.1f}", 100), True),
    Column("removable", "removable, as it is", formatted("removable_percent", "{:.0f} %"), True),
    Column("removable_anew", "anew", formatted("removable_percent_anew", "{:.0f} %"), True),
]


def fair_lines(studies: Sequence[FairLesion]) -> list[str]:
    """What stands beside the table: controls, H at other batch sizes, how greedy removal went."""
    return [_controls_text(studies), _batch_sizes_text(studies), _greedy_text(studies)]


def _controls_text(studies: Sequence[FairLesion]) -> str:
    epochs = studies[0].fair.controls.more_epochs
    recalibrated = listed(_change_text(s, s.fair.controls.recalibrated) for s in studies)
    trained_on = listed(_change_text(s, s.fair.controls.trained_on) for s in studies)
    return (
        f"with all blocks the accuracy changes by {recalibrated} points when statistics are taken "
        f"anew on {studies[0].fair.fitted_on:,} images of training, and by {trained_on} after "
        f"{counted(epochs, 'more epoch')} of training"
    )


def _change_text(study: FairLesion, draw: Draw) -> str:
    """``-0.4 (p = 0.03)``."""
    (change,) = lesions.accuracy_changes(study.record, [draw])
    return f"{100 * change:+.2f} (p = {mcnemar(*draw):.2g})"


def conflicting_by_batch_size(studies: Sequence[FairLesion], place: str) -> dict[int, list[int]]:
    """How many branches, or outputs, have H > 0 in each network, by the batch size that the metric
    was told. place: `BRANCHES` or `OUTPUTS`."""
    found: dict[int, list[int]] = {}
    for study in studies:
        for entry in study.fair.by_batch_size:
            entropies: list[Number] = getattr(entry, place)
            number = len(removal.groups(entropies)[removal.CONFLICTING])
            found.setdefault(entry.batch_size, []).append(number)
    return found


def _batch_sizes_text(studies: Sequence[FairLesion]) -> str:
    told = []
    for place, noun in ((BRANCHES, "branch"), (OUTPUTS, "output")):
        numbers = conflicting_by_batch_size(studies, place)
        if not any(map(any, numbers.values())):
            told.append(f"no {noun} conflicts at any of them")
            continue
        each = ", ".join(f"{listed(found)} at {size:,}" for size, found in numbers.items())
        told.append(f"{place} that conflict: {each}")
    sizes = [entry.batch_size for entry in studies[0].fair.by_batch_size]
    return f"H at batch sizes of {min(sizes):,} to {max(sizes):,}: {'; '.join(told)}"


def _greedy_text(studies: Sequence[FairLesion]) -> str:
    greedy = studies[0].fair.greedy
    tried = listed(f"{study.fair.greedy.tried:,}" for study in studies)
    return (
        f"greedy removal chose by the loss on {greedy.images:,} images of training, at each step "
        f"among the {greedy.candidates} blocks that cost least when they were last tried: "
        f"{tried} sets of blocks, of {orders.tried_by_greedy(studies[0].blocks):,} that a full "
        "search tries"
    )


def fair_curve_rows(studies: Sequence[FairLesion]) -> list[Row]:
    """One row for each network, order and k, as it is and with statistics taken anew."""
    rows = []
    for study in studies:
        for of in NAMES:
            as_it_is, anew = study.changes_as_it_is(of), study.changes_anew(of)
            for k in sorted(anew):
                row = {
                    "cell": study.record.id,
                    "seed": study.record.seed,
                    "remove": of,
                    "k": k,
                    "share": round(k / study.blocks, 4),
                    "draws": len(anew[k]),
                    "change": round(fmean(as_it_is[k]), 6),
                    "change_anew": round(fmean(anew[k]), 6),
                }
                rows.append(row)
    return rows


def order_rows(records: Sequence[LesionRecord]) -> list[Row]:
    """The rows of `order_table`, of every scale among the studies that have a fair part."""
    rows = []
    for group in lesions.alike(records):
        studies = fair_lesions(group)
        scale = evidence.scale(group)
        rows += [{"scale": scale, **row} for row in order_table(studies).rows] if studies else []
    return rows


def fair_page(groups: Sequence[Sequence[LesionRecord]]) -> str:
    """The fair part of the studies of a run in Markdown."""
    page = "\n## Statistics taken anew, further orders, controls\n"
    measured = False
    for group in groups:
        studies = fair_lesions(group)
        scale = evidence.scale(group)
        if not studies:
            page += f"\n{scale}: {NOT_MEASURED}.\n"
            continue
        measured = True
        told = "".join(f"- {line}\n" for line in fair_lines(studies))
        page += f"\n{scale}:\n\n{told}\n{order_table(studies).markdown()}"
    return f"{page}\n{ABOUT}\n\n{ELSEWHERE}\n" if measured else page
