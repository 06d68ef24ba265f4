"""What claims say beside H > 0 and one probe set: tuning by the conflict rate (N9), and probe sets
of other sizes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from records import ORIGIN, changed, record, with_settings

from cbundles.records import Layers, MeasuredRecord, SweepHistory
from cbundles.report import claims
from cbundles.report.runs import Run
from cbundles.store import Store


def tuning(by, depths_of_seeds, *, epochs=1, accuracy=0.8, without_end=()):
    """Auto-tuning by a rule. depths_of_seeds: layers of each attempt, by seed."""
    chains = []
    for seed, depths in depths_of_seeds.items():
        attempts = [
            record(d, 8, seed, family="vgg", epochs=epochs, accuracy=accuracy) for d in depths
        ]
        followed = {"training": {"stop_conflicting": by, "conflict_checks": 10}}
        rewritten = [with_settings(attempt, **followed) for attempt in attempts]
        chains.append(
            [changed(one, id=one.cell.id, latency_seconds=one.depth / 1000) for one in rewritten]
        )
    ends = {chain[-1].id for chain in chains}
    gone = {chain[-1].id for chain in chains if chain[0].seed in without_end}
    description = {
        "name": by,
        "rule": "stage",
        "attempts": [[one.id for one in chain] for chain in chains],
        "tuned": sorted(ends - gone),
        "given_up": sorted(gone),
        "cells": [chain[0].id for chain in chains],
    }
    return Run(Store(Path(by)), description, [one for chain in chains for one in chain])


def of_n9(*runs):
    (claim,) = [claim for claim in claims.judge_plans(runs) if claim.id == "N9"]
    return claim.findings


BY_ENTROPY = {500: (120, 30), 501: (120, 50, 20), 502: (120, 30)}
BY_RATE = {500: (120, 30), 501: (120, 30), 502: (120, 50, 36)}


def test_n9_compares_pairs_of_the_same_start():
    (found,) = of_n9(tuning("entropy", BY_ENTROPY), tuning("conflict_rate", BY_RATE))
    assert found.verdict == "measured" and found.runs == ("entropy", "conflict_rate")
    assert "by H > 0 26.7 ± 5.8" in found.ours and "above 0.001 32.0 ± 3.5" in found.ours
    assert "rate - H +5.33" in found.ours and "3 pairs" in found.ours
    assert "1 of 3 seeds end at the same network" in found.text
    assert "each attempt is one epoch" in found.text and "accuracy" not in found.text


def test_n9_compares_what_was_trained_to_the_end():
    (found,) = of_n9(
        tuning("entropy", BY_ENTROPY, epochs=4, accuracy=0.8),
        tuning("conflict_rate", BY_RATE, epochs=4, accuracy=0.83),
    )
    assert "accuracy +3 (3 to 3) points (after epoch 4" in found.text
    assert "by H 80.0 %, by the rate 83.0 %" in found.text
    assert "+5.33" in found.details[-1].split(" MB, ")[1]  # a millisecond a layer


def test_n9_leaves_out_seeds_without_an_end():
    by_rate = tuning("conflict_rate", BY_RATE, without_end=(502,))
    (found,) = of_n9(tuning("entropy", BY_ENTROPY), by_rate)
    assert "2 pairs" in found.ours and "1 seed left out" in found.text


@pytest.mark.parametrize(
    "others",
    [
        {0: (120, 30), 1: (120, 30), 2: (120, 30)},  # of another start, and seen before
        {500: (120, 30), 501: (120, 30)},  # of fewer seeds
        {},
    ],
)
def test_n9_needs_the_same_start_by_both_rules(others):
    runs = [tuning("conflict_rate", others)] if others else []
    assert of_n9(tuning("entropy", BY_ENTROPY), *runs) == ()


def test_one_epoch_cannot_show_later_restarts():
    chains = dict.fromkeys(range(3), (120, 30))
    (claim,) = [
        c for c in claims.judge([as_the_papers(tuning("entropy", chains))]) if c.id == "C16"
    ]
    assert "each attempt is one epoch" in claim.findings[0].text
    longer = as_the_papers(tuning("entropy", chains, epochs=4))
    (claim,) = [c for c in claims.judge([longer]) if c.id == "C16"]
    assert "each attempt is one epoch" not in claim.findings[0].text


def as_the_papers(run):
    """The run with networks trained in every respect as the paper's."""
    settings = {"training": {"accuracy_epochs": 5}}
    records = [changed(with_settings(one, **settings), id=one.id) for one in run.records]
    return dataclasses.replace(run, records=records)


