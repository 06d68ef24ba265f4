"""Which kind of "not reproduced" a finding is, and what stands beside claims: made-up records."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from records import changed, growth_record, lesion_record, record, toy_record, with_settings
from test_claims import LN10, course, family, grid, studied, sweep, vgg

from cbundles.decisions import paired
from cbundles.report import claims, claims_table, statistics, summary
from cbundles.report.claims import shortfall
from cbundles.report.claims.finding import (
    CONTRADICTED,
    NOT_TESTABLE,
    UNSTABLE,
    Finding,
    trial_of,
)
from cbundles.report.claims.resolution import RESOLUTIONS
from cbundles.report.runs import Run
from cbundles.store import Store


def finding(claim, *runs) -> Finding:
    (judged,) = [each for each in claims.judge(runs) if each.id == claim]
    (found,) = judged.findings
    return found


def with_rates(made, rate):
    """The same network, with this conflict rate in the layers that conflict."""
    rates = [[rate if h else 0.0 for h in layers] for layers in made.history.entropy]
    return changed(made, history={"conflict_rate": rates})


@pytest.mark.parametrize(
    ("held", "lacking", "kind"),
    [
        ([False] * 3, "", CONTRADICTED),
        ([False] * 5 + [True], "", CONTRADICTED),  # one of six is less than a fifth
        ([False] * 4 + [True], "", UNSTABLE),
        ([True, True, False], "", UNSTABLE),
        ([True, True, False], "nothing conflicts", NOT_TESTABLE),
        ([], "", NOT_TESTABLE),  # no part has what the criterion compares
    ],
)
def test_rules(held, lacking, kind):
    assert trial_of(held, "seed", lacking).kind == kind


def test_every_claim_has_a_rule_and_only_claims_do():
    criteria = yaml.safe_load(claims.CRITERIA.read_text())
    assert list(shortfall.needs()) == [entry["id"] for entry in criteria]
    assert all(rule["needs"] and rule["part"] for rule in shortfall.needs().values())


def toys(**lags):
    """Five seeds of each case, with these autocorrelations."""
    cases = {"separate": {"bundles": 17}, "conflicting": {}, "conflicting-imbalanced": {},
             "plain": {"lag": 0.1}, "standardised": {"lag": 0.0}}  # fmt: skip
    made = []
    for case, kept in cases.items():
        for seed in range(5):
            lag = lags.get(case, [kept.get("lag", 0.99)] * 5)[seed]
            made.append(toy_record(case, seed, **{**kept, "lag": lag}))
    return sweep(*made)


def test_kinds_of_the_toy():
    assert finding("C5", toys(plain=[0.9] * 5)).kind == NOT_TESTABLE
    assert finding("C5", toys(conflicting=[0.5] * 5)).kind == CONTRADICTED
    assert finding("C5", toys(conflicting=[0.5] * 3 + [0.99] * 2)).kind == UNSTABLE
    assert finding("C5", toys()).kind == ""


def layers_at(shorts, longs):
    """First conflicting layers at L = 25 and L = 150, by seed."""
    made = [record(25, 25, seed, first=first) for seed, first in enumerate(shorts)]
    return sweep(*made, *(record(150, 25, seed, first=first) for seed, first in enumerate(longs)))


@pytest.mark.parametrize(
    ("shorts", "longs", "kind"),
    [
        ([None] * 5, [20] * 5, CONTRADICTED),
        ([22, 22, None, None, None], [22] * 5, UNSTABLE),
        ([None] * 5, [None] * 5, NOT_TESTABLE),
        ([None] * 5, [30] * 5, NOT_TESTABLE),  # a network of 25 layers has no layer 30
        ([20] * 5, [None] * 5, CONTRADICTED),
    ],
)
def test_kinds_of_c7(shorts, longs, kind):
    found = finding("C7", layers_at(shorts, longs))
    assert found.verdict == "not reproduced" and found.kind == kind
    assert found.why.startswith(kind) and found.text.endswith(found.why)


def rising_from(first, width, seed):
    """150 layers, whose entropy rises from the first conflicting one on."""
    entropy = [max(0.0, 0.01 * (layer - (first or 999) + 1)) for layer in range(1, 151)]
    return record(150, width, seed, entropy=entropy)


def test_kinds_of_c6():
    def networks(*columns):
        return sweep(*(rising_from(first, width, seed)
                       for width, firsts in zip((10, 25, 50), columns, strict=True)
                       for seed, first in enumerate(firsts)))  # fmt: skip

    assert finding("C6", networks([None] * 3, [None] * 3, [None] * 3)).kind == NOT_TESTABLE
    assert finding("C6", networks([60] * 3, [40] * 3, [20] * 3)).kind == CONTRADICTED
    assert finding("C6", networks([30] * 3, [50] * 3, [70, 40, 40])).kind == UNSTABLE


def test_kinds_of_c9():
    slow, fast = [1.0, 0.8, 0.6, 0.5, 0.4, 0.0], [1.0, 0.5, 0.1, 0.0, 0.0, 0.0]
    assert finding("C9", sweep(*(course(seed, fast) for seed in range(3)))).kind == CONTRADICTED
    mixed = sweep(*(course(seed, fast) for seed in range(3)), course(3, slow))
    assert finding("C9", mixed).kind == UNSTABLE
    assert finding("C9", mixed).verdict_in_full.endswith("unstable, holds for 1 of 4 networks")


def test_kinds_of_grids():
    backwards = grid(conflicts=lambda d, w: d == 100 or d < 3 * w)
    assert finding("C10", sweep(*backwards)).kind == CONTRADICTED
    one_bad_width = grid(conflicts=lambda d, w: d >= 3 * w if w < 20 else d == 100 or d < 60)
    found = finding("C10", sweep(*one_bad_width))
    assert found.kind == UNSTABLE and found.trial.noun == "width"
    without = grid(conflicts=lambda d, w: False)
    assert finding("C10", sweep(*without)).kind == NOT_TESTABLE
    assert finding("C11", sweep(*without)).kind == NOT_TESTABLE
    rising = grid(accuracy=lambda d, w: 0.5 + 0.004 * d)
    assert finding("C11", sweep(*rising)).kind == CONTRADICTED


def test_parts_of_a_grid_with_several_seeds_are_its_seeds():
    made = [changed(one, config={**one.config, "training": {**one.config["training"], "seed": s}},
                    id=f"{one.id}-{s}") for s in range(3) for one in grid()]  # fmt: skip
    assert finding("C10", sweep(*made)).trial.text == "3 of 3 seeds"


def test_kinds_of_vggs():
    assert finding("C12", family(d4=(0.0, 0.95))).kind == CONTRADICTED
    untrained = {f"d{depth}": (0.0, 0.1 + depth / 10000) for depth in (4, 10, 30, 50, 100, 120)}
    found = finding("C12", family(**untrained))
    assert found.kind == NOT_TESTABLE and "the best depth is at 11.2 %" in found.why
    others = [made for made in family().records if made.depth != 120]
    deepest = [record(120, 8, seed, family="vgg", accuracy=accuracy, entropy=[0.0] * 119 + [2.29])
               for seed, accuracy in enumerate((0.1, 0.1, 0.4))]  # fmt: skip
    assert finding("C12", sweep(*others, *deepest)).trial.text == "2 of 3 seeds"
    assert finding("C13", sweep(*vgg(100, 0.0, 0.5))).kind == CONTRADICTED


def test_vggs_at_chance_without_conflict_are_named():
    text = finding("C12", family(d50=(0.001, 0.1))).text
    assert "every depth that is at chance" in text
    judged = family(d30=(0.0, 0.1))
    again = [changed(made, id=f"{made.id}-again") for made in judged.records if made.depth == 30]
    text = finding("C12", judged, sweep(*again, name="again")).text
    assert text.count("although H^L = 0 then in most networks: 30 layers (10.0 %") == 2
    assert "in again: at chance" in text


def resnets(last, deepest=None, entropy=0.0):
    """Three depths whose accuracy rises to 90 % by so much in the last epoch."""
    made = []
    for depth in (10, 50, 120):
        for one in vgg(depth, entropy, 0.9, family="resnet"):
            end = deepest if deepest is not None and depth == 120 else 0.9
            course_of_one = [0.1, end - last, end - last, end]
            made.append(changed(one, history={"test_accuracy": course_of_one}))
    return sweep(*made)


def test_kinds_of_resnets():
    assert finding("C14", resnets(0.1)).kind == ""
    assert finding("C14", resnets(0.1, deepest=0.7)).kind == NOT_TESTABLE
    assert finding("C14", resnets(0.01, deepest=0.7)).kind == CONTRADICTED
    assert finding("C14", resnets(0.1, entropy=0.2)).kind == CONTRADICTED


def tuning(*lengths, rates=None):
    """An auto-tuning whose seeds need so many attempts."""
    chains = []
    for seed, length in enumerate(lengths):
        chain = [record(120 - i, 8, seed, family="vgg", epochs=1, blocks="3,12,41,3", first=2,
                        accuracy_epochs=5) for i in range(length - 1)]  # fmt: skip
        if rates is not None:
            chain = [with_rates(made, rates) for made in chain]
        chains.append([*chain, record(28, 8, seed, family="vgg", epochs=20)])
    cells = [[made.id for made in chain] for chain in chains]
    description = {"name": "autotune", "rule": "stage", "attempts": cells,
                   "tuned": [chain[-1] for chain in cells]}  # fmt: skip
    records = [made for chain in chains for made in chain]
    return Run(Store(Path("autotune")), description, records)


def test_kinds_of_c16_and_its_rule():
    found = finding("C16", tuning(5, 3, 4))
    assert found.kind == UNSTABLE and "2 of 3 seeds (67 %)" in found.why
    assert "95 % binomial interval 9 to 99 %" in found.ours and "removal by stage" in found.text
    assert "not measured in these records" in found.text
    assert finding("C16", tuning(5, 6, 7)).kind == CONTRADICTED
    assert (
        "9 of 9 restarts came with a conflict rate"
        in finding("C16", tuning(5, 3, 4, rates=0.01)).text
    )
    assert (
        "0 of 9 restarts came with a conflict rate"
        in finding("C16", tuning(5, 3, 4, rates=1e-4)).text
    )


def test_kinds_of_c17():
    def study(*conflicting, **kept):
        made = [lesion_record(s, conflicting=c, **kept) for s, c in enumerate(conflicting)]
        return finding("C17", studied(*made))

    nothing = study((), (), ())
    assert nothing.kind == NOT_TESTABLE and "no branch conflicts in any of 3" in nothing.why
    assert study(range(40, 59), range(40, 59), range(40, 59)).kind == NOT_TESTABLE
    assert "too few of the others" in study(*[range(59)] * 3).why
    dear = study(*[range(20, 59)] * 3, harmless=range(20))
    assert dear.kind == CONTRADICTED and "the worst of these is: " in dear.text
    assert "c squared" in nothing.text
    assert "sees a rise of 0.3 points at best (6 images lost, none gained)" in nothing.text


def grown(**losses):
    return [growth_record(arm, seed, loss=loss * (1 + seed / 100))
            for arm, loss in losses.items() for seed in range(20)]  # fmt: skip


def growths(*made):
    return Run(Store(Path("grown")), {"name": "grown", "cells": [m.id for m in made]}, list(made))


def test_kinds_of_c18_and_its_comparators():
    worse = grown(max=0.06, small=0.3, large=0.05)
    assert finding("C18", growths(*worse)).kind == CONTRADICTED
    dead = [growth_record("large", seed, diverged=True) for seed in range(20)]
    alive = [made for made in worse if made.arm != "large"]
    assert finding("C18", growths(*alive, *dead)).kind == NOT_TESTABLE
    text = finding("C18", growths(*worse, *grown(matched=0.2, random=0.03))).text
    assert "beside matched, which has as many layers from the start: its loss reached by 20" in text
    assert "worse than position random (train loss +" in text and "n = 20" in text


def test_kinds_of_c19_and_c20():
    def networks(*bundles):
        return sweep(*(record(5, 10, seed, resolution=name, bundles=number)
                       for seed, numbers in enumerate(bundles)
                       for name, number in zip(RESOLUTIONS, numbers, strict=True)))  # fmt: skip

    assert finding("C19", networks(*[(1, 1, 1, 1)] * 3)).kind == NOT_TESTABLE
    assert finding("C19", networks(*[(9, 5, 6, 1)] * 3)).kind == CONTRADICTED
    assert finding("C19", networks((9, 5, 6, 1), (9, 5, 6, 1), (9, 5, 4, 1))).kind == UNSTABLE
    full = [0.0] + [LN10] * 99
    good = record(100, 4, epochs=20, entropy=full, accuracy=0.88)
    bad = record(100, 5, 1, epochs=20, entropy=full, accuracy=0.1)
    assert finding("C20", sweep(*grid(), good)).kind == CONTRADICTED
    found = finding("C20", sweep(*grid(), good, bad))
    assert found.kind == UNSTABLE and "of the largest depth / width: best" in found.text


def test_kinds_are_shown_in_tables():
    judged = claims.judge([layers_at([22, 22, None, None, None], [22] * 5)])
    assert claims_table.counted_verdicts(judged) == (
        "1 not reproduced, 19 not run; of 1 finding not reproduced: 1 unstable"
    )
    table = claims_table.claims_table(judged)
    assert "| not reproduced: unstable, holds for 2 of 5 seeds |" in table.markdown()
    (row,) = [row for row in table.rows if row["id"] == "C7"]
    assert (row["verdict"], row["kind"], row["held"]) == (
        "not reproduced",
        UNSTABLE,
        "2 of 5 seeds",
    )
    assert row["why"] in row["ours"]


def test_conflict_rates_stand_beside_the_papers_rule_where_they_were_measured():
    made = layers_at([22] * 5, [22] * 5).records
    assert "H > 0: not measured in these records" in finding("C7", sweep(*made)).text
    clear = sweep(*(with_rates(one, 0.01) for one in made))
    assert "H > 0: 22 at L = 25, 22 at L = 150" in finding("C7", clear).text
    pairs = sweep(*(with_rates(one, 1e-6) for one in made))
    assert "H > 0: none at L = 25, none at L = 150" in finding("C7", pairs).text
    measured = [with_rates(one, 0.01) for one in grid()]
    same = finding("C10", sweep(*measured))
    assert f"H > 0: {same.ours.split('; cost')[0]}" in same.text


def test_trivial_comparisons_stand_beside_the_boundary():
    text = finding("C10", sweep(*grid())).text
    for name in ("depth -", "depth / width -", "test accuracy after epoch 1 ", "training loss of"):
        assert name in text
    assert "(boundary minus this: " in text
    assert "what costs nothing: depth -" in finding("C11", sweep(*grid())).text


@pytest.mark.parametrize(("epochs", "averaged"), [(1, 1), (3, 1), (7, 1), (8, 2), (20, 5), (50, 5)])
def test_accuracy_reaches_back_over_a_quarter_of_the_training_at_most(epochs, averaged):
    made = record(5, 10, epochs=epochs, accuracy_epochs=5)
    assert summary.epochs_averaged(made) == averaged
    last = made.history.test_accuracy[-averaged:]
    assert summary.accuracy_of(made) == pytest.approx(sum(last) / averaged, abs=1e-6)
    assert summary.summary_of(made)["epochs_averaged"] == averaged


def test_over_which_epochs_accuracy_is_a_mean_is_said():
    assert summary.accuracy_epochs_text([record(5, 10, epochs=5)]) == "after epoch 5"
    assert summary.accuracy_epochs_text([record(5, 10, epochs=8)]) == "mean of the last 2 epochs"
    some = [record(5, 10, epochs=epochs) for epochs in (3, 5)]
    assert summary.accuracy_epochs_text(some) == "after the last epoch"


def test_the_second_reading_of_c7_looks_at_all_epochs_but_not_at_the_initial_network():
    """Layer 3 conflicts after the first epoch, layer 2 after the last one, layer 1 only before."""
    made = record(5, 10, first=3, epochs=4, initial=0.7)
    made.history.entropy[4][1] = 0.01
    assert summary.first_conflicting_layers([made]) == [3]
    assert summary.first_layers_in_the_mean([made, record(5, 10)]) == [2, math.inf]
    shorts, longs = [22] * 5, [24] * 5
    said = finding("C7", layers_at(shorts, longs)).text
    assert "mean H over 3 epochs is above 0: 22 at L = 25, 24 at L = 150 (medians)" in said


def test_a_diverged_network_has_no_rates():
    made = with_rates(record(5, 10, first=2), 0.1)
    assert summary.has_rates(made) and summary.first_clear_layers([made]) == [2]
    assert not summary.has_rates(record(5, 10))
    assert summary.first_clear_layers([record(5, 10)]) == [math.inf]


def test_statistics_of_what_could_have_been_seen():
    assert paired.smallest_rise(5) is None
    assert paired.smallest_rise(6) == 6
    assert paired.smallest_rise(30) == 12
    assert statistics.binomial_interval(2, 3) == pytest.approx((0.094, 0.992), abs=1e-3)
    values = {seed: 0.1 * seed for seed in range(5)}
    zeros = dict.fromkeys(range(5), 0.0)
    assert statistics.paired_p(values, zeros) == pytest.approx(0.0474, abs=1e-4)
    assert math.isnan(statistics.paired_p({1: 0.5}, {1: 0.4}))
    labels = [True, False] * 10
    noise = [0.5] * 20
    difference = statistics.area_difference([float(each) for each in labels], noise, labels)
    assert (difference.mean, difference.low, difference.high) == (0.5, 0.5, 0.5)


def named(name, run):
    return replace(run, store=Store(Path(name)))


def test_hand_picked_depths_stand_beside_auto_tuned_ones():
    from cbundles.report.fixed_depths import page_beside_fixed_depths

    tuned = tuning(3, 3, 3)
    assert "no VGG of a hand-picked depth with 8 filters was trained for 20 epochs" in (
        page_beside_fixed_depths([tuned])
    )
    elsewhere = [with_settings(made, data={"name": "cifar10"}) for made in tuned.records]
    page = page_beside_fixed_depths([tuned, named("other", replace(tuned, records=elsewhere))])
    for where in ("autotune: ", "other: "):
        assert page.count(f"\n{where}no VGG of a hand-picked depth") == 1
    assert page.count("on mnist_mini, as the") == page.count("on cifar10, as the") == 1
    picked = [record(10, 8, seed, family="vgg", epochs=5) for seed in range(3)]
    picked += [record(10, 16, seed, family="vgg", epochs=5) for seed in range(3)]
    page = page_beside_fixed_depths([tuned, sweep(*picked)])
    assert "Accuracy after epoch 5" in page and "Missing: no VGG of" in page
    assert page.count("| VGG, hand-picked | sweep | 10 |") == 1
    # Of those that were trained for as long as the auto-tuned ones the others stand aside.
    longer = named("longer", sweep(record(4, 8, 0, family="vgg", epochs=20)))
    page = page_beside_fixed_depths([tuned, sweep(*picked), longer, named("again", tuned)])
    assert page.count("Accuracy after epoch 20") == 1 and "Missing" not in page
    assert "| auto-tune | again |" in page and "| VGG, hand-picked | longer | 4 |" in page
    assert "| sweep | 10 |" not in page and "VGGs of 10 layers, too, were trained" in page
    assert page_beside_fixed_depths([sweep(*picked)]) == ""


def test_details_stand_below_the_table(tmp_path):
    judged = claims.judge([layers_at([22, 22, None, None, None], [22] * 5)])
    claims_table.write_claims(judged, claims.judge_plans([]), tmp_path)
    above, below = (tmp_path / "claims.md").read_text().split("## Beside the verdicts")
    glance, table = above.split("## Findings")
    assert "unstable: the records are a test" in table and "conflict rate above" not in table
    assert re.search(
        r"\*\*C7\*\*, sweep \(.*reading.*\):\n\n- by a conflict rate above 0.001", below
    )
    assert re.search(r"\| C7 \| .* \| not reproduced \| 1 unstable \|", glance)
    assert "unstable: the records are a test" not in below
