"""A reproduction beside what is published: of each claim both verdicts and both numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cbundles.files import write_atomically
from cbundles.report.claims.finding import Claim, Finding
from cbundles.report.table import Column, Row, Table

COLUMNS = (
    Column("id", "claim"),
    Column("published_verdict", "published verdict"),
    Column("published", "published"),
    Column("verdict", "your verdict"),
    Column("yours", "yours"),
    Column("comparison", "comparison"),
)


def beside_published(published: Sequence[Claim], own: Sequence[Claim]) -> Table:
    """A row for each finding of one's own; claims without any are left out."""
    findings = {claim.id: claim.findings for claim in published}
    rows = [
        _compared(claim.id, finding, _counterpart(finding, findings.get(claim.id, ())))
        for claim in own
        for finding in claim.findings
    ]
    return Table(rows, COLUMNS)


def _counterpart(finding: Finding, published: Sequence[Finding]) -> Finding | None:
    """What to compare with: the same run, or any at the same scale, or else the first one."""
    for other in published:
        if other.runs == finding.runs:
            return other
    for other in published:
        if other.scale == finding.scale:
            return other
    return published[0] if published else None


def _compared(claim: str, finding: Finding, published: Finding | None) -> Row:
    return {
        "id": claim,
        "published_verdict": published.verdict if published else "",
        "published": published.text if published else "",
        "verdict": finding.verdict,
        "yours": finding.text,
        "comparison": _comparison(finding, published),
    }


def _comparison(finding: Finding, published: Finding | None) -> str:
    if published is None:
        return "not published"
    if published.scale != finding.scale:
        return (
            f"not comparable, the scales differ: published {published.scale}; yours {finding.scale}"
        )
    return "same verdict" if published.verdict == finding.verdict else "another verdict"


def write_comparison(table: Table, folder: Path) -> list[Path]:
    """The table as comparison.md and comparison.csv; returns their paths."""
    texts = {
        "comparison.md": f"# Comparison with the published runs\n\n{table.markdown()}",
        "comparison.csv": table.csv(),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [folder / name for name in texts]
