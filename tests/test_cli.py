"""The command line, in real processes: runs, kills, resumes, refuses."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from flax import serialization
from PIL import Image
from processes import is_alive
from records import entries_of

import cbundles
from cbundles import formats
from cbundles.executor import tasks
from cbundles.store import CELLS, Store

TINY = """
data: {name: spirals}
model: {width: [6, 24], depth: [3, 8]}
training: {epochs: 2}
probe: {samples: 300}
"""


ONE = """
data: {name: spirals}
model: {width: 6, depth: 3}
training: {epochs: 3}
probe: {samples: 300}
"""


def untimed(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return [
            {k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)
        ]


def test_version(cli):
    done = cli("--version")
    assert (done.returncode, done.stdout) == (0, f"cbundles {cbundles.__version__}\n")


def test_a_sweep_from_start_to_finish(cli, tiny, tmp_path):
    done = cli("sweep", tiny)
    assert done.returncode == 0, done.stderr
    assert "[4/4]" in done.stdout and "fig1_accuracy_map.png" in done.stdout
    folder = tmp_path / "results" / "tiny"
    rows = untimed(folder / "table.csv")
    assert [(r["width"], r["depth"]) for r in rows] == [
        ("6", "3"),
        ("24", "3"),
        ("6", "8"),
        ("24", "8"),
    ]
    assert all(r["epochs"] == "2" and 0 < float(r["test_accuracy"]) < 1 for r in rows)
    with (folder / "layers.csv").open(newline="") as file:
        layers = list(csv.DictReader(file))
    assert len(layers) == 2 * (3 + 8) * 3  # both widths, all layers, epochs 0, 1 and 2
    run = json.loads((folder / "run.json").read_text())
    assert run["data"] and run["config"]["model"]["width"] == [6, 24] and run["finished"] == 4
    (origin,) = run["made_by"]
    assert origin["networks"] == 4 and origin["platform"] == "cpu" and origin["versions"]["jax"]
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert {f"fig1_accuracy_map.{suffix}" for suffix in ("png", "pdf", "csv")} < figures
    assert "figures.md" in figures
    assert not list((folder / "checkpoints").glob("*"))

    before = (folder / "table.csv").read_bytes()
    again = cli("sweep", tiny)
    assert again.returncode == 0 and "to train" not in again.stdout
    assert (folder / "table.csv").read_bytes() == before

    fresh = cli("sweep", tiny, "--fresh", "--json")
    assert fresh.returncode == 0
    events = [json.loads(line) for line in fresh.stdout.splitlines()]
    assert [e["event"] for e in events].count("finished") == 4
    assert events[-1]["event"] == "done" and events[-1]["networks"] == 4
    assert untimed(folder / "table.csv") == rows


@pytest.mark.faults
@pytest.mark.slow
def test_neither_order_nor_number_of_workers_changes_a_number(process, tiny, tmp_path):
    tables = []
    for workers in ("1", "2"):
        done = process("sweep", tiny, "--out", workers, "--workers", workers)
        assert done.returncode == 0, done.stderr
        assert "[4/4]" in done.stdout and "fig1_accuracy_map.png" in done.stdout
        tables.append(untimed(tmp_path / workers / "table.csv"))
        for path in (tmp_path / workers / "figures").glob("*.png"):
            with Image.open(path) as image:
                assert max(image.size) < 2000
    assert tables[0] == tables[1]
    one, two = ((tmp_path / workers / "layers.csv").read_bytes() for workers in ("1", "2"))
    assert one == two


def test_changed_images_are_another_experiment(cli, tmp_path):
    """The same folder name with other images must not reuse what was trained on the old ones."""
    chance = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "ab":
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(12 if name == "a" else 4):
                pixels = chance.integers(0, 256, (4, 4, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "f.yaml").write_text(
        "data: {name: 'folder:images'}\nmodel: {width: 4, depth: 2}\n"
        "training: {epochs: 1, batch_size: 4}\nprobe: {samples: 16}\n"
    )
    found = "folder:images: 16 training and 16 test images in 2 classes: a 12, b 4"
    assert found in cli("sweep", "f.yaml", "--plan").stdout
    assert found in cli("sweep", "f.yaml", "--plan", "--json").stderr
    first = cli("sweep", "f.yaml")
    assert "[1/1]" in first.stdout and found in first.stdout
    assert "[1/1]" not in cli("sweep", "f.yaml").stdout
    (record,) = Store(tmp_path / "results/f").records(CELLS)
    largest = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))  # not ln 2: three of four are a
    assert record.largest_entropy == pytest.approx(largest, abs=1e-4)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(
        tmp_path / "images" / "train" / "a" / "0.png"
    )
    assert "[1/1]" in cli("sweep", "f.yaml").stdout


@pytest.mark.slow
def test_every_way_to_measure_the_same_network(process, tmp_path):
    """The probe does not touch the training; all images are streamed; coarser formats bundle more;
    float32 weights tell more apart than a large gamma does."""
    grid = "model: {width: 8, depth: 12}\ntraining: {epochs: 1}\n"
    probes = {
        "all": "probe: {samples: all}",
        "formats": "probe: {samples: 500, resolution: [float32, float16, bfloat16]}",
        "gamma": "probe: {samples: 500, equality: gamma, gamma: 1e-5}",
    }
    histories = {}
    for name, probe in probes.items():
        (tmp_path / f"{name}.yaml").write_text(grid + probe)
        done = process("sweep", f"{name}.yaml")
        assert done.returncode == 0, done.stderr + done.stdout
        assert ("width 8, probe_resolution=float16: " in done.stdout) == (name == "formats")
        for record in Store(tmp_path / "results" / name).records(CELLS):
            histories[name, record.cell.probe.resolution] = entries_of(record.history)[-1]
    assert len({h["test_accuracy"] for h in histories.values()}) == 1
    figures = list((tmp_path / "results").glob("*/figures/*.png"))
    assert "formats" in {path.parts[-3] for path in figures}
    for path in figures:  # one network with H at its limit is the hard case
        with Image.open(path) as image:
            assert max(image.size) < 2000
    everything = histories["all", "float32"]["num_bundles"]
    few = histories["formats", "float32"]["num_bundles"]
    assert few[0] > 450 and everything[0] > 9500
    half, brain = (histories["formats", f]["num_bundles"] for f in ("float16", "bfloat16"))
    assert all(a >= b >= c for a, b, c in zip(few, half, brain, strict=True)) and few != half
    assert sum(histories["gamma", "float32"]["num_bundles"]) < sum(few)


def test_plan_runs_nothing(cli, tiny, tmp_path):
    done = cli("sweep", tiny, "--plan", "--json")
    plan = json.loads(done.stdout)
    refused = cli("sweep", tiny, "--plan", "--set", "training.batch_size=20000")
    assert refused.returncode == 2 and "nearest valid: 450" in refused.stderr
    assert len(plan["cells"]) == 4 and not any(cell["finished"] for cell in plan["cells"])
    assert all(plan["total"][key] > 0 for key in ("seconds", "memory_bytes", "disk_bytes"))
    text = cli("sweep", tiny, "--plan").stdout
    assert "4 networks" in text and "Nothing was run" in text
    assert {p.name for p in tmp_path.iterdir()} == {"tiny.yaml"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "model.widht=3"], "did you mean 'width'?"),
        (["--device", "tpu"], "--device tpu"),
        (["--set", "data.image_size=32"], "only those of folders are scaled"),
        (["--set", "training.batch_size=451"], "nearest valid: 450"),
        (["--set", "data.name=folder:nowhere"], "is not a folder"),
        (["--out", "tiny.yaml"], "is a file; nearest valid: a folder"),
    ],
)
def test_input_errors_are_one_message_and_exit_code_2(cli, tiny, arguments, message):
    done = cli("sweep", tiny, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_keep_weights_may_stand_alone_before_what_the_command_is_about(cli):
    for experiment in ("quickstart", "examples.my_mlp.yaml"):
        done = cli("sweep", "--keep-weights", experiment, "--plan")
        assert "Missing argument" not in done.stderr
    assert "Missing" not in cli("autotune", "--keep-weights", "my.vgg:build", "--plan").stderr


def test_a_command_offers_only_the_flags_that_it_has_a_use_for(cli):
    assert "--keep-weights" in cli("sweep", "--help").stdout
    for arguments in (
        ["toy", "--workers", "2"],
        ["lesion", "--dataset", "mnist", "--keep-weights"],
    ):
        done = cli(*arguments)
        assert done.returncode == 2 and "No such option" in done.stderr


@contextlib.contextmanager
def started(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A sweep under way, whose output can be read; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cbundles.cli", "sweep", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"{text!r} never appeared")


def children_of(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.faults
@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_table(process, frozen, tiny, tmp_path):
    whole = process("sweep", tiny, "--out", "whole")
    assert whole.returncode == 0, whole.stderr

    one_worker = [tiny, "--out", "killed", "--workers", "1"]
    with frozen("sweep", *one_worker, at="killed/cells/*.json", after=2) as running:
        workers = children_of(running.pid)
        running.kill()
        running.wait()
    deadline = time.monotonic() + 10
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers and not any(map(is_alive, workers)), "a worker outlived its parent"

    store = Store(tmp_path / "killed")
    finished = store.records(CELLS)
    assert len(finished) == 2
    resumed = process("sweep", tiny, "--out", "killed")
    assert resumed.returncode == 0, resumed.stderr
    assert "finished already: 2" in resumed.stdout
    assert [store.record(record.id) for record in finished] == finished  # seconds included
    assert untimed(tmp_path / "killed" / "table.csv") == untimed(tmp_path / "whole" / "table.csv")


@pytest.mark.faults
def test_killed_while_training_continues_from_the_checkpoint(process, frozen, tiny, tmp_path):
    one = [tiny, "--set", "model.width=8", "--set", "model.depth=3", "--set", "training.epochs=8"]
    assert process("sweep", *one, "--out", "whole").returncode == 0
    with frozen("sweep", *one, "--out", "killed", at="killed/checkpoints/*", after=5):
        pass
    assert not list((tmp_path / "killed").glob("cells/*.json"))
    resumed = process("sweep", *one, "--out", "killed", "--json")
    events = [json.loads(line) for line in resumed.stdout.splitlines()]
    epochs = [e["epoch"] for e in events if e["event"] == "epoch"]
    assert epochs == [5, 6, 7, 8]  # the fifth checkpoint is that of epoch 4: one is of epoch 0
    for name in ("table.csv", "layers.csv"):
        assert untimed(tmp_path / "killed" / name) == untimed(tmp_path / "whole" / name)
    assert not list((tmp_path / "killed" / "checkpoints").iterdir())


@pytest.mark.faults
@pytest.mark.slow
def test_killed_within_an_epoch_continues_there(process, frozen, tiny, tmp_path, monkeypatch):
    """A pause, and a checkpoint, after every step; the tables are those of a run without any."""
    one = [tiny, "--set", "model.width=8", "--set", "model.depth=3", "--set", "training.epochs=3"]
    assert process("sweep", *one, "--out", "whole").returncode == 0
    monkeypatch.setenv("CBUNDLES_PAUSE_SECONDS", "0")
    with frozen("sweep", *one, "--out", "killed", at="killed/checkpoints/*", after=5):
        pass
    assert not list((tmp_path / "killed").glob("cells/*.json"))
    (path,) = (tmp_path / "killed/checkpoints").iterdir()
    population = serialization.msgpack_restore(formats.unseal(path.read_bytes()))["population"]
    assert (population["epoch"], population["step"]) == (1, 3)
    resumed = process("sweep", *one, "--out", "killed", "--json")
    events = [json.loads(line) for line in resumed.stdout.splitlines()]
    assert [event["epoch"] for event in events if event["event"] == "epoch"] == [2, 3]
    for name in ("table.csv", "layers.csv"):
        assert untimed(tmp_path / "killed" / name) == untimed(tmp_path / "whole" / name)


@pytest.mark.faults
@pytest.mark.parametrize("damage", ["nonsense", "another history", "a flipped bit"])
def test_a_checkpoint_that_cannot_be_used_costs_the_checkpoint_only(
    cli, tmp_path, monkeypatch, damage
):
    """Whether or not its checksum is right, and although it holds networks of the right shape."""
    (tmp_path / "one.yaml").write_text(ONE)
    monkeypatch.setattr(tasks, "CHECKPOINT_SECONDS", 0)
    drop = Store.drop_checkpoint
    monkeypatch.setattr(Store, "drop_checkpoint", lambda store, key: None)
    assert cli("sweep", "one.yaml", "--out", "whole").returncode == 0
    monkeypatch.setattr(Store, "drop_checkpoint", drop)
    (path,) = (tmp_path / "whole/checkpoints").iterdir()
    content = formats.unseal(path.read_bytes())
    if damage == "nonsense":
        content = formats.seal(b"nonsense")
    elif damage == "another history":
        state = serialization.msgpack_restore(content)
        members = json.loads(state["members"])
        for member in members:
            member["history"] = [{"no": "entropy"} for _ in member["history"]]
        state["members"] = json.dumps(members)
        content = formats.seal(serialization.msgpack_serialize(state))
    else:
        content = bytearray(formats.seal(content))
        content[-1] ^= 1
    damaged = tmp_path / "damaged/checkpoints" / path.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(content)
    done = cli("sweep", "one.yaml", "--out", "damaged")
    assert done.returncode == 0, done.stdout
    assert "checkpoint unusable" in done.stdout.replace("\n", " ")
    assert untimed(tmp_path / "damaged/table.csv") == untimed(tmp_path / "whole/table.csv")
    assert not damaged.exists()


@pytest.mark.faults
@pytest.mark.slow
def test_a_dying_worker_fails_its_cell_and_the_rest_goes_on(process, tiny, tmp_path):
    with started(tmp_path, tiny, "--out", "run", "--workers", "1", "--json") as running:
        wait_for(running, '"started"')
        (worker,) = children_of(running.pid)
        os.kill(worker, signal.SIGKILL)
        rest = running.stdout.read()
        assert running.wait() == 1
    events = [json.loads(line) for line in rest.splitlines()]
    (failure,) = [e for e in events if e["event"] == "failed"]
    assert "killed" in failure["reason"] and len(failure["cells"]) == 1
    assert [e["event"] for e in events].count("finished") == 3
    assert len(untimed(tmp_path / "run" / "table.csv")) == 3

    repaired = process("sweep", tiny, "--out", "run")
    assert repaired.returncode == 0
    assert len(untimed(tmp_path / "run" / "table.csv")) == 4


LONG = ["--set", "training.epochs=1000000", "--out", "run"]


@pytest.mark.faults
def test_an_interrupt_stops_everything(tiny, tmp_path):
    with started(tmp_path, tiny, *LONG, "--workers", "1") as process:
        wait_for(process, "to train: 4 on")
        while not (workers := children_of(process.pid)) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        told = process.stdout.read()
        assert "stopped: 0 of 4 networks done" in told and "the same command continues" in told
        assert process.wait(timeout=20) == 130
    assert workers and not any(map(is_alive, workers))


@pytest.mark.faults
def test_a_second_run_in_the_same_folder_is_refused(process, tiny, tmp_path):
    with started(tmp_path, tiny, *LONG) as first:
        wait_for(first, "to train: 4 on")
        second = process("sweep", tiny, "--out", "run")
        assert second.returncode == 2 and "another cbundles process" in second.stderr


@pytest.mark.slow
def test_mnist_from_the_publishers_archives(process, shared, tmp_path):
    """The real data set through TensorFlow Datasets, without internet."""
    archives = shared / "data" / "mnist"
    done = process(
        "sweep", str(ROOT / "configs" / "mnist_fc.yaml"), "--manual-dir", str(archives),
        "--data-dir", str(tmp_path / "tfds"), "--set", "training.epochs=1",
        "--set", "model.depth=4", "--set", "model.width=32", "--set", "data.augmentation=none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = untimed(tmp_path / "results" / "mnist_fc" / "table.csv")
    assert row["dataset"] == "mnist" and float(row["test_accuracy"]) > 0.85
    assert row["first_conflicting_layer"] == ""
