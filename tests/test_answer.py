"""What a sweep answers: where conflicts begin, in how many networks, and when H says nothing."""

from __future__ import annotations

import pytest
from records import changed, record, with_settings

from cbundles.report import answer, drawing, layer_maps, summary, sweep_tables


def rated(made, after_epoch_1, trained):
    """A record with conflict rates, those of its layers after epoch 1 and after the last one."""
    epochs = len(made.history) - 1
    rates = [[0.0] * len(trained), *([after_epoch_1] * (epochs - 1)), trained]
    entropies = [[float(rate > 0) for rate in layers] for layers in rates]
    return changed(made, history={"conflict_rate": rates, "entropy": entropies})


def only(records):
    (told,) = answer.answers(records)
    return told


def test_conflicts_that_begin_somewhere_limit_the_depth():
    told = only([record(50, 10, first=12), record(5, 10)])
    assert told.advice == "width 10: use fewer layers: conflicts begin in layer 12"
    trained, early, accuracy = told.evidence
    assert trained == "50 layers, trained: first conflict in layer 12 in 1 of 1 network"
    assert early == "50 layers, after epoch 1: first conflict in layer 12 in 1 of 1 network"
    assert accuracy.startswith("accuracy after the last epoch: best 90.0 % with ")


def test_advice_does_not_speak_against_the_accuracies():
    accuracies = {"better": (0.9, 0.5), "worse": (0.5, 0.9), "at chance": (0.1, 0.1)}
    told = {
        how: only([record(50, 10, first=12, accuracy=deep), record(5, 10, accuracy=shallow)]).advice
        for how, (deep, shallow) in accuracies.items()
    }
    begins = "conflicts begin in layer 12"
    assert told == {
        "better": f"width 10: {begins}, yet 50 layers are best: H does not decide here",
        "worse": f"width 10: use fewer layers: {begins}",
        "at chance": f"width 10: {begins}, and all depths are at chance",
    }


def test_a_single_pair_of_samples_is_no_conflict():
    pair = [0.0, 1e-7, 1e-7, 0.2]
    told = only([rated(record(4, 10), pair, pair)])
    assert "conflicts begin in layer 4" in told.advice
    assert "first conflict in layer 4 in 1 of 1 network; first H > 0 in layer 2 in 1" in str(told)
    harmless = only([rated(record(4, 10), [*pair[:3], 0.0], [0.0] * 4)])
    assert "most networks have no conflicting layer up to 4 layers" in harmless.advice


def test_epoch_1_and_the_trained_network_are_told_apart():
    early, trained = [0.0, 0.0, 0.2, 0.2], [0.0, 0.2, 0.2, 0.2]
    told = only([rated(record(4, 10), early, trained)])
    assert "conflicts begin in layer 2 when trained, in layer 3 after epoch 1" in told.advice
    only_trained = only([rated(record(4, 10), [0.0] * 4, trained)])
    assert "nowhere in most networks after epoch 1" in only_trained.advice


def test_the_number_of_networks_is_named():
    seeds = enumerate([9, 12, None, None, None])
    told = only([record(50, 10, seed=seed, first=first) for seed, first in seeds])
    assert "most networks have no conflicting layer" in told.advice
    assert "first conflict in layer 9 in 2 of 5 networks" in told.evidence[0]


def test_advice_and_evidence_take_the_same_median():
    seeds = enumerate([9, 12, None, None])
    told = only([record(50, 10, seed=seed, first=first) for seed, first in seeds])
    assert "conflicts begin in layer 9" in told.advice
    assert "first conflict in layer 9 in 2 of 4 networks" in told.evidence[0]


def test_where_most_diverge_what_is_left_is_no_answer():
    dead = [record(50, 10, seed=seed, entropy=[None] * 50) for seed in (1, 2)]
    told = only([record(50, 10), *dead])
    assert "most of the deepest networks diverged while they were trained" in told.advice
    assert "no conflicting layer" not in told.advice


def test_diverged_networks_are_counted_apart():
    diverged = record(50, 10, seed=4, entropy=[None] * 50)
    told = only([diverged, record(50, 10)])
    assert told.evidence[0].endswith("conflicts in none of 2 networks; 1 diverged")
    assert "diverged" in only([diverged]).advice
    figure = drawing.drawn(layer_maps.entropy_maps([diverged], ""))
    assert "diverged (epoch 1)" in figure.axes[0].get_title()


