"""The comparison with others: what it refuses to compare, how it reads, and all of it in small."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from cbundles import train

sys.path.insert(0, str(ROOT / "scripts"))
import bench_peers
from bench_peers import Line
from training_peers import task as tasks
from training_peers.task import FC, VGG, Task
from training_peers.worker import FLAX, LIMIT, OURS

SMALL_FC, SMALL_VGG = Task(FC, 3, 5, 4), Task(VGG, 10, 2, 9)


def test_ratios_are_those_of_medians_to_the_first_side():
    lines = [Line("a", OURS, "", [1.0, 2.0, 9.0]), Line("a", "b", "", [3.0, 5.0])]
    ours, other = bench_peers.compared(lines)
    assert (ours.times_ours, other.times_ours) == (1.0, 2.0)
    row = other.row
    assert (row["median"], row["quartiles"]) == ("4,000", "3,500 to 4,500")
    assert row["ratio"] == "2.00" and row["rate"] is None
    assert bench_peers.milliseconds(0.00123456) == "1.23" and bench_peers.quartiles([2.0]) == (2, 2)
    limit = Line("a", LIMIT, "", [0.5], flops=2e9)
    assert limit.row["rate"] == "4"
    left_out = Line("a", "b", "", [], note="not installed")
    assert left_out.row["median"] == "not installed"


def test_what_does_not_compute_the_same_is_not_compared():
    ours, near = [[2.3, 2.0, 1.5]], [[2.3, 2.0, 1.5001]]
    difference = bench_peers.require_agreement(SMALL_FC, {OURS: ours, FLAX: near, LIMIT: [[]]})
    assert 0 < difference < 1e-4
    for wrong in ([[2.3, 2.0, 1.6]], [[2.3, 2.0, float("nan")]]):
        with pytest.raises(SystemExit, match="losses differ"):
            bench_peers.require_agreement(SMALL_FC, {OURS: ours, FLAX: wrong})
    with pytest.raises(SystemExit, match="does not change"):
        bench_peers.require_agreement(SMALL_FC, {OURS: [[2.3, 2.3]], FLAX: [[2.3, 2.3]]})


@pytest.mark.parametrize("task", [SMALL_FC, SMALL_VGG])
def test_a_loop_in_flax_trains_the_same_network(task):
    from training_peers.flax_loop import FlaxLoop
    from training_peers.ours import WholeTurn

    ours, loop = WholeTurn(task), FlaxLoop(task)
    np.testing.assert_allclose(ours.first_losses(4), loop.first_losses(4), rtol=1e-3)
    ours.train_for_a_turn()
    loop.train_for_a_turn()
    narrow = dataclasses.replace(SMALL_FC, augmented=True)
    assert WholeTurn(narrow).networks == 4 and WholeTurn(narrow).first_losses(2) == pytest.approx(
        WholeTurn(SMALL_FC).first_losses(2)
    )


@pytest.mark.parametrize("task", [SMALL_FC, SMALL_VGG, Task(VGG, 50, 2, 1)])
def test_weights_are_those_of_the_product(task):
    weights = tasks.first_weights(task)
    numbers = sum(array.size for unit in weights.convolutions for array in unit)
    numbers += sum(array.size for layer in weights.dense for array in layer)
    assert numbers == task.shape.parameters
    if task.family == VGG:
        assert len(weights.convolutions) == len(tasks.strides_of(task)) + 1


def test_batches_come_in_the_order_of_the_product():
    images, labels = SMALL_FC.batches()
    plan = train.plan(SMALL_FC.recipe(augmented=False), tasks.SEED, 1, len(labels))
    raw, names = SMALL_FC.images()
    np.testing.assert_array_equal(labels, names[plan.order.ravel()])
    np.testing.assert_array_equal(images, raw[plan.order.ravel()] * np.float32(1 / 255))


def test_bundles_are_counted_alike_by_all():
    lines = bench_peers.compare_metric(32, 8, "twice", 1)
    assert [line.side for line in lines] == [
        OURS, "row sum, the limit", "np.unique", "all pairs, jitted",
    ]  # fmt: skip
    assert all(len(line.seconds) == 1 for line in lines) and lines[0].times_ours == 1


@pytest.mark.slow
def test_all_of_it_in_small(tmp_path):
    """With TensorFlow, whose losses must agree, too."""
    pytest.importorskip("keras")
    command = [sys.executable, ROOT / "scripts/bench_peers.py", "--quick", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "peers.md").read_text()
    assert text in done.stdout and "1.00" in text
    record = json.loads((tmp_path / "peers.json").read_text())
    assert list(record) == list(bench_peers.SECTIONS)
    for section in record.values():
        assert section["quick"] is True and section["cores"] >= 1
        for line in section["lines"]:
            assert line["note"] or (line["seconds"] and line["times_ours"] > 0)
    again = subprocess.run(
        [*command, "--only", "metric"], check=True, text=True, capture_output=True
    )
    updated = json.loads((tmp_path / "peers.json").read_text())
    assert updated.pop("metric") != record.pop("metric") and updated == record
    assert "## Training" in again.stdout
