"""Faults: whatever ends a command in the middle, what it resumes to is what nothing disturbed.

Real processes, small experiments. `pytest -m faults` runs these and the tests of other files that
have the mark: of one fault each, beside what it breaks. Kills are drawn from a seed: 50 of them,
and some more where Ray is installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from conftest import ROOT
from processes import is_alive

pytestmark = [pytest.mark.slow, pytest.mark.faults]

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray not installed")
KILLS = {
    "sweep": 8,
    "images": 6,
    "grow": 6,
    "tune": 6,
    "autotune": 6,
    "lesion": 3,
    "sweep as a shard": 3,
    "autotune as a shard": 2,
    "lesion as a shard": 2,
}
KILLS_OF_SHARDS_AT_ONCE = 8
KILLS_ON_RAY = 4
SCHEDULED = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def test_fifty_kills_are_drawn():
    assert sum(KILLS.values()) + KILLS_OF_SHARDS_AT_ONCE == 50


@pytest.fixture(scope="module")
def attacks(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """What `scripts/attack.py` is made of, and what its scenarios end with undisturbed."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from attacks import disk, kills, processes, shards
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    yield SimpleNamespace(
        disk=disk,
        kills=kills,
        processes=processes,
        shards=shards,
        scenario={scenario.name: scenario for scenario in processes.SCENARIOS},
        undisturbed=processes.Undisturbed(tmp_path_factory.mktemp("undisturbed"), {}),
    )


def killed_so_often(attacks, name: str, count: int, folder: Path) -> None:
    """Kill one run until it has been hit so often, then complete it. One that ends before its kill
    comes is compared as well, and the next one begins elsewhere."""
    scenario, chance = attacks.scenario[name], Random(name)
    whole = attacks.undisturbed.of(scenario)
    drawn: list[str] = []
    hits = runs = 0
    while hits < count:
        kill = attacks.kills.draw(chance, scenario, whole)
        drawn.append(str(kill))
        if attacks.kills.kill_at(scenario, folder / str(runs) / "run", kill, {}):
            hits += 1
        else:
            complete_and_compare(attacks, scenario, folder / str(runs) / "run", whole, drawn)
            drawn, runs = [], runs + 1
    complete_and_compare(attacks, scenario, folder / str(runs) / "run", whole, drawn)


def complete_and_compare(attacks, scenario, folder: Path, whole, drawn: list[str]) -> None:
    problem = attacks.kills.wrong_continuation(scenario, folder, {}, whole)
    assert problem is None, f"{scenario.name}, disturbed by {drawn}: {problem}"


def test_runs_that_are_killed_again_and_again_end_as_ones_that_are_not(attacks, tmp_path):
    """Two at a time, as each command keeps one core busy."""
    for name in KILLS:
        attacks.undisturbed.of(attacks.scenario[name])
    with ThreadPoolExecutor(attacks.processes.AT_ONCE) as pool:
        killed = [
            pool.submit(killed_so_often, attacks, name, count, tmp_path / name)
            for name, count in KILLS.items()
        ]
    for each in killed:
        each.result()  # or what it raised


@needs_ray
def test_a_run_on_ray_that_is_killed_ends_as_one_on_one_machine(attacks, tmp_path):
    killed_so_often(attacks, "sweep on Ray", KILLS_ON_RAY, tmp_path)


