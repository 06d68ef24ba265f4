"""The claims as a table: `claims.csv`, `claims.md` and `claims.tex`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cbundles.files import write_atomically
from cbundles.report.claims.finding import (
    MIXED,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    Claim,
    Finding,
)
from cbundles.report.table import Column, Row, Table
from cbundles.report.words import counted

ABOUT = (
    "Claims of the paper, judged by criteria that were fixed on 20 November 2026, before these "
    "results; pilots of C7, C13 and C18 were known. Each "
    "finding names its scale: data set, network, epochs, networks, seeds. Where a scale is smaller "
    "than the paper's, the same criterion is applied at that scale. What is not reproduced is "
    "contradicted, unstable or not testable at this scale; the rules for that, and what each claim "
    "needs, stand in docs/claims.md and were written after the first results."
)


ORDER = (REPRODUCED, MIXED, NOT_REPRODUCED, NOT_RUN)


def show_verdict(row: Row) -> str:
    """The verdict, and which kind of "not reproduced" it is."""
    return str(row["verdict_in_full"])


COLUMNS = [
    Column("id", "id"),
    Column("claim", "claim"),
    Column("paper", "paper"),
    Column("outcome", "ours"),
    Column("scale", "scale"),
    Column("verdict", "verdict", show_verdict),
    Column("runs", "runs"),
]


def counted_verdicts(claims: Sequence[Claim]) -> str:
    """``14 reproduced, 2 not reproduced, 4 not run; of 3 findings not reproduced: 1 contradicted,
    2 unstable``."""
    numbers = Counter(claim.verdict for claim in claims)
    said = [verdict for verdict in ORDER if verdict in numbers]
    text = ", ".join(f"{numbers[verdict]} {verdict}" for verdict in said)
    kinds = Counter(f.kind for claim in claims for f in claim.findings if not f.reproduced)
    if not kinds:
        return text
    each = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    return f"{text}; of {counted(kinds.total(), 'finding')} not reproduced: {each}"


def claims_table(claims: Sequence[Claim], columns: Sequence[Column] = COLUMNS) -> Table:
    """One row for each claim and scale."""
    rows = [_row(claim, finding) for claim in claims for finding in (claim.findings or (None,))]
    return Table(rows, columns)


def _row(claim: Claim, finding: Finding | None) -> Row:
    return {
        "id": claim.id,
        "claim": claim.claim,
        "paper": claim.paper,
        "ours": finding.text if finding else "",
        "outcome": finding.outcome if finding else "",
        "scale": finding.scale if finding else "",
        "verdict": finding.verdict if finding else NOT_RUN,
        "kind": finding.kind if finding else "",
        "verdict_in_full": finding.verdict_in_full if finding else NOT_RUN,
        "held": finding.trial.text if finding else "",
        "why": finding.why if finding else "",
        "criterion": claim.criterion,
        "runs": ", ".join(finding.runs) if finding else "",
        "cells": " ".join(finding.cells) if finding else "",
    }


def _beside_verdicts(claims: Sequence[Claim]) -> str:
    """The details of each finding that has some, in Markdown."""
    text = ""
    for claim in claims:
        for finding in claim.findings:
            if finding.beside:
                items = "".join(f"- {detail}\n" for detail in finding.beside)
                text += f"\n**{claim.id}**, {', '.join(finding.runs)}:\n\n{items}"
    return text


def write_claims(claims: Sequence[Claim], folder: Path) -> list[Path]:
    """The table in three formats; returns their paths."""
    table = claims_table(claims)
    criteria = "".join(f"- **{claim.id}** {claim.criterion}\n" for claim in claims)
    printed = claims_table(claims, [column for column in COLUMNS if column.key != "runs"])
    texts = {
        "claims.md": (
            f"# Claims\n\n{ABOUT}\n\n{counted_verdicts(claims)}.\n\n{table.markdown()}"
            f"\n## Beside the verdicts\n{_beside_verdicts(claims)}\n## Criteria\n\n{criteria}"
        ),
        "claims.csv": table.csv(),
        "claims.tex": printed.latex("lXXXXl"),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [folder / name for name in texts]
