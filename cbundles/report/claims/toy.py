"""Claims C1 to C5: the toy with a fully conflicting bundle (sec. 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from cbundles.config import FLOAT32, TOY
from cbundles.records import TRAINED_CASES, ToyRecord
from cbundles.report.claims.finding import Finding, Trial, trial_by_seed
from cbundles.report.runs import Run
from cbundles.report.statistics import finite
from cbundles.report.words import lowest_to_highest
from cbundles.wording import counted

SHATTERED = 0.3  # gradients with a larger autocorrelation are not


def complete_toys(runs: Sequence[Run]) -> list[Run]:
    """Complete runs of the toy."""
    return [run for run in runs if run.kind == TOY and not run.unfinished]


def _of_cases(records: Sequence[ToyRecord], *cases: str) -> list[ToyRecord]:
    return [record for record in records if record.case in cases]


def _finding_on_toy(
    run: Run,
    records: Sequence[ToyRecord],
    ours: str,
    holds: Callable[[Sequence[ToyRecord]], bool],
    lacking: str = "",
) -> Finding:
    """holds: the criterion, on networks of all seeds or of one."""
    trial: Trial = trial_by_seed(records, holds, lacking)
    seeds = len({record.seed for record in records})
    cells = tuple(record.id for record in records)
    return Finding(
        f"{_name_of(run)}, {seeds} seeds", ours, holds(records), (run.name,), cells, trial
    )


def _name_of(run: Run) -> str:
    """What the toy is called: the paper's is trained in float32."""
    precisions = {record.training.precision for record in run.toys if record.trained is not None}
    further = sorted(precisions - {FLOAT32})
    return f"toy in {further[0]}" if further else "toy"


def _bundles(records: Sequence[ToyRecord]) -> list[int]:
    """How many bundles there were, at every epoch of every network."""
    return [number for record in records for number in record.training.history.num_bundles]


def learns_without_conflict(run: Run) -> Finding:
    records = _of_cases(run.toys, "separate")
    ours = (
        f"accuracy {lowest_to_highest(_last_accuracies(records), '.3f')} at epoch 50; at least "
        f"{min(_bundles(records))} bundles throughout"
    )
    return _finding_on_toy(run, records, ours, _has_learned_in_several_bundles)


def _last_accuracies(records: Sequence[ToyRecord]) -> list[float]:
    return [record.training.history.accuracy[-1] for record in records]


def _has_learned_in_several_bundles(records: Sequence[ToyRecord]) -> bool:
    return min(_last_accuracies(records)) >= 0.99 and min(_bundles(records)) > 1


def becomes_constant_when_balanced(run: Run) -> Finding:
    return _becomes_constant(run, "conflicting")


def becomes_constant_when_imbalanced(run: Run) -> Finding:
    return _becomes_constant(run, "conflicting-imbalanced")


def _becomes_constant(run: Run, case: str) -> Finding:
    """One bundle throughout, and outputs at the share of class one at the end."""
    records = _of_cases(run.toys, case)
    ours = (
        f"all 1,000 samples in {counted(max(_bundles(records)), 'bundle')} at every epoch; outputs "
        f"within {_largest_deviation(records):.4f} of {records[0].training.share:.2f} at epoch 50"
    )
    return _finding_on_toy(run, records, ours, _is_constant_in_one_bundle)


def _largest_deviation(records: Sequence[ToyRecord]) -> float:
    """Of an output from the share of class one, at the end."""
    return max(record.training.history.deviation[-1] for record in records)


def _is_constant_in_one_bundle(records: Sequence[ToyRecord]) -> bool:
    return max(_bundles(records)) == 1 and _largest_deviation(records) <= 0.02


def gradients_are_as_large(run: Run) -> Finding:
    records = _of_cases(run.toys, *TRAINED_CASES)
    ours = f"conflicting / non-conflicting: {lowest_to_highest(_norm_ratios(records), '.3f')}"
    return _finding_on_toy(run, records, ours, _are_norms_comparable)


def _norm_ratios(records: Sequence[ToyRecord]) -> list[float]:
    """Of the gradient in epoch 1, with conflicts / without, of each network that conflicts."""
    norms = {(r.case, r.seed): finite(r.training.history.gradient_norm[1]) for r in records}
    return [
        norm / norms["separate", seed] for (case, seed), norm in norms.items() if case != "separate"
    ]


def _are_norms_comparable(records: Sequence[ToyRecord]) -> bool:
    ratios = _norm_ratios(records)
    return min(ratios) >= 0.2 and max(ratios) <= 5


def gradients_are_correlated(run: Run) -> Finding:
    """Judged on the plain network as it is initialised; the same with standardised layers is told
    beside it, because only there are its gradients shattered."""
    records = _of_cases(run.toys, "conflicting", "plain", "standardised")
    conflicting, plain, standardised = (
        _median_autocorrelation(records, case) for case in ("conflicting", "plain", "standardised")
    )
    ours = (
        f"lag-1 autocorrelation {conflicting:.3f} under conflict; plain 50-layer network "
        f"{plain:.3f} as initialised, {standardised:.3f} when every layer is standardised over "
        "the inputs"
    )
    lacking = ""
    if plain > SHATTERED and conflicting >= 0.9:
        lacking = (
            f"those of this one have an autocorrelation of {plain:.3f}, not {SHATTERED} at most"
        )
        if standardised <= SHATTERED:
            lacking += "; with standardised layers they are shattered, and the contrast is there"
    return _finding_on_toy(run, records, ours, _are_only_conflicting_ones_correlated, lacking)


def _median_autocorrelation(records: Sequence[ToyRecord], case: str) -> float:
    """From one input to the next, over seeds."""
    return median(record.gradients.autocorrelation[1] for record in _of_cases(records, case))


def _are_only_conflicting_ones_correlated(records: Sequence[ToyRecord]) -> bool:
    conflicting, plain = (
        _median_autocorrelation(records, case) for case in ("conflicting", "plain")
    )
    return conflicting >= 0.9 and plain <= SHATTERED
