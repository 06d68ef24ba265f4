"""The claims as a table: `claims.csv`, `claims.md` and `claims.tex`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cbundles.files import write_atomically
from cbundles.report.claims.finding import NOT_RUN, Claim, Finding
from cbundles.report.table import Column, Row, Table

ABOUT = (
    "Claims of the paper, judged by criteria that were fixed before any result was seen. Each "
    "finding names its scale: data set, network, epochs, networks, seeds. Where a scale is smaller "
    "than the paper's, the same criterion is applied at that scale."
)
COLUMNS = [Column(key, key) for key in ("id", "claim", "paper", "ours", "scale", "verdict", "runs")]


def counted_verdicts(claims: Sequence[Claim]) -> str:
    """``14 reproduced, 2 not reproduced, 4 not run``."""
    numbers = Counter(claim.verdict for claim in claims)
    return ", ".join(f"{number} {verdict}" for verdict, number in sorted(numbers.items()))


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
        "scale": finding.scale if finding else "",
        "verdict": finding.verdict if finding else NOT_RUN,
        "criterion": claim.criterion,
        "runs": ", ".join(finding.runs) if finding else "",
        "cells": " ".join(finding.cells) if finding else "",
    }


def write_claims(claims: Sequence[Claim], folder: Path) -> list[Path]:
    """The table in three formats; returns their paths."""
    table = claims_table(claims)
    criteria = "".join(f"- **{claim.id}** {claim.criterion}\n" for claim in claims)
    printed = claims_table(claims, [column for column in COLUMNS if column.key != "runs"])
    texts = {
        "claims.md": (
            f"# Claims\n\n{ABOUT}\n\n{counted_verdicts(claims)}.\n\n{table.markdown()}"
            f"\n## Criteria\n\n{criteria}"
        ),
        "claims.csv": table.csv(),
        "claims.tex": printed.latex("lXXXXl"),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [folder / name for name in texts]
