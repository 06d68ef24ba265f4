"""Shortcuts for large grids and many records: the same numbers as without them."""

from __future__ import annotations

import json

import numpy as np
from scipy import stats

from cbundles import config
from cbundles.data import describe
from cbundles.executor import planner
from cbundles.report import statistics


def test_ranks_by_counting_are_those_of_sorting():
    chance = np.random.default_rng(1)
    values = chance.integers(0, 9, 40).astype(float)
    draws = chance.integers(0, 40, (50, 40))
    ranks = statistics._ranks_of_resamples(values.tolist(), draws)
    assert (ranks == stats.rankdata(values[draws], axis=1)).all()


def test_a_value_that_is_not_defined_has_no_rank():
    draws = np.array([[0, 1, 2], [0, 2, 2]])
    ranks = statistics._ranks_of_resamples([3.0, float("nan"), 1.0], draws)
    assert np.isnan(ranks[0, 1]) and ranks[1].tolist() == [3.0, 1.5, 1.5]


def test_resamples_in_blocks_are_those_drawn_at_once(monkeypatch):
    whole = np.random.default_rng(0).integers(0, 7, (statistics.RESAMPLES, 7))
    monkeypatch.setattr(statistics, "BLOCK", 100)
    assert (np.concatenate(list(statistics._resamples(7))) == whole).all()


def grid(**training: object) -> tuple[config.Cell, ...]:
    content = {
        "data": {"name": "mnist"},
        "model": {"family": "fc", "depth": [5, 40], "width": [10, 50]},
        "training": {"epochs": [2, 3], "seed": [0, 1, 5], **training},
    }
    return config.build(content, default_name="grid").cells


def test_cells_that_differ_in_their_seeds_need_the_same():
    cells = grid()
    facts = {cells[0].data.images: describe("mnist")}
    needs = planner.needs_of(cells, facts)
    assert len(set(needs.values())) == 8 and len(needs) == 24
    for cell in cells:
        assert needs[cell.id].seconds == planner.training_seconds(cell, facts[cell.data.images])
        assert needs[cell.id].record_bytes == planner.record_bytes(cell)


def test_the_largest_worker_is_found_among_populations_that_differ():
    cells = grid()
    facts = describe("mnist")
    populations = planner.populations(cells, "cpu")
    largest = max(planner.worker_bytes(one, facts) for one in populations)
    assert planner.largest_worker_bytes(populations, {cells[0].data.images: facts}) == largest


def test_the_largest_worker_may_be_one_of_another_precision():
    cells = grid(precision=["float32", "float64"])
    facts = describe("mnist")
    for order in (cells, cells[::-1]):
        populations = planner.populations(order, "cpu")
        largest = max(planner.worker_bytes(one, facts) for one in populations)
        for some in (populations, populations[::-1]):
            assert planner.largest_worker_bytes(some, {cells[0].data.images: facts}) == largest


def test_a_plan_for_machines_is_json(cli, tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text(json.dumps({"model": {"depth": 3, "width": [4, 5]}}))
    plan = json.loads(cli("sweep", str(file), "--plan", "--json").stdout)
    settings = [cell["config"]["training"]["learning_rate"] for cell in plan["cells"]]
    assert settings == [1e-3, 1e-3]
