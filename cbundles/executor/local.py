"""Run populations on this machine: one worker process per CPU core, or one for a GPU."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from cbundles.data.sources import cache_root
from cbundles.errors import InputError
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


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    *,
    device: str,
    workers: int,
    keep: Sequence[str] = (),
    logs: Path | None = None,
    then: Callable[[Job], Sequence[Job]] = lambda finished: (),
) -> Generator[dict[str, Any], None, None]:
    """Do all jobs, populations to train above all; yields what the workers report, as it happens.

    Events: ``ready``, ``started``, ``epoch``, ``step``, ``finished``, ``failed``, ``note``. A
    worker that dies fails the job it had and is replaced. `then` names what follows from a job that
    finished; its worker takes it on. `logs` is where workers write what they print, by default in
    the folder. Closing the iterator stops all workers.
    """
    waiting = list(reversed(jobs))
    events: queue.Queue[tuple[_WorkerProcess, dict[str, Any] | None]] = queue.Queue()
    crew: list[_WorkerProcess] = []
    cores = usable_cores()

    def hire(place: int) -> None:
        mine = cores[place % len(cores) :: workers] if device == "cpu" else []
        log = (logs or folder / "logs") / f"worker-{place}.log"
        crew.append(_WorkerProcess(place, folder, device, mine, keep, log, events))

    def give(worker: _WorkerProcess) -> dict[str, Any] | None:
        if not waiting:
            worker.stop()
            return None
        worker.population = waiting.pop()
        worker.send(worker.population.task)
        return {"event": "started", "population": worker.population.key}

    try:
        for place in range(min(workers, len(jobs))):
            hire(place)
        while crew:
            worker, event = events.get()
            if event is None:  # its output has ended
                crew.remove(worker)
                code = worker.process.wait()
                if worker.population is not None:
                    reason = f"the worker process died ({_describe_exit(code)})"
                    key = worker.population.key
                    log = str(worker.log)
                    yield {"event": "failed", "population": key, "reason": reason, "log": log}
                elif not worker.stopping:
                    how = _describe_exit(code)
                    raise InputError(f"a worker process could not start ({how}); see {worker.log}")
                if waiting and not worker.stopping:
                    hire(worker.place)
                continue
            if event["event"] == "unable":
                raise InputError(
                    f"a worker process could not start: {event['reason']}; see {worker.log}"
                )
            if event["event"] == "ready" and device == "gpu" and event["platform"] == "cpu":
                raise InputError(NO_GPU)
            if event["event"] == "finished" and worker.population is not None:
                waiting.extend(then(worker.population))
            if event["event"] in ("finished", "failed"):
                worker.population = None
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


class _WorkerProcess:
    """A worker, the population it is busy with, and the thread that reads what it reports."""

    def __init__(
        self,
        place: int,
        folder: Path,
        device: str,
        cores: list[int],
        keep: Sequence[str],
        log: Path,
        events: queue.Queue[tuple[_WorkerProcess, dict[str, Any] | None]],
    ) -> None:
        self.place = place
        self.population: Job | None = None
        self.stopping = False
        self.log = log
        self.log.parent.mkdir(parents=True, exist_ok=True)
        options = {
            "folder": str(folder),
            "cores": cores,
            "keep": list(keep),
            "compile_cache": str(cache_root() / "xla" / host_key()),
        }
        environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if device == "cpu":
            environment["JAX_PLATFORMS"] = "cpu"
        with self.log.open("a") as file:
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            print(f"--- worker {place}, {now}", file=file, flush=True)
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cbundles.executor.worker", json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops us
            )
        threading.Thread(target=self._listen, args=(events,), daemon=True).start()

    def _listen(self, events: queue.Queue[tuple[_WorkerProcess, dict[str, Any] | None]]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            events.put((self, json.loads(line)))
        events.put((self, None))

    def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end is reported by _listen
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def stop(self) -> None:
        self.stopping = True
        assert self.process.stdin is not None
        self.process.stdin.close()


def host_key() -> str:
    """Compiled programs are kept per kind of processor: another one may lack its instructions."""
    flags = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith("flags")), "")
    identity = f"{platform.machine()} {platform.processor()} {flags}"
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


def _describe_exit(code: int) -> str:
    if code == -9:
        return "killed, perhaps for lack of memory"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
