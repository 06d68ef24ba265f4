"""Measurements within the first epoch: what can be asked for, and what becomes of it."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest

from cbundles import config, console
from cbundles.data.dataset import Facts
from cbundles.errors import InputError
from cbundles.executor import planner
from cbundles.records import SweepRecord
from cbundles.store import SWEEPS, Store

DENSE = """
data: {name: spirals}
model: {width: 6, depth: 8}
training: {epochs: 2, seed: [0, 1]}
probe: {samples: 300, readings: hidden}
"""
EARLY = ("--set", "probe.steps=[2,5]")


def cell(steps: object = None, **more: object) -> config.Cell:
    content = {"model": {"width": 5, "depth": 3}, **more}
    if steps is not None:
        content["probe"] = {"steps": steps}
    (one,) = config.build(content, default_name="x").cells
    return one


@pytest.mark.parametrize(
    ("given", "expected", "steps"),
    [
        ("none", "none", ()),
        ([], "none", ()),
        (50, "50", (50,)),
        ("150, 50", "50,150", (50, 150)),
        ([500, 50, 150, 50], "50,150,500", (50, 150, 500)),
    ],
)
def test_early_steps_are_a_set_and_no_axis(given, expected, steps):
    one = cell(given)
    assert (one.probe.steps, one.early_steps) == (expected, steps)


def test_early_steps_belong_to_the_identity_of_a_cell():
    assert cell([5, 9]).id == cell("9,5").id != cell([5]).id
    assert cell("none").id == cell([]).id == cell().id != cell([5]).id


@pytest.mark.parametrize(
    ("given", "more", "message"),
    [
        ([50, "soon"], {}, "'soon' is no step; whole numbers, such as [50, 150, 500]"),
        ([50, 1.5], {}, "1.5 is no step"),
        (True, {}, "True is no step"),
        ("none, 5", {}, "'none' is no step"),
        ([0, 50], {}, "nearest valid: 1"),
        (-3, {}, "nearest valid: 1"),
        ([5], {"growth": {"arm": "small"}}, "are measured after epochs; nearest valid: none"),
        ([5], {"tuning": {"arm": "both", "budget_depth": 3}}, "change their depth"),
    ],
)
def test_early_steps_that_cannot_be(given, more, message):
    with pytest.raises(InputError, match=r"config: probe\.steps") as raised:
        cell(given, **more)
    assert message in str(raised.value)


@pytest.mark.parametrize("flags", [[], ["--plan"]])
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["probe.steps=[3,7]"], "probe.steps = 3,7: an epoch of spirals has 7 steps of 64 images"),
        (["probe.steps=[3,7]"], "nearest valid: 6 instead of 7"),
        (["probe.steps=1", "training.batch_size=450"], "nearest valid: none instead of 1"),
    ],
)
def test_a_step_after_the_end_of_the_epoch_is_refused(cli, tmp_path, flags, overrides, message):
    (tmp_path / "dense.yaml").write_text(DENSE)
    named = [word for override in overrides for word in ("--set", override)]
    done = cli("sweep", "dense.yaml", *named, *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_cells_with_other_steps_share_no_program():
    seeds = {"training": {"seed": [0, 1]}, "model": {"width": 5, "depth": 3}}
    plain = config.build(seeds, default_name="x").cells
    early = config.build({**seeds, "probe": {"steps": [5]}}, default_name="x").cells
    for device in ("cpu", "gpu"):
        found = planner.populations([*plain, *early], device)
        assert {population.cells for population in found} == {plain, early}


def test_measuring_more_often_is_predicted():
    facts = Facts(60_000, 10_000, (28, 28, 1), 10)
    plain, early = cell(), cell([50, 150, 500])
    more = planner.training_seconds(early, facts) - planner.training_seconds(plain, facts)
    assert more == pytest.approx(3 * planner.measuring_seconds(early, facts))
    one_epoch = dataclasses.replace(plain.training, epochs=plain.training.epochs + 3)
    longer = dataclasses.replace(plain, training=one_epoch)
    assert planner.record_bytes(early) == planner.record_bytes(longer) > planner.record_bytes(plain)


@pytest.fixture
def both(cli, tmp_path) -> tuple[Path, Path, list[dict]]:
    """The folders of a sweep without early steps and with two, and what the second one told."""
    (tmp_path / "dense.yaml").write_text(DENSE)
    assert cli("sweep", "dense.yaml", "--out", "plain").returncode == 0
    done = cli("sweep", "dense.yaml", *EARLY, "--out", "early", "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return tmp_path / "plain", tmp_path / "early", events


def test_a_sweep_measures_within_its_first_epoch(cli, both):
    """What is measured after epochs is as without that."""
    plain, early, events = both
    measured = [event for event in events if "step" in event]
    assert [(event["event"], event["step"]) for event in measured] == [("step", 2), ("step", 5)]
    assert [event["part"] for event in measured] == [7 + 2, 7 + 5]
    assert all(len(event["bundle_entropy"]) == 2 for event in measured)
    for ours, theirs in zip(records_of(early), records_of(plain), strict=True):
        assert ours.id != theirs.id and theirs.first_epoch is None
        assert ours.history == theirs.history
        assert ours.first_epoch.step == [2, 5]
        assert ours.first_epoch.readings.keys() == {"hidden"}
        assert len(ours.seconds) == len(ours.history) == 3
    again = cli("sweep", "dense.yaml", "--set", "probe.steps=5,2", "--out", "early")
    assert again.returncode == 0 and "to train" not in again.stdout


def test_tables_show_what_was_measured_within_the_first_epoch(both):
    plain, early, _ = both
    rows, usual = rows_of(early / "layers.csv"), rows_of(plain / "layers.csv")
    after_steps = [row for row in rows if row["step"]]
    assert {(row["epoch"], row["step"]) for row in after_steps} == {("", "2"), ("", "5")}
    networks, steps, readings, layers = 2, 2, 2, 8
    assert len(after_steps) == networks * steps * readings * layers
    after_epochs = [row for row in rows if not row["step"]]
    assert list(map(without_cell, after_epochs)) == list(map(without_cell, usual))
    assert "step" not in usual[0]

    record, row = records_of(early)[0], rows_of(early / "table.csv")[0]
    first = record.first_epoch
    assert row["cell"] == record.id
    assert float(row["test_accuracy[step 2]"]) == first.test_accuracy[0]
    assert float(row["bundle_entropy[step 2]"]) == first.entropy[0][-1]
    assert float(row["conflict_rate[step 2]"]) == first.conflict_rate[0][-1]
    assert "H^L, step 5" in (early / "table.md").read_text()
    assert "step" not in (plain / "table.md").read_text()
    figures = [folder / "figures" / "fig4_entropy_by_layer.csv" for folder in (plain, early)]
    drawn, drawn_early = (list(map(without_cell, rows_of(path))) for path in figures)
    assert drawn == drawn_early


def records_of(folder: Path) -> list[SweepRecord]:
    return sorted(Store(folder).records(SWEEPS), key=lambda record: record.seed)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def without_cell(row: dict[str, str]) -> dict[str, str]:
    """What does not depend on whether there are early steps."""
    return {key: value for key, value in row.items() if key not in ("cell", "step")}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            {"step": 50, "test_accuracy": [0.114], "bundle_entropy": [2.303]},
            "step 50 of epoch 1/50, accuracy 11.4 %, H 2.303",
        ),
        ({}, "steps=50: 1 of 9 steps"),
    ],
)
def test_what_people_see_of_an_early_step(capsys, told, expected):
    job = planner.PopulationJob((cell([50]),))
    event = {"event": "step", "population": job.key, "part": 1, "of": 9, "what": "steps"}
    tally = console.Tally({job.key: job}, {job.key: 1.0}, workers=1)
    display = console.PlainDisplay()
    for each in ({**event, **told}, {"event": "finished", "population": job.key}):
        tally.update(each)
        display.event(each, tally)
    assert expected in capsys.readouterr().out
