"""Claims C1 to C5: the toy with a fully conflicting bundle (sec. 3.2)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from cbundles.report import evidence
from cbundles.report.claims.finding import Finding, span
from cbundles.report.evidence import Record
from cbundles.report.runs import Run


def _of(run: Run, *cases: str) -> list[Record]:
    return [record for record in run.records if record["case"] in cases]


def _finding(run: Run, records: Sequence[Record], ours: str, reproduced: bool) -> Finding:
    seeds = len({record["seed"] for record in records})
    cells = tuple(record["cell"] for record in records)
    return Finding(f"toy, {seeds} seeds", ours, bool(reproduced), (run.name,), cells)


def separate(runs: Sequence[Run]) -> list[Finding]:
    found = []
    for run in evidence.toys(runs):
        records = _of(run, "separate")
        accuracy = [record["history"][-1]["accuracy"] for record in records]
        fewest = min(entry["num_bundles"] for record in records for entry in record["history"])
        ours = f"accuracy {span(accuracy)} at epoch 50; at least {fewest} bundles throughout"
        found.append(_finding(run, records, ours, min(accuracy) >= 0.99 and fewest > 1))
    return found


def balanced(runs: Sequence[Run]) -> list[Finding]:
    return _constant(runs, "conflicting")


def imbalanced(runs: Sequence[Run]) -> list[Finding]:
    return _constant(runs, "conflicting-imbalanced")


def _constant(runs: Sequence[Run], case: str) -> list[Finding]:
    """One bundle throughout, and outputs at the share of class one at the end."""
    found = []
    for run in evidence.toys(runs):
        records = _of(run, case)
        most = max(entry["num_bundles"] for record in records for entry in record["history"])
        deviation = max(record["history"][-1]["deviation"] for record in records)
        ours = (
            f"all 1,000 samples in {most} bundle{'s' * (most != 1)} at every epoch; outputs within "
            f"{deviation:.4f} of {records[0]['share']:.2f} at epoch 50"
        )
        found.append(_finding(run, records, ours, most == 1 and deviation <= 0.02))
    return found


def amplitude(runs: Sequence[Run]) -> list[Finding]:
    found = []
    for run in evidence.toys(runs):
        norms = {(r["case"], r["seed"]): r["history"][1]["gradient_norm"]
                 for r in run.records if "history" in r}  # fmt: skip
        ratios = [norm / norms["separate", seed] for (case, seed), norm in norms.items()
                  if case != "separate"]  # fmt: skip
        ours = f"conflicting / non-conflicting: {span(ratios)}"
        records = [record for record in run.records if "history" in record]
        found.append(_finding(run, records, ours, min(ratios) >= 0.2 and max(ratios) <= 5))
    return found


def correlation(runs: Sequence[Run]) -> list[Finding]:
    """Judged on the plain network as it is initialised; the same with standardised layers is told
    beside it, because only there are its gradients shattered."""
    found = []
    for run in evidence.toys(runs):
        conflicting, plain, standardised = (
            statistics.median(record["autocorrelation"][1] for record in _of(run, case))
            for case in ("conflicting", "plain", "standardised")
        )
        ours = (
            f"lag-1 autocorrelation {conflicting:.3f} under conflict; plain 50-layer network "
            f"{plain:.3f} as initialised, {standardised:.3f} when every layer is standardised over "
            "the inputs"
        )
        records = _of(run, "conflicting", "plain", "standardised")
        found.append(_finding(run, records, ours, conflicting >= 0.9 and plain <= 0.3))
    return found
