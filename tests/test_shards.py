"""Shards: how a run is dealt, shards that write into one folder, and what a killed one leaves."""

from __future__ import annotations

import csv
import errno
import fcntl
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from untimed import untimed_records

from cbundles.errors import InputError
from cbundles.executor.shards import deal
from cbundles.store import CELLS, LESIONS, Store

TINY = """
data: {name: spirals}
model: {width: [6, 24], depth: [3, 8]}
training: {epochs: 2}
probe: {samples: 300}
"""


def untimed_table(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's table without what the clock said."""
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: row[key] for key in row if "seconds" not in key} for row in rows]


COSTS = st.dictionaries(st.text("abcdef", min_size=1), st.floats(0.1, 1000), max_size=40)


@given(COSTS, st.integers(1, 12))
def test_a_deal_gives_every_job_once_and_leaves_no_shard_far_behind(costs, count):
    dealt = deal(costs, count)
    assert dealt.keys() == costs.keys() and set(dealt.values()) <= set(range(1, count + 1))
    loads = [sum(costs[key] for key in dealt if dealt[key] == n + 1) for n in range(count)]
    if len(costs) >= count:
        assert max(loads) - min(loads) <= max(costs.values(), default=0.0) * (1 + 1e-9)


@given(COSTS, st.integers(1, 12))
def test_a_deal_does_not_depend_on_the_order_in_which_jobs_are_named(costs, count):
    assert deal(dict(reversed(costs.items())), count) == deal(costs, count)


def test_the_longest_jobs_are_dealt_first():
    assert deal({"a": 1.0, "b": 5.0, "c": 4.0, "d": 3.0}, 2) == {"b": 1, "c": 2, "d": 2, "a": 1}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("0/3", "numbered from 1 to 3; nearest valid: 1/3"),
        ("4/3", "numbered from 1 to 3; nearest valid: 3/3"),
        ("-1/3", "nearest valid: 1/3"),
        ("1/0", "nearest valid: 1/1"),
        ("1/-2", "nearest valid: 1/1"),
        ("a/b", "such as 1/8"),
        ("3", "such as 1/8"),
        ("1/3/5", "such as 1/8"),
        ("", "such as 1/8"),
        ("1/" + "9" * 5000, "such as 1/8"),
    ],
)
def test_what_is_no_shard_is_refused(cli, tiny, typed, message):
    done = cli("sweep", tiny, f"--shard={typed}", "--plan")
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_shards_do_not_start_over(cli, tiny):
    done = cli("sweep", tiny, "--shard", "1/2", "--fresh")
    assert done.returncode == 2 and "--shard with --fresh" in done.stderr


def test_a_command_without_populations_has_no_shards(cli):
    done = cli("toy", "--shard", "1/2")
    assert done.returncode == 2 and "No such option: --shard" in done.stderr


def test_plans_of_all_shards_make_the_whole_plan(cli, tiny):
    def cells_of(*arguments):
        plan = json.loads(cli("sweep", tiny, "--plan", "--json", *arguments).stdout)
        return [cell["cell"] for cell in plan["cells"]]

    shares = [cells_of("--shard", f"{number}/3") for number in (1, 2, 3)]
    assert all(shares) and sorted([*shares[0], *shares[1], *shares[2]]) == sorted(cells_of())
    more_than_networks = [cells_of("--shard", f"{number}/9") for number in range(1, 10)]
    assert sorted(map(len, more_than_networks)) == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    told = cli("sweep", tiny, "--plan", "--shard", "2/3").stdout
    assert "shard 2/3: 1 networks" in told and "Nothing was run" in told


def test_shards_one_after_the_other_make_the_run(cli, tiny, tmp_path):
    assert cli("sweep", tiny, "--out", "whole/run").returncode == 0
    first = cli("sweep", tiny, "--shard", "1/2", "--out", "dealt/run")
    assert first.returncode == 0 and "2 networks of its share finished" in first.stdout
    assert "left of the run in dealt/run: 2 networks" in first.stdout
    assert not (tmp_path / "dealt/run/table.csv").exists()
    again = cli("sweep", tiny, "--shard", "1/2", "--out", "dealt/run", "--json")
    assert json.loads(again.stdout) == {
        "event": "done", "shard": "1/2", "share": 2, "finished": 2, "failed": 0, "left": 2,
        "folder": "dealt/run",
    }  # fmt: skip
    last = cli("sweep", tiny, "--shard", "2/2", "--out", "dealt/run")
    assert "nothing is left" in last.stdout and "without --shard" in last.stdout
    assert len(list((tmp_path / "dealt/run/cells").iterdir())) == 4
    sealed = cli("sweep", tiny, "--out", "dealt/run")
    assert sealed.returncode == 0 and "to train" not in sealed.stdout
    assert not (tmp_path / "dealt/run/cells").exists()
    assert untimed_table(tmp_path / "dealt/run") == untimed_table(tmp_path / "whole/run")
    assert untimed_records(tmp_path / "dealt/run") == untimed_records(tmp_path / "whole/run")