@pytest.mark.parametrize("name", ["sweep", "autotune"])
def test_shards_at_once_that_are_killed_end_as_one_process(attacks, name, tmp_path):
    """All four of them, each at a moment of its own, and all are started again at once."""
    scenario, chance = attacks.scenario[name], Random(name)
    whole = attacks.undisturbed.of(scenario)
    # Half of the time is imports: what comes later may be after the end of a share.
    moments = [chance.uniform(0, whole.seconds / 2) for _ in range(KILLS_OF_SHARDS_AT_ONCE // 2)]
    problem = attacks.shards.killed_and_completed(scenario, tmp_path / "run", moments, {}, whole)
    assert problem is None, f"killed after {moments} s: {problem}"


@contextmanager
def training(attacks, scenario, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A command of many epochs whose worker trains; in a session of its own, as under a
    scheduler. Killed at the end, if it still runs."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    (folder.parent / "attack.yaml").write_text(scenario.text)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "cbundles.cli", *scenario.arguments.split()),
            *("--workers", "1", "--out", str(folder)),
        ],
        cwd=folder.parent,
        env=attacks.processes.product_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            deadline = time.monotonic() + 120
            while not list(folder.glob("checkpoints/*")) and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(child) for child in path.read_text().split()]


@pytest.mark.parametrize("whom", ["the command", "all of its processes"])
@pytest.mark.parametrize("number", SCHEDULED)
def test_a_signal_stops_a_run_soon_with_one_message(attacks, number, whom, tmp_path):
    """SLURM sends it to all processes of a job, `kill` to one; some send it twice."""
    scenario = attacks.scenario["sweep"]
    whole = attacks.undisturbed.of(scenario)
    with training(attacks, scenario, tmp_path / "run") as process:
        workers = workers_of(process)
        targets = [process.pid] if whom == "the command" else [*workers, process.pid]
        for pid in [*targets, process.pid]:
            os.kill(pid, number)
        started = time.monotonic()
        out, err = process.communicate(timeout=60)
        assert time.monotonic() - started < 10
    assert process.returncode == SCHEDULED[number]
    assert err == f"cbundles: stopped by {number.name}\n"
    assert out.count("stopped: ") == 1 and out.endswith("the same command continues\n")
    assert "FAILED" not in out
    assert workers and not any(map(is_alive, workers))
    complete_and_compare(attacks, scenario, tmp_path / "run", whole, [number.name])


def test_a_signal_that_nohup_ignores_is_ignored(tmp_path):
    code = (
        "import signal; from cbundles import stopping\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with stopping.told(): signal.raise_signal(signal.SIGHUP)\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == 0


def test_a_signal_waits_for_what_is_being_started():
    code = (
        "import signal; from cbundles import stopping\n"
        "with stopping.told():\n"
        "    with stopping.held():\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "        print('started')\n"
        "    print('went on')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (SCHEDULED[signal.SIGTERM], "started\n")


@needs_ray
def test_a_signal_stops_a_run_on_ray_as_well(attacks, tmp_path):
    scenario = attacks.scenario["sweep"]
    text = scenario.text.replace("epochs: 3", "epochs: 100000")
    long = scenario._replace(text=text, arguments=f"{scenario.arguments} --executor ray")
    place = tmp_path / "place"
    place.mkdir()
    (place / "attack.yaml").write_text(long.text)
    process = subprocess.Popen(
        [sys.executable, "-m", "cbundles.cli", *long.arguments.split(), "--out", "run", "--json"],
        cwd=place,
        env=attacks.processes.product_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            for line in process.stdout:
                if json.loads(line)["event"] == "epoch":
                    break
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 143 and err.endswith("cbundles: stopped by SIGTERM\n")
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["sweep", "grow", "tune", "autotune", "lesion"])
def test_a_worker_that_is_killed_for_memory_loses_nothing(attacks, name, tmp_path):
    """Its population is told as failed, once, and is not tried again; the same command does."""
    scenario = attacks.scenario[name]
    whole = attacks.undisturbed.of(scenario)
    with training(attacks, scenario, tmp_path / "run") as process:
        (worker,) = workers_of(process)
        os.kill(worker, signal.SIGKILL)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 1, out + err
    assert "killed, perhaps for lack of memory" in out
    assert "Traceback" not in out + err
    complete_and_compare(attacks, scenario, tmp_path / "run", whole, ["its worker"])


def test_disks_without_space_are_told_and_lose_nothing(attacks, tmp_path):
    attempts = list(attacks.disk.attempts(Random(0), 2, tmp_path))
    assert [attempt for attempt in attempts if attempt.problem is not None] == []


@pytest.mark.parametrize(
    ("blocked", "code", "message"),
    [
        ("run", 2, "run: is a file; nearest valid: a folder"),
        ("run/logs", 2, "logs: "),
        ("run/cells", 1, "run/cells"),
        ("run/checkpoints", 1, "run/checkpoints"),
        ("cache", 2, "name another cache with CBUNDLES_CACHE"),
    ],
)
def test_a_place_that_cannot_be_written_is_told(attacks, blocked, code, message, tmp_path):
    """A file is where a folder should be: that stops root, too. Without it the run continues."""
    scenario = attacks.scenario["sweep"]
    whole = attacks.undisturbed.of(scenario)
    place = tmp_path / blocked
    place.parent.mkdir(exist_ok=True)
    place.touch()
    cache = {"CBUNDLES_CACHE": str(tmp_path / "cache")} if blocked == "cache" else {}
    ended = attacks.processes.run_to_the_end(scenario, tmp_path / "run", cache)
    assert ended.code == code and message in ended.said, ended
    assert "Traceback" not in ended.said
    place.unlink()
    complete_and_compare(attacks, scenario, tmp_path / "run", whole, [blocked])


def test_without_a_place_for_compiled_programs_they_are_compiled_each_time(attacks, tmp_path):
    scenario = attacks.scenario["sweep"]
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/xla").touch()
    cache = {"CBUNDLES_CACHE": str(tmp_path / "cache")}
    ended = attacks.processes.run_to_the_end(scenario, tmp_path / "run", cache)
    assert ended.code == 0, ended.said
    found = attacks.processes.what_was_found(tmp_path / "run")
    assert found == attacks.undisturbed.of(scenario).found


def test_shards_in_any_order_end_as_one_process(attacks, tmp_path):
    """From the last one on, one after the other."""
    scenario = attacks.scenario["sweep"]
    for number in (3, 2, 1):
        part = scenario._replace(arguments=f"{scenario.arguments} --shard {number}/3")
        assert attacks.processes.run_to_the_end(part, tmp_path / "run").code == 0
    whole = attacks.undisturbed.of(scenario)
    complete_and_compare(attacks, scenario, tmp_path / "run", whole, [])


def test_a_python_that_greets_is_no_worker_that_tells_something(process, tmp_path, monkeypatch):
    """What a `sitecustomize` prints comes before anything of ours is imported."""
    (tmp_path / "sitecustomize.py").write_text("print('welcome to this cluster')\n")
    paths = [str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    grid = "data: {name: spirals}\nmodel: {width: 4, depth: 2}\ntraining: {epochs: 1}\n"
    (tmp_path / "grid.yaml").write_text(f"{grid}probe: {{samples: 64}}\n")
    done = process("sweep", "grid.yaml", "--out", "run", "--workers", "1", timeout=120)
    assert done.returncode == 0 and "[1/1]" in done.stdout, done.stderr
