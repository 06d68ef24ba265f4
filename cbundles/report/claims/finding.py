"""What a judge says: `Finding`; and what the report says: `Claim`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from cbundles.records import NetworkRecord
from cbundles.report import evidence
from cbundles.report.evidence import Evidence

Record = TypeVar("Record", bound=NetworkRecord)
REPRODUCED, NOT_REPRODUCED, NOT_RUN = "reproduced", "not reproduced", "not run"
MIXED = "depends on the scale"


@dataclass(frozen=True)
class Finding:
    """What records of one scale say about a claim.

    ours: the outcome
    cells: identities of the records behind it
    details: parts of the outcome, where there are several
    """

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
    """What all records say about a claim; without findings it was not run.

    id, claim, paper (the paper's value), criterion: as in criteria.yaml
    """

    id: str
    claim: str
    paper: str
    criterion: str
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        """The verdict that all scales agree on."""
        verdicts = set(self.verdicts)
        return verdicts.pop() if len(verdicts) == 1 else MIXED

    @property
    def verdicts(self) -> list[str]:
        return [finding.verdict for finding in self.findings] or [NOT_RUN]


def finding_on(
    group: Evidence[Record],
    ours: str,
    reproduced: bool,
    records: Sequence[Record] | None = None,
) -> Finding:
    """A finding on some of the records of a group, or on all."""
    judged = group.records if records is None else records
    if group.diverged:
        ours += f"; {group.diverged} networks diverged and are left out"
    cells = tuple(record.id for record in judged)
    return Finding(evidence.scale(judged), ours, bool(reproduced), (group.run,), cells)
