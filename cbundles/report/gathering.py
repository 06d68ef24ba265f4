"""Which runs a report is about: those that claims are judged on, and everybody's own.

Claims are judged on published runs that a profile names. In a folder without any published run,
such as `reproduction/`, what a profile names counts. All other runs belong to whoever made them:
the report shows them apart.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from cbundles.report import runs
from cbundles.report.runs import Run
from cbundles.report.worked_study import StudyFolder, studies_under


@dataclass(frozen=True)
class Gathered:
    """The runs under a results folder.

    presented: those that are published, or, where none is, those that a profile names
    judged: of these the ones that a profile names
    own: the others
    damaged: what could not be read, with the reason
    studies: of networks of other libraries; no claim is judged on them
    """

    presented: list[Run]
    judged: list[Run]
    own: list[Run]
    damaged: list[str]
    studies: list[StudyFolder] = field(default_factory=list)


def gather(root: Path, named: Collection[str]) -> Gathered:
    """named: the names of the runs that profiles name."""
    loaded, damaged = runs.read_all(root)
    studies = studies_under(root, damaged)
    presented = [run for run in loaded if run.is_published]
    if not presented:
        presented = [run for run in loaded if run.name in named]
    names = {run.name for run in presented}
    return Gathered(
        presented=presented,
        judged=[run for run in presented if run.name in named],
        own=[run for run in loaded if run.name not in names],
        damaged=damaged,
        studies=studies,
    )
