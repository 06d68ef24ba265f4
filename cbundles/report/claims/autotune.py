"""Claims C15 and C16: table 1 and the restarts of auto-tuning (sec. 3.6)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from cbundles.report import evidence, summary, table1
from cbundles.report.claims.finding import Finding, of_group
from cbundles.report.evidence import Group, Record, depth
from cbundles.report.runs import Run


def table(runs: Sequence[Run]) -> list[Finding]:
    """Rows of table 1 that were run at full size, each on its own."""
    found = []
    for run in evidence.tunings(runs):
        known = {record["cell"]: record for record in run.records}
        groups = {
            part: [known[cell] for cell in run.description.get(part, []) if cell in known]
            for part in ("baseline", "tuned")
        }
        for records in groups.values():
            paper = table1.published(records[0]) if records else None
            if paper is not None and (paper.network == "resnet" or groups["baseline"]):
                found.append(_row(run, paper, records, groups["baseline"]))
    return found


def _row(
    run: Run, paper: table1.Published, records: list[Record], baseline: list[Record]
) -> Finding:
    accuracy = statistics.fmean(100 * summary.row(record)["test_accuracy"] for record in records)
    mean, spread = paper.accuracy
    reached = [abs(accuracy - mean) <= max(1.0, 2 * spread)]
    ours = f"accuracy {accuracy:.1f} % (paper {mean:g})"
    if paper.network == "resnet":
        size = records[0]["bytes"] / 1e6
        reached.append(abs(size / paper.megabytes[0] - 1) <= 0.01)
        ours += f", {size:.0f} MB (paper {paper.megabytes[0]:g})"
    else:
        layers = statistics.fmean(depth(record) for record in records)
        reached.append(abs(layers - paper.layers[0]) <= max(3.0, 2 * (paper.layers[1] or 0)))
        ours += f", {layers:.1f} layers (paper {paper.layers[0]:g})"
        ratio = _latency(records) / _latency(baseline)
        expected = paper.milliseconds[0] / table1.resnet_of(paper).milliseconds[0]
        reached.append(abs(ratio / expected - 1) <= 0.25)
        ours += f", time / ResNet's {ratio:.2f} (paper {expected:.2f})"
    return of_group(Group(run.name, records), ours, all(reached), records)


def _latency(records: list[Record]) -> float:
    return statistics.fmean(record.get("latency_seconds", math.nan) for record in records)


def restarts(runs: Sequence[Run]) -> list[Finding]:
    found = []
    for run in evidence.tunings(runs):
        known = {record["cell"]: record for record in run.records}
        chains = [[known[cell] for cell in chain] for chain in run.description["attempts"]]
        if evidence.seeds([chain[0] for chain in chains]) < 3:
            continue
        ended = set(run.description["tuned"])
        good = [
            len(chain) - 1 <= 3
            and all(len(record["history"]) == 2 for record in chain[:-1])
            and chain[-1]["cell"] in ended
            for chain in chains
        ]
        restarts = ", ".join(str(len(chain) - 1) for chain in chains)
        ours = (
            f"restarts: {restarts}; {sum(good)} of {len(good)} runs with at most three, "
            "each after epoch 1"
        )
        group = Group(run.name, [chain[0] for chain in chains])
        found.append(of_group(group, ours, sum(good) >= 0.8 * len(good), group.records))
    return found
