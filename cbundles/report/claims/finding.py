"""What a judge says: `Finding`; and what the report says: `Claim`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cbundles.report import evidence
from cbundles.report.evidence import Group, Record

REPRODUCED, NOT_REPRODUCED, NOT_RUN = "reproduced", "not reproduced", "not run"


@dataclass(frozen=True)
class Finding:
    """What records of one scale say about a claim: the outcome (ours), and its parts where there
    are several (details). cells: identities of the records behind it."""

    scale: str
    ours: str
    reproduced: bool
    runs: tuple[str, ...]
    cells: tuple[str, ...]
    details: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The outcome and its parts in one line."""
        return ": ".join(part for part in (self.ours, "; ".join(self.details)) if part)

    @property
    def verdict(self) -> str:
        return REPRODUCED if self.reproduced else NOT_REPRODUCED


@dataclass(frozen=True)
class Claim:
    """id, claim, paper's value and criterion as in criteria.yaml; no findings: not run."""

    id: str
    claim: str
    paper: str
    criterion: str
    findings: tuple[Finding, ...]

    @property
    def verdicts(self) -> list[str]:
        return [finding.verdict for finding in self.findings] or [NOT_RUN]


def of_group(group: Group, ours: str, reproduced: bool, records: Sequence[Record]) -> Finding:
    """A finding on some records of a group."""
    if group.diverged:
        ours += f"; {group.diverged} networks diverged and are left out"
    cells = tuple(record["cell"] for record in records)
    return Finding(evidence.scale(records), ours, bool(reproduced), (group.run,), cells)


def span(values: Sequence[float]) -> str:
    """Lowest to highest."""
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return low if low == high else f"{low} to {high}"
