"""Claim C17: which layers of a trained ResNet can go (the second work)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from cbundles.config import Cell
from cbundles.experiments import removal
from cbundles.report import evidence, lesions
from cbundles.report.claims.finding import Finding
from cbundles.report.evidence import Record, depth
from cbundles.report.runs import Run

DEPTH, HALF, SIZES = 120, 0.5, (5, 10, 15)


def removable(runs: Sequence[Run]) -> list[Finding]:
    """Judged on conflicting blocks, as the claim is; what any blocks and the best ranking allow is
    told beside it."""
    found = []
    for run in runs:
        records = [r for r in run.lesions if depth(r) == DEPTH and _default(r)]
        if evidence.seeds(records) < 3:
            continue
        halves = [_half_can_go(record) for record in records]
        cheaper = {k: _cheaper(records, k) for k in SIZES}
        number = len(records[0]["blocks"]["entropy"])
        sizes = [len(lesions.groups(record)[removal.CONFLICTING]) for record in records]
        ours = f"conflicting blocks: {', '.join(map(str, sizes))} of {number}"
        ours += f"; half of the blocks, all conflicting, can go in {sum(halves)} of {len(halves)}"
        known = {k: value for k, value in cheaper.items() if value is not None}
        if known:
            sign = ", ".join(f"k = {k}: {'yes' if v else 'no'}" for k, v in known.items())
            ours += f"; conflicting ones cost less: {sign}"
        else:
            ours += "; no group to compare them with"
        shares = {
            of: 100 * statistics.fmean(lesions.removable(c) for c in courses) / number
            for of in (removal.ALL, *removal.RANKINGS)
            if all(courses := [lesions.curve(record, of) for record in records])
        }
        best = max(shares, key=lambda of: shares[of])
        alone = ", ".join(str(lesions.harmless(record)) for record in records)
        ours += (
            f"; without a significant rise {alone} blocks can go each alone, "
            f"{shares[removal.ALL]:.0f} % of all together when drawn, {shares[best]:.0f} % by the "
            f"best ranking ({lesions.NAMES[best]})"
        )
        reached = 3 * sum(halves) >= 2 * len(halves) and all(cheaper.values())
        cells = tuple(record["cell"] for record in records)
        found.append(Finding(evidence.scale(records), ours, reached, (run.name,), cells))
    return found


def _default(record: Record) -> bool:
    """Whether network and probe are as in the schema, besides what `evidence.scale` names."""
    return not any(path.startswith(("probe.", "model.")) for path in
                   Cell.fromdict(record["config"]).unusual)  # fmt: skip


def _half_can_go(record: Record) -> bool:
    """Whether most draws of half of all blocks from the conflicting ones raise no error."""
    _, draws = lesions.at_share(record, removal.CONFLICTING, HALF)
    risen = sum(lesions.rises(*draw) for draw in draws)
    return bool(draws) and 2 * risen < len(draws)


def _cheaper(records: Sequence[Record], k: int) -> bool | None:
    """Whether k conflicting blocks cost less than k others, on average over draws and seeds; None
    where a group is too small."""
    means = []
    for of in (removal.CONFLICTING, removal.OTHERS):
        both = [lesions.curve(r, of) for r in records
                if all(k in lesions.curve(r, name) for name in removal.GROUPS[:2])]  # fmt: skip
        draws = [draw for course in both for draw in course[k]]
        if not draws:
            return None
        means.append(statistics.fmean(lost - gained for lost, gained in draws))
    return means[0] < means[1]