def test_a_report_seals_what_shards_have_completed(cli, tiny, tmp_path):
    run = tmp_path / "dealt/run"
    cli("sweep", tiny, "--shard", "1/2", "--out", "dealt/run")
    assert "2 not finished" in cli("report", "dealt").stdout
    assert not (run / "records.jsonl").exists()
    cli("sweep", tiny, "--shard", "2/2", "--out", "dealt/run")
    assert cli("report", "dealt").returncode == 0
    assert not (run / "cells").exists() and len(Store(run).records(CELLS)) == 4
    assert len(untimed_table(run)) == 4


@pytest.mark.faults
def test_a_network_that_fails_leaves_the_others_of_its_shard(cli, tiny, tmp_path, monkeypatch):
    """It is told, counted as left, and tried once only."""
    from cbundles.executor import tasks

    train = tasks.TASKS["sweep"]

    def poisoned(context, job, task):
        if job.cells[0].model.width == 6:
            raise MemoryError("always")
        train(context, job, task)

    monkeypatch.setitem(tasks.TASKS, "sweep", poisoned)
    done = cli("sweep", tiny, "--shard", "1/1", "--out", "run")
    assert done.returncode == 1 and done.stdout.count("FAILED") == 2
    assert "2 of 4 networks of its share finished" in done.stdout
    assert "left of the run in run: 2 networks" in done.stdout
    monkeypatch.setitem(tasks.TASKS, "sweep", train)
    repaired = cli("sweep", tiny, "--shard", "1/1", "--out", "run")
    assert repaired.returncode == 0 and "finished already: 2" in repaired.stdout


def test_the_seeds_and_the_baselines_of_an_autotune_are_dealt(cli, tmp_path, unchecked):
    small = (
        "autotune", "--dataset", "spirals", "--blocks", "1,1,0,0", "--seeds", "2", "--baseline",
        "resnet-4", "--set", "training.epochs=1", "--set", "training.conflict_checks=1",
        "--set", "model.base_filters=2", "--set", "probe.samples=100",
    )  # fmt: skip
    assert cli(*small, "--out", "whole").returncode == 0
    told = cli(*small, "--out", "dealt", "--shard", "1/2", "--plan").stdout
    assert told.startswith("shard 1/2: ")
    for number in (1, 2):
        assert cli(*small, "--out", "dealt", "--shard", f"{number}/2").returncode == 0
    assert cli(*small, "--out", "dealt").returncode == 0
    whole, dealt = (json.loads((tmp_path / n / "run.json").read_text()) for n in ("whole", "dealt"))
    for key in ("attempts", "tuned", "given_up", "baseline"):
        assert dealt[key] == whole[key]
    assert untimed_records(tmp_path / "dealt") == untimed_records(tmp_path / "whole")


def test_a_shard_of_a_lesion_studies_the_networks_that_it_trains(cli, tmp_path, unchecked):
    (tmp_path / "study.yaml").write_text(
        "data: {name: spirals}\nmodel: {family: resnet, blocks: '1,1,0,0', base_filters: 2}\n"
        "training: {epochs: 1, seed: [0, 1]}\nprobe: {samples: 100}\n"
    )
    study = ("lesion", "--config", "study.yaml", "--draws", "2", "--out", "dealt")
    first = cli(*study, "--shard", "1/2")
    assert first.returncode == 0 and "left of the run in dealt: 1 network" in first.stdout
    assert len(Store(tmp_path / "dealt").records(LESIONS)) == 1
    assert cli(*study, "--shard", "2/2").returncode == 0
    sealed = cli(*study)
    assert sealed.returncode == 0 and "to train" not in sealed.stdout
    assert len(Store(tmp_path / "dealt").records(LESIONS)) == 2
    assert (tmp_path / "dealt/lesions.jsonl").exists() and (tmp_path / "dealt/table.csv").exists()


@pytest.mark.faults
def test_shards_hold_themselves_and_keep_off_whoever_takes_the_whole_run(tmp_path):
    one, other = Store(tmp_path), Store(tmp_path)
    with one.shared("shard-1-of-2"), other.shared("shard-2-of-2"):
        assert other.is_in_use()
        with pytest.raises(InputError, match="at work on this shard"), other.shared("shard-1-of-2"):
            pass
        with pytest.raises(InputError, match="another cbundles process"), other.locked():
            pass
    refused = pytest.raises(InputError, match="another cbundles process")
    with one.locked(), refused, other.shared("shard-1-of-2"):
        pass
    assert not other.is_in_use()


