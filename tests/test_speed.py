"""The times that commands tell go by what this machine took before; nothing else does."""

from __future__ import annotations

import json
import re

import pytest

from cbundles import config, data
from cbundles.executor import planner, speed
from cbundles.executor.planner import PopulationJob, Study, compile_seconds
from cbundles.executor.speed import Speed
from cbundles.store import CELLS, Store

GRID = """
data: {name: mnist_mini}
model: {family: fc, depth: [2, 30], width: [4, 25]}
training: {epochs: 200, seed: [0, 1, 2]}
"""


def cell_of(**model):
    return config.build({"model": model}, default_name="x").cells[0]


FC = cell_of(family="fc", depth=2, width=4)
VGG = cell_of(family="vgg", depth=10, base_filters=2)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of this test alone, with the data of all others'."""
    monkeypatch.setenv("CBUNDLES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "speed.json"


def test_what_was_noted_scales_times_of_its_kind_on_its_device(cache):
    assert Speed.known("cpu").ratio(VGG) == 1.0
    for seconds in (300.0, 200.0, 2000.0):
        Speed.known("cpu").learn("conv", seconds, 100.0)
    known = Speed.known("cpu")
    assert known.ratio(VGG) == 3.0  # the median of 3, 2 and 20
    assert known.ratio(FC) == 1.0
    assert Speed.known("gpu").ratio(VGG) == 1.0
    assert known.known_of([FC, VGG]) == {"VGGs and ResNets": (3.0, 3)}
    assert known.known_of([FC]) == {} and known.known_of() == known.known_of([VGG])


def test_compiling_is_not_scaled(cache):
    Speed("cpu").learn("conv", 100.0, 1000.0)
    job = PopulationJob((VGG,))
    compiling = compile_seconds(VGG)
    assert Speed.known("cpu").expected(job, compiling + 100.0) == pytest.approx(compiling + 10.0)
    study = Study(VGG, "lesion", (), 100.0)
    assert Speed.known("cpu").expected(study, 100.0) == pytest.approx(10.0)


def test_only_the_latest_count(cache):
    for seconds in (100.0, 400.0):
        for _ in range(speed.KEPT):
            Speed("cpu").learn("fc", seconds, 100.0)
    assert Speed.known("cpu").ratios == {"fc": (4.0,) * speed.KEPT}


@pytest.mark.parametrize(("seconds", "predicted"), [(59.0, 10.0), (100.0, 0.0), (1e9, 1.0)])
def test_what_tells_nothing_is_not_noted(cache, seconds, predicted):
    Speed("cpu").learn("fc", seconds, predicted)
    assert not cache.exists()


@pytest.mark.parametrize(
    "notes",
    ["", "{", "[]", "\xff", "[" * 100_000, '{"%s": 3}',
     '{"%s": {"fc": 3, "conv": ["a", null, NaN, -1.0, 0.0, [], true, 1e308, 1e-320]}}',
     '{"%s": {"fc": [' + "1" * 401 + "]}}"],
)  # fmt: skip
def test_notes_that_cannot_be_read_are_none_and_are_replaced(cache, notes):
    machine = speed._machine("cpu")
    cache.parent.mkdir()
    cache.write_bytes(notes.replace("%s", machine).encode("latin-1"))
    assert Speed.known("cpu").ratios == {}
    Speed.known("cpu").learn("fc", 200.0, 100.0)
    assert Speed.known("cpu").ratios == {"fc": (2.0,)}


def test_notes_of_other_machines_stay(cache):
    cache.parent.mkdir()
    cache.write_text('{"another cpu": {"fc": [7.0]}}')
    Speed.known("cpu").learn("fc", 200.0, 100.0)
    assert json.loads(cache.read_text())["another cpu"] == {"fc": [7.0]}


def test_a_cache_that_cannot_be_written_costs_the_note_only(cache):
    cache.parent.write_text("a file")
    Speed.known("cpu").learn("fc", 200.0, 100.0)
    assert Speed.known("cpu").ratios == {}


def test_plans_go_by_this_machine_and_shards_do_not(cli, cache, tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    plan = ("sweep", "grid.yaml", "--plan", "--workers", "1", "--device", "cpu")
    sbatch = ("sweep", "grid.yaml", "--print-sbatch", "--shard", "1/4")

    def predictions():
        return json.loads(cli(*plan, "--json").stdout)

    before, array, deal = predictions(), cli(*sbatch).stdout, cli(*plan, "--shard", "1/4").stdout
    assert "those of this machine" not in deal
    Speed("cpu").learn("fc", 300.0, 100.0)
    after = predictions()
    assert 2.5 < after["total"]["seconds"] / before["total"]["seconds"] <= 3  # but for compiling
    for one, other in zip(before["cells"], after["cells"], strict=True):
        assert other["core_seconds"] == pytest.approx(3 * one["core_seconds"], abs=0.2)
    assert cli(*sbatch).stdout == array
    dealt = cli(*plan, "--shard", "1/4").stdout
    assert re.findall(r"^[0-9a-f]{12} ", dealt, re.M) == re.findall(r"^[0-9a-f]{12} ", deal, re.M)
    assert (
        "The times are those of this machine: fully connected networks take 3 times as long as on "
        "the processor that was measured (median of the last 1 command)." in dealt
    )


def test_a_command_notes_what_all_its_networks_took(cli, cache, monkeypatch, tmp_path):
    """Together: slow ones are no more likely to count. Not where workers share a core."""
    (tmp_path / "grid.yaml").write_text(GRID)
    monkeypatch.setattr(speed, "SHORTEST_SECONDS", 0.1)
    small = ("sweep", "grid.yaml", "--set", "training.epochs=1", "--set", "model.depth=2")
    assert cli(*small, "--workers", "64").returncode == 0 and not cache.exists()
    assert cli(*small, "--workers", "1", "--fresh").returncode == 0
    ((ratio,),) = Speed.known("cpu").ratios.values()
    records = Store(tmp_path / "results/grid").records(CELLS)
    facts = data.describe("mnist_mini")
    predicted = sum(planner.training_seconds(record.cell, facts) for record in records)
    assert ratio == pytest.approx(sum(sum(r.seconds) for r in records) / predicted, rel=1e-3)
