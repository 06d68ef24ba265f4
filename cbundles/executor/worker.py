"""A worker process: trains one population after another, as told on standard input.

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
import time
import traceback
from pathlib import Path
from typing import Any

# Writing a checkpoint costs less than a percent at this pace, and a kill costs at most this much.
CHECKPOINT_SECONDS = float(os.environ.get("CBUNDLES_CHECKPOINT_SECONDS", "15"))


def main() -> None:
    options = json.loads(sys.argv[1])
    messages = _private_stdout()
    tasks = _tasks_from_stdin()
    _stay_on(options["cores"])

    worker = _Worker(options, messages)
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


class _Worker:
    def __init__(self, options: dict[str, Any], messages: Any) -> None:
        import jax

        from cbundles import provenance
        from cbundles.store import Store

        jax.config.update("jax_compilation_cache_dir", options["compile_cache"])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        jax.config.update("jax_default_matmul_precision", "highest")  # float32 is not TF32
        self.store = Store(Path(options["folder"]))
        self.keep_weights = options["keep_weights"]
        self.send = messages
        self.device = {
            "platform": jax.devices()[0].platform,
            "device": jax.devices()[0].device_kind,
            "processor": provenance.processor(),
        }
        self._source = {"versions": provenance.versions(), "commit": provenance.commit()}
        self._placed: tuple[Any, Any] | None = None

    def perform(self, task: dict[str, Any]) -> None:
        from cbundles.config import Cell
        from cbundles.executor.planner import Population

        population = Population(tuple(Cell.fromdict(content) for content in task["cells"]))
        try:
            self._train(population)
            self.send({"event": "finished", "population": population.key})
        except Exception as error:
            text = traceback.format_exc()
            reason = traceback.format_exception_only(error)[0].strip().splitlines()[0]
            log = self.store.logs / f"failed-{population.key}.txt"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(text)
            self.send(
                {"event": "failed", "population": population.key, "reason": reason, "log": str(log)}
            )

    def _train(self, population: Any) -> None:
        import jax

        from cbundles.experiments import sweep

        cells = population.cells
        data, facts, fingerprint = self._data(cells[0])
        key = f"{population.key}-{fingerprint}"  # other images: another network
        checkpoint = self.store.load_checkpoint(key)
        try:
            moment = self._run(population, data, facts, checkpoint, key)
        except sweep.DamagedCheckpoint as error:
            self.send(
                {"event": "note", "text": f"{key}: checkpoint unusable ({error}); from the start"}
            )
            moment = self._run(population, data, facts, None, key)
        extra = {}
        if cells[0].model.family != "fc" and moment.epoch == cells[0].training.epochs:
            extra["latency_seconds"] = sweep.latency(cells[0], moment, data, facts)
        origin = {**self.device, **self._source, "data_fingerprint": fingerprint}
        if self.keep_weights:
            self._keep(cells, moment, facts, origin)
        for record in sweep.records(cells, moment, facts):
            if not self.store.is_finished(record["cell"], fingerprint):
                self.store.finish({**record, **extra, **origin})
        self.store.drop_checkpoint(key)
        jax.clear_caches()  # compiled programs of this shape: 20 MB each, and rarely wanted again

    def _keep(self, cells: Any, moment: Any, facts: Any, origin: dict[str, Any]) -> None:
        """Write the networks as they are now."""
        from cbundles.experiments import sweep
        from cbundles.models import saved
        from cbundles.store import write_atomically

        networks = sweep.networks(cells, moment, facts)
        for cell, (shape, network) in zip(cells, networks, strict=True):
            whence = {"cell": cell.id, "config": cell.asdict(), **origin}
            content = saved.encode(saved.Saved(shape, network, whence))
            write_atomically(self.store.weights_path(cell.id), content)

    def _run(self, population: Any, data: Any, facts: Any, resume: bytes | None, key: str) -> Any:
        """Train to the end, saving and reporting on the way; returns the last Moment."""
        from cbundles.experiments import sweep

        saved, moment = time.monotonic(), None
        for moment in sweep.run(population.cells, data, facts, resume):
            last = moment.epoch == population.cells[0].training.epochs
            if not last and time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.store.save_checkpoint(key, sweep.freeze(moment))
                saved = time.monotonic()
            latest = [history[-1] for history in moment.history]
            self.send(
                {
                    "event": "epoch",
                    "population": population.key,
                    "epoch": moment.epoch,
                    "test_accuracy": [entry["test_accuracy"] for entry in latest],
                    "bundle_entropy": [entry["entropy"][-1] for entry in latest],
                }
            )
        return moment

    def _data(self, cell: Any) -> tuple[Any, Any, str]:
        """The device arrays for a cell, the data set's facts and fingerprint; kept until a
        cell asks for others."""
        from cbundles.data import dataset, device, storage_of

        key = (cell.data, cell.probe)
        if self._placed is None or self._placed[0] != key:
            self._placed = None  # free the old arrays before the new ones are made
            stored = dataset.read(storage_of(cell.data.name), verify=False)
            if stored is None:
                raise RuntimeError(f"{cell.data.name}: the decoded data set has disappeared")
            placed = device.place(stored, cell.data, cell.probe)
            self._placed = (key, (placed, stored.facts, stored.fingerprint))
        return self._placed[1]


if __name__ == "__main__":
    main()
