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
from untimed import untimed_records

from cbundles.executor import on_ray
from cbundles.store import CELLS, KINDS, Store

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray not installed")
TINY = """
data: {name: spirals}
model: {width: [6, 24], depth: 3}
training: {epochs: 600}
probe: {samples: 100}
"""


@pytest.fixture
def cluster(monkeypatch):
    """A head with one core; yields what adds and removes further machines. Workers save whenever
    they can, and a task hands over the latest checkpoint ten times a second."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("CBUNDLES_CHECKPOINT_SECONDS", "0")
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setattr(on_ray, "SEND_SECONDS", 0.1)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.mark.faults
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
    assert untimed_records(tmp_path / "ray") == untimed_records(tmp_path / "local")
    assert not list((tmp_path / "ray").glob("checkpoints/*"))
    assert len(Store(tmp_path / "ray").records(CELLS)) == 2


COMMANDS = {
    "autotune": (
        "autotune --dataset spirals --blocks 1,1,0,0 --seeds 1 --set training.epochs=1 "
        "--set training.conflict_checks=1 --set model.base_filters=2 --set probe.samples=100",
        "",
    ),
    "lesion": (
        "lesion --config given.yaml --draws 2",
        "data: {name: spirals}\nmodel: {family: resnet, blocks: '1,1,0,0', base_filters: 2}\n"
        "training: {epochs: 1}\nprobe: {samples: 100}\n",
    ),
    "grow": (
        "grow given.yaml --keep-weights",
        "data: {name: spirals}\nmodel: {width: 5, depth: 2}\ntraining: {epochs: 4}\n"
        "probe: {samples: 100}\n"
        "growth: {arm: [max, random], first_epoch: 1, every: 2, insertions: 1}\n",
    ),
    "tune": (
        "tune given.yaml",
        "data: {name: spirals}\nmodel: {width: 5, depth: 4}\ntraining: {epochs: 6}\n"
        "probe: {samples: 100}\n"
        "tuning: {arm: [both, fixed], budget_depth: 4, every: 2, trial: 2, cooldown: 1}\n",
    ),
}


@needs_ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_command_ends_as_on_one_machine(cli, cluster, tmp_path, unchecked):
    """Also what follows from a record, and what a study needs: the networks that were trained."""
    on_cluster = ("--executor", "ray", "--address", cluster.address)
    for name, (command, text) in COMMANDS.items():
        (tmp_path / "given.yaml").write_text(text)
        for place, flags in (("local", ()), ("ray", on_cluster)):
            done = cli(*command.split(), *flags, "--out", f"{place}/{name}")
            assert done.returncode == 0, done.stdout + done.stderr
        there, here = Store(tmp_path / "ray" / name), Store(tmp_path / "local" / name)
        assert untimed_records(there.folder) == untimed_records(here.folder), name
        assert [there.records(kind) for kind in KINDS if kind is not CELLS] == [
            here.records(kind) for kind in KINDS if kind is not CELLS
        ]
        for path in here.folder.glob("weights/*"):
            assert there.network_digest(path.stem) == here.network_digest(path.stem) is not None


@pytest.mark.faults
@needs_ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_network_that_takes_its_process_down_each_time_is_given_up(
    cli, cluster, tiny, tmp_path, monkeypatch
):
    do = on_ray._do

    def poisoned(job, needed, fingerprint, options):
        if job.cells[0].model.width == 6:
            os._exit(1)
        yield from do(job, needed, fingerprint, options)

    monkeypatch.setattr(on_ray, "_do", poisoned)
    on_cluster = ("--executor", "ray", "--address", cluster.address)
    done = cli("sweep", tiny, "--set", "training.epochs=2", *on_cluster, "--out", "ray")
    assert done.returncode == 1
    assert done.stdout.count("given to Ray again") == on_ray.ATTEMPTS - 1
    assert done.stdout.count("FAILED") == 1 and "lost 4 times" in done.stdout
    assert [record.cell.model.width for record in Store(tmp_path / "ray").records(CELLS)] == [24]


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
        (["--executor", "ray", "--devices", "2"], "leave one of the two out"),
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
