"""Claim C17: which layers of a trained ResNet can go (the second work)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from cbundles.config import PAPER_BLOCKS, SWEEP
from cbundles.decisions import removal
from cbundles.records import LesionRecord
from cbundles.report import evidence, lesions, select
from cbundles.report.claims.finding import Finding, finding_on
from cbundles.report.evidence import Evidence
from cbundles.report.runs import Run
from cbundles.report.statistics import rises

DEPTH, HALF, SIZES = 120, 0.5, (5, 10, 15)
COMPARED = (removal.CONFLICTING, removal.OTHERS)
BUILT_AND_PROBED = {
    path: value
    for path, value in evidence.AS_THE_PAPER_TRAINS.items()
    if path.startswith(("probe.", "model."))
}


def studied_resnets(runs: Sequence[Run]) -> list[Evidence[LesionRecord]]:
    """Studies of trained ResNet-120s that differ in their seed alone, of three seeds at least."""
    return [group for run in runs for group in _studies_of(run)]


def _studies_of(run: Run) -> list[Evidence[LesionRecord]]:
    if run.kind != SWEEP or run.unfinished:
        return []
    classes = {record.id: record.num_classes for record in run.sweeps}
    groups = []
    for records in lesions.alike(run.lesions):
        if not _is_the_papers_network(records[0]):
            continue
        sound = [r for r in records if _has_learned(r, classes[r.id])]
        if select.seeds(sound) >= 3:
            groups.append(Evidence(run.name, sound, len(records) - len(sound)))
    return groups


def _is_the_papers_network(record: LesionRecord) -> bool:
    """Whether it is the paper's network of this depth, probed and measured as claims are judged."""
    cell = record.cell
    is_as_deep = cell.model.depth == DEPTH and cell.blocks == PAPER_BLOCKS[DEPTH]
    return is_as_deep and evidence.has(cell, BUILT_AND_PROBED)


def _has_learned(record: LesionRecord, classes: int) -> bool:
    """Whether a network is sound, and twice as good as chance."""
    is_sound = None not in record.blocks.entropy
    return is_sound and record.correct / record.images >= 2 / classes


def most_layers_can_go(group: Evidence[LesionRecord]) -> Finding:
    """Judged on conflicting blocks, as the claim is; what any blocks and the best ranking allow is
    told beside it."""
    records = group.records
    number = lesions.block_count(records[0])
    halves = [_half_can_go(record) for record in records]
    sizes = [len(lesions.branch_groups(record)[removal.CONFLICTING]) for record in records]
    ours = f"conflicting blocks: {_listed(sizes)} of {number}"
    ours += f"; half of the blocks, all conflicting, can go in {sum(halves)} of {len(halves)}"
    is_cheaper = True
    for k in SIZES:
        savings = [_saved(record, k) for record in records]
        compared = [saved for saved in savings if saved is not None]
        if 3 * len(compared) < 2 * len(records):
            ours += f"; k = {k}: {len(compared)} seeds have two groups to compare"
            is_cheaper = False
        else:
            mean = fmean(compared)
            ours += f"; k = {k}: conflicting ones cost {100 * mean:.1f} points less"
            ours += f" ({len(compared)} seeds)"
            is_cheaper &= mean > 0
    shares = _removable_percent(records)
    best = max(shares, key=lambda of: shares[of])
    alone = _listed(map(lesions.harmless, records))
    ours += (
        f"; without a significant rise {alone} blocks can go each alone, "
        f"{shares[removal.ALL]:.0f} % of all together when drawn, {shares[best]:.0f} % by the best "
        f"ranking ({lesions.NAMES[best]})"
    )
    return finding_on(group, ours, 3 * sum(halves) >= 2 * len(halves) and is_cheaper)


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _half_can_go(record: LesionRecord) -> bool:
    """Whether most draws of half of all blocks from the conflicting ones raise no error."""
    _, draws = lesions.at_share(record, removal.CONFLICTING, HALF)
    risen = sum(rises(*draw) for draw in draws)
    return bool(draws) and 2 * risen < len(draws)


def _saved(record: LesionRecord, k: int) -> float | None:
    """How much less accuracy k conflicting blocks cost than k others, mean over draws; None where
    one of the groups is too small."""
    groups = lesions.branch_groups(record)
    if min(len(groups[of]) for of in COMPARED) < k:
        return None
    conflicting, others = (
        fmean(lesions.accuracy_changes(record, lesions.curve(record, of)[k])) for of in COMPARED
    )
    return conflicting - others


def _removable_percent(records: Sequence[LesionRecord]) -> dict[str, float]:
    """The share of blocks that can go without a significant rise, mean over the networks, when
    drawn from all and by each ranking that every network has."""
    shares = {}
    for of in (removal.ALL, *removal.RANKINGS):
        courses = [lesions.curve(record, of) for record in records]
        if all(courses):
            removable = fmean(map(lesions.removable, courses))
            shares[of] = 100 * removable / lesions.block_count(records[0])
    return shares
