"""Claims C1 to C5: the toy with a fully conflicting bundle (sec. 3.2)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from cbundles.report import evidence
from cbundles.report.claims.finding import Finding, span
from cbundles.report.evidence import Record
from cbundles.report.runs import Run


def _toy(runs: Sequence[Run], case: str) -> list[Record]:
    return [record for record in evidence.toys(runs) if record["case"] == case]


def _toy_finding(records: Sequence[Record], ours: str, reproduced: bool) -> list[Finding]:
    seeds = len({record["seed"] for record in records})
    cells = tuple(record["cell"] for record in records)
    return [Finding(f"toy, {seeds} seeds", ours, bool(reproduced), ("toy",), cells)]


def separate(runs: Sequence[Run]) -> list[Finding]:
    records = _toy(runs, "separate")
    if not records:
        return []
    accuracy = [record["history"][-1]["accuracy"] for record in records]
    fewest = min(entry["num_bundles"] for record in records for entry in record["history"])
    ours = f"accuracy {span(accuracy)} at epoch 50; at least {fewest} bundles throughout"
    return _toy_finding(records, ours, min(accuracy) >= 0.99 and fewest > 1)


def balanced(runs: Sequence[Run]) -> list[Finding]:
    return _constant(_toy(runs, "conflicting"))


def imbalanced(runs: Sequence[Run]) -> list[Finding]:
    return _constant(_toy(runs, "conflicting-imbalanced"))


def _constant(records: Sequence[Record]) -> list[Finding]:
    """One bundle throughout, and outputs at the share of class one at the end."""
    if not records:
        return []
    most = max(entry["num_bundles"] for record in records for entry in record["history"])
    deviation = max(record["history"][-1]["deviation"] for record in records)
    ours = (
        f"all 1,000 samples in {most} bundle{'s' * (most != 1)} at every epoch; outputs within "
        f"{deviation:.4f} of {records[0]['share']:.2f} at epoch 50"
    )
    return _toy_finding(records, ours, most == 1 and deviation <= 0.02)


def amplitude(runs: Sequence[Run]) -> list[Finding]:
    free = {r["seed"]: r["history"][1]["gradient_norm"] for r in _toy(runs, "separate")}
    bound = _toy(runs, "conflicting") + _toy(runs, "conflicting-imbalanced")
    pairs = [record for record in bound if record["seed"] in free]
    if not pairs:
        return []
    ratios = [r["history"][1]["gradient_norm"] / free[r["seed"]] for r in pairs]
    ours = f"conflicting / non-conflicting: {span(ratios)}"
    records = [*_toy(runs, "separate"), *pairs]
    return _toy_finding(records, ours, min(ratios) >= 0.2 and max(ratios) <= 5)


def correlation(runs: Sequence[Run]) -> list[Finding]:
    cases = ("conflicting", "shattered", "unnormalised")
    found = [_toy(runs, case) for case in cases]
    if not all(found):
        return []
    toy, shattered, plain = (
        statistics.median(r["autocorrelation"][1] for r in records) for records in found
    )
    ours = (
        f"lag-1 autocorrelation {toy:.3f}; plain 50-layer network {shattered:.3f} with its layers "
        f"standardised over the inputs, as the theory assumes, and {plain:.3f} without"
    )
    return _toy_finding(
        [r for records in found for r in records], ours, toy >= 0.9 and shattered <= 0.3
    )
