"""Run populations on this machine: one worker process per CPU core, or per GPU."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cbundles import stopping
from cbundles.data.sources import cache_root
from cbundles.errors import InputError
from cbundles.executor import planner
from cbundles.executor.cluster import Cluster
from cbundles.executor.planner import Job

NO_GPU = "no GPU that JAX can use; name the CPU with --device cpu"


def detect_device() -> str:
    """``gpu`` or ``cpu``, without importing JAX."""
    chosen = os.environ.get("JAX_PLATFORMS", "")
    if chosen:
        return "cpu" if chosen.split(",")[0] == "cpu" else "gpu"
    names = {d.name.lower() for d in importlib.metadata.distributions() if d.name}
    plugin = any(name.startswith("jax-cuda") for name in names)
    return "gpu" if plugin and Path("/dev/nvidia0").exists() else "cpu"


def refuse_double_precision() -> None:
    """InputError where the environment makes JAX compute with 64 bits, or cannot be understood:
    results would be others than those of their settings, which do not name a precision."""
    value = os.environ.get("JAX_ENABLE_X64", "").lower()
    if value not in ("", "0", "false", "f", "off", "no", "n"):
        raise InputError(
            f"JAX_ENABLE_X64 = {value!r}: networks are trained and measured in float32, as in the "
            "paper; nearest valid: 0, or unset it"
        )


def require_device(device: str) -> None:
    """InputError when JAX cannot use the device. Asks JAX in a process of its own: it stays out of
    this one."""
    if device == "cpu":
        return
    question = "import jax; print(jax.default_backend())"
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", question],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or done.stdout.strip() == "cpu":
        raise InputError(NO_GPU)


def usable_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def usable_gpus() -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` names, or all that the driver shows; none of another maker."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    numbers = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia*")]
    return sorted((number for number in numbers if number.isdecimal()), key=int)


def default_workers(device: str, devices: int) -> int:
    """One for each core, or GPU; or for so many of them as train each population together."""
    there = usable_cores() if device == "cpu" else usable_gpus()
    return max(1, len(there) // devices)


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    *,
    device: str,
    workers: int,
    keep: Sequence[str] = (),
    logs: Path | None = None,
    then: Callable[[Job], Sequence[Job]] = lambda finished: (),
    devices: int | None = None,
    cluster: Cluster | None = None,
) -> Generator[dict[str, Any], None, None]:
    """Do all jobs, populations to train above all; yields what the workers report, as it happens.

    Events: ``ready``, ``started``, ``epoch``, ``step``, ``finished``, ``failed``, ``note``. A
    worker that dies fails the job it had and is replaced. `then` names what follows from a job that
    finished; its worker takes it on. Closing the iterator stops all workers.

    logs: where workers write what they print, by default in the folder. devices, cluster: see
    `running.Options`. In a cluster a population that fails ends the run: the other processes may be
    anywhere in it. They are told to end when nothing is left.
    """
    waiting = list(reversed(jobs))
    events: queue.Queue[tuple[_WorkerProcess, dict[str, Any] | None]] = queue.Queue()
    crew: list[_WorkerProcess] = []
    cores = usable_cores()
    hired = min(workers, len(jobs))
    crowd = _workers_on_each_gpu(hired, devices or 1) if device == "gpu" and not cluster else 1
    has_failed = False  # in a cluster: the others may wait for what never comes

    def hire(place: int) -> None:
        mine = cores[place % len(cores) :: workers] if device == "cpu" else []
        options = {
            "cores": mine,
            "keep": list(keep),
            "workers_on_device": crowd,
            **_together(devices, cluster),
        }
        gpus = _gpus_of(place, devices or 1) if device == "gpu" and cluster is None else None
        log = (logs or folder / "logs") / f"worker-{place}.log"
        with stopping.held():
            crew.append(_WorkerProcess(place, folder, device, options, gpus, log, events))

    def give(worker: _WorkerProcess) -> dict[str, Any] | None:
        if not waiting:
            worker.stop(and_others=cluster is not None and not has_failed)
            return None
        worker.job = waiting.pop()
        worker.send(worker.job.task)
        return {"event": "started", "population": worker.job.key}

    try:
        for place in range(hired):
            hire(place)
        while crew:
            worker, event = events.get()
            if event is None:  # its output has ended
                crew.remove(worker)
                if failure := _failure_at_end_of(worker):
                    yield failure
                if waiting and not worker.stopping and cluster is None:
                    hire(worker.place)
                continue
            _require_able(worker, event, device, jobs)
            if event["event"] == "failed" and cluster is not None:
                has_failed = True
                waiting.clear()
            if event["event"] == "finished" and worker.job is not None:
                waiting.extend(then(worker.job))
            if event["event"] in ("finished", "failed"):
                worker.job = None
            yield event
            if event["event"] in ("ready", "finished", "failed"):
                started = give(worker)
                if started:
                    yield started
    finally:
        for worker in crew:
            worker.process.kill()
        for worker in crew:
            worker.process.wait()


def _failure_at_end_of(worker: _WorkerProcess) -> dict[str, Any] | None:
    """The event that tells of the job that a worker had when it died, if it had one. InputError
    where it never began."""
    how = _describe_exit(worker.process.wait())
    if worker.job is not None:
        reason, log = f"the worker process died ({how})", str(worker.log)
        return {"event": "failed", "population": worker.job.key, "reason": reason, "log": log}
    if not worker.stopping:
        raise InputError(f"a worker process could not start ({how}); see {worker.log}")
    return None


def _require_able(
    worker: _WorkerProcess, event: dict[str, Any], device: str, jobs: Sequence[Job]
) -> None:
    """InputError where a worker tells that it cannot start, or cannot do these jobs."""
    if event["event"] == "unable":
        raise InputError(f"a worker process could not start: {event['reason']}; see {worker.log}")
    if event["event"] != "ready":
        return
    if device == "gpu" and event["platform"] == "cpu":
        raise InputError(NO_GPU)
    for job in jobs:
        planner.require_even(job, event["devices"])


def compute_for_first(
    folder: Path, device: str, devices: int | None, cluster: Cluster, archives: Mapping[str, str]
) -> int:
    """Be one of the other processes of a cluster, until the first one has nothing left to do;
    returns the exit code. Nothing is written but what went wrong, to standard error.

    archives: where images are prepared from, as in `Context`
    """
    options = {
        "folder": str(folder),
        "cores": [],
        "keep": [],
        "compile_cache": str(_compile_cache()),
        **archives,
        **_together(devices, cluster),
    }
    process = subprocess.Popen(
        _command_of_worker(options),
        stdin=subprocess.PIPE,  # it ends when this is closed
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(device),
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            event = _event_in(line)
            if event is not None and event["event"] == "unable":
                raise InputError(event["reason"])
        return 1 if process.wait() else 0
    finally:
        process.kill()
        process.wait()


def _event_in(line: str) -> dict[str, Any] | None:
    """What a worker tells in a line; None of what else its Python prints, such as at its start."""
    with contextlib.suppress(ValueError):
        content = json.loads(line)
        if isinstance(content, dict) and "event" in content:
            return content
    return None


def _together(devices: int | None, cluster: Cluster | None) -> dict[str, Any]:
    """What a worker is told of those with which it trains."""
    return {"devices": devices, "cluster": None if cluster is None else cluster.asdict()}


def _gpus_of(place: int, devices: int) -> list[str] | None:
    """Those of the worker in this place; None where it is not known which there are. InputError
    where there are not as many."""
    there = usable_gpus()
    if not there:
        return None
    if devices > len(there):
        raise InputError(
            f"--devices {devices}: GPUs here: {len(there)}; nearest valid: {len(there)}"
        )
    return [there[(place * devices + number) % len(there)] for number in range(devices)]


def _workers_on_each_gpu(workers: int, devices: int) -> int:
    """How many of them take turns on the most used GPU, each using so many."""
    there = len(usable_gpus()) or 1
    return math.ceil(workers * devices / there)


def _compile_cache() -> Path:
    return cache_root() / "xla" / host_key()


def _command_of_worker(options: Mapping[str, Any]) -> list[str]:
    return [sys.executable, "-P", "-m", "cbundles.executor.worker", json.dumps(options)]


def _environment(device: str) -> dict[str, str]:
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if device == "cpu":
        environment["JAX_PLATFORMS"] = "cpu"
    return environment


class _WorkerProcess:
    """A worker, the job it is busy with, and the thread that reads what it reports."""

    def __init__(
        self,
        place: int,
        folder: Path,
        device: str,
        options: Mapping[str, Any],
        gpus: Sequence[str] | None,
        log: Path,
        events: queue.Queue[tuple[_WorkerProcess, dict[str, Any] | None]],
    ) -> None:
        """options: what it is told besides the folder; gpus: all that it may see, if not all."""
        self.place = place
        self.job: Job | None = None
        self.stopping = False
        self.log = log
        self.log.parent.mkdir(parents=True, exist_ok=True)
        options = {"folder": str(folder), "compile_cache": str(_compile_cache()), **options}
        environment = _environment(device)
        if gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        with self.log.open("a") as file:
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            print(f"--- worker {place}, {now}", file=file, flush=True)
            self.process = subprocess.Popen(
                _command_of_worker(options),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                errors="replace",  # whatever a library prints is no event
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops us
            )
        threading.Thread(target=self._listen, args=(events,), daemon=True).start()

    def _listen(self, events: queue.Queue[tuple[_WorkerProcess, dict[str, Any] | None]]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if event := _event_in(line):
                events.put((self, event))
        events.put((self, None))

    def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end is reported by _listen
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def stop(self, and_others: bool = False) -> None:
        """Let it end; and_others: after it has told those that train with it to end, too."""
        self.stopping = True
        if and_others:
            self.send({})
            return
        assert self.process.stdin is not None
        self.process.stdin.close()


def host_key() -> str:
    """Compiled programs are kept per kind of processor: another one may lack its instructions."""
    flags = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        named = ("flags", "Features")  # as Intel and AMD call them, and ARM
        flags = next((line for line in lines if line.startswith(named)), "")
    identity = f"{platform.machine()} {platform.processor()} {flags}"
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


def _describe_exit(code: int) -> str:
    if code == -9:
        return "killed, perhaps for lack of memory"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