def again(made, first_layers):
    """A network kept after the first epoch and measured with probe sets of several sizes: its first
    conflicting layer by each."""

    def layers(first):
        entropies = [0.0 if layer < first else 0.5 for layer in range(1, made.depth + 1)]
        rates = [entropy / 4 for entropy in entropies]
        return Layers(entropy=[entropies], conflict_rate=[rates], num_bundles=[[100] * made.depth])

    own = made.history
    return MeasuredRecord(
        id=made.id,
        origin=ORIGIN,
        config=made.config,
        readings="none",
        kept_after=["1"],
        epochs_trained=[1],
        networks={"1": "made up"},
        largest_entropy=math.log(10),
        history=SweepHistory(
            entropy=own.entropy[1:2],
            conflict_rate=own.conflict_rate[1:2],
            num_bundles=own.num_bundles[1:2],
            test_accuracy=[0.5],
            train_loss=[None],
        ),
        by_samples={size: layers(first) for size, first in first_layers.items()},
    )


def details_of(claim_id, records, measured):
    description = {"name": "sizes", "cells": [made.id for made in records]}
    run = Run(Store(Path("sizes")), description, records, measured=measured)
    (claim,) = [claim for claim in claims.judge([run]) if claim.id == claim_id]
    (found,) = claim.findings
    return [detail for detail in found.details if detail.startswith("with other probe sets")]


def test_c6_over_probe_sizes():
    first_of = {10: 5, 25: 20, 50: 40}
    made = [
        record(150, width, seed, first=first_of[width]) for width in first_of for seed in range(3)
    ]
    measured = [again(one, {"128": first_of[one.width] + 2, "all": 1}) for one in made]
    (detail,) = details_of("C6", made, measured)
    assert "128 samples: width 10: 7, width 25: 22, width 50: 42" in detail
    assert "2048 samples: width 10: 5, width 25: 20, width 50: 40" in detail
    assert "all training samples: width 10: 1, width 25: 1, width 50: 1" in detail
    assert detail.index("128") < detail.index("2048") < detail.index("all training")
    assert details_of("C6", made, measured[1:]) == []  # one of them is not known
    assert details_of("C6", made, []) == []


def test_c7_over_probe_sizes():
    made = [record(depth, 25, seed, first=20) for depth in (25, 150) for seed in range(5)]
    measured = [again(one, {"512": 23 if one.depth == 25 else 24}) for one in made]
    (detail,) = details_of("C7", made, measured)
    assert "512 samples: 23 at L = 25, 24 at L = 150" in detail
    assert "2048 samples: 20 at L = 25, 20 at L = 150" in detail


def test_c10_over_probe_sizes():
    made = [
        record(
            depth,
            width,
            seed,
            first=2 * width if depth >= 2 * width else None,
            accuracy=0.9 - depth / 200,
        )
        for width in (10, 25, 50)
        for depth in (10, 50, 100)
        for seed in range(3)
    ]
    measured = [again(one, {"512": 2 * one.width + 7}) for one in made]
    (detail,) = details_of("C10", made, measured)
    assert "512 samples: boundary by width 10: 27, 25: 57, 50: none, balanced" in detail
    assert "2048 samples: boundary by width 10: 20, 25: 50, 50: 100, balanced" in detail
