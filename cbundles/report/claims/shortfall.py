"""Why "not reproduced" is fair: a sentence for each finding, from what kinds.yaml says the claim
needs and from how it fares in parts of the evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import yaml

from cbundles.report.claims.finding import CONTRADICTED, NOT_TESTABLE, UNDECIDED, Finding

KINDS = Path(__file__).with_name("kinds.yaml")


def needs() -> dict[str, Mapping[str, str]]:
    """What each claim needs, and what the parts of its evidence are."""
    content: dict[str, Mapping[str, str]] = yaml.safe_load(KINDS.read_text(encoding="utf-8"))
    return content


def explained(finding: Finding, needed: str) -> Finding:
    """The finding with the sentence that says why its verdict is fair; as it is when reproduced, or
    where nothing was claimed."""
    if not finding.kind:
        return finding
    why = _sentence(finding, needed)
    return dataclasses.replace(finding, why=why, details=(*finding.details, why))


def _sentence(finding: Finding, needed: str) -> str:
    trial, kind = finding.trial, finding.kind
    if kind == NOT_TESTABLE:
        lacking = trial.lacking or f"no {trial.noun} alone has all that the criterion compares"
        return f"{kind}: a test needs {needed}, but {lacking}"
    alone = f"judged on each {trial.noun} alone the criterion holds for {trial.text}"
    if kind == UNDECIDED:
        return f"{kind}: {trial.leaves_open}; {alone}"
    if kind == CONTRADICTED:
        return (
            f"{kind}: the records are a test, for they have what it needs ({needed}), and {alone}"
        )
    share = f"{100 * trial.held / trial.parts:.0f} %"
    if trial.held == trial.parts:
        return f"{kind}: {alone} ({share}), but not for all together"
    return (
        f"{kind}: the records are a test, and {alone} ({share}), too many for a contradiction and "
        "too few for the criterion"
    )
