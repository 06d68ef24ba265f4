"""A reproduction beside what is published: of each claim both verdicts and both numbers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from cbundles.files import write_atomically
from cbundles.report.claims import judge
from cbundles.report.claims.finding import Finding
from cbundles.report.runs import Run
from cbundles.report.table import Column, Row, Table

COLUMNS = (
    Column("id", "claim"),
    Column("published_verdict", "published verdict"),
    Column("published", "published"),
    Column("verdict", "your verdict"),
    Column("yours", "yours"),
    Column("comparison", "comparison"),
)


class Comparison(NamedTuple):
    """A row for each finding on one's own runs; and how many claims these do not reach."""

    table: Table
    unreached: int


def beside_published(published: Sequence[Run], own: Sequence[Run]) -> Comparison:
    """What the runs of somebody else say of each claim, beside what the published ones do."""
    cells = {run.name: set(run.description["cells"]) for run in published}
    same_grids = {run.name for run in own if set(run.description["cells"]) == cells.get(run.name)}
    findings = {claim.id: claim.findings for claim in judge(published)}
    claims = judge(own)
    rows = []
    for claim in claims:
        for finding in claim.findings:
            other = _counterpart(finding, findings[claim.id])
            rows.append(_compared(claim.id, finding, other, same_grids))
    return Comparison(Table(rows, COLUMNS), sum(not claim.findings for claim in claims))


def _counterpart(finding: Finding, published: Sequence[Finding]) -> Finding | None:
    """What to compare with: the same run, in the same reading and at the same scale, as far as
    there is one; or else the first one."""

    def likeness(other: Finding) -> tuple[bool, bool, bool]:
        same_reading = _reading_of(other) == _reading_of(finding)
        return other.runs == finding.runs, same_reading, other.scale == finding.scale

    return max(published, key=likeness, default=None)


def _reading_of(finding: Finding) -> str:
    return finding.scale.rpartition(", reading ")[2]


def _compared(
    claim: str, finding: Finding, published: Finding | None, same_grids: Collection[str]
) -> Row:
    return {
        "id": claim,
        "published_verdict": published.verdict_in_full if published else "",
        "published": published.text if published else "",
        "verdict": finding.verdict_in_full,
        "yours": finding.text,
        "comparison": _how_they_compare(finding, published, same_grids),
    }


def _how_they_compare(
    finding: Finding, published: Finding | None, same_grids: Collection[str]
) -> str:
    """same_grids: runs with the same networks on both sides. The scales of findings on them may
    differ all the same, in how many of the networks a criterion picks."""
    if published is None:
        return "not published"
    is_same_run = finding.runs == published.runs and set(finding.runs) <= set(same_grids)
    if not is_same_run and published.scale != finding.scale:
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
