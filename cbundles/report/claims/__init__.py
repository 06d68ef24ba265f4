"""The claims of the paper, judged on records by the criteria in criteria.yaml.

Records are gathered by scale: one run, one data set, networks that can be compared. A judge applies
a criterion to one such piece of evidence and returns a finding, or None where the criterion cannot
be applied; a claim without findings was not run. Criteria were fixed before the results; pilots of
C7, C13 and C18 were known.

Claims of our own stand in plans.yaml, written before the networks were trained that they are
decided on; judges of both are registered below.

A finding that is not reproduced says which it is, and why that is fair: contradicted, unstable, or
not testable at this scale. The rules stand in kinds.yaml, and were written after first results.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cbundles.report import evidence
from cbundles.report.claims import (
    autotune,
    blocks,
    conv,
    early,
    fc,
    grid,
    growth,
    healthy,
    lesion,
    mechanism,
    plans,
    probe_sets,
    resolution,
    rules,
    shortfall,
    stopping,
    toy,
)
from cbundles.report.claims.finding import OF_THE_PAPER, Claim, Finding, Words
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
    (plans.grids_on_new_seeds, {"N1": stopping.stopping_saves_and_keeps}),
    (plans.grids_on_new_seeds, {"N2": early.entropy_is_earlier_than_accuracy}),
    (mechanism.in_several_number_formats, {"N3": mechanism.number_formats_end_alike}),
    (mechanism.of_fixed_shape, {"N4": mechanism.entropy_tells_what_shape_does_not}),
    (
        lesion.judged_fairly,
        {"N5": blocks.a_score_predicts_the_cost, "N6": blocks.blocks_can_go},
    ),
    (plans.grids_on_new_seeds, {"N7": healthy.headroom_ranks_healthy_networks}),
    (probe_sets.measured_with_several, {"N8": probe_sets.only_the_rate_is_independent}),
    (rules.tuned_by_both_rules, {"N9": rules.the_rules_differ}),
]


def judge(runs: Sequence[Run]) -> list[Claim]:
    """Every claim of the paper, with what the records of all runs say about it."""
    entries: list[dict[str, str]] = yaml.safe_load(CRITERIA.read_text(encoding="utf-8"))
    needed = {claim: need["needs"] for claim, need in shortfall.needs().items()}
    findings = _found_by_judges(runs, needed, dict.fromkeys(needed, OF_THE_PAPER))
    return [Claim(**entry, findings=findings.get(entry["id"], ())) for entry in entries]


def judge_plans(runs: Sequence[Run]) -> list[Claim]:
    """Every claim of our own, likewise."""
    written = plans.written()
    needed = {plan.id: plan.needs for plan in written}
    findings = _found_by_judges(runs, needed, {plan.id: plan.words for plan in written})
    return [
        Claim(
            plan.id, plan.claim, plans.PAPER, plan.criterion, findings.get(plan.id, ()), plan.known
        )
        for plan in written
    ]


def _found_by_judges(
    runs: Sequence[Run], needed: Mapping[str, str], words: Mapping[str, Words]
) -> dict[str, tuple[Finding, ...]]:
    """What judges say of these claims.

    needed: what a test of each needs
    words: what verdicts on each are called
    """
    findings: dict[str, tuple[Finding, ...]] = {}
    for evidence_in, judges in JUDGES:
        wanted = {claim: finding_on for claim, finding_on in judges.items() if claim in needed}
        pieces = evidence_in(runs) if wanted else []
        for claim, finding_on in wanted.items():
            judged = [finding for finding in map(finding_on, pieces) if finding is not None]
            named = [dataclasses.replace(finding, words=words[claim]) for finding in judged]
            findings[claim] = tuple(
                shortfall.explained(finding, needed[claim]) for finding in named
            )
    return findings
