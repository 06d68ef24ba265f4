"""Claim N7: does headroom rank the networks without a conflict, which H cannot tell apart?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from cbundles.records import SweepRecord
from cbundles.report import signals
from cbundles.report.claims.finding import Finding, finding_on
from cbundles.report.claims.grid import trial_on_grid
from cbundles.report.evidence import Evidence, last_entropy
from cbundles.report.signals import Place
from cbundles.report.statistics import (
    Estimate,
    spearman,
    spearman_difference,
    spearman_text,
)
from cbundles.report.summary import accuracy_epochs_text, accuracy_of

FEWEST = 40  # networks with H = 0
RANKS_FROM = 0.7  # Spearman


def headroom_ranks_healthy_networks(group: Evidence[SweepRecord]) -> Finding | None:
    healthy = [record for record in group.records if last_entropy(record, 1) == 0]
    place = signals.place_after_epoch(signals.places_measured(group.records), 1)
    if place is None or len(healthy) < 3 or signals.HEADROOM.values(healthy, place) is None:
        return None
    found, difference = _rank_and_difference(healthy, place)
    ours = (
        f"{len(healthy)} of {len(group.records)} networks with H^L = 0 after epoch 1: Spearman "
        f"with the accuracy at the end ({accuracy_epochs_text(healthy)}): headroom {found}, test "
        f"accuracy {_rank(healthy, place, signals.ACCURACY)}, difference "
        f"{difference.text(signed=True)}"
    )
    lacking = f"there are {len(healthy)}" if len(healthy) < FEWEST else ""
    trial = trial_on_grid(
        Evidence(group.run, healthy), lambda some: _ranks_healthy(some, place), lacking
    )
    if _rank_of_headroom(healthy, place) >= RANKS_FROM and difference.low <= 0 <= difference.high:
        trial = dataclasses.replace(trial, leaves_open=_what_was_within_reach(difference))
    return finding_on(
        group,
        ours,
        not lacking and bool(_ranks_healthy(healthy, place)),
        trial,
        healthy,
        details=[headroom_beside_others(healthy, place)],
    )


def _what_was_within_reach(difference: Estimate) -> str:
    half = (difference.high - difference.low) / 2
    return (
        f"the difference may be 0 and may be more: {difference.n} networks would have shown one of "
        f"about {half:.2g}"
    )


def headroom_beside_others(healthy: Sequence[SweepRecord], place: Place) -> str:
    """What else ranks networks without a conflict, in a sentence."""
    compared = (
        signals.HEADROOM,
        signals.DEPTH_BY_WIDTH,
        signals.DEPTH,
        signals.ACCURACY,
        signals.LOSS,
        signals.RANK,
        signals.COSINE,
    )
    texts = [f"{signal.name} {_rank(healthy, place, signal)}" for signal in compared]
    return (
        f"of {len(healthy)} networks with H^L = 0, Spearman with the accuracy at the end, 95 % "
        f"bootstrap interval over networks: {', '.join(texts)}"
    )


def _rank(healthy: Sequence[SweepRecord], place: Place, signal: signals.Signal) -> str:
    values = signal.values(healthy, place)
    if values is None:
        return "not measured"
    return spearman_text(values, [accuracy_of(record) for record in healthy])


def _rank_and_difference(healthy: Sequence[SweepRecord], place: Place) -> tuple[str, Estimate]:
    """The rank correlation of headroom, and by how much it exceeds that of test accuracy."""
    headroom, accuracy = (s.values(healthy, place) for s in (signals.HEADROOM, signals.ACCURACY))
    assert headroom is not None and accuracy is not None  # looked at before
    final = [accuracy_of(record) for record in healthy]
    return spearman_text(headroom, final), spearman_difference(headroom, accuracy, final)


def _rank_of_headroom(healthy: Sequence[SweepRecord], place: Place) -> float:
    headroom = signals.HEADROOM.values(healthy, place)
    assert headroom is not None  # looked at before
    return spearman(headroom, [accuracy_of(record) for record in healthy])


def _ranks_healthy(healthy: Sequence[SweepRecord], place: Place) -> bool | None:
    """The criterion of N7; None where it is not defined."""
    if len(healthy) < 3:
        return None
    rank = _rank_of_headroom(healthy, place)
    _, difference = _rank_and_difference(healthy, place)
    if math.isnan(rank) or math.isnan(difference.low):
        return None
    return rank >= RANKS_FROM and difference.low > 0
