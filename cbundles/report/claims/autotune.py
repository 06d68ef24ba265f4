"""Claims C15 and C16: table 1 and the restarts of auto-tuning (sec. 3.6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from cbundles.criterion import CLEAR_RATE
from cbundles.records import SweepRecord
from cbundles.report import evidence, select, table1
from cbundles.report.claims.conv import reading_of
from cbundles.report.claims.fc import BY_RATE, NO_RATES
from cbundles.report.claims.finding import Finding, finding_on, trial_by_seed, trial_of
from cbundles.report.evidence import Evidence
from cbundles.report.runs import Run
from cbundles.report.statistics import binomial_interval, finite
from cbundles.report.summary import accuracy_epochs_text, accuracy_of, has_rates


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
    def agrees(records: list[SweepRecord]) -> bool:
        return _beside_the_papers(row, records)[0]

    reached, ours = _beside_the_papers(row, row.records)
    trial = trial_by_seed(row.records, agrees)
    return finding_on(Evidence(row.run, row.records), ours, reached, trial)


def _beside_the_papers(row: TunedRow, records: list[SweepRecord]) -> tuple[bool, str]:
    """Whether networks of a row, of all seeds or of one, agree with the paper's, and how."""
    paper = row.paper
    accuracy = fmean(100 * accuracy_of(record) for record in records)
    mean, spread = paper.accuracy
    reached = [abs(accuracy - mean) <= max(1.0, 2 * spread)]
    ours = f"accuracy {accuracy:.1f} % ({accuracy_epochs_text(records)}; paper {mean:g})"
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
        found = "not measured" if math.isnan(ratio) else f"{ratio:.2f}"
        ours += f", time / ResNet's {found} (paper {expected:.2f})"
    return all(reached), ours


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
    low, high = binomial_interval(sum(good), len(good))
    ours = (
        f"restarts: {restarts}; {sum(good)} of {len(good)} runs with at most three, each after "
        f"epoch 1 (95 % binomial interval {100 * low:.0f} to {100 * high:.0f} %)"
    )
    group = Evidence(run.name, firsts)
    details = [_rule_of(run, firsts[0]), reading_of(firsts[0]), _restarts_by_rate(chains)]
    if firsts[0].epochs == 1:
        details.append("each attempt is one epoch: a restart after a later one cannot be seen here")
    trial = trial_of(good, "seed")
    return finding_on(group, ours, sum(good) >= 0.8 * len(good), trial, details=details)


def _rule_of(run: Run, first: SweepRecord) -> str:
    """By which rule networks are stopped and blocks removed."""
    checks = min(first.cell.training.checks, first.epochs)
    when = "epoch 1" if checks == 1 else f"one of the first {checks} epochs"
    return (
        f"rule: H^L > 0, which a single pair of samples can cause, after {when}; "
        f"removal by {run.description['rule']}"
    )


def _restarts_by_rate(chains: Sequence[Sequence[SweepRecord]]) -> str:
    """Which networks that were stopped conflict by their conflict rate, too."""
    stopped = [record for chain in chains for record in chain[:-1]]
    if not all(map(has_rates, stopped)):
        return f"{BY_RATE}: {NO_RATES}"
    clear = sum(finite(r.history.last("conflict_rate")[-1]) > CLEAR_RATE for r in stopped)
    return (
        f"{clear} of {len(stopped)} restarts came with a conflict rate above {CLEAR_RATE:g}, which "
        "is not how often a rule by it restarts: it may stop later what H > 0 stopped"
    )


def _ends_after_few_restarts(run: Run, chain: Sequence[SweepRecord]) -> bool:
    """Whether a seed came to its end, with three restarts at most, each after epoch 1."""
    *stopped, last = chain
    at_once = all(record.epochs_trained == 1 for record in stopped)
    return len(stopped) <= 3 and at_once and last.id in run.description["tuned"]
