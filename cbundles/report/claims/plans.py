"""Claims of our own: what was planned, in plans.yaml, and on which networks it is decided.

A plan is decided on seeds that nothing had used when it was written, so that whoever wrote it could
not know the outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from cbundles.records import NetworkRecord, SweepRecord
from cbundles.report.claims import grid
from cbundles.report.claims.finding import OF_A_QUESTION, OF_OUR_OWN, Words
from cbundles.report.evidence import Evidence
from cbundles.report.runs import Run

PLANS = Path(__file__).with_name("plans.yaml")
PAPER = "ours"  # what the paper says of them: nothing
USED_SEEDS = frozenset([*range(23), 30, 31])


@dataclass(frozen=True)
class Plan:
    """An entry of plans.yaml, where the fields are explained."""

    id: str
    claim: str
    criterion: str
    known: str
    part: str
    needs: str
    has_direction: bool = True

    @property
    def words(self) -> Words:
        """What its verdicts are called."""
        return OF_OUR_OWN if self.has_direction else OF_A_QUESTION


def written() -> list[Plan]:
    """All plans, in order."""
    entries = yaml.safe_load(PLANS.read_text(encoding="utf-8"))
    return [Plan(**entry) for entry in entries]


def are_on_new_seeds(records: Sequence[NetworkRecord]) -> bool:
    """Whether a plan may be decided on these networks."""
    return not any(record.seed in USED_SEEDS for record in records)


def grids_on_new_seeds(runs: Sequence[Run]) -> list[Evidence[SweepRecord]]:
    """Grids of widths and depths on which a plan may be decided."""
    return [group for group in grid.grids(runs) if are_on_new_seeds(group.records)]