def test_h_says_nothing_where_networks_fail_without_conflicts():
    fine, chance = record(5, 10, accuracy=0.9), record(50, 10, accuracy=0.101)
    told = only([fine, chance])
    assert "H says nothing here" in told.advice and "50 layers are at chance" in told.advice
    said = "10.1 % with 50; at chance with 50, without conflicts in most networks of 50"
    assert told.evidence[-1].endswith(said)
    explained = only([fine, record(50, 10, accuracy=0.101, first=9)])
    assert explained.evidence[-1].endswith("at chance with 50")
    worse = only([fine, record(50, 10, accuracy=0.5)])
    assert "50 layers are 40 points worse than the best depth" in worse.advice
    sound = only([fine, record(50, 10, accuracy=0.85)])
    assert "most networks have no conflicting layer up to 50 layers" in sound.advice


def test_networks_that_diverged_do_not_count_as_free_of_conflicts():
    diverged = record(50, 10, seed=1, entropy=[None] * 50, accuracy=0.1)
    told = only([record(5, 10, accuracy=0.9), diverged])
    assert told.evidence[-1].endswith("at chance with 50")


def test_chance_depends_on_the_classes():
    three = changed(record(5, 10, accuracy=0.34), num_classes=3)
    assert "at chance with 5" in only([three]).evidence[-1]
    assert "at chance" not in str(only([record(5, 10, accuracy=0.34)]))


def checked(depth, trained, **measured):
    """A network that was to be trained for 10 epochs, unless it conflicts after the first."""
    made = record(depth, 10, epochs=trained, **measured)
    checks = {"stop_conflicting": "entropy", "conflict_checks": 1}
    return with_settings(made, training={"epochs": 10, **checks})


def test_networks_that_were_stopped_are_counted_and_not_compared():
    stopped = checked(45, trained=1, accuracy=0.2, first=2)
    told = only([checked(5, trained=10, accuracy=0.9), stopped])
    assert told.evidence[0].startswith("5 layers, trained: conflicts in none")
    assert told.evidence[1].startswith("45 layers, after epoch 1: first conflict in layer 2")
    assert "best 90.0 % with 5 layers" in told.evidence[-2] and "45" not in told.evidence[-2]
    assert told.evidence[-1] == (
        "1 of 2 networks stopped, as H > 0 in the last layer: saves 81 % of the FLOPs; "
        "how good they would have become is not known"
    )
    nothing_left = only([stopped])
    assert nothing_left.advice.endswith("every network was stopped")
    assert "saves 90 % of the FLOPs" in nothing_left.evidence[-1]


def test_where_stopped_and_kept_networks_begin_to_conflict_is_told_of_each():
    """Their places are counted in networks of two depths."""
    pooled = {"family": "vgg", "blocks": "2,2,2,2", "last": "pooled"}
    kept = record(18, 8, epochs=10, entropy=[0.0] * 8 + [0.5], **pooled)
    deeper = record(
        22, 8, epochs=1, entropy=[0.0] * 8 + [0.5] * 3, **{**pooled, "blocks": "2,4,2,2"}
    )
    checks = {"epochs": 10, "stop_conflicting": "entropy", "conflict_checks": 1}
    told = only([with_settings(one, training=checks) for one in (kept, deeper)])
    assert told.advice.endswith(
        "conflicts begin in the pooled features when trained, in layer 18 after epoch 1"
    )
    row = summary.summary_of(kept)
    assert (row["first_conflicting_layer"], row["first_conflicting_block"]) == ("pooled", None)
    assert "pooled features" in sweep_tables.network_table([row]).texts[0]


@pytest.mark.parametrize("first", [1])
def test_a_first_layer_that_conflicts_is_no_matter_of_depth(first):
    assert "so the depth is not what limits it" in only([record(50, 10, first=first)]).advice


def test_blocks_are_told_with_their_layers():
    conv = {"family": "vgg", "blocks": "2,2,2,2"}
    made = record(18, 8, entropy=[0.0] * 5 + [0.5] * 3, **conv)
    told = only([made])
    assert told.advice == "filters 8: use fewer layers: conflicts begin in layer 12"
    assert "first conflict in block 6 (layers 12 and 13)" in told.evidence[0]


def test_each_width_and_other_setting_has_its_answer():
    records = [record(5, width, batch_norm=how) for width in (10, 20) for how in ("batch",)]
    assert [each.advice.split(":")[0] for each in answer.answers(records)] == [
        "width 10", "width 20",
    ]  # fmt: skip
    probes = [record(5, 10, samples=samples) for samples in (64, 128)]
    assert [each.advice.split(":")[0] for each in answer.answers(probes)] == [
        "width 10, probe_samples=64", "width 10, probe_samples=128",
    ]  # fmt: skip


def test_lines_end_with_what_a_conflict_is():
    assert answer.lines([record(5, 10)])[-1] == answer.FOOTNOTE_WITHOUT_RATES
    rates = rated(record(2, 10), [0.0, 0.0], [0.0, 0.0])
    assert answer.lines([rates])[-1] == answer.FOOTNOTE
    assert answer.lines([]) == [] and answer.page([]) == ""
    assert answer.page([rates]).startswith("- width 10: ")
