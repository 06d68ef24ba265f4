"""`--tensorboard`: event files say what records say, a folder for each network."""

from __future__ import annotations

import json
import sys

import event_reader
import msgspec
import numpy as np
import pytest
from conftest import ROOT

from cbundles import store
from cbundles.records import SweepRecord
from cbundles.report import event_files, runs

pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")

SMALL = """
data: {name: spirals}
model: {width: [4, 6], depth: 3}
training: {epochs: 2}
probe: {samples: 200, steps: [2]}
"""


def folders_in(run):
    return sorted((run / store.EVENTS).iterdir())


def test_a_sweep_writes_events_and_a_report_writes_them_again(cli, tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL)
    done = cli("sweep", "small.yaml", "--tensorboard")
    assert done.returncode == 0, done.stderr
    assert "events for TensorBoard: results/small/tensorboard" in done.stdout
    run = tmp_path / "results" / "small"
    records = {record.id: record for record in runs.read(run).sweeps}
    assert len(folders_in(run)) == len(records) == 2
    for folder in folders_in(run):
        record = records[folder.name.rpartition("-")[2]]
        assert folder.name.startswith(f"fc-width={record.width}-depth=3-seed=")
        each = record.steps_per_epoch
        events = event_reader.scalars_in(folder)
        assert [step for step, _, _ in events] == [0, 2, each, 2 * each]
        times = [time for _, time, _ in events]
        assert times == sorted(times) and times[-1] == pytest.approx(sum(record.seconds))
        (_, _, first), (_, _, early), *_, (_, _, last) = events
        assert "train_loss" not in first  # of no epoch
        assert last["train_loss"] == np.float32(record.history.train_loss[-1])
        assert last["test_accuracy"] == np.float32(record.history.test_accuracy[-1])
        assert early["bundles/layer.002"] == record.first_epoch.num_bundles[0][1]
        for place, entropy in enumerate(record.history.entropy[-1], start=1):
            assert last[f"bundle_entropy/layer.{place:03}"] == np.float32(entropy)

    before = {folder.name: event_reader.scalars_in(folder) for folder in folders_in(run)}
    done = cli("report", "results", "--tensorboard", "--json")
    assert done.returncode == 0, done.stderr
    assert "events for TensorBoard: results/small/tensorboard" in done.stderr
    assert all(json.loads(line) for line in done.stdout.splitlines())
    after = {folder.name: event_reader.scalars_in(folder) for folder in folders_in(run)}
    assert after == before  # in place of the earlier ones: `scalars_in` expects one file


@pytest.mark.parametrize("name", ["toy", "toy_float64", "tune_mnist_mini", "autotune_mnist_mini"])
def test_events_of_every_kind_of_run(name, tmp_path):
    """Of records that are published."""
    run = runs.read(ROOT / "results" / name)
    few = runs.Run(runs.Store(tmp_path), run.description, run.records[:3])
    event_files.write_event_files(few)
    folder = event_files.write_event_files(few)  # in place of the earlier ones
    for network in sorted(folder.iterdir()):
        events = event_reader.scalars_in(network)
        steps = [step for step, _, _ in events]
        assert steps == sorted(steps) and len(steps) > 1
        names = {name for _, _, numbers in events for name in numbers}
        assert any(one.startswith("bundle_entropy/") for one in names) or name == "tune_mnist_mini"
        assert {"accuracy", "test_accuracy"} & names


def test_layers_of_a_users_architecture_have_their_names(tmp_path, monkeypatch):
    run = runs.read(ROOT / "results" / "autotune_mnist_mini")
    record = next(one for one in run.records if isinstance(one, SweepRecord))
    names = [f"Net/relu#{place}" for place in range(1, len(record.history.entropy[0]) + 1)]
    record.history.entropy[-1][0] = None  # as of a layer that diverged
    named = msgspec.structs.replace(record, layers=names)
    monkeypatch.setattr(type(record.cell), "label", property(lambda cell: "a label=1 " * 50))
    one = runs.Run(runs.Store(tmp_path), run.description, [named])
    (network,) = event_files.write_event_files(one).iterdir()
    (*_, (_, _, last)) = event_reader.scalars_in(network)
    assert {"bundle_entropy/Net/relu.2", f"bundles/Net/relu.{len(names)}"} <= last.keys()
    assert last["diverged_layers"] == 1 and "bundles/Net/relu.1" not in last
    assert not any("block" in name or "layer." in name for name in last)
    assert len(network.name) < 255 and network.name.endswith(f"-{record.id}")


def test_of_no_records_no_folder_is_told_and_earlier_files_go(tmp_path):
    run = runs.read(ROOT / "results" / "toy")
    few = runs.Run(runs.Store(tmp_path), run.description, run.records[:1])
    folder = event_files.write_event_files(few)
    assert len(list(folder.iterdir())) == 1
    other = folder / "my_own_training" / "events.out.tfevents.1.host"
    other.parent.mkdir()
    other.touch()
    none = runs.Run(runs.Store(tmp_path), run.description, [])
    assert event_files.write_event_files(none) is None
    assert list(folder.iterdir()) == [other.parent] and other.exists()


def test_refusals(cli, tmp_path, monkeypatch):
    (tmp_path / "small.yaml").write_text(SMALL)
    for flags in (("--shard", "1/2"), ("--print-sbatch",)):
        done = cli("sweep", "small.yaml", "--tensorboard", *flags)
        assert done.returncode == 2
        assert f"--tensorboard with {flags[0]}: shards only train" in done.stderr
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    for command in (("sweep", "small.yaml"), ("toy",), ("report",)):
        done = cli(*command, "--tensorboard")
        assert done.returncode == 2, command
        assert "pip install 'cbundles[tensorboard]'" in done.stderr
        assert not (tmp_path / "results").exists()
