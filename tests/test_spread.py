"""One network over several devices, and over several processes: what one device finds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cbundles.errors import InputError
from cbundles.executor import local, planner
from cbundles.executor.cluster import Cluster, cluster_of
from cbundles.executor.planner import PopulationJob
from cbundles.store import CELLS, Store

DENSE = """
data: {name: mnist_mini}
model: {family: fc, width: [10, 20], depth: 4}
training: {epochs: 1, batch_size: 128, seed: [0, 1]}
probe: {samples: 512, headroom: last}
"""
RESNET = """
data: {name: mnist_mini}
model: {family: resnet, blocks: "1,1,0,0", base_filters: 4}
training: {epochs: 1, batch_size: 512}
probe: {samples: 512, readings: paper}
"""
GROWING = """
data: {name: spirals}
model: {family: fc, width: 6, depth: 2}
training: {epochs: 4, batch_size: 50}
growth: {arm: max, first_epoch: 2, backtrack: 1}
"""
NUMBERS = ("test_accuracy", "train_loss", "entropy", "conflict_rate", "headroom", "depth")


def command(config: Path, out: Path, *flags: str, kind: str = "sweep") -> list[str]:
    run = [sys.executable, "-m", "cbundles", kind, str(config), "--device", "cpu"]
    return [*run, "--out", str(out), *flags]


def environment(devices: int, **more: str) -> dict[str, str]:
    count = f"--xla_force_host_platform_device_count={devices}"
    return {**os.environ, "XLA_FLAGS": count, **more}


def over_devices(config: Path, out: Path, devices: int, kind: str = "sweep") -> Store:
    flags = ["--workers", "1", "--devices", str(devices)]
    subprocess.run(
        command(config, out, *flags, kind=kind),
        env=environment(devices),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return Store(out)


def free_address() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


def start_process(
    number: int, address: str, config: Path, out: Path, *flags: str, **variables: str
) -> subprocess.Popen[str]:
    """One of two that train together."""
    together = ["--coordinator", address, "--processes", "2", "--process", str(number)]
    return subprocess.Popen(
        command(config, out, *together, *flags),
        env=environment(1, **variables),
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def require_alike(ours: Store, theirs: Store, devices: int) -> None:
    """The same records, to rounding, and it is said on how many devices they were made."""
    assert ours.ids() == theirs.ids()
    for record in ours.records(CELLS):
        other = theirs.record(record.id)
        assert record.origin.devices == 1 and other.origin.devices == devices
        for name in NUMBERS:
            if getattr(record.history, name, None) is None:
                continue
            one, two = (jax.tree.leaves(getattr(each.history, name)) for each in (record, other))
            # An image in a thousand may be classified otherwise.
            np.testing.assert_allclose(two, one, rtol=0, atol=1.1e-3, err_msg=name)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    config = tmp_path_factory.mktemp("dense") / "dense.yaml"
    config.write_text(DENSE)
    return config


@pytest.fixture(scope="module")
def alone(dense):
    """What one device makes of it. A population of two networks, and two of one."""
    return over_devices(dense, dense.with_name("alone"), 1)


@pytest.mark.parametrize("devices", [2, 4])
def test_records_of_several_devices_are_those_of_one(alone, dense, devices):
    store = over_devices(dense, dense.with_name(f"over{devices}"), devices)
    assert {record.population for record in store.records(CELLS)} == {1, 2}
    require_alike(alone, store, devices)


def test_a_record_of_one_device_does_not_speak_of_devices(alone):
    assert b'"devices"' not in alone.sealed_path(CELLS).read_bytes()


@pytest.mark.parametrize(("kind", "text"), [("sweep", RESNET), ("grow", GROWING)])
def test_other_networks_are_the_same_over_two_devices(tmp_path, kind, text):
    config = tmp_path / "other.yaml"
    config.write_text(text)
    one, two = (over_devices(config, tmp_path / str(n), n, kind) for n in (1, 2))
    require_alike(one, two, 2)


@pytest.fixture(scope="module")
def two(dense):
    """What two processes make of it."""
    address, out, other = free_address(), dense.with_name("two"), dense.with_name("second")
    both = [start_process(n, address, dense, out if n == 0 else other) for n in (0, 1)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert not other.exists()  # the first one alone writes
    return Store(out)


def test_two_processes_find_what_one_finds(alone, two):
    require_alike(alone, two, 2)


def test_two_processes_go_on_from_the_first_ones_checkpoint(dense, two):
    address, out, other = free_address(), dense.with_name("cut"), dense.with_name("none")
    often = {"CBUNDLES_CHECKPOINT_SECONDS": "0", "CBUNDLES_PAUSE_SECONDS": "0"}
    both = [start_process(n, address, dense, out if n == 0 else other, **often) for n in (0, 1)]
    while not Store(out).checkpoints():
        assert both[0].poll() is None
    both[1].kill()  # the first one cannot go on alone
    both[1].wait()
    assert both[0].wait(timeout=300) == 1
    assert Store(out).checkpoints()
    address = free_address()
    both = [start_process(n, address, dense, out if n == 0 else other) for n in (0, 1)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert "goes on from its checkpoint" in (out / "logs" / "progress.log").read_text()
    for record in two.records(CELLS):
        assert Store(out).record(record.id).history == record.history


def test_more_devices_than_there_are(dense, tmp_path):
    flags = ["--workers", "1", "--devices", "2"]
    done = subprocess.run(
        command(dense, tmp_path / "out", *flags),
        env=environment(1),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--devices 2: JAX has 1 CPU device here; nearest valid: 1, or XLA_FLAGS" in done.stderr
    assert "Traceback" not in done.stderr


def job(members: int, batch_size: int) -> PopulationJob:
    from cbundles import config

    training = [config.Training(batch_size=batch_size, seed=seed) for seed in range(members)]
    model = config.Model(depth=3, width=10)
    cells = [config.Cell(config.Data(), model, one, config.Probe()) for one in training]
    return PopulationJob(tuple(cells))


def test_what_cannot_be_divided_is_refused():
    planner.require_even(job(1, 64), 4)
    planner.require_even(job(3, 64), 6)
    with pytest.raises(InputError, match=r"--devices 3: training.batch_size = 64 .* 3 devices"):
        planner.require_even(job(1, 64), 3)
    with pytest.raises(InputError, match=r"nearest valid: --devices 2, or .*batch_size = 66"):
        planner.require_even(job(1, 64), 3)
    with pytest.raises(InputError, match=r"nearest valid: --devices 4, or"):
        planner.require_even(job(4, 64), 6)
    planner.require_even(job(4, 64), 4)


SLURM_SAYS = {"SLURM_NTASKS": "8", "SLURM_PROCID": "3"}


@pytest.mark.parametrize(
    ("typed", "environment", "cluster"),
    [
        ((None, None, None), SLURM_SAYS, None),
        (("here:1234", 4, 1), {}, Cluster("here:1234", 4, 1)),
        (("here:1234", None, None), SLURM_SAYS, Cluster("here:1234", 8, 3)),
        (("slurm", None, None), SLURM_SAYS, Cluster("slurm", 8, 3)),
    ],
)
def test_who_a_process_is_follows_from_flags_or_slurm(typed, environment, cluster):
    assert cluster_of(*typed, environment) == cluster


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ((None, 2, None), "--processes 2: .*add --coordinator HOST:PORT"),
        ((None, None, 0), "--process 0: .*add --coordinator HOST:PORT"),
        (("here", 2, 0), "--coordinator here: must be HOST:PORT, or slurm"),
        (("here:1", None, 0), "--processes is missing, .*SLURM_NTASKS is not set"),
        (("slurm", 2, None), "--process is missing, .*SLURM_PROCID is not set"),
        (("here:1", 2, 2), "--process 2: of 2 processes.*nearest valid: 1"),
    ],
)
def test_a_cluster_that_cannot_be(typed, message):
    with pytest.raises(InputError, match=message):
        cluster_of(*typed, {})


def test_gpus_are_shared_out_among_workers(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,5")
    assert local.default_workers("gpu", 1) == 4
    assert local.default_workers("gpu", 2) == 2
    assert [local._gpus_of(place, 2) for place in range(2)] == [["0", "1"], ["2", "5"]]
    with pytest.raises(InputError, match="--devices 8: GPUs here: 4; nearest valid: 4"):
        local._gpus_of(0, 8)
    taking_turns = [
        local._workers_on_each_gpu(*given) for given in ((4, 1), (5, 1), (2, 2), (3, 2))
    ]
    assert taking_turns == [1, 2, 1, 2]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local.default_workers("gpu", 1) == 1
