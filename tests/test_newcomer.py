"""What a newcomer asks: what is there to set, to copy, to wait for, and what is missing here."""

from __future__ import annotations

import gzip
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from cbundles import config, console, identity
from cbundles.config import shipped
from cbundles.data import dataset, mnist_files, tfds
from cbundles.errors import InputError
from cbundles.executor.planner import PopulationJob


def test_every_setting_is_explained(cli):
    shown = cli("config")
    assert shown.returncode == 0
    for section, keys in identity.FIRST_VALUES.items():
        for key in keys:
            assert f"{section}.{key} = " in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) < 120


def test_one_setting_or_a_section_can_be_asked_for(cli):
    assert cli("config", "probe.gamma").stdout.startswith("probe.gamma = 1e-08\n")
    assert "probe.gamma" in cli("config", "gamma").stdout
    of_section = json.loads(cli("config", "model", "--json").stdout)
    assert [each["path"] for each in of_section][:2] == ["model.family", "model.depth"]
    refused = cli("config", "model.widht")
    assert refused.returncode == 2 and "did you mean 'model.width'" in refused.stderr


def test_shipped_experiments_can_be_planned_by_name(cli):
    assert "quickstart" in shipped.names() and "cpu/mnist_vgg" in shipped.names()
    listed = cli("init").stdout
    for name in shipped.names():
        assert f"\n{name}\n" in f"\n{listed}"
        assert shipped.purpose_of(name)
    assert "20 networks" in cli("sweep", "quickstart", "--plan").stdout
    refused = cli("sweep", "quickstrat", "--plan")
    assert refused.returncode == 2 and "did you mean 'quickstart'" in refused.stderr


def test_a_copy_of_a_shipped_experiment_is_the_same_one(cli, tmp_path):
    made = cli("init", "quickstart", "mine.yaml")
    assert made.returncode == 0, made.stderr
    mine = config.load(tmp_path / "mine.yaml", [])
    assert mine.cells == config.load(shipped.folder() / "quickstart.yaml", []).cells
    again = cli("init", "quickstart", "mine.yaml")
    assert again.returncode == 2 and "is there already" in again.stderr
    unknown = cli("init", "quick")
    assert unknown.returncode == 2 and "did you mean 'quickstart'" in unknown.stderr


@pytest.mark.parametrize(
    ("given", "right"),
    [("width=3", "model.width"), ("model.epochs=3", "training.epochs")],
)
def test_a_setting_in_the_wrong_place_is_told_its_right_one(cli, given, right):
    refused = cli("sweep", "quickstart", "--plan", "--set", given)
    assert refused.returncode == 2
    assert f"did you mean {right}?" in refused.stderr


def test_a_key_of_several_sections_names_them_all(cli):
    refused = cli("sweep", "quickstart", "--plan", "--set", "seed=3")
    assert "did you mean training.seed or probe.seed?" in refused.stderr


def test_the_doctor_says_what_is_here(cli):
    seen = cli("doctor")
    assert seen.returncode == 0, seen.stdout
    lines = dict(re.findall(r"^(\S+(?: finds)?) +(.+)$", seen.stdout, re.MULTILINE))
    assert lines["jax finds"].startswith("cpu")
    assert set(config.DATASETS) <= set(lines)
    assert "Nothing is missing" in seen.stdout


def test_the_package_is_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "cbundles", "-h"], capture_output=True, text=True, check=True
    )
    summaries = re.findall(r"^  [a-z]+  +(.+)$", done.stdout, re.MULTILINE)
    assert len(summaries) >= 14
    assert not [text for text in summaries if text.endswith("...")]


GRID = """
data: {name: spirals}
model: {family: fc, width: 4, depth: [2, 3]}
training: {epochs: 2}
probe: {samples: 64}
"""


