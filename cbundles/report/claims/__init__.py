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
    "C1": toy.learns_without_conflict,
    "C2": toy.becomes_constant_when_balanced,
    "C3": toy.becomes_constant_when_imbalanced,
    "C4": toy.gradients_are_as_large,
    "C5": toy.gradients_are_correlated,
    "C6": fc.conflicts_earlier_when_narrow,
    "C7": fc.conflicts_in_the_same_layer,
    "C8": fc.conflicts_fully,
    "C9": fc.conflicts_resolve_slowly,
    "C10": fc.boundary_predicts,
    "C11": fc.entropy_predicts_accuracy,
    "C12": conv.best_vgg_is_not_deep,
    "C13": conv.conflicts_appear_during_training,
    "C14": conv.resnets_do_not_conflict,
    "C15": autotune.rows_of_table1,
    "C16": autotune.three_restarts_at_most,
    "C17": lesion.most_layers_can_go,
    "C18": growth.insertion_is_faster_and_cheaper,
    "C19": resolution.coarser_bundles_more,
    "C20": fc.stopped_networks_are_not_the_best,
}


def judge(runs: Sequence[Run]) -> list[Claim]:
    """Every claim, with what the records of all runs say about it."""
    entries: list[dict[str, str]] = yaml.safe_load(CRITERIA.read_text())
    findings = {name: tuple(judge_of(runs)) for name, judge_of in JUDGES.items()}
    return [Claim(**entry, findings=findings.get(entry["id"], ())) for entry in entries]
