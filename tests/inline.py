"""An executor without processes: a worker of the product, in the process that asks for it.

What the command line and a worker say to each other still passes through JSON. Tests in which no
process has to die run this way: starting an interpreter with JAX takes longer than most of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from cbundles.executor import tasks
from cbundles.executor.cluster import Cluster
from cbundles.executor.context import Context
from cbundles.executor.planner import Job


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
) -> Iterator[dict[str, Any]]:
    """In place of `executor.local.run_jobs`: one job after the other."""
    assert device == "cpu" and cluster is None
    said: list[dict[str, Any]] = []
    options = {
        "folder": str(folder),
        "keep": list(keep),
        "devices": devices,
        "compile_cache": jax.config.jax_compilation_cache_dir,
    }
    threshold = jax.config.jax_persistent_cache_min_compile_time_secs
    context = Context(options, lambda message: said.append(json.loads(json.dumps(message))))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", threshold)  # as tests want it
    yield {"event": "ready", **context.device}
    waiting = list(reversed(jobs))
    while waiting:
        job = waiting.pop()
        yield {"event": "started", "population": job.key}
        tasks.perform(context, json.loads(json.dumps(job.task)))
        if said[-1]["event"] == "finished":
            waiting.extend(then(job))
        yield from said
        said.clear()
