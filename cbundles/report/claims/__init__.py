"""The claims of the paper, judged on records by the criteria in criteria.yaml.

Each judge looks for records that its criterion can be applied to and returns one finding for each
scale it finds; none means "not run". Criteria were fixed before any result was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from cbundles.report.claims import autotune, conv, fc, growth, lesion, resolution, toy
from cbundles.report.claims.finding import Claim, Finding
from cbundles.report.runs import Run

CRITERIA = Path(__file__).with_name("criteria.yaml")

JUDGES: dict[str, Callable[[Sequence[Run]], list[Finding]]] = {
    "C1": toy.separate,
    "C2": toy.balanced,
    "C3": toy.imbalanced,
    "C4": toy.amplitude,
    "C5": toy.correlation,
    "C6": fc.earlier_when_narrow,
    "C7": fc.same_layer,
    "C8": fc.fully_conflicting,
    "C9": fc.slowly_resolved,
    "C10": fc.boundary,
    "C11": fc.correlated,
    "C12": conv.best_depth,
    "C13": conv.during_training,
    "C14": conv.residual,
    "C15": autotune.table,
    "C16": autotune.restarts,
    "C17": lesion.removable,
    "C18": growth.insertion,
    "C19": resolution.coarser,
    "C20": fc.stopped,
}


def judge(runs: Sequence[Run]) -> list[Claim]:
    """Every claim, with what the records of all runs say about it."""
    entries: list[dict[str, str]] = yaml.safe_load(CRITERIA.read_text())
    found = {name: tuple(function(runs)) for name, function in JUDGES.items()}
    return [Claim(**entry, findings=found.get(entry["id"], ())) for entry in entries]
