"""Claim C17: which layers of a trained ResNet can go (the second work)."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from cbundles.config import PAPER_BLOCKS, Cell
from cbundles.experiments import removal
from cbundles.report import evidence, lesions
from cbundles.report.claims.finding import Finding, of_group
from cbundles.report.evidence import Group, Record, depth
from cbundles.report.runs import SWEEP, Run

DEPTH, HALF, SIZES = 120, 0.5, (5, 10, 15)


def removable(runs: Sequence[Run]) -> list[Finding]:
    """Judged on conflicting blocks, as the claim is; what any blocks and the best ranking allow is
    told beside it."""
    return [_judged(group) for run in runs for group in _groups(run)]


def _groups(run: Run) -> list[Group]:
    """Studies of trained ResNet-120s that differ in their seed alone, of three seeds at least."""
    if run.kind != SWEEP or run.unfinished:
        return []
    classes = {record["cell"]: record["num_classes"] for record in run.records}
    found = []
    for records in lesions.alike(run.lesions):
        if depth(records[0]) != DEPTH or not _as_judged(records[0]):
            continue
        sound = [r for r in records if None not in r["blocks"]["entropy"]]
        sound = [r for r in sound if r["correct"] / r["images"] >= 2 / classes[r["cell"]]]
        if evidence.seeds(sound) >= 3:
            found.append(Group(run.name, sound, len(records) - len(sound)))
    return found


def _judged(group: Group) -> Finding:
    records = group.records
    number = len(records[0]["blocks"]["entropy"])
    halves = [_half_can_go(record) for record in records]
    sizes = [len(lesions.groups(record)[removal.CONFLICTING]) for record in records]
    ours = f"conflicting blocks: {_listed(sizes)} of {number}"
    ours += f"; half of the blocks, all conflicting, can go in {sum(halves)} of {len(halves)}"
    cheaper = True
    for k in SIZES:
        compared = [difference for r in records if (difference := _saved(r, k)) is not None]
        if 3 * len(compared) < 2 * len(records):
            ours += f"; k = {k}: {len(compared)} seeds have two groups to compare"
            cheaper = False
        else:
            mean = statistics.fmean(compared)
            ours += f"; k = {k}: conflicting ones cost {100 * mean:.1f} points less"
            ours += f" ({len(compared)} seeds)"
            cheaper &= mean > 0
    shares = {
        of: 100 * statistics.fmean(map(lesions.removable, courses)) / number
        for of in (removal.ALL, *removal.RANKINGS)
        if all(courses := [lesions.curve(record, of) for record in records])
    }
    best = max(shares, key=lambda of: shares[of])
    alone = _listed(map(lesions.harmless, records))
    ours += (
        f"; without a significant rise {alone} blocks can go each alone, "
        f"{shares[removal.ALL]:.0f} % of all together when drawn, {shares[best]:.0f} % by the best "
        f"ranking ({lesions.NAMES[best]})"
    )
    reached = 3 * sum(halves) >= 2 * len(halves) and cheaper
    return of_group(group, ours, reached, records)


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _as_judged(record: Record) -> bool:
    """Whether it is the paper's network of this depth, probed and measured as claims are judged."""
    cell = Cell.fromdict(record["config"])
    probed = {key: value for key, value in evidence.AS_THE_PAPER_TRAINS.items()
              if key.startswith(("probe.", "model."))}  # fmt: skip
    return cell.blocks == PAPER_BLOCKS[DEPTH] and evidence.has(cell, probed)


def _half_can_go(record: Record) -> bool:
    """Whether most draws of half of all blocks from the conflicting ones raise no error."""
    _, draws = lesions.at_share(record, removal.CONFLICTING, HALF)
    risen = sum(lesions.rises(*draw) for draw in draws)
    return bool(draws) and 2 * risen < len(draws)


def _saved(record: Record, k: int) -> float | None:
    """How much less accuracy k conflicting blocks cost than k others, mean over draws; None where
    one of the groups is too small."""
    curves = [lesions.curve(record, of) for of in (removal.CONFLICTING, removal.OTHERS)]
    small = any(len(lesions.groups(record)[of]) < k for of in (removal.CONFLICTING, removal.OTHERS))
    if small:
        return None
    conflicting, others = (statistics.fmean(lesions.change(record, c[k])) for c in curves)
    return conflicting - others
