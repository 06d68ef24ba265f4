"""Claims C15 and C16: table 1 and the restarts of auto-tuning (sec. 3.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from cbundles.records import SweepRecord
from cbundles.report import evidence, select, table1
from cbundles.report.claims.finding import Finding, finding_on
from cbundles.report.evidence import Evidence
from cbundles.report.runs import Run
from cbundles.report.statistics import finite
from cbundles.report.summary import accuracy_of


@dataclass(frozen=True)
class TunedRow:
    """A row of table 1 that was run at full size.

    baseline: the ResNets that an auto-tuned network is compared with
    """

    run: str
    paper: table1.Published
    records: list[SweepRecord]
    baseline: list[SweepRecord]


def rows_at_full_size(runs: Sequence[Run]) -> list[TunedRow]:
    """Rows of table 1 that can be compared with the paper's."""
    rows = []
    for run in evidence.tunings(runs):
        parts = table1.parts_of(run)
        for records in parts.values():
            paper = table1.published(records[0]) if records else None
            if paper is not None and (paper.network == "resnet" or parts["baseline"]):
                rows.append(TunedRow(run.name, paper, records, parts["baseline"]))
    return rows


def row_agrees_with_the_papers(row: TunedRow) -> Finding:
    paper, records = row.paper, row.records
    accuracy = fmean(100 * accuracy_of(record) for record in records)
    mean, spread = paper.accuracy
    reached = [abs(accuracy - mean) <= max(1.0, 2 * spread)]
    ours = f"accuracy {accuracy:.1f} % (paper {mean:g})"
    if paper.network == "resnet":
        megabytes = records[0].bytes / 1e6
        reached.append(abs(megabytes / paper.megabytes[0] - 1) <= 0.01)
        ours += f", {megabytes:.0f} MB (paper {paper.megabytes[0]:g})"
    else:
        layers = fmean(record.depth for record in records)
        reached.append(abs(layers - paper.layers[0]) <= max(3.0, 2 * (paper.layers[1] or 0)))
        ours += f", {layers:.1f} layers (paper {paper.layers[0]:g})"
        ratio = _latency(records) / _latency(row.baseline)
        expected = paper.milliseconds[0] / table1.resnet_of(paper).milliseconds[0]
        reached.append(abs(ratio / expected - 1) <= 0.25)
        ours += f", time / ResNet's {ratio:.2f} (paper {expected:.2f})"
    return finding_on(Evidence(row.run, records), ours, all(reached))


def _latency(records: list[SweepRecord]) -> float:
    return fmean(finite(record.latency_seconds) for record in records)


def three_restarts_at_most(run: Run) -> Finding | None:
    known = run.by_cell
    chains = [[known[cell] for cell in chain] for chain in run.description["attempts"]]
    firsts = [chain[0] for chain in chains]
    if select.seeds(firsts) < 3:
        return None
    good = [_ends_after_few_restarts(run, chain) for chain in chains]
    restarts = ", ".join(str(len(chain) - 1) for chain in chains)
    ours = (
        f"restarts: {restarts}; {sum(good)} of {len(good)} runs with at most three, "
        "each after epoch 1"
    )
    group = Evidence(run.name, firsts)
    return finding_on(group, ours, sum(good) >= 0.8 * len(good))


def _ends_after_few_restarts(run: Run, chain: Sequence[SweepRecord]) -> bool:
    """Whether a seed came to its end, with three restarts at most, each after epoch 1."""
    *stopped, last = chain
    at_once = all(record.epochs_trained == 1 for record in stopped)
    return len(stopped) <= 3 and at_once and last.id in run.description["tuned"]
