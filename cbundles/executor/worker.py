"""A worker process: does one task after another (`tasks`), as told on standard input.

Lines of JSON in, lines of JSON out. The worker writes records and checkpoints itself; its messages
only say what happened. When standard input closes, the parent is gone, and the worker stops at
once: a killed run leaves no process behind that still writes.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import Any


def main() -> None:
    options = json.loads(sys.argv[1])
    messages = _private_stdout()
    tasks = _tasks_from_stdin()
    _stay_on(options["cores"])

    worker = Worker(options, messages)
    messages({"event": "ready", **worker.device})
    while True:
        worker.perform(tasks.get())


def _private_stdout() -> Any:
    """Keep the message channel to ourselves: anything else that is printed goes to stderr."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")

    return send


def _tasks_from_stdin() -> queue.Queue[dict[str, Any]]:
    tasks: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            tasks.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return tasks


def _stay_on(cores: list[int]) -> None:
    """Bind to cores before XLA counts them: one XLA process gains nothing from a second core on
    products this small, while one process a core doubles the throughput."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


class Worker:
    """What tasks share: where results go, how to tell of progress, and the images."""

    def __init__(self, options: dict[str, Any], messages: Any) -> None:
        import jax

        from cbundles import provenance
        from cbundles.store import Store

        jax.config.update("jax_compilation_cache_dir", options["compile_cache"])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        jax.config.update("jax_default_matmul_precision", "highest")  # float32 is not TF32
        self.store = Store(Path(options["folder"]))
        self.keep: list[str] = options["keep"]  # epochs, see `keeping`
        self.send = messages
        self.device = {
            "platform": jax.devices()[0].platform,
            "device": jax.devices()[0].device_kind,
            "processor": provenance.processor(),
        }
        self._source = {"versions": provenance.versions(), "commit": provenance.commit()}
        self._placed: tuple[Any, Any] | None = None

    def perform(self, task: dict[str, Any]) -> None:
        from cbundles.executor import tasks

        job = tasks.job_of(task)
        try:
            tasks.TASKS[task["task"]](self, job, task)
            self.send({"event": "finished", "population": job.key})
        except Exception as error:
            text = traceback.format_exc()
            reason = traceback.format_exception_only(error)[0].strip().splitlines()[0]
            log = self.store.logs / f"failed-{job.key}.txt"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(text)
            self.send({"event": "failed", "population": job.key, "reason": reason, "log": str(log)})

    def origin(self, fingerprint: str) -> dict[str, Any]:
        """Where a result comes from, as its record keeps it."""
        return {**self.device, **self._source, "data_fingerprint": fingerprint}

    def data(self, cell: Any) -> tuple[Any, Any, str]:
        """The device arrays for a cell, the data set's facts and fingerprint; kept until a
        cell asks for others."""
        from cbundles.config import TUNE
        from cbundles.data import dataset, device, storage_of

        held_out = cell.tuning.held_out if cell.kind == TUNE else 0.0
        key = (cell.data, cell.probe, held_out)
        if self._placed is None or self._placed[0] != key:
            self._placed = None  # free the old arrays before the new ones are made
            stored = dataset.read(storage_of(cell.data.name), verify=False)
            if stored is None:
                raise RuntimeError(f"{cell.data.name}: the decoded data set has disappeared")
            placed = device.place(stored, cell.data, cell.probe, held_out)
            self._placed = (key, (placed, stored.facts, stored.fingerprint))
        return self._placed[1]


if __name__ == "__main__":
    main()
