"""Claim C17: which layers of a trained ResNet can go (the second work)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from cbundles.config import PAPER_BLOCKS, SWEEP
from cbundles.decisions import removal
from cbundles.decisions.paired import rises
from cbundles.records import LesionRecord
from cbundles.report import evidence, lesions, select
from cbundles.report.claims import blocks, plans
from cbundles.report.claims.finding import Finding, finding_on, trial_by_seed
from cbundles.report.evidence import Evidence
from cbundles.report.runs import Run
from cbundles.report.words import listed

DEPTH, HALF, SIZES = 120, 0.5, (5, 10, 15)
ABOUT_SCALE = (
    "which branches conflict depends on how they are scaled, and that scale is not invariant: "
    "multiplying both kernels of a branch by c leaves the function as it is, since a normalisation "
    "follows each, and divides the scale by c squared"
)
COMPARED = (removal.CONFLICTING, removal.OTHERS)
BUILT_AND_PROBED = {
    path: value
    for path, value in evidence.AS_THE_PAPER_TRAINS.items()
    if path.startswith(("probe.", "model."))
}


def studied_resnets(runs: Sequence[Run]) -> list[Evidence[LesionRecord]]:
    """Studies of trained ResNet-120s that differ in their seed alone, of three seeds at least."""
    return [group for run in runs for group in _studies_of(run)]


def judged_fairly(runs: Sequence[Run]) -> list[Evidence[LesionRecord]]:
    """Those that were judged fairly, too, on seeds that no earlier study had used: what plans N5
    and N6 ask for."""
    return [
        group
        for group in studied_resnets(runs)
        if plans.are_on_new_seeds(group.records)
        and all(record.fair is not None for record in group.records)
    ]


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
            groups.append(
                Evidence(
                    run.name,
                    sound,
                    len(records) - len(sound),
                    left_out="that diverged or did not learn",
                )
            )
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
    ours = f"conflicting blocks: {listed(sizes)} of {number}"
    ours += f"; half of the blocks, all conflicting, can go in {sum(halves)} of {len(halves)}"
    for k in SIZES:
        ours += f"; k = {k}: {_savings_text(records, k)}"
    trial = trial_by_seed(
        records, _half_can_go_and_cost_less, _why_blocks_are_no_test(records, sizes)
    )
    reached = _half_can_go_and_cost_less(records)
    details = [
        _without_rise(records),
        _rankings(records),
        ABOUT_SCALE,
        blocks.second_reading(records),
    ]
    return finding_on(group, ours, reached, trial, details=details)


def _half_can_go_and_cost_less(records: Sequence[LesionRecord]) -> bool:
    """The criterion of C17."""
    halves = [_half_can_go(record) for record in records]
    savings = [_mean_saving(records, k) for k in SIZES]
    cost_less = all(saving is not None and saving > 0 for saving in savings)
    return 3 * sum(halves) >= 2 * len(halves) and cost_less


def _why_blocks_are_no_test(records: Sequence[LesionRecord], sizes: Sequence[int]) -> str:
    """Why the networks are no test of the claim; "" where they are, or contradict it already."""
    savings = [_mean_saving(records, k) for k in SIZES]
    if any(saving is not None and saving <= 0 for saving in savings):
        return ""
    number = lesions.block_count(records[0])
    if not any(sizes):
        return f"no branch conflicts in any of {len(sizes)} networks"
    if 3 * sum(size >= HALF * number for size in sizes) < 2 * len(sizes):
        return f"{listed(sizes)} of {number} conflict"
    half_can_go = 3 * sum(map(_half_can_go, records)) >= 2 * len(records)
    if half_can_go and None in savings:
        return "there are too few of the others"
    return ""


def _mean_saving(records: Sequence[LesionRecord], k: int) -> float | None:
    """How much less accuracy k conflicting blocks cost than k others, mean over the networks; None
    where fewer than two of three have both."""
    savings = [_saved(record, k) for record in records]
    compared = [saved for saved in savings if saved is not None]
    return fmean(compared) if 3 * len(compared) >= 2 * len(records) else None


def _savings_text(records: Sequence[LesionRecord], k: int) -> str:
    compared = sum(_saved(record, k) is not None for record in records)
    mean = _mean_saving(records, k)
    if mean is None:
        return f"{compared} seeds have two groups to compare"
    return f"conflicting ones cost {100 * mean:.1f} points less ({compared} seeds)"


def _without_rise(records: Sequence[LesionRecord]) -> str:
    """What can go without a significant rise of the error, and which rise would have been seen."""
    shares = _removable_percent(records)
    best = max(shares, key=lambda of: shares[of])
    alone = listed(map(lesions.harmless, records))
    return (
        f"without a significant rise {alone} blocks can go each alone, {shares[removal.ALL]:.0f} % "
        f"of all together when drawn at random, {shares[best]:.0f} % by the best ranking "
        f"({lesions.NAMES[best]}); {lesions.smallest_rise_text(records)}"
    )


def _rankings(records: Sequence[LesionRecord]) -> str:
    """How well each ranking predicts what a block alone costs, the best first."""
    found = {of: lesions.mean_prediction(records, of) for of in removal.RANKINGS}
    defined = {of: rank for of, rank in found.items() if rank is not None}
    ordered = sorted(defined, key=lambda of: -defined[of])
    texts = [f"{lesions.NAMES[of]} {defined[of]:.2f}" for of in ordered]
    texts += [f"{lesions.NAMES[of]} not defined" for of in found if of not in defined]
    worst = f"; the worst of these is: {lesions.NAMES[ordered[-1]]}" if len(ordered) > 1 else ""
    return (
        f"rankings, Spearman with the cost of each block alone, mean over {len(records)} seeds: "
        f"{', '.join(texts)}{worst}"
    )


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