def test_status_of_a_run_that_is_finished(cli, tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    assert cli("sweep", "grid.yaml", "--out", "run").returncode == 0
    shown = cli("status", "run")
    assert "run: sweep, 2 of 2 finished" in shown.stdout
    assert "not working on it" in shown.stdout and "half done" not in shown.stdout
    refused = cli("status", "nowhere")
    assert refused.returncode == 2 and "no run here" in refused.stderr


def test_status_of_a_run_without_records(cli, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"format": 1, "cells": ["abc"]}')
    shown = cli("status", "run")
    assert shown.returncode == 0, shown.stderr
    assert "run: sweep, 0 of 1 finished" in shown.stdout


def test_status_of_a_run_that_was_killed(cli, frozen, tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    arguments = ("sweep", "grid.yaml", "--out", "run", "--workers", "1")
    with frozen(*arguments, at="run/checkpoints/*.msgpack", after=2):
        during = json.loads(cli("status", "run", "--json").stdout)
    assert during["in_use"] and during["finished"] == 0 and during["unfinished"] == 2
    (half_done,) = during["half_done"]
    assert half_done["epoch"] == 1 and len(half_done["cells"]) == 1
    shown = cli("status", "run").stdout
    assert "not working on it" in shown and "epoch 1 of 2" in shown


def test_status_copes_with_a_damaged_checkpoint(cli, frozen, tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    arguments = ("sweep", "grid.yaml", "--out", "run", "--workers", "1")
    with frozen(*arguments, at="run/checkpoints/*.msgpack"):
        (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("*.msgpack")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    assert "unusable" in cli("status", "run").stdout


def test_status_while_the_blocks_of_a_network_are_studied(cli, frozen, tmp_path):
    (tmp_path / "study.yaml").write_text(
        "data: {name: spirals}\nmodel: {family: resnet, blocks: '1,1,0,0', base_filters: 2}\n"
        "training: {epochs: 1}\nprobe: {samples: 100}\n"
    )
    words = ("lesion", "--config", "study.yaml", "--draws", "2", "--out", "run", "--workers", "1")
    with frozen(*words, at="run/checkpoints/*-lesion-*"):
        pass
    shown = cli("status", "run").stdout
    assert "blocks=1,1,0,0: a study of its blocks, saved" in shown and "unusable" not in shown


def test_mnist_from_its_files_is_what_tfds_keeps(shared, tmp_path):
    """Known from a data set that TensorFlow Datasets prepared."""
    folder = shared / "data" / "mnist"
    assert mnist_files.are_in(folder)
    mnist_files.store(folder, tmp_path / "mnist")
    stored = dataset.read(tmp_path / "mnist", verify=True)
    assert stored.fingerprint == "67ba7962e373ee72"
    assert (stored.facts.train, stored.facts.test) == (60_000, 10_000)


@pytest.mark.slow
def test_mnist_from_its_files_is_what_tfds_prepares(shared, tmp_path):
    folder = shared / "data" / "mnist"
    mnist_files.store(folder, tmp_path / "files")
    tfds.prepare("mnist", tmp_path / "tfds", tmp_path / "prepared", folder)
    files, prepared = (dataset.read(tmp_path / name, verify=True) for name in ("files", "tfds"))
    assert files.fingerprint == prepared.fingerprint


def test_damaged_files_of_mnist_are_named(tmp_path):
    for names in mnist_files.FILES.values():
        for name in names:
            (tmp_path / name).write_bytes(gzip.compress(bytes(100)))
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz: not the file of MNIST"):
        mnist_files.store(tmp_path, tmp_path / "storage")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz: damaged"):
        mnist_files.store(tmp_path, tmp_path / "storage")
    assert not mnist_files.are_in(tmp_path / "elsewhere")
    assert not (tmp_path / "storage").exists()


def test_the_order_of_mnist_is_a_permutation():
    order = np.array(mnist_files._published_order("test", 1000))
    assert sorted(order) == list(range(1000))
    assert (order != np.arange(1000)).mean() > 0.9


def test_a_run_keeps_a_log_of_its_progress(cli, tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    done = cli("sweep", "grid.yaml", "--out", "run")
    log = (tmp_path / "run" / "logs" / "progress.log").read_text().splitlines()
    printed = [line for line in done.stdout.splitlines() if "to train" in line or "[2/2]" in line]
    assert len(printed) == 2
    for line in printed:
        (logged,) = [each for each in log if each.endswith(line)]
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", logged)


def test_without_a_terminal_long_work_tells_how_far_it_is(capsys, monkeypatch):
    (cell,) = config.build({"model": {"depth": 2, "width": 4}}, default_name="x").cells
    job = PopulationJob((cell,))
    tally, display = (
        console.Tally({job.key: job}, {job.key: 1.0}, workers=1),
        console.PlainDisplay(),
    )
    event = {"event": "step", "population": job.key, "part": 3, "of": 7, "what": "steps"}
    tally.update(event)
    display.event(event, tally)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(console, "LINE_SECONDS", -1.0)
    display.event(event, tally)
    assert "... fc width=4 depth=2 seed=0: 3 of 7 steps; about" in capsys.readouterr().out
    assert tally.at_the_end() == [
        "stopped: 0 of 1 networks done",
        "half done: fc width=4 depth=2 seed=0: 3 of 7 steps",
    ]


def networks_of(epochs, seeds):
    training = {"epochs": epochs, "seed": seeds}
    tree = {"model": {"depth": 2, "width": 4}, "training": training}
    return config.build(tree, default_name="x").cells


def test_the_time_left_of_a_run_whose_networks_are_stopped(monkeypatch):
    """Two workers, 10 seconds an epoch. A stopped network counts for the epochs it had, and what
    only one worker can do is not shared by two."""
    clock = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: clock)
    jobs = {cell.id: PopulationJob((cell,)) for cell in networks_of(20, [0, 1, 2])}
    first, second, third = jobs
    tally = console.Tally(jobs, dict.fromkeys(jobs, 20.0), workers=2)

    def tell(seconds, event, key, **more):
        nonlocal clock
        clock = seconds
        tally.update({"event": event, "population": key, **more})

    measured = {"test_accuracy": [0.1], "bundle_entropy": [2.3]}
    for key in (first, second):
        tell(5.0, "started", key)
        tell(5.0, "epoch", key, epoch=0, **measured)
    assert tally.seconds_left() is None
    tell(15.0, "epoch", first, epoch=1, **measured)
    tell(15.0, "epoch", second, epoch=1, **measured)
    assert tally.seconds_left() == pytest.approx((19 + 19 + 20) / 2 * 10)
    tell(15.0, "finished", first)  # stopped
    tell(15.0, "started", third)
    tell(15.0, "epoch", third, epoch=0, **measured)
    assert tally.seconds_left() == pytest.approx(20 * 10)
    tell(25.0, "epoch", second, epoch=2, **measured)
    tell(25.0, "epoch", third, epoch=1, **measured)
    assert tally.seconds_left() == pytest.approx(19 * 10)
    tell(35.0, "failed", second)
    assert tally.seconds_left() == pytest.approx(19 * 10 * 60 / 40)
    tell(215.0, "epoch", third, epoch=20, **measured)
    tell(215.0, "finished", third)
    assert tally.seconds_left() == 0.0


def test_what_a_checkpoint_held_is_no_pace(monkeypatch):
    clock = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: clock)
    (cell,) = networks_of(10, [0])
    tally = console.Tally({cell.id: PopulationJob((cell,))}, {cell.id: 1.0}, workers=1)
    event = {"event": "epoch", "population": cell.id, "test_accuracy": [0.1]}
    tally.update({**event, "bundle_entropy": [0.0], "epoch": 5})
    assert tally.seconds_left() is None
    clock = 8.0
    tally.update({**event, "bundle_entropy": [0.0], "epoch": 7})
    assert tally.seconds_left() == pytest.approx(12.0)


def test_a_terminal_is_told_of_what_fails_before_it_starts():
    """As a network does on Ray whose images differ on that machine."""
    (cell,) = config.build({"model": {"depth": 2, "width": 4}}, default_name="x").cells
    job = PopulationJob((cell,))
    tally, told = console.Tally({job.key: job}, {job.key: 1.0}, workers=1), io.StringIO()
    display = console.RichDisplay(Console(file=told, force_terminal=True), total=1)
    event = {"event": "failed", "population": job.key, "reason": "other images", "log": "none"}
    tally.update(event)
    display.event(event, tally)
    display.close()
    assert "fc width=4 depth=2 seed=0" in told.getvalue() and "other images" in told.getvalue()


def test_durations_are_told_in_the_unit_that_fits():
    told = [console.duration(seconds) for seconds in (None, 59, 600, 7200, 5 * 86400)]
    assert told == ["...", "59 s", "10 min", "2.0 h", "5.0 days"]


def test_going_on_is_told(cli, frozen, tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    arguments = ("sweep", "grid.yaml", "--out", "run", "--workers", "1")
    with frozen(*arguments, at="run/checkpoints/*.msgpack", after=2):
        pass
    again = cli(*arguments)
    assert "goes on from its checkpoint, now at epoch" in again.stdout


def test_another_grid_in_the_same_folder_is_said(cli, tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    first = cli("sweep", "grid.yaml", "--out", "run")
    assert "does not name" not in first.stdout
    assert "does not name" not in cli("sweep", "grid.yaml", "--out", "run").stdout
    other = cli("sweep", "grid.yaml", "--out", "run", "--set", "training.epochs=1")
    assert other.returncode == 0
    assert "run holds 2 networks that this command does not name" in other.stdout
    records = (tmp_path / "run" / "records.jsonl").read_text().splitlines()
    assert len(records) == 1 + 4
