"""The times that commands tell go by what this machine took before; nothing else does."""

from __future__ import annotations

import json
import re

import pytest

from cbundles import config
from cbundles.executor import speed
from cbundles.executor.speed import Speed

GRID = """
data: {name: mnist_mini}
model: {family: fc, depth: [2, 30], width: [4, 25]}
training: {epochs: 2, seed: [0, 1, 2]}
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
    assert Speed.known("cpu").scaled(VGG, 10.0) == 10.0
    for seconds in (300.0, 200.0, 2000.0):
        Speed.known("cpu").learn(VGG, seconds, Speed.known("cpu").scaled(VGG, 100.0))
    known = Speed.known("cpu")
    assert known.scaled(VGG, 10.0) == 30.0  # the median of 3, 2 and 20
    assert known.scaled(FC, 10.0) == 10.0
    assert Speed.known("gpu").scaled(VGG, 10.0) == 10.0
    assert known.known_of([FC, VGG]) == {"VGGs and ResNets": (3.0, 3)}
    assert known.known_of([FC]) == {} and known.known_of() == known.known_of([VGG])


def test_only_the_latest_count(cache):
    for _ in range(speed.KEPT):
        Speed("cpu").learn(FC, 100.0, 100.0)
    for _ in range(speed.KEPT):
        Speed("cpu").learn(FC, 400.0, 100.0)
    known = Speed.known("cpu")
    assert known.ratios == {"fc": (4.0,) * speed.KEPT}


@pytest.mark.parametrize(("seconds", "expected"), [(59.0, 10.0), (100.0, 0.0), (100.0, -1.0)])
def test_what_tells_nothing_is_not_noted(cache, seconds, expected):
    Speed("cpu").learn(FC, seconds, expected)
    assert not cache.exists()


@pytest.mark.parametrize(
    "notes",
    ["", "{", "[]", "\xff", '{"%s": 3}', '{"%s": {"fc": 3, "conv": ["a", null, NaN, -1, 0, []]}}'],
)
def test_notes_that_cannot_be_read_are_none_and_are_replaced(cache, notes):
    machine = speed._machine("cpu")
    cache.parent.mkdir()
    cache.write_bytes(notes.replace("%s", machine).encode("latin-1"))
    assert Speed.known("cpu").ratios == {}
    Speed.known("cpu").learn(FC, 200.0, 100.0)
    assert Speed.known("cpu").ratios == {"fc": (2.0,)}


def test_notes_of_other_machines_stay(cache):
    cache.parent.mkdir()
    cache.write_text('{"another cpu": {"fc": [7.0]}}')
    Speed.known("cpu").learn(FC, 200.0, 100.0)
    assert json.loads(cache.read_text())["another cpu"] == {"fc": [7.0]}


def test_a_cache_that_cannot_be_written_costs_the_note_only(cache):
    cache.parent.write_text("a file")
    Speed.known("cpu").learn(FC, 200.0, 100.0)
    assert Speed.known("cpu").ratios == {}


def test_plans_go_by_this_machine_and_shards_do_not(cli, cache, tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    plan = ("sweep", "grid.yaml", "--plan", "--workers", "1", "--device", "cpu")
    sbatch = ("sweep", "grid.yaml", "--print-sbatch", "--shard", "1/4")

    def predictions():
        return json.loads(cli(*plan, "--json").stdout)

    before, array, deal = predictions(), cli(*sbatch).stdout, cli(*plan, "--shard", "1/4").stdout
    assert "those of this machine" not in deal
    Speed("cpu").learn(FC, 300.0, 100.0)
    after = predictions()
    assert after["total"]["seconds"] == pytest.approx(3 * before["total"]["seconds"])
    for one, other in zip(before["cells"], after["cells"], strict=True):
        assert other["core_seconds"] == pytest.approx(3 * one["core_seconds"], abs=0.2)
    assert cli(*sbatch).stdout == array
    dealt = cli(*plan, "--shard", "1/4").stdout
    assert re.findall(r"^[0-9a-f]{12} ", dealt, re.M) == re.findall(r"^[0-9a-f]{12} ", deal, re.M)
    assert (
        "The times are those of this machine: fully connected networks take 3 times as long as on "
        "the processor that was measured (median of the last 1)." in dealt
    )
