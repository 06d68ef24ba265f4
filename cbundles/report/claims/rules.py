"""Claim N9: which rule should auto-tuning follow, the paper's H > 0 or a conflict rate?

The same networks are tuned twice, from the same initial weights and with the same batches; only
what counts as a conflict differs. So everything is compared by pairs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean

from cbundles import criterion
from cbundles.config import AUTOTUNE, Cell
from cbundles.records import SweepRecord
from cbundles.report.claims import plans
from cbundles.report.claims.finding import Finding, finding_on, trial_of
from cbundles.report.evidence import Evidence
from cbundles.report.runs import Run
from cbundles.report.statistics import estimate, finite, mean_and_spread
from cbundles.report.summary import accuracy_epochs_text, accuracy_of
from cbundles.wording import counted

NAMES = {
    criterion.ENTROPY: "by H > 0",
    criterion.CONFLICT_RATE: f"by a conflict rate above {criterion.CLEAR_RATE:g}",
}


@dataclass(frozen=True)
class RecordedChain:
    """What auto-tuning made of one seed: the networks it began, the last of which it ended at."""

    attempts: Sequence[SweepRecord]

    @property
    def last(self) -> SweepRecord:
        return self.attempts[-1]

    @property
    def restarts(self) -> int:
        return len(self.attempts) - 1


@dataclass(frozen=True)
class TunedByBoth:
    """The same seeds, tuned by either rule.

    runs: names of the two, that by H first
    pairs: of each seed that both tuned to an end, the chain by H and that by the rate
    given_up: how many seeds are not among them because nothing was left of a network
    """

    runs: tuple[str, str]
    pairs: Sequence[tuple[RecordedChain, RecordedChain]]
    given_up: int


def tuned_by_both_rules(runs: Sequence[Run]) -> list[TunedByBoth]:
    """Complete auto-tunings on new seeds, of which two differ in nothing but in what counts as a
    conflict. Of several that are alike in that, too, the first counts."""
    by_start: dict[Hashable, dict[str, Run]] = {}
    for run in runs:
        if run.kind != AUTOTUNE or run.unfinished or not plans.are_on_new_seeds(run.starts):
            continue
        rules = {start.cell.training.stop_conflicting for start in run.starts}
        if rules <= NAMES.keys() and len(rules) == 1:
            starts = frozenset(_without_rule(start.cell) for start in run.starts)
            data = tuple(sorted(run.description.get("data", {}).items()))
            alike = (starts, run.description["rule"], data)
            by_start.setdefault(alike, {}).setdefault(rules.pop(), run)
    return [
        _paired(tuned[criterion.ENTROPY], tuned[criterion.CONFLICT_RATE])
        for tuned in by_start.values()
        if len(tuned) == len(NAMES)
    ]


def _without_rule(cell: Cell) -> Cell:
    training = dataclasses.replace(cell.training, stop_conflicting=criterion.ENTROPY)
    return dataclasses.replace(cell, training=training)


def _paired(by_entropy: Run, by_rate: Run) -> TunedByBoth:
    ours, theirs = _ended(by_entropy), _ended(by_rate)
    shared = sorted(ours.keys() & theirs.keys())
    seeds = {start.seed for start in by_entropy.starts}
    return TunedByBoth(
        (by_entropy.name, by_rate.name),
        [(ours[seed], theirs[seed]) for seed in shared],
        len(seeds) - len(shared),
    )


def _ended(run: Run) -> dict[int, RecordedChain]:
    """The chain of each seed of which something was left, by seed."""
    known, tuned = run.by_cell, set(run.description["tuned"])
    chains = [
        RecordedChain([known[cell] for cell in chain])
        for chain in run.description["attempts"]
        if chain[-1] in tuned
    ]
    return {chain.last.seed: chain for chain in chains}


def the_rules_differ(tuned: TunedByBoth) -> Finding | None:
    """What follows from either rule; no direction is claimed."""
    pairs = tuned.pairs
    if len(pairs) < 2:
        return None
    alike = [ours.last.cell.blocks == theirs.last.cell.blocks for ours, theirs in pairs]
    ours = (
        f"layers at the end, mean and standard deviation: {_by_both_rules(pairs, _layers)}; "
        f"rate - H {_difference(pairs, _layers)}, {counted(len(pairs), 'pair')} and 95 % interval"
    )
    details = [
        f"restarts: {_by_both_rules(pairs, _times_restarted, digits=2)}; "
        f"{sum(alike)} of {len(pairs)} seeds end at the same network by both",
    ]
    if tuned.given_up:
        details.append(f"{counted(tuned.given_up, 'seed')} left out: nothing was left of a network")
    lasts = [chain.last for pair in pairs for chain in pair]
    if lasts[0].epochs > 1:
        details.append(_of_trained_networks(pairs, lasts))
    else:
        details.append("each attempt is one epoch, so what the networks become is not told here")
    group = Evidence(tuned.runs[0], lasts)
    finding = finding_on(group, ours, True, trial_of(alike, "seed"), details=details)
    return dataclasses.replace(finding, runs=tuned.runs)


Pairs = Sequence[tuple[RecordedChain, RecordedChain]]
Quantity = Callable[[RecordedChain], float]


def _layers(chain: RecordedChain) -> float:
    return chain.last.depth


def _times_restarted(chain: RecordedChain) -> float:
    return chain.restarts


def _accuracy_in_percent(chain: RecordedChain) -> float:
    return 100 * accuracy_of(chain.last)


def _megabytes(chain: RecordedChain) -> float:
    return chain.last.bytes / 1e6


def _milliseconds(chain: RecordedChain) -> float:
    return 1000 * finite(chain.last.latency_seconds)


def _by_both_rules(pairs: Pairs, quantity: Quantity, digits: int = 1) -> str:
    """``by H > 0 26.7 ± 5.8, by a conflict rate above 0.001 32.0 ± 3.5``."""
    texts = [
        f"{name} {mean_and_spread([quantity(pair[side]) for pair in pairs], digits)}"
        for side, name in enumerate(NAMES.values())
    ]
    return ", ".join(texts)


def _difference(pairs: Pairs, quantity: Quantity) -> str:
    """Of the network by the rate from that by H."""
    differences = [quantity(theirs) - quantity(ours) for ours, theirs in pairs]
    return estimate(differences).text(signed=True)


def _of_trained_networks(pairs: Pairs, lasts: Sequence[SweepRecord]) -> str:
    return (
        f"the networks at the end, trained for {counted(lasts[0].epochs, 'epoch')}, rate - H: "
        f"accuracy {_difference(pairs, _accuracy_in_percent)} points "
        f"({accuracy_epochs_text(lasts)}; by H {_mean_of(pairs, 0)} %, by the rate "
        f"{_mean_of(pairs, 1)} %), {_difference(pairs, _megabytes)} MB, "
        f"{_difference(pairs, _milliseconds)} ms for 64 images"
    )


def _mean_of(pairs: Pairs, side: int) -> str:
    return f"{fmean(_accuracy_in_percent(pair[side]) for pair in pairs):.1f}"
