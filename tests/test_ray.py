"""A sweep on Ray: its records are those of one machine, also when a machine is lost on the way.

The cluster is real, of two raylets on this machine. Without Ray (`pip install 'cbundles[ray]'`)
only what is said without it is tested.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cbundles.executor import on_ray
from cbundles.store import CELLS, Store

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray not installed")
TINY = """
data: {name: spirals}
model: {width: [6, 24], depth: 3}
training: {epochs: 300}
probe: {samples: 100}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    (tmp_path / "tiny.yaml").write_text(TINY)
    return "tiny.yaml"


@pytest.fixture
def cluster(monkeypatch):
    """A head with one core; yields what adds and removes further machines. Workers save whenever
    they can, and a task hands over every checkpoint at once."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("CBUNDLES_CHECKPOINT_SECONDS", "0")
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setattr(on_ray, "SEND_SECONDS", 0.0)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def untimed(folder: Path) -> list[object]:
    """The sealed records of a run without what the clock said."""
    lines = (folder / "records.jsonl").read_text().splitlines()[1:]  # without the header
    return sorted((without_times(json.loads(line)) for line in lines), key=str)


def without_times(value: object) -> object:
    if isinstance(value, dict):
        kept = {key: each for key, each in value.items() if "seconds" not in key}
        return {key: without_times(each) for key, each in kept.items()}
    return [without_times(each) for each in value] if isinstance(value, list) else value


@needs_ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray's own, which are not ours to mend
def test_a_machine_that_is_killed_costs_nothing_but_time(cli, cluster, tiny, tmp_path, monkeypatch):
    """Both machines train a network when one is removed with SIGKILL. Its network goes on, from the
    checkpoint that was handed over, on the other."""
    assert cli("sweep", tiny, "--out", "local").returncode == 0
    other = cluster.add_node(num_cpus=1)
    run_jobs, latest = on_ray.run_jobs, {}

    def killing(*arguments, **options):
        killed = False
        for event in run_jobs(*arguments, **options):
            if event["event"] == "epoch":
                latest[event["population"]] = event["epoch"]
            both_train = len(latest) == 2 and all(epoch >= 2 for epoch in latest.values())
            if both_train and not killed:
                cluster.remove_node(other, allow_graceful=False)
                killed = True
            yield event

    monkeypatch.setattr(on_ray, "run_jobs", killing)
    done = cli(
        "sweep", tiny, "--executor", "ray", "--address", cluster.address, "--out", "ray", "--json"
    )
    assert done.returncode == 0, done.stderr + done.stdout
    events = [json.loads(line) for line in done.stdout.splitlines()]
    notes = [event["text"] for event in events if event["event"] == "note"]
    assert any("lost, and given to Ray again" in note for note in notes), notes
    assert any("goes on from its checkpoint" in note for note in notes), notes
    assert [event["event"] for event in events].count("started") == 2
    assert untimed(tmp_path / "ray") == untimed(tmp_path / "local")
    assert not list((tmp_path / "ray").glob("checkpoints/*"))
    assert len(Store(tmp_path / "ray").records(CELLS)) == 2


def test_without_ray_one_line_names_the_extra(cli, tiny, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = cli("sweep", tiny, "--executor", "ray", "--plan")
    assert done.returncode == 2 and "pip install 'cbundles[ray]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--executor", "rya"], "did you mean 'ray'?"),
        (["--address", "auto"], "no effect without --executor ray"),
    ],
)
def test_flags_that_cannot_be_are_refused(cli, tiny, arguments, message):
    done = cli("sweep", tiny, *arguments, "--plan")
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", "must be HOST:PORT"),
        ("127.0.0.1:1", "no Ray cluster answers there"),
        ("127.0.0.1:99999999", "no Ray cluster answers there"),
    ],
)
def test_a_cluster_that_does_not_answer_is_told_at_once(cli, tiny, monkeypatch, address, message):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    ray = SimpleNamespace(is_initialized=lambda: False)
    monkeypatch.setitem(sys.modules, "ray", ray)
    done = cli("sweep", tiny, "--executor", "ray", "--address", address)
    assert done.returncode == 2 and message in done.stderr
