"""The claims of the paper, judged on records by the criteria in criteria.yaml.

Records are gathered by scale: one run, one data set, networks that can be compared. A judge applies
a criterion to one such piece of evidence and returns a finding, or None where the criterion cannot
be applied; a claim without findings was not run. Criteria were fixed before the results; pilots of
C7, C13 and C18 were known.

A finding that is not reproduced says which it is, and why that is fair: contradicted, unstable, or
not testable at this scale. The rules stand in kinds.yaml, and were written after first results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from cbundles.report import evidence
from cbundles.report.claims import (
    autotune,
    conv,
    fc,
    grid,
    growth,
    lesion,
    resolution,
    shortfall,
    toy,
)
from cbundles.report.claims.finding import Claim, Finding
from cbundles.report.runs import Run

CRITERIA = Path(__file__).with_name("criteria.yaml")

# What a piece of evidence is differs: a run, networks of one scale, a row of table 1.
Collect = Callable[[Sequence[Run]], Sequence[Any]]
Judge = Callable[[Any], Finding | None]
# Where evidence is found, and what judges each piece of it, by claim.
JUDGES: list[tuple[Collect, dict[str, Judge]]] = [
    (
        toy.complete_toys,
        {
            "C1": toy.learns_without_conflict,
            "C2": toy.becomes_constant_when_balanced,
            "C3": toy.becomes_constant_when_imbalanced,
            "C4": toy.gradients_are_as_large,
            "C5": toy.gradients_are_correlated,
        },
    ),
    (
        fc.fully_connected,
        {
            "C6": fc.conflicts_earlier_when_narrow,
            "C7": fc.conflicts_in_the_same_layer,
            "C8": fc.conflicts_fully,
            "C9": fc.conflicts_resolve_slowly,
        },
    ),
    (
        grid.grids,
        {
            "C10": grid.boundary_predicts,
            "C11": grid.entropy_predicts_accuracy,
            "C20": grid.stopped_networks_are_not_the_best,
        },
    ),
    (conv.vggs_beside_others, {"C12": conv.best_vgg_is_not_deep}),
    (conv.vggs, {"C13": conv.conflicts_appear_during_training}),
    (conv.resnets, {"C14": conv.resnets_do_not_conflict}),
    (autotune.rows_at_full_size, {"C15": autotune.row_agrees_with_the_papers}),
    (evidence.tunings, {"C16": autotune.three_restarts_at_most}),
    (lesion.studied_resnets, {"C17": lesion.most_layers_can_go}),
    (growth.complete_growths, {"C18": growth.insertion_is_faster_and_cheaper}),
    (resolution.at_several_resolutions, {"C19": resolution.coarser_bundles_more}),
]


def judge(runs: Sequence[Run]) -> list[Claim]:
    """Every claim, with what the records of all runs say about it."""
    findings: dict[str, tuple[Finding, ...]] = {}
    needed = shortfall.needs()
    for evidence_in, judges in JUDGES:
        pieces = evidence_in(runs)
        for claim, finding_on in judges.items():
            judged = [finding for finding in map(finding_on, pieces) if finding is not None]
            needs = needed[claim]["needs"]
            findings[claim] = tuple(shortfall.explained(finding, needs) for finding in judged)
    entries: list[dict[str, str]] = yaml.safe_load(CRITERIA.read_text(encoding="utf-8"))
    return [Claim(**entry, findings=findings.get(entry["id"], ())) for entry in entries]
