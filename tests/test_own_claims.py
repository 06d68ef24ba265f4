"""Claims of our own: each judge on records made up for it, the words of verdicts, the figure."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from records import ORIGIN, changed, record
from scipy import stats

from cbundles.records import EarlyHistory, Layers, MeasuredRecord, SweepHistory
from cbundles.records.trained import PeerHistory
from cbundles.report import claims, claims_table, drawing, signal_figures, signals, statistics
from cbundles.report.claims import boundaries, plans
from cbundles.report.claims.finding import OF_A_QUESTION, Finding, trial_of
from cbundles.report.runs import Run
from cbundles.store import Store

STEPS = 156
WIDTHS, DEPTHS, SEEDS = (10, 25, 50), (5, 10, 25, 50, 75, 100), (100, 101, 102)


def network(width, depth, seed, *, entropy, final, accuracy, headroom):
    """A network of two epochs, measured after 50 and 150 steps, too. entropy: of its last layer, at
    every time; final: its accuracy at the end; accuracy: before that; headroom: after epoch 1."""
    made = record(depth, width, seed, epochs=2, steps="50,150", headroom="all", peers="on")
    last = [[0.0] * (depth - 1) + [entropy]]
    rate = [[0.0] * (depth - 1) + [entropy / 3]]
    numbers = [[2048] * depth]
    bits = [[headroom] * depth]
    history = SweepHistory(
        entropy=last * 3,
        conflict_rate=rate * 3,
        num_bundles=numbers * 3,
        test_accuracy=[0.1, accuracy, final],
        train_loss=[None, 1.0, 0.5],
        headroom=bits * 3,
        peers=PeerHistory(
            effective_rank=[2.0, None, 3.0], class_cosine=[0.9, None, 0.5], gradient_norm=[1.0] * 3
        ),
    )
    early = EarlyHistory(
        step=[50, 150],
        entropy=last * 2,
        conflict_rate=rate * 2,
        num_bundles=numbers * 2,
        test_accuracy=[0.1, accuracy],
        train_loss=[2.0, 1.5],
        peers=PeerHistory(
            effective_rank=[2.0, 3.0], class_cosine=[0.9, 0.8], gradient_norm=[1.0, 1.0]
        ),
    )
    return changed(
        made, history=history, first_epoch=early, steps_per_epoch=STEPS, seconds=[1.0] * 3
    )


def grid(*, seeds=SEEDS, entropy=None, accuracy=None, headroom=None):
    """Networks that end the worse, the deeper they are for their width, and conflict from a depth
    of twice their width on. Each of the three may be another function of that ratio and noise."""
    noise, made = np.random.default_rng(0), []
    for width in WIDTHS:
        for depth in DEPTHS:
            for seed in seeds:
                ratio = depth / width
                some = noise.normal(0, 0.01)
                healthy = ratio < 2
                entropies = {True: 0.0, False: min(2.0, ratio / 5)}
                made.append(
                    network(
                        width,
                        depth,
                        seed,
                        entropy=entropy(ratio, some) if entropy else entropies[healthy],
                        final=0.9 - 0.08 * ratio + some,
                        accuracy=accuracy(ratio, some) if accuracy else 0.2 + 5 * some,
                        headroom=headroom(ratio, some) if headroom else half_bits(9 - 4 * ratio),
                    )
                )
    return made


def half_bits(value):
    return max(-10.0, min(14.0, round(2 * value) / 2))


def run_of(records, measured=(), name="signals"):
    description = {"name": name, "cells": [made.id for made in records]}
    return Run(Store(Path(name)), description, records, measured=measured)


def finding(claim, *runs) -> Finding | None:
    (judged,) = [each for each in claims.judge_plans(runs) if each.id == claim]
    return judged.findings[0] if judged.findings else None


def test_nothing_is_decided_without_records_or_on_seeds_that_were_used():
    for runs in ([], [run_of(grid(seeds=(0, 1, 2)))], [run_of(grid(seeds=(100, 101, 22)))]):
        judged = claims.judge_plans(runs)
        assert [claim.id for claim in judged] == [f"N{number}" for number in range(1, 10)]
        assert {claim.verdict for claim in judged} == {"not run"}
    assert claims_table.counted_verdicts(judged) == "9 not run"


def test_n1_stopping():
    found = finding("N1", run_of(grid(entropy=lambda ratio, _: ratio / 5 if ratio >= 1 else 0.0)))
    assert found.verdict == "holds" and found.trial.text == "3 of 3 seeds"
    assert "loses 0 of" in found.ours and "% of the grid's FLOPs" in found.ours
    rules = [
        "stopping by depth > width",
        "stopping by accuracy <= 15 %",
        "as much saved by stopping the largest depth / width",
        "as much saved by stopping the lowest accuracy after epoch 1",
        "counted afterwards, within 3 points of the best of their width and seed: loses 0 of",
    ]
    for rule, detail in zip(rules, found.details, strict=True):
        assert detail.startswith(rule)
    backwards = finding("N1", run_of(grid(entropy=lambda ratio, _: 1.0 if ratio < 2 else 0.0)))
    assert backwards.verdict == "does not hold"
    silent = finding("N1", run_of(grid(entropy=lambda ratio, _: 0.0)))
    assert silent.verdict_in_full == "does not hold: not testable at this scale"


def test_n1_saves_what_records_say():
    made = grid()
    stopped = [one for one in made if one.history.entropy[1][-1] > 0]
    share = sum(one.flops for one in stopped) / sum(2 * one.flops for one in made)
    assert f"saves {100 * share:.1f} (" in finding("N1", run_of(made)).ours


def test_n2_entropy_before_accuracy():
    found = finding("N2", run_of(grid()))
    assert found.verdict == "holds" and found.ours.startswith("after 150 steps: H 0.9")
    assert any(text.startswith("after 50 steps") for text in found.details)
    # Two epochs have 312 steps: too far from 500.
    assert {"after 500 steps: not measured", "after 1,000 steps: not measured"} < {*found.details}
    assert "headroom not measured" in found.text  # within the first epoch
    better = finding("N2", run_of(grid(accuracy=lambda ratio, some: 0.9 - 0.08 * ratio + some)))
    assert better.verdict == "does not hold"
    older = [changed(made, steps_per_epoch=None) for made in grid()]
    assert finding("N2", run_of(older)) is None
    late = [changed(made, first_epoch=None, steps_per_epoch=937) for made in grid()]
    assert finding("N2", run_of(late)) is None
    nearby = [changed(made, first_epoch=None) for made in grid()]
    assert finding("N2", run_of(nearby)).ours.startswith("after 156 steps (epoch 1)")


def test_n7_headroom_of_healthy_networks():
    seeds = tuple(range(100, 106))  # of each 10 healthy networks
    found = finding("N7", run_of(grid(seeds=seeds)))
    assert found.verdict == "holds" and len(found.cells) == 60
    assert "depth / width" in found.text and "difference +" in found.ours
    useless = finding("N7", run_of(grid(seeds=seeds, headroom=lambda ratio, some: 3.0)))
    assert useless.verdict == "does not hold"
    level = finding(
        "N7",
        run_of(
            grid(
                seeds=seeds,
                accuracy=lambda ratio, some: max(0.0, 0.9 - 0.1 * ratio + 4 * some),
                headroom=lambda ratio, some: half_bits(9 - 4 * ratio + 160 * some),
            )
        ),
    )
    assert level.verdict_in_full == "undecided"
    assert "60 networks would have shown one of about" in level.why
    few = finding("N7", run_of(grid()))
    assert few.verdict_in_full == "does not hold: not testable at this scale"
    assert "there are 30" in few.why
    unmeasured = [changed(made, history={"headroom": None}) for made in grid()]
    assert finding("N7", run_of(unmeasured)) is None


def again(made, few, many):
    """A network measured again after the first epoch, with few and with many samples: its H and
    conflict rate then."""

    def layers(entropy, rate):
        before = [0.0] * (made.depth - 1)
        return Layers(
            entropy=[[*before, entropy]],
            conflict_rate=[[*before, rate]],
            num_bundles=[[100] * made.depth],
        )

    history = SweepHistory(
        entropy=made.history.entropy[1:2],
        conflict_rate=made.history.conflict_rate[1:2],
        num_bundles=made.history.num_bundles[1:2],
        test_accuracy=[0.5],
        train_loss=[None],
    )
    return MeasuredRecord(
        id=made.id,
        origin=ORIGIN,
        config=made.config,
        readings="none",
        kept_after=["1"],
        epochs_trained=[1],
        networks={"1": "made up"},
        largest_entropy=math.log(10),
        history=history,
        by_samples={"512": layers(*few), "8192": layers(*many)},
    )


def probed(seeds, of_entropy, of_rate):
    made = grid(seeds=seeds)
    last = [(one.history.entropy[1][-1], one.history.conflict_rate[1][-1]) for one in made]
    measured = [
        again(one, (h * of_entropy, c * of_rate), (max(h, 0.001 * (one.depth == 10)), c))
        for one, (h, c) in zip(made, last, strict=True)
    ]
    return run_of(made, measured)


def test_n8_the_rate_is_independent_of_the_probe_set():
    seeds = tuple(range(100, 107))
    found = finding("N8", probed(seeds, 0.6, 0.97))
    assert found.verdict == "holds" and "conflict rate 0.97" in found.ours
    assert "H 0.6" in found.ours and "by the rate 0 of 126" in found.ours
    assert finding("N8", probed(seeds, 0.6, 0.7)).verdict == "does not hold"
    assert finding("N8", probed(seeds, 0.9, 0.97)).verdict == "does not hold"
    few = finding("N8", probed(SEEDS, 0.6, 0.97))
    assert "not testable" in few.verdict_in_full and "24 of 54 conflict" in few.why
    assert finding("N8", run_of(grid())) is None


def test_a_question_has_no_verdict_but_measured():
    asked = Finding(
        "s", "20 of 59", False, ("r",), ("c",), trial_of([], "seed"), words=OF_A_QUESTION
    )
    assert (asked.verdict, asked.kind, asked.verdict_in_full) == ("measured", "", "measured")
    (plan,) = [plan for plan in plans.written() if plan.id == "N6"]
    claim = claims.Claim("N6", plan.claim, plans.PAPER, plan.criterion, (asked,), plan.known)
    assert claims_table.counted_verdicts([claim]) == "1 measured"
    assert claim.background == "Known before: none"


def test_the_report_has_a_section_of_them(tmp_path):
    judged = claims.judge_plans([run_of(grid())])
    claims_table.write_claims(claims.judge([]), judged, tmp_path)
    _, section = (tmp_path / "claims.md").read_text().split(f"## {claims_table.PLANS_TITLE}")
    assert "| N2 | H is an earlier signal than accuracy |" in section
    assert "| holds |" in section and "**N2**, signals (" in section
    assert "Known before: one pilot" in section
    assert "\nN9," in (tmp_path / "claims.csv").read_text()


@pytest.mark.parametrize("networks", [20, 60])
def test_intervals_are_those_of_plain_resampling(networks):
    chance = np.random.default_rng(1)
    x, z = chance.normal(size=(2, networks))
    y = x + chance.normal(size=networks)
    labels = (y > 0).tolist()
    draws = np.random.default_rng(0).integers(0, networks, (statistics.RESAMPLES, networks))

    def rank(a, d):
        return stats.spearmanr(a[d], y[d]).statistic

    found = statistics.spearman_difference(x, z, y)
    plain = np.percentile([rank(x, d) - rank(z, d) for d in draws], [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx(tuple(plain))
    assert found.mean == pytest.approx(rank(x, slice(None)) - rank(z, slice(None)))
    weights = np.abs(z)
    found = statistics.ratio_estimate((weights * labels).tolist(), weights.tolist())
    plain = [(weights * labels)[d].sum() / weights[d].sum() for d in draws]
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(plain, [2.5, 97.5])))
    guess, other = (x > 0).tolist(), (z > 0).tolist()
    found = statistics.balanced_accuracy_difference(guess, other, labels)
    plain = [
        statistics.balanced_accuracy(*(np.array(part)[d].tolist() for part in (guess, labels)))
        - statistics.balanced_accuracy(*(np.array(part)[d].tolist() for part in (other, labels)))
        for d in draws
    ]
    assert (found.low, found.high) == pytest.approx(tuple(np.nanpercentile(plain, [2.5, 97.5])))
    found = statistics.median_estimate([1.0, math.inf, 0.5])
    assert (found.mean, found.low, found.high) == (1.0, 0.5, math.inf)
    alike = statistics.spearman_difference([1.0] * networks, z, y)
    assert math.isnan(alike.mean) and math.isnan(alike.low)


def test_the_boundary_is_useful_where_it_beats_what_is_free():
    made = grid()
    conflicts = [one.history.entropy[1][-1] > 0 for one in made]
    *rivals, useful = boundaries.beside_what_is_free(made, conflicts)
    assert [text.split(": ")[1] for text in rivals] == [
        "a boundary of H > 0.02", "depth", "depth / width",
    ]  # fmt: skip
    assert "depth / width: balanced accuracy 1.000, threshold chosen afterwards" in rivals[2]
    assert useful.endswith("by balanced accuracy no, by AUC no")
    assert "chosen afterwards (from other seeds: 1.000)" in rivals[2]
    alone = boundaries.beside_what_is_free(made[::3], conflicts[::3])
    assert "other seeds" not in alone[2]


def test_a_threshold_from_other_seeds_does_not_see_the_networks_it_judges():
    scores, seeds = [1, 2, 3, 1, 2, 3], [0, 0, 0, 1, 1, 1]
    conflicts = [False, False, True, False, True, True]  # from 3 on, and from 2 on
    found = boundaries._predicted_by_score("score", scores, conflicts, seeds)
    assert found.conflicts == [False, True, True, False, True, True]
    assert found.remark.endswith("(from other seeds: 0.667)")


def test_places_and_signals():
    made = grid()
    known = signals.places_measured(made)
    assert [place.steps for place in known] == [0, 50, 150, 156, 312]
    assert [place.text for place in known[2:4]] == ["150 steps", "156 steps (epoch 1)"]
    assert signals.LOSS.values(made, known[0]) is None
    assert signals.HEADROOM.values(made, known[1]) is None
    assert set(signals.RANK.values(made, known[3])) == {0.0}  # a layer that is 0 for every sample
    assert set(signals.COSINE.values(made, known[3])) == {-1.0}
    assert signals.places_measured([changed(made[0], steps_per_epoch=7), *made[1:]]) == []


def test_the_figure_tells_what_predicts_and_when():
    made = grid()
    (picture,) = signal_figures.early_signals(made, "made up")
    figure = drawing.drawn(picture)
    assert "after 50 steps, H goes most with the final accuracy (Spearman 0.91)" in picture.title
    assert "depth / width, which costs nothing, more (0.99)" in picture.title
    assert "n = 54, seeds 100, 101, 102" in picture.small_print
    left, right = figure.axes
    drawn = {line.get_label() for line in left.lines}
    assert {"H", "test accuracy", "depth (free)", "depth / width (free)"} <= drawn
    assert "training loss" not in drawn  # it is the same for all, and so ranks none
    assert [label.get_text() for label in right.get_xticklabels()] == [
        "untrained", "50", "150", "epoch 1", "epoch 2",
    ]  # fmt: skip
    (row,) = [
        row for row in picture.rows
        if (row["quantity"], row["signal"], row["steps"]) == ("spearman", "headroom", 156)
    ]  # fmt: skip
    final = [one.history.test_accuracy[-1] for one in made]
    bits = [one.history.headroom[1][-1] for one in made]
    assert row["value"] == pytest.approx(stats.spearmanr(bits, final).statistic, rel=1e-5)
    assert signal_figures.early_signals(made[:18], "") == []
    older = [changed(one, steps_per_epoch=None) for one in made]
    assert signal_figures.early_signals(older, "") == []
