"""What the published records say, and the pages that tell of it."""

from __future__ import annotations

import functools
import re

from conftest import ROOT

from cbundles.report import claims, runs
from cbundles.report.runs import Run

RESULTS = ROOT / "results"
JUDGES = (claims.judge, claims.judge_plans)


@functools.cache
def published() -> dict[str, Run]:
    found, damaged = runs.read_all(RESULTS)
    assert not damaged
    return {run.name: run for run in found if run.is_published}


@functools.cache
def judged_claims() -> dict[str, claims.Claim]:
    every_run = list(published().values())
    return {one.id: one for judge in JUDGES for one in judge(every_run)}


def said_of(claim: str, run_and_reading: str) -> str:
    """All that is said of a claim on one run; where that has several, in one reading."""
    run, _, reading = run_and_reading.partition(" ")
    (found,) = [
        finding
        for finding in judged_claims()[claim].findings
        if "+".join(finding.runs) == run and finding.scale.endswith(reading)
    ]
    return f"{found.text}; {found.verdict_in_full}"


def in_one_line(name: str) -> str:
    """A document in one line, without emphasis."""
    return re.sub(r"\s+", " ", (ROOT / name).read_text(encoding="utf-8").replace("*", ""))
