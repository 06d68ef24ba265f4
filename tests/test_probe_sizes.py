"""Kept networks measured with probe sets of other sizes."""

from __future__ import annotations

import csv

import pytest

from cbundles import probe_sizes
from cbundles.store import CELLS, MEASURED, Store

DENSE = """
data: {name: spirals}
model: {width: 6, depth: 8}
training: {epochs: 2, seed: [0, 1]}
probe: {samples: 300}
"""


@pytest.fixture
def kept(cli, tmp_path) -> Store:
    (tmp_path / "dense.yaml").write_text(DENSE)
    done = cli("sweep", "dense.yaml", "--keep-weights", "1,last")
    assert done.returncode == 0, done.stderr
    return Store(tmp_path / "results" / "dense")


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("none", ()),
        ("512", ("512",)),
        ("2048, all,512,0512,128", ("128", "512", "2048", "all")),
    ],
)
def test_sizes_are_a_set_in_order(text, sizes):
    assert probe_sizes.parse(text) == sizes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("512,many", "--samples 512,many: 'many' is no number of samples"),
        ("-5", "'-5' is no number of samples"),
        ("", "'' is no number of samples"),
        ("0", "nearest valid: 1"),
        ("451", "--samples 451: 451: spirals has 450 training images; nearest valid: all"),
        ("none", "or --samples 512,8192"),
    ],
)
def test_sizes_that_cannot_be(cli, kept, text, message):
    done = cli("measure", "results/dense", "--samples", text)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_other_probe_sets_are_measured_once_and_stay(cli, kept):
    planned = cli("measure", "results/dense", "--samples", "64,300,all", "--plan")
    assert "epochs 1, last" in planned.stdout
    done = cli("measure", "results/dense", "--samples", "64,300,all")
    assert done.returncode == 0, done.stderr
    assert "probe_sizes.csv" in done.stdout
    trained = {made.id: made.history for made in kept.records(CELLS)}
    measured = kept.records(MEASURED)
    assert len(measured) == len(trained) == 2
    for found in measured:
        assert list(found.by_samples) == ["64", "300", "all"]
        same = found.by_samples["300"]  # as many as in training, and the same draw
        for quantity in ("entropy", "conflict_rate", "num_bundles"):
            of_training = getattr(trained[found.id], quantity)
            assert getattr(same, quantity) == [of_training[1], of_training[2]]
        assert max(found.by_samples["64"].num_bundles[0]) <= 64
        assert max(found.by_samples["all"].num_bundles[0]) > 300
    with (kept.folder / "probe_sizes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3 * 8
    assert {row["samples"] for row in rows} == {"64", "300", "all"}

    again = cli("measure", "results/dense", "--samples", "64")
    assert "to measure" not in again.stdout
    done = cli("measure", "results/dense", "--readings", "hidden")
    assert done.returncode == 0, done.stderr
    for found in kept.records(MEASURED):  # what was known stays
        assert list(found.by_samples) == ["64", "300", "all"] and "hidden" in found.history.readings
