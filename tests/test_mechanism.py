"""Claims N3 and N4, on records made up for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import changed, record, with_settings

from cbundles.report import evidence
from cbundles.report.claims import fc, mechanism
from cbundles.report.runs import Run
from cbundles.store import Store

FIRST_SEED = 300  # no smaller one is new, see claim N3
SIZES = ((10, 50), (10, 75), (25, 75), (25, 100))
EVERY_FORMAT = (
    ("float32", "precision"),
    ("float64", "precision"),
    ("float32", "float16"),
    ("float64", "bfloat16"),
)


def sweep(made):
    records = list(made)
    cells = [one.id for one in records]
    return Run(Store(Path("sweep")), {"name": "sweep", "cells": cells}, records)


def with_identity(made, **sections):
    made = with_settings(made, **sections)
    return changed(made, id=made.cell.id)


def formats(accuracy, *, sizes=SIZES, seeds=5, conflicting=True):
    """Networks in every format. accuracy: of a format, a size and a seed."""
    return sweep(
        with_identity(
            record(
                depth,
                width,
                FIRST_SEED + seed,
                first=3 if conflicting else None,
                accuracy=accuracy(number_format, (width, depth), seed),
            ),
            training={"precision": number_format[0], "storage": number_format[1]},
        )
        for width, depth in sizes
        for seed in range(seeds)
        for number_format in EVERY_FORMAT
    )


def judged_formats(run):
    pieces = mechanism.in_several_number_formats([run])
    assert len(pieces) == 1
    return mechanism.number_formats_end_alike(pieces[0])


def a_little_better_in_float64(number_format, size, seed):
    return 0.3 + 0.01 * seed + (0.005 if number_format[0] == "float64" else 0)


def test_precision_does_not_matter():
    found = judged_formats(formats(a_little_better_in_float64))
    assert found.reproduced and found.kind == ""
    assert "float64 - float32: +0.5 (0.5 to 0.5) points, mean of 20 pairs" in found.ours
    assert found.trial.text == "4 of 4 architectures"
    assert len(found.cells) == 80 and "80 networks, 5 seeds" in found.scale
    assert "precision" not in found.scale and "storage" not in found.scale
    by_size, without_chance, *others = found.details
    assert "10 x 75: +0.5 (0.5 to 0.5) from 32.0 %" in by_size
    assert without_chance.startswith("0 of 20 pairs end at 15 % or less in both")
    assert [text.partition(" - ")[0] for text in others] == [
        "float32, weights stored in float16",
        "float64, weights stored in bfloat16",
    ]
    assert "+0.0 " in others[0] and "+0.5 " in others[1]


def test_precision_matters():
    def better(number_format, size, seed):
        return 0.5 if number_format[0] == "float64" else 0.3

    found = judged_formats(formats(better))
    assert not found.reproduced and found.kind == "contradicted"


def test_an_interval_that_is_too_wide_is_no_agreement():
    def scattered(number_format, size, seed):
        return 0.3 + (0.1 * (seed - 2) if number_format[0] == "float64" else 0)

    found = judged_formats(formats(scattered))
    assert not found.reproduced and found.kind == "undecided"
    assert found.verdict == found.verdict_in_full == "undecided"
    assert found.trial.text == "0 of 4 architectures"
    assert "20 pairs cannot tell" in found.trial.leaves_open


def test_pairs_that_learn_nothing_are_counted():
    def dead_when_deep(number_format, size, seed):
        if size[1] == 100:
            return 0.1
        return a_little_better_in_float64(number_format, size, seed)

    found = judged_formats(formats(dead_when_deep))
    assert "5 of 20 pairs end at 15 % or less in both; without them: +0.5" in found.details[1]


@pytest.mark.parametrize(
    ("few", "word"), [({"sizes": SIZES[:3]}, "3 architectures"), ({"seeds": 4}, "4 seeds")]
)
def test_few_networks_are_no_test_of_precision(few, word):
    found = judged_formats(formats(a_little_better_in_float64, **few))
    assert not found.reproduced and found.kind == "not testable at this scale"
    assert word in found.trial.lacking


def test_only_what_conflicts_is_judged():
    assert judged_formats(formats(a_little_better_in_float64, conflicting=False)) is None
    usual = sweep([record(50, 10, FIRST_SEED + seed, first=3) for seed in range(5)])
    assert judged_formats(usual) is None


def test_other_number_formats_are_no_evidence_for_other_claims():
    run = formats(a_little_better_in_float64)
    (group,) = fc.fully_connected([run])
    assert len(group.records) == 20
    assert {r.cell.training.precision for r in group.records} == {"float32"}


def with_steps(made, **sections):
    """Of an epoch, without which a record does not say when it was measured."""
    return changed(with_identity(made, **sections), steps_per_epoch=10)


def fixed_shape(learns, entropy_of, *, settings=None):
    """24 networks of one shape. learns, entropy_of: of a gain, a block and a seed."""
    settings = settings or [
        (gain, block) for gain in (0.5, 1.0, 2.0, 3.0) for block in ("plain-relu", "residual1-tanh")
    ]
    return sweep(
        with_steps(
            record(
                5,
                30,
                FIRST_SEED + seed,
                entropy=[0.0] * 4 + [entropy_of(gain, block, seed)],
                accuracy=0.9 if learns(gain, block, seed) else 0.2,
            ),
            model={"gain": gain, "block": block},
        )
        for gain, block in settings
        for seed in range(3)
    )


def judged_shape(run):
    pieces = mechanism.of_fixed_shape([run])
    return [mechanism.entropy_tells_what_shape_does_not(piece) for piece in pieces]


def test_entropy_tells_what_shape_does_not():
    run = fixed_shape(
        lambda gain, block, seed: gain < 2, lambda gain, block, seed: 0.1 * gain if gain > 1 else 0
    )
    (found,) = judged_shape(run)
    assert found.reproduced and found.trial.text == "3 of 3 seeds"
    assert "1.000 (1.000 to 1.000), 95 % interval, n = 24, of which 12 do" in found.ours
    assert "24 networks, 3 seeds" in found.scale and "gain" not in found.scale
    beside, by_conflict = found.details
    # All have the same loss; the accuracy that was made up tells as much as H.
    assert "training loss 0.500 (0.500 to 0.500), +0.5" in beside
    assert "test accuracy 1.000 (1.000 to 1.000), +0 " in beside
    assert "headroom" not in beside  # not measured
    assert "0 of 12 with H^L > 0, 12 of 12 with H^L = 0" in by_conflict


def test_entropy_tells_nothing():
    run = fixed_shape(
        lambda gain, block, seed: gain < 2, lambda gain, block, seed: 0.1 if seed == 1 else 0.2
    )
    (found,) = judged_shape(run)
    assert not found.reproduced and found.kind == "contradicted"


def test_without_networks_that_fail_there_is_nothing_to_tell():
    run = fixed_shape(lambda gain, block, seed: True, lambda gain, block, seed: 0.1 * seed)
    (found,) = judged_shape(run)
    assert not found.reproduced and found.kind == "not testable at this scale"
    assert found.ours == "AUC not defined"


def test_headroom_stands_beside_where_it_was_measured():
    run = fixed_shape(lambda gain, block, seed: gain < 2, lambda gain, block, seed: 0.1 * gain)

    def with_headroom(made):
        after_epoch_1 = [*[1.0] * 4, made.cell.model.gain]
        return changed(made, history={"headroom": [None, after_epoch_1, None, None]})

    (found,) = judged_shape(sweep(map(with_headroom, run.sweeps)))
    assert "headroom 0.000 (0.000 to 0.000), +1" in found.details[0]


def test_ordinary_grids_are_not_of_fixed_shape():
    one_setting = [(gain, "plain-relu") for gain in (0.5, 0.6, 0.7, 1.0, 2.0, 3.0, 4.0)]
    alike = fixed_shape(
        lambda gain, block, seed: True, lambda gain, block, seed: 0.0, settings=one_setting
    )
    assert mechanism.of_fixed_shape([alike]) == []
    grid = sweep([record(d, w, s) for d in (5, 10) for w in (5, 10) for s in range(6)])
    assert mechanism.of_fixed_shape([grid]) == []
    assert len(evidence.collect([grid])) == 1
