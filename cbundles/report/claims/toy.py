"""Claims C1 to C5: the toy with a fully conflicting bundle (sec. 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from cbundles.config import TOY
from cbundles.records import TRAINED_CASES, ToyRecord
from cbundles.report.claims.finding import Finding
from cbundles.report.runs import Run
from cbundles.report.statistics import finite
from cbundles.report.words import counted, lowest_to_highest


def complete_toys(runs: Sequence[Run]) -> list[Run]:
    """Complete runs of the toy."""
    return [run for run in runs if run.kind == TOY and not run.unfinished]


def _of_cases(run: Run, *cases: str) -> list[ToyRecord]:
    return [record for record in run.toys if record.case in cases]


def _finding_on_toy(run: Run, records: Sequence[ToyRecord], ours: str, reproduced: bool) -> Finding:
    seeds = len({record.seed for record in records})
    cells = tuple(record.id for record in records)
    return Finding(f"toy, {seeds} seeds", ours, bool(reproduced), (run.name,), cells)


def _bundles(records: Sequence[ToyRecord]) -> list[int]:
    """How many bundles there were, at every epoch of every network."""
    return [number for record in records for number in record.training.history.num_bundles]


def learns_without_conflict(run: Run) -> Finding:
    records = _of_cases(run, "separate")
    accuracy = [record.training.history.accuracy[-1] for record in records]
    fewest = min(_bundles(records))
    ours = (
        f"accuracy {lowest_to_highest(accuracy, '.3f')} at epoch 50; at least {fewest} bundles "
        "throughout"
    )
    return _finding_on_toy(run, records, ours, min(accuracy) >= 0.99 and fewest > 1)


def becomes_constant_when_balanced(run: Run) -> Finding:
    return _becomes_constant(run, "conflicting")


def becomes_constant_when_imbalanced(run: Run) -> Finding:
    return _becomes_constant(run, "conflicting-imbalanced")


def _becomes_constant(run: Run, case: str) -> Finding:
    """One bundle throughout, and outputs at the share of class one at the end."""
    records = _of_cases(run, case)
    most = max(_bundles(records))
    deviation = max(record.training.history.deviation[-1] for record in records)
    ours = (
        f"all 1,000 samples in {counted(most, 'bundle')} at every epoch; outputs within "
        f"{deviation:.4f} of {records[0].training.share:.2f} at epoch 50"
    )
    return _finding_on_toy(run, records, ours, most == 1 and deviation <= 0.02)


def gradients_are_as_large(run: Run) -> Finding:
    records = _of_cases(run, *TRAINED_CASES)
    norms = {(r.case, r.seed): finite(r.training.history.gradient_norm[1]) for r in records}
    ratios = [
        norm / norms["separate", seed] for (case, seed), norm in norms.items() if case != "separate"
    ]
    ours = f"conflicting / non-conflicting: {lowest_to_highest(ratios, '.3f')}"
    return _finding_on_toy(run, records, ours, min(ratios) >= 0.2 and max(ratios) <= 5)


def gradients_are_correlated(run: Run) -> Finding:
    """Judged on the plain network as it is initialised; the same with standardised layers is told
    beside it, because only there are its gradients shattered."""
    conflicting, plain, standardised = (
        median(record.gradients.autocorrelation[1] for record in _of_cases(run, case))
        for case in ("conflicting", "plain", "standardised")
    )
    ours = (
        f"lag-1 autocorrelation {conflicting:.3f} under conflict; plain 50-layer network "
        f"{plain:.3f} as initialised, {standardised:.3f} when every layer is standardised over "
        "the inputs"
    )
    records = _of_cases(run, "conflicting", "plain", "standardised")
    return _finding_on_toy(run, records, ours, conflicting >= 0.9 and plain <= 0.3)
