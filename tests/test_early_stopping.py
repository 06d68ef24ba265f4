"""Networks of a sweep that are stopped because their last layer conflicts."""

from __future__ import annotations

import csv

import pytest
from conftest import ROOT

from cbundles import config
from cbundles.config import Cell
from cbundles.errors import InputError
from cbundles.store import SWEEPS, Store

GRID = """
data: {name: mnist_mini}
model: {family: fc, width: 20, depth: [2, 100]}
training: {epochs: 3, batch_size: 500, stop_conflicting: entropy}
probe: {samples: 300}
"""


def cells(**training: object) -> tuple[Cell, ...]:
    content = {"model": {"family": "fc", "width": 3, "depth": 2}, "training": training}
    return config.build(content, default_name="x").cells


def test_the_deep_network_is_stopped_and_the_table_says_so(cli, tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    done = cli("sweep", "grid.yaml", "--out", "out")
    assert done.returncode == 0, done.stderr
    by_depth = {r.depth: r for r in Store(tmp_path / "out").records(SWEEPS)}
    assert by_depth[100].epochs_trained == 1 and by_depth[100].history.entropy[1][-1] > 0
    assert by_depth[2].epochs_trained == 3
    said = " ".join(done.stdout.split())
    assert "1 of 2 networks stopped, as H > 0 in the last layer" in said
    with (tmp_path / "out/table.csv").open(newline="") as file:
        assert {row["epochs"] for row in csv.DictReader(file)} == {"1", "3"}
    again = cli("sweep", "grid.yaml", "--out", "out")
    assert again.returncode == 0 and "to train" not in again.stdout


def test_off_is_the_default_and_leaves_identities_alone():
    (plain,) = cells()
    assert plain.training.checks == 0 and cells(stop_conflicting="off")[0].id == plain.id
    stopping = {by: cells(stop_conflicting=by)[0] for by in ("entropy", "conflict_rate")}
    assert {cell.training.checks for cell in stopping.values()} == {1}
    assert len({plain.id, *(cell.id for cell in stopping.values())}) == 3


def test_checks_without_a_rule_are_refused():
    with pytest.raises(InputError, match=r"no effect while training\.stop_conflicting is off"):
        cells(conflict_checks=3)
    grid = ROOT / "configs" / "quickstart.yaml"
    with pytest.raises(InputError, match=r"training\.stop_conflicting = 'rate'.*conflict_rate"):
        config.load(grid, ["training.stop_conflicting=rate"])
