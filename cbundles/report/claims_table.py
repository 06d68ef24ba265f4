"""The claims as a table: `claims.csv`, `claims.md` and `claims.tex`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cbundles.files import write_atomically
from cbundles.report.claims.finding import (
    DOES_NOT_HOLD,
    HOLDS,
    MEASURED,
    MIXED,
    NOT_REPRODUCED,
    NOT_RUN,
    OF_THE_PAPER,
    REPRODUCED,
    UNDECIDED,
    Claim,
    Finding,
)
from cbundles.report.table import Column, Row, Table
from cbundles.wording import counted

ABOUT = (
    "Claims of the paper, judged by criteria that were written on 20 November 2026 "
    "(docs/claims.md says what was known by then) and not changed since. Each "
    "finding names its scale: data set, network, epochs, networks, seeds. Where a scale is smaller "
    "than the paper's, the same criterion is applied at that scale. What is not reproduced is "
    "contradicted, unstable or not testable at this scale; the rules for that, and what each claim "
    "needs, stand in docs/claims.md and were written after the first results."
)
ABOUT_PLANS = (
    "Claims of our own, written on 24 November 2026, before the networks were trained that they "
    "are decided on; which pilots were known then stands beside each. They are decided on complete "
    "runs whose seeds nothing had used before. Where no direction was claimed, what was found is "
    "told as measured. What does not hold is contradicted, unstable or not testable, by the same "
    "rules; a claim is undecided where its interval has room for it and for its opposite."
)
PLANS_TITLE = "Our own claims, decided on new seeds"


ORDER = (REPRODUCED, HOLDS, MEASURED, MIXED, NOT_REPRODUCED, DOES_NOT_HOLD, UNDECIDED, NOT_RUN)


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
    short = [
        finding
        for claim in claims
        for finding in claim.findings
        if finding.kind not in ("", UNDECIDED)
    ]
    if not short:
        return text
    kinds = Counter(finding.kind for finding in short)
    each = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    said_of_them = "not reproduced" if short[0].words == OF_THE_PAPER else "that do not hold"
    return f"{text}; of {counted(len(short), 'finding')} {said_of_them}: {each}"


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


def _at_a_glance(claims: Sequence[Claim]) -> Table:
    """One row for each claim: its verdict, and how often each finding."""
    rows = []
    for claim in claims:
        kinds = Counter(finding.kind or finding.verdict for finding in claim.findings)
        found = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
        rows.append(
            {"id": claim.id, "claim": claim.claim, "verdict": claim.verdict, "findings": found}
        )
    names = {"id": "id", "claim": "claim", "verdict": "verdict", "findings": "findings"}
    return Table(rows, [Column(key, name) for key, name in names.items()])


def _beside_verdicts(claims: Sequence[Claim]) -> str:
    """The details of each finding that has some, in Markdown."""
    text = ""
    for claim in claims:
        for finding in claim.findings:
            if finding.beside:
                items = "".join(f"- {detail}\n" for detail in finding.beside)
                runs = ", ".join(finding.runs)
                text += f"\n**{claim.id}**, {runs} ({finding.scale}):\n\n{items}"
    return text


def _plans_in_markdown(own: Sequence[Claim]) -> str:
    """The section of our own claims."""
    columns = [column for column in COLUMNS if column.key != "paper"]
    criteria = "".join(
        f"- **{claim.id}** {claim.criterion}. Known before: {claim.known}.\n" for claim in own
    )
    return (
        f"## {PLANS_TITLE}\n\n{ABOUT_PLANS}\n\n{counted_verdicts(own)}.\n\n"
        f"{claims_table(own, columns).markdown()}{_beside_verdicts(own)}"
        f"\nEach holds when:\n\n{criteria}"
    )


def write_claims(claims: Sequence[Claim], own: Sequence[Claim], folder: Path) -> list[Path]:
    """The table in three formats; returns their paths. own: claims of our own."""
    table = claims_table(claims)
    criteria = "".join(f"- **{claim.id}** {claim.criterion}\n" for claim in claims)
    printed = claims_table(claims, [column for column in COLUMNS if column.key != "runs"])
    texts = {
        "claims.md": (
            f"# Claims\n\n{ABOUT}\n\n{counted_verdicts(claims)}.\n\n"
            f"{_at_a_glance([*claims, *own]).markdown()}"
            f"\n## Findings\n\n{table.markdown()}"
            f"\n## Beside the verdicts\n{_beside_verdicts(claims)}\n## Criteria\n\n{criteria}"
            f"\n{_plans_in_markdown(own)}"
        ),
        "claims.csv": claims_table([*claims, *own]).csv(),
        "claims.tex": printed.latex("lXXXXl"),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [folder / name for name in texts]