def test_whoever_looks_whether_a_run_is_in_use_keeps_nobody_from_it(tmp_path):
    run = Store(tmp_path)
    with run.locked():
        pass
    with (tmp_path / ".lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        looker = threading.Timer(0.1, fcntl.flock, (file, fcntl.LOCK_UN))
        looker.start()
        with run.locked():
            looker.join()


def test_the_run_of_another_user_is_seen_to_be_in_use(tmp_path, monkeypatch):
    open_as_owner = Path.open

    def open_as_another(path, mode="r", *rest, **more):
        if mode != "r":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_as_owner(path, mode, *rest, **more)

    run = Store(tmp_path)
    with run.locked(), monkeypatch.context() as another:
        another.setattr(Path, "open", open_as_another)
        assert run.is_in_use()
    monkeypatch.setattr(Path, "open", open_as_another)
    assert not run.is_in_use()


def test_a_file_system_without_locks_does_without(tmp_path, monkeypatch):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with Store(tmp_path).shared("shard-1-of-2"), Store(tmp_path).locked():
        pass


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fresh",), "--print-sbatch with --fresh: shards only add"),
        (("--set", "training.batch_size=100000"), "nearest valid: 450"),
        (("--keep-weights", "500"), "nearest valid: last"),
    ],
)
def test_no_job_array_of_what_every_task_would_refuse(cli, tiny, arguments, said):
    done = cli("sweep", tiny, "--print-sbatch", *arguments)
    assert done.returncode == 2 and said in done.stderr and not done.stdout


def test_a_job_array_is_printed_and_nothing_is_run(cli, tiny, tmp_path):
    arguments = ("--shard", "1/3", "--set", "training.epochs=3", "--workers", "4", "--out", "a b")
    done = cli("sweep", tiny, "--print-sbatch", *arguments)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[0] == "#!/bin/bash"
    assert "#SBATCH --array=1-3" in lines and "#SBATCH --cpus-per-task=4" in lines
    assert lines[-1] == (
        f"exec {sys.executable} -m cbundles sweep tiny.yaml --set training.epochs=3 --workers 4 "
        "--out 'a b' --device cpu --shard \"$SLURM_ARRAY_TASK_ID/3\""
    )
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.yaml"}
    script = tmp_path / "job.sh"
    script.write_text(done.stdout)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    by_default = cli("sweep", tiny, "--print-sbatch", "--device", "gpu").stdout
    assert "#SBATCH --array=1-2" in by_default and "#SBATCH --gres=gpu:1" in by_default
    together = cli("sweep", tiny, "--print-sbatch", "--device", "gpu", "--devices", "2").stdout
    assert "#SBATCH --gres=gpu:2" in together and " on 2 GPUs" in together


@pytest.mark.faults
@pytest.mark.slow
def test_three_shards_at_once_one_killed_end_with_the_table_of_one_process(
    process, frozen, tiny, tmp_path
):
    """Real processes that write into one folder. One is killed while it trains, after some
    checkpoints of a population, and started again while the others still run."""
    eight = ("--set", "training.epochs=8", "--workers", "1")
    whole = process("sweep", tiny, *eight, "--out", "whole")
    assert whole.returncode == 0, whole.stderr

    def shard(number: int) -> list[str]:
        return ["sweep", tiny, *eight, "--out", "dealt", "--shard", f"{number}/3"]

    command = [sys.executable, "-m", "cbundles.cli"]
    others = [subprocess.Popen([*command, *shard(n)], cwd=tmp_path) for n in (1, 2)]
    try:
        with frozen(*shard(3), at="dealt/checkpoints/*", after=5):
            pass  # and killed
        assert list((tmp_path / "dealt/checkpoints").iterdir())
        again = process(*shard(3), "--json")
        assert again.returncode == 0, again.stderr
        assert [other.wait(timeout=600) for other in others] == [0, 0]
    finally:
        for other in others:
            other.kill()
            other.wait()
    events = [json.loads(line) for line in again.stdout.splitlines()]
    assert any("goes on from its checkpoint" in event.get("text", "") for event in events)
    sealed = process("sweep", tiny, *eight, "--out", "dealt")
    assert sealed.returncode == 0 and "to train" not in sealed.stdout, sealed.stdout
    assert untimed_table(tmp_path / "dealt") == untimed_table(tmp_path / "whole")
    assert untimed_records(tmp_path / "dealt") == untimed_records(tmp_path / "whole")
    layers = [(tmp_path / name / "layers.csv").read_bytes() for name in ("dealt", "whole")]
    assert layers[0] == layers[1]
