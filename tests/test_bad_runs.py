"""Runs that are damaged, foreign or odd: they are told, nothing of them is lost, others go on."""

from __future__ import annotations

import json
import shutil

import pytest

GRID = """
data: {name: spirals}
model: {width: 4, depth: [2, 3]}
training: {epochs: 2}
probe: {samples: 64}
"""


@pytest.fixture
def finished(cli, tmp_path):
    """A folder with a finished run."""
    (tmp_path / "grid.yaml").write_text(GRID)
    done = cli("sweep", "grid.yaml")
    assert done.returncode == 0, done.stderr
    return tmp_path / "results/grid"


def change_description(folder, **fields):
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_report_leaves_damaged_records_to_be_repaired(cli, finished):
    """Also where another shard has left records of their own, which are sealed otherwise."""
    sealed = finished / "records.jsonl"
    first, *records = sealed.read_text().splitlines(keepends=True)
    damaged = first + records[0].replace('"', "", 1) + "".join(records[1:])
    more = ("--set", "training.seed=[2,3]", "--shard", "1/1", "--out", "results/grid")
    assert cli("sweep", "grid.yaml", *more).returncode == 0
    sealed.write_text(damaged)
    assert cli("report", "results").returncode == 0
    assert sealed.read_text() == damaged and len(list((finished / "cells").iterdir())) == 4
    assert "records.jsonl:2: damaged" in cli("sweep", "grid.yaml").stderr


@pytest.mark.parametrize("damage", ["kind", "folder"])
def test_a_bad_run_does_not_end_the_report(cli, finished, damage):
    bad = finished.with_name("bad")
    shutil.copytree(finished, bad)
    if damage == "kind":
        change_description(bad, kind="grow")
    else:
        for view in ("layers.csv", "table.csv"):
            (bad / view).unlink(missing_ok=True)
            (bad / view).mkdir()
    done = cli("report", "results")
    assert done.returncode == 0 and "bad" in done.stdout + done.stderr, done.stderr
    assert (finished.parent / "report.html").is_file()
    assert (finished.parent / "claims.md").is_file()


def test_one_class_and_a_network_that_diverged_are_drawn(cli, tmp_path):
    """No entropy is possible then, and a map of it all the same."""
    (tmp_path / "odd.yaml").write_text(
        "model: {width: 300, depth: 3}\n"
        "training: {epochs: 1, learning_rate: 10}\n"
        "probe: {samples: 1}\n"
        "data: {name: mnist_mini}\n"
    )
    done = cli("sweep", "odd.yaml")
    assert done.returncode == 0, done.stderr


def test_a_run_whose_description_is_damaged_is_not_written_over(cli, finished):
    description = finished / "run.json"
    description.write_text("<<<<<<< HEAD\n" + description.read_text())
    before = description.read_text()
    for more in ((), ("--plan",)):
        done = cli("sweep", "grid.yaml", *more)
        assert done.returncode == 2 and "run.json: damaged; restore it" in done.stderr
        assert description.read_text() == before
    description.unlink()
    assert "2 finished already" in cli("sweep", "grid.yaml", "--plan").stdout


def test_no_plan_for_a_file(cli, finished):
    done = cli("sweep", "grid.yaml", "--plan", "--out", "grid.yaml")
    assert done.returncode == 2 and "grid.yaml: is a file" in done.stderr


def test_auto_tuning_leaves_a_sweep_alone(cli, finished):
    before = (finished / "run.json").read_bytes()
    tiny = ("--blocks", "1,1,1,1", "--seeds", "1", "--set", "model.base_filters=2")
    done = cli("autotune", "--dataset", "mnist_mini", *tiny, "--out", "results/grid")
    assert done.returncode == 2 and "holds a run of kind sweep" in done.stderr
    assert (finished / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("command", "override", "nearest"),
    [
        (["autotune"], "data.name=spirals", "--dataset spirals"),
        (["autotune", "--blocks", "1,1,1,1"], "model.blocks=2,2,2,2", "--blocks 2,2,2,2"),
        (["lesion"], "data.name=spirals", "--dataset spirals"),
        (["lesion", "--depth", "50"], "model.depth=10", "--depth 10"),
    ],
)
def test_what_a_flag_says_is_not_said_again(cli, command, override, nearest):
    done = cli(*command, "--dataset", "mnist_mini", "--set", override, "--plan")
    assert done.returncode == 2 and nearest in done.stderr, done.stderr


def test_results_for_programs_have_nothing_of_what_a_module_prints(process, tmp_path):
    module = tmp_path / "prints.py"
    module.write_text(
        "import flax.linen as nn\n"
        "print('loaded')\n"
        "class Net(nn.Module):\n"
        "    @nn.compact\n"
        "    def __call__(self, x):\n"
        "        print('called')\n"
        "        return nn.Dense(2)(nn.relu(nn.Dense(4)(x.reshape(len(x), -1))))\n"
        "def build(depth=1):\n"
        "    print('built')\n"
        "    return Net()\n"
    )
    grid = "data: {name: spirals}\nmodel: {build: 'prints:build', depth: 1}\n"
    (tmp_path / "own.yaml").write_text(grid + "training: {epochs: 1}\nprobe: {samples: 64}\n")
    done = process("sweep", "own.yaml", "--plan", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cells"]
    assert all(word in done.stderr for word in ("loaded", "built", "called"))


def test_looking_at_a_run_runs_nothing_that_it_names(process, finished, tmp_path):
    (tmp_path / "shouts.py").write_text("print('I was run')\n")
    description = json.loads((finished / "run.json").read_text())
    description["config"]["model"] = {"family": "own", "build": "shouts:build"}
    (finished / "run.json").write_text(json.dumps(description))
    done = process("status", "results/grid", "--json")
    assert "I was run" not in done.stdout + done.stderr
