"""Claims: the criteria as they were fixed, and each judge on records made up for it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml
from records import changed, lesion_record, record, toy_record, with_settings
from scipy import stats

from cbundles.report import claims, evidence, statistics
from cbundles.report.claims.resolution import RESOLUTIONS
from cbundles.report.claims_table import claims_table
from cbundles.report.runs import Run
from cbundles.store import Store

LN10 = math.log(10)


def sweep(*records, name="sweep", cells=None):
    cells = cells or [made.id for made in records]
    return Run(Store(Path(name)), {"name": name, "cells": cells}, list(records))


def verdicts(claim, *runs):
    (found,) = [c for c in claims.judge(runs) if c.id == claim]
    return [finding.reproduced for finding in found.findings]


def test_criteria_are_those_that_were_fixed_beforehand(shared):
    text = (shared / "CLAIMS.md").read_text()
    fixed = dict(re.findall(r"^\| (C\d+) \| (.*) \|$", text, re.MULTILINE))
    ours = {e["id"]: e["criterion"] for e in yaml.safe_load(claims.CRITERIA.read_text())}
    assert ours == fixed and len(ours) == 20


def test_nothing_is_judged_without_records():
    judged = claims.judge([])
    assert len(judged) == 20
    assert all(claim.verdicts == ["not run"] for claim in judged)
    assert all(row["ours"] == "" for row in claims_table(judged).rows)


TOY = {
    "separate": {"bundles": 17},
    "conflicting": {},
    "conflicting-imbalanced": {"share": 0.66},
    "plain": {"lag": 0.1},
    "standardised": {"lag": 0.0},
}


@pytest.mark.parametrize(
    ("claim", "case", "good", "bad"),
    [
        ("C1", "separate", {"bundles": 17}, {"bundles": 1}),
        ("C1", "separate", {"bundles": 17}, {"bundles": 17, "accuracy": 0.98}),
        ("C2", "conflicting", {}, {"bundles": 2}),
        ("C2", "conflicting", {}, {"deviation": 0.03}),
        ("C3", "conflicting-imbalanced", {"share": 0.66}, {"deviation": 0.03}),
        ("C4", "conflicting", {"norm": 4.9}, {"norm": 5.1}),
        ("C4", "conflicting-imbalanced", {"norm": 0.21}, {"norm": 0.19}),
        ("C5", "conflicting", {"lag": 0.91}, {"lag": 0.89}),
        ("C5", "plain", {"lag": 0.3}, {"lag": 0.31}),
        ("C5", "standardised", {"lag": 0.9}, None),
    ],
)
def test_toy(claim, case, good, bad):
    def run(**changed):
        settings = {**TOY, case: changed}
        return sweep(*(toy_record(name, seed, **kept) for name, kept in settings.items()
                       for seed in range(5)))  # fmt: skip

    assert verdicts(claim, run(**good)) == [True]
    if bad is not None:
        assert verdicts(claim, run(**bad)) == [False]


def _stopped_after_epoch_1(made):
    """Although it was to be trained for longer."""
    history = {
        name: values[:2]
        for name, values in msgspec.structs.asdict(made.history).items()
        if isinstance(values, list)
    }
    return changed(made, history=history, seconds=made.seconds[:2])


def test_unfinished_runs_are_not_judged():
    assert (
        verdicts("C1", sweep(toy_record("separate", 0), cells=["separate-0", "separate-1"])) == []
    )
    assert verdicts("C11", sweep(*grid(), cells=["a"] * 25)) == []
    stopped = [_stopped_after_epoch_1(made) for made in vgg(100, 1.0, 0.5)]
    assert verdicts("C13", sweep(*stopped)) == []


def test_diverged_networks_are_left_out_and_counted():
    dead = record(150, 10, 3, entropy=[None] * 150)
    (finding,) = next(
        c for c in claims.judge([sweep(*(record(150, 10, s, entropy=[LN10] * 150, accuracy=0.1)
                                         for s in range(3)), dead)]) if c.id == "C8"
    ).findings  # fmt: skip
    assert finding.reproduced and "left out: 1 network that diverged" in finding.ours
    assert len(finding.cells) == 3 and "3 networks, 3 seeds" in finding.scale


def test_every_seed_counts_in_a_mean_over_seeds():
    some = [record(30, 8, s, family="vgg", accuracy=0.9, entropy=[0.0] * 29 + [h])
            for s, h in enumerate([0.0, 1.0, 1.0])]  # fmt: skip
    others = [r for r in family().records if r.depth != 30]
    assert verdicts("C12", sweep(*others, *some)) == [False]


def column(width, first, depth=150):
    """Three seeds whose entropy rises from the first conflicting layer on."""
    entropy = [max(0.0, 0.01 * (layer - first + 1)) for layer in range(1, depth + 1)]
    return [record(depth, width, s, entropy=entropy) for s in range(3)]


def test_c6_narrower_networks_conflict_earlier():
    grid = [*column(10, 5), *column(25, 20)]
    assert verdicts("C6", sweep(*grid, *column(50, 60))) == [True]
    assert verdicts("C6", sweep(*grid, *(record(150, 50, s) for s in range(3)))) == [True]
    assert verdicts("C6", sweep(*grid, *column(50, 20))) == [False]
    falling = [record(150, 50, s, entropy=[0.0] * 60 + [1 - i / 100 for i in range(90)])
               for s in range(3)]  # fmt: skip
    assert verdicts("C6", sweep(*grid, *falling)) == [False]
    assert verdicts("C6", sweep(*grid)) == []


@pytest.mark.parametrize(
    ("short", "long", "expected"),
    [(19, 22, True), (12, 22, False), (None, 20, False), (20, None, False), (None, None, False)],
)
def test_c7_first_layer_by_depth(short, long, expected):
    grid = [record(25, 25, s, first=short) for s in range(5)]
    grid += [record(150, 25, s, first=long) for s in range(5)]
    assert verdicts("C7", sweep(*grid)) == [expected]


def test_c8_fully_conflicting():
    def grid(h, accuracy):
        return [record(150, 10, s, entropy=[h] * 150, accuracy=accuracy) for s in range(3)]

    assert verdicts("C8", sweep(*grid(0.99 * LN10, 0.11))) == [True]
    assert verdicts("C8", sweep(*grid(0.97 * LN10, 0.11))) == [False]
    assert verdicts("C8", sweep(*grid(0.99 * LN10, 0.3))) == [False]


def course(seed, values):
    """A network of 30 layers with these H^L after its epochs."""
    made = record(30, 20, seed, epochs=len(values))
    for epoch, value in enumerate(values, start=1):
        made.history.entropy[epoch] = [0.0] * 29 + [value]
    return made


def test_c9_slowly_resolved():
    slow = [1.0, 0.8, 0.6, 0.5, 0.4, 0.0]
    fast = [1.0, 0.5, 0.1, 0.0, 0.0, 0.0]
    rising = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert verdicts("C9", sweep(*(course(s, slow) for s in range(3)))) == [True]
    assert verdicts("C9", sweep(*(course(s, fast) for s in range(3)))) == [False]
    assert verdicts("C9", sweep(*(course(s, rising) for s in range(3)))) == [False]


def grid(conflicts=lambda d, w: d >= 3 * w, accuracy=lambda d, w: 0.9 - 0.004 * max(0, d - 3 * w)):
    """8 depths x 3 widths x 20 epochs; conflicts begin at layer 3 x width."""
    return [
        record(d, w, epochs=20, accuracy=accuracy(d, w),
               first=min(3 * w, d) if conflicts(d, w) else None)
        for w in (5, 10, 20) for d in (5, 10, 20, 30, 45, 60, 80, 100)
    ]  # fmt: skip


def test_c10_the_boundary_separates():
    assert verdicts("C10", sweep(*grid())) == [True]
    assert verdicts("C10", sweep(*grid(accuracy=lambda d, w: 0.5 + 0.004 * d))) == [False]
    assert verdicts("C10", sweep(*grid(conflicts=lambda d, w: d == 100 or d < 3 * w))) == [False]
    assert verdicts("C10", sweep(*grid()[:9])) == []


def test_c11_correlation():
    assert verdicts("C11", sweep(*grid())) == [True]
    assert verdicts("C11", sweep(*grid(accuracy=lambda d, w: 0.5 + 0.004 * d))) == [False]


def test_c20_what_would_be_stopped_is_never_among_the_best():
    def with_dead(accuracy):
        dead = record(100, 4, epochs=20, entropy=[0.0] + [LN10] * 99, accuracy=accuracy)
        return sweep(*grid(), dead)

    assert verdicts("C20", with_dead(0.1)) == [True]
    assert verdicts("C20", with_dead(0.88)) == [False]
    assert verdicts("C20", sweep(*grid())) == []


def vgg(depth, entropy, accuracy, *, family="vgg", initial=0.0):
    return [record(depth, 8, s, family=family, accuracy=accuracy, initial=initial,
                   entropy=[0.0] * (depth - 1) + [entropy]) for s in range(3)]  # fmt: skip


def family(**changed):
    depths = {4: (0.0, 0.6), 10: (0.0, 0.8), 30: (0.0, 0.9), 50: (0.5, 0.6), 100: (1.5, 0.3),
              120: (2.29, 0.1)}  # fmt: skip
    depths |= {int(name[1:]): value for name, value in changed.items()}
    return sweep(*(r for d, (h, a) in depths.items() for r in vgg(d, h, a)))


def test_c12_vgg_by_depth():
    assert verdicts("C12", family()) == [True]
    for wrong in ({"d50": (0.5, 0.95)}, {"d30": (0.1, 0.9)}, {"d100": (0.4, 0.3)},
                  {"d120": (2.0, 0.1)}, {"d120": (2.29, 0.2)}, {"d4": (0.0, 0.95)}):  # fmt: skip
        assert verdicts("C12", family(**wrong)) == [False], wrong


def test_c13_conflicts_appear_during_training():
    assert verdicts("C13", sweep(*vgg(100, 1.0, 0.5))) == [True]
    assert verdicts("C13", sweep(*vgg(100, 0.0, 0.5))) == [False]
    assert verdicts("C13", sweep(*vgg(100, 1.0, 0.5, initial=0.2))) == [False]


def test_c14_resnets():
    def nets(entropy=0.0, deep=0.89):
        shallow = [*vgg(10, 0.0, 0.9, family="resnet"), *vgg(50, 0.0, 0.9, family="resnet")]
        return sweep(*shallow, *vgg(120, entropy, deep, family="resnet"))

    assert verdicts("C14", nets()) == [True]
    assert verdicts("C14", nets(entropy=0.1)) == [False]
    assert verdicts("C14", nets(deep=0.8)) == [False]
    dead = [record(50, 8, s, family="resnet", entropy=[None] * 50) for s in range(3, 6)]
    assert verdicts("C14", sweep(*nets().records, *dead)) == [False]  # a depth that diverges fails


PAPER = "3,12,41,3"


def test_c16_restarts():
    def tuning(*lengths, epoch=1, **changed):
        chains = []
        for seed, length in enumerate(lengths):
            chain = [record(120 - i, 8, seed, family="vgg", epochs=epoch, blocks=PAPER,
                            accuracy_epochs=5)
                     for i in range(length)]  # fmt: skip
            chains.append([*chain, record(28, 8, seed, family="vgg", epochs=20)])
        return tuned(chains, **changed)

    def tuned(chains, **changed):
        cells = [[made.id for made in chain] for chain in chains]
        records = [made for chain in chains for made in chain]
        ends = [chain[-1] for chain in cells]
        description = {"name": "autotune", "rule": "stage", "attempts": cells, "tuned": ends}
        return Run(Store(Path("autotune")), {**description, **changed}, records)

    assert verdicts("C16", tuning(3, 2, 2)) == [True]
    assert verdicts("C16", tuning(4, 2, 2)) == [False]
    assert verdicts("C16", tuning(1, 1, 1, epoch=2)) == [False]
    assert verdicts("C16", tuning(1, 1)) == []
    assert verdicts("C16", tuning(3, 2, 2, rule="conflicting")) == []
    assert verdicts("C16", tuning(3, 2, 2, tuned=[])) == []
    small = [[record(10, 8, seed, family="vgg", epochs=20)] for seed in range(3)]
    assert verdicts("C16", tuned(small)) == []


def test_c19_coarser_formats():
    def networks(bundles):
        return sweep(
            *(record(5, 10, s, resolution=name, bundles=count)
              for s in range(3) for name, count in zip(RESOLUTIONS, bundles, strict=True))
        )  # fmt: skip

    assert verdicts("C19", networks((2048, 90, 12, 1))) == [True]
    assert verdicts("C19", networks((2048, 90, 120, 1))) == [False]
    assert verdicts("C19", networks((1, 1, 1, 1))) == [False]


def test_c15_rows_of_table_1_need_the_papers_size():
    def full(family, depth, accuracy, seconds):
        blocks = {120: PAPER, 76: "3,6,25,3"}.get(depth, "1,1,1,1")
        made = record(depth, 64, family=family, accuracy=accuracy, epochs=120, blocks=blocks)
        made = with_settings(made, data={"name": "cifar10"}, training={"accuracy_epochs": 5})
        return changed(made, bytes=178_000_000, latency_seconds=seconds)

    def run(resnet, tuned):
        cells = {"baseline": [resnet.id], "tuned": [tuned.id]}
        start = full("vgg", 120, 0.1, 1.0)
        description = {"rule": "stage", "attempts": [[start.id, tuned.id]], **cells}
        return Run(Store(Path("autotune")), description, [resnet, start, tuned])

    resnet = full("resnet", 76, 0.87, 0.130)
    # The mean over the last five epochs is 118 / 120 of the last one.
    assert verdicts("C15", run(resnet, full("vgg", 20, 0.867, 0.048))) == [True, True]
    assert verdicts("C15", run(resnet, full("vgg", 28, 0.867, 0.048))) == [True, False]
    assert verdicts("C15", run(resnet, full("vgg", 20, 0.82, 0.048))) == [True, False]
    assert verdicts("C15", run(resnet, full("vgg", 20, 0.867, 0.1))) == [True, False]
    small = record(20, 8, family="vgg", epochs=120)
    assert verdicts("C15", run(changed(resnet, bytes=150_000_000), small)) == [False]
    other = full("resnet", 50, 0.87, 0.130)
    assert verdicts("C15", run(other, small)) == []


def test_the_name_of_a_run_may_hold_spaces():
    judged = claims.judge([sweep(*grid(), name="my second run")])
    (row,) = [row for row in claims_table(judged).rows if row["id"] == "C11"]
    assert row["runs"] == "my second run"


def test_other_readings_of_the_metric_are_no_evidence():
    assert evidence.collect([sweep(record(5, 10, equality="gamma"))]) == []
    assert evidence.collect([sweep(record(5, 10, resolution="bfloat16"))]) == []
    assert len(evidence.collect([sweep(record(5, 10), record(5, 10, samples=512))])) == 2


def test_what_is_not_defined_has_no_interval():
    alike = [True, True, True]
    for found in (
        statistics.area_estimate([1, 2, 3], alike),
        statistics.area_difference([1, 2, 3], [3, 2, 1], alike),
        statistics.balanced_accuracy_difference(alike, [True, False, True], alike),
        statistics.spearman_estimate([1, 1, 1], [1, 2, 3]),
        statistics.spearman_difference([1, 1, 1], [1, 2, 3], [1, 3, 2]),
    ):
        assert math.isnan(found.mean) and math.isnan(found.low) and math.isnan(found.high)


def test_statistics():
    assert statistics.balanced_accuracy([True, False, True], [True, False, False]) == 0.75
    assert statistics.area_under_curve([3, 2, 1], [True, True, False]) == 1.0
    assert statistics.area_under_curve([1, 1], [True, False]) == 0.5
    assert math.isnan(statistics.area_under_curve([1, 1], [True, True]))
    assert math.isnan(statistics.balanced_accuracy([True], [True]))
    x = list(range(50))
    opposite = statistics.spearman_estimate(x, [-v for v in x])
    assert (opposite.low, opposite.high) == pytest.approx((-1, -1))
    noisy = [v + w for v, w in zip(x, np.random.default_rng(1).normal(0, 20, 50), strict=True)]
    found = statistics.spearman_estimate(x, noisy)
    low, high = found.low, found.high
    assert low < statistics.spearman(x, noisy) < high
    resampled = stats.bootstrap((x, noisy), statistics.spearman, paired=True, vectorized=False,
                                n_resamples=2000, method="percentile", rng=0)  # fmt: skip
    assert (low, high) == pytest.approx(resampled.confidence_interval, abs=0.02)


def studied(*studies, unfinished=0, accuracy=1860):
    cells = [study.id for study in studies]
    like = record(120, 8, family="resnet")
    trained = [changed(like, id=s.id, config=s.config) for s in studies]
    studies = [changed(study, correct=accuracy) for study in studies]
    description = {"name": "study", "cells": cells + ["x"] * unfinished}
    return Run(Store(Path("study")), description, trained, list(studies))


@pytest.mark.parametrize(
    ("studies", "reproduced"),
    [
        ([{"conflicting": range(20, 59)}] * 3, [True]),
        ([{"conflicting": range(20, 59)}] * 2 + [{"conflicting": range(40, 59)}], [True]),
        ([{"conflicting": range(20, 59)}] * 2, []),  # two seeds are too few
        ([{"conflicting": range(20, 59), "depth": 100}] * 3, []),
        ([{"conflicting": ()}] * 3, [False]),
        ([{"conflicting": range(40, 59)}] * 3, [False]),  # fewer than half conflict
        ([{"conflicting": range(20, 59), "harmless": ()}] * 3, [False]),  # half cannot go
        # half can go in two of three, but what does not conflict costs even less
        ([{"conflicting": range(29, 59), "harmless": range(59), "rise": 0}] * 3, [False]),
        ([{"conflicting": range(59)}] * 3, [False]),  # nothing to compare with
    ],
)
def test_c17(studies, reproduced):
    made = [lesion_record(seed, **study) for seed, study in enumerate(studies)]
    assert verdicts("C17", studied(*made)) == reproduced


def test_c17_says_what_it_found():
    made = [lesion_record(seed, conflicting=()) for seed in range(3)]
    (found,) = next(c for c in claims.judge([studied(*made)]) if c.id == "C17").findings
    assert "conflicting blocks: 0, 0 and 0 of 59" in found.ours
    assert "k = 5: 0 seeds have two groups" in found.ours
    assert "0, 0 and 0 blocks can go each alone" in found.text and found.runs == ("study",)


def test_c17_is_judged_on_whole_runs_of_sound_networks_that_are_alike():
    good = [lesion_record(seed, conflicting=range(20, 59)) for seed in range(3)]
    assert verdicts("C17", studied(*good)) == [True]
    assert verdicts("C17", studied(*good, unfinished=1)) == []
    assert verdicts("C17", studied(*good, accuracy=250)) == []  # they have learned nothing
    for section, name, value in (("probe", "samples", 100), ("training", "learning_rate", 0.1),
                                 ("model", "base_filters", 16)):  # fmt: skip
        other = lesion_record(0, conflicting=range(20, 59))
        other = with_settings(other, **{section: {name: value}})
        assert verdicts("C17", studied(other, *good[1:])) == []
    diverged = lesion_record(3, conflicting=range(20, 59))
    diverged.blocks.entropy[30] = None
    assert verdicts("C17", studied(diverged, *good[1:])) == []
    (found,) = next(c for c in claims.judge([studied(diverged, *good)]) if c.id == "C17").findings
    assert (
        "left out: 1 network that diverged or did not learn" in found.ours and len(found.cells) == 3
    )
    sparse = [lesion_record(seed, conflicting=range(20, 59), every=7) for seed in range(3)]
    assert verdicts("C17", studied(*sparse)) == [True]
