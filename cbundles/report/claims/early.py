"""Claim N2: is H an earlier signal of how a network ends than what everybody looks at?"""

from __future__ import annotations

from collections.abc import Sequence

from cbundles.records import SweepRecord
from cbundles.report import signals
from cbundles.report.claims.finding import Finding, Trial, finding_on
from cbundles.report.claims.grid import trial_on_grid
from cbundles.report.evidence import Evidence
from cbundles.report.signals import Place, Signal
from cbundles.report.statistics import Estimate, spearman_difference, spearman_text
from cbundles.report.summary import accuracy_epochs_text, accuracy_of

STEPS, JUDGED_AT = (50, 150, 500, 1000), 150
NEARBY = 1.5  # by which factor a place may be before or behind the steps that it stands for
COMPARED = (signals.ENTROPY, signals.ACCURACY, signals.LOSS, signals.DEPTH_BY_WIDTH)
FURTHER = (signals.RATE, signals.HEADROOM, signals.RANK, signals.COSINE, signals.DEPTH)


def entropy_is_earlier_than_accuracy(group: Evidence[SweepRecord]) -> Finding | None:
    records, known = group.records, signals.places_measured(group.records)
    judged_at = signals.nearest_place(known, JUDGED_AT, NEARBY)
    if judged_at is None:
        return None
    difference = _entropy_over_accuracy(records, judged_at)
    ours = (
        f"after {judged_at.text}: {_ranks(records, judged_at, COMPARED)}; H - test accuracy "
        f"{difference.text(signed=True)}, n = {len(records)} (final accuracy: "
        f"{accuracy_epochs_text(records)})"
    )
    lacking = "" if difference.low == difference.low else "all have the same H, or accuracy, there"
    return finding_on(
        group,
        ours,
        difference.low > 0,
        _trial(group, judged_at, lacking),
        details=[
            "Spearman with the final accuracy, signs turned so that more is better, 95 % bootstrap "
            "interval over networks",
            *_at_other_places(records, known, judged_at),
            f"likewise after {judged_at.text}: {_ranks(records, judged_at, FURTHER)}",
            *_of_untrained(records, known),
        ],
    )


def _entropy_over_accuracy(records: Sequence[SweepRecord], place: Place) -> Estimate:
    entropy, accuracy = (s.values(records, place) for s in (signals.ENTROPY, signals.ACCURACY))
    assert entropy is not None and accuracy is not None  # every record has them
    return spearman_difference(entropy, accuracy, [accuracy_of(record) for record in records])


def _trial(group: Evidence[SweepRecord], place: Place, lacking: str) -> Trial:
    def holds(records: Sequence[SweepRecord]) -> bool | None:
        low = _entropy_over_accuracy(records, place).low
        return low > 0 if low == low else None

    return trial_on_grid(group, holds, lacking)


def _ranks(records: Sequence[SweepRecord], place: Place, looked_at: Sequence[Signal]) -> str:
    final = [accuracy_of(record) for record in records]
    texts = []
    for signal in looked_at:
        values = signal.values(records, place)
        rank = "not measured" if values is None else spearman_text(values, final)
        texts.append(f"{signal.name} {rank}")
    return ", ".join(texts)


def _at_other_places(
    records: Sequence[SweepRecord], known: Sequence[Place], judged_at: Place
) -> list[str]:
    """What the criterion names besides the place that it is judged at."""
    texts = []
    for steps in STEPS:
        place = signals.nearest_place(known, steps, NEARBY)
        if place is None:
            texts.append(f"after {steps:,} steps: not measured")
        elif place != judged_at:
            named = "" if place.steps == steps else f", the nearest to {steps:,}"
            texts.append(f"after {place.text}{named}: {_ranks(records, place, COMPARED)}")
    return texts


def _of_untrained(records: Sequence[SweepRecord], known: Sequence[Place]) -> list[str]:
    """What the initial weights say."""
    start = signals.place_after_epoch(known, 0)
    if start is None:
        return []
    looked_at = (signals.ENTROPY, *FURTHER)
    return [f"before any training: {_ranks(records, start, looked_at)}"]
