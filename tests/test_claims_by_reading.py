"""Claims in each reading that their networks were measured in, from one training."""

from __future__ import annotations

from pathlib import Path

from records import changed, record, with_settings

from cbundles import readings
from cbundles.records import Layers
from cbundles.report import claims, select
from cbundles.report.runs import Run
from cbundles.store import Store

PAPER = readings.PAPER_WORDS
BLOCK = ("block", "hidden", "running")


def vgg(seed: int, *, pooled: float, block: float):
    """A VGG of 100 layers, read as in the paper's revision and beside it by its last block, that
    begins to conflict after epoch 1."""
    blocks = 49
    asked = {"last": "pooled", "amplitude": "hidden", "batch_norm": "running", "readings": "block"}
    made = record(100, 8, seed, family="vgg", blocks="3,12,31,3", entropy=[0.0] * (blocks + 1))
    made = with_settings(made, probe=asked)

    def measured(count: int, last: float) -> Layers:
        after = [[0.0] * (count - 1) + [last]] * 3
        return Layers(
            entropy=[[0.0] * count, *after],
            conflict_rate=[[0.0] * count] * 4,
            num_bundles=[[2048] * count] * 4,
        )

    own = measured(blocks + 1, pooled)
    return changed(
        made,
        history={
            "entropy": own.entropy,
            "conflict_rate": own.conflict_rate,
            "num_bundles": own.num_bundles,
            "readings": {"block": measured(blocks, block)},
        },
    )


def run(*made) -> Run:
    cells = [each.id for each in made]
    return Run(Store(Path("vggs")), {"name": "vggs", "kind": "sweep", "cells": cells}, list(made))


def test_a_record_as_if_judged_by_another_of_its_readings():
    made = vgg(0, pooled=1.0, block=0.5)
    assert select.readings_of(made) == {BLOCK: "block", PAPER: "own"}
    assert select.in_reading(made, PAPER) is made
    other = select.in_reading(made, BLOCK)
    assert other.history.last("entropy") == [0.0, 0.5, 0.5, 0.5]
    assert len(other.history.entropy[0]) == 49
    assert other.cell.own_reading.settings == BLOCK and other.cell.further_readings == ()
    assert other.history.test_accuracy == made.history.test_accuracy and other.id == made.id
    assert select.reading_in_full(other) == "block+hidden+running"


def test_c13_has_a_verdict_for_each_reading_that_of_the_paper_first():
    judged = claims.judge([run(*(vgg(seed, pooled=0.0, block=0.5) for seed in range(3)))])
    (c13,) = [claim for claim in judged if claim.id == "C13"]
    assert [finding.reproduced for finding in c13.findings] == [False, True]
    by_paper, by_block = c13.findings
    assert by_paper.scale.endswith("reading pooled+hidden+running")
    assert "as in the paper's revision" in by_paper.text
    assert "H^L of the last block's output, running statistics" in by_block.text
    assert c13.verdict == "depends on scale or reading"


def test_a_reading_that_was_not_measured_of_all_is_not_judged():
    first, *others = (vgg(seed, pooled=0.5, block=0.5) for seed in range(3))
    lacking = with_settings(changed(first, history={"readings": {}}), probe={"readings": "none"})
    judged = claims.judge([run(lacking, *others)])
    (c13,) = [claim for claim in judged if claim.id == "C13"]
    assert c13.findings == ()  # two networks and one, where the criterion needs three
