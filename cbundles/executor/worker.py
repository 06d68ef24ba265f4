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
from collections.abc import Callable
from typing import Any

from cbundles import stopping
from cbundles.errors import InputError, in_one_line


def main() -> None:
    stopping.ignore_in_worker()
    options = json.loads(sys.argv[1])
    send = _private_stdout()
    waiting = _tasks_from_stdin()
    _stay_on(options["cores"])
    try:
        # Not before the cores are settled: these import JAX.
        from cbundles.executor import tasks
        from cbundles.executor.context import Context

        context = Context(options, send)
    except Exception as error:  # such as a variable of the environment that JAX does not understand
        traceback.print_exc()
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        send({"event": "unable", "reason": f"{kind}{in_one_line(error)}"})
        sys.exit(1)
    send({"event": "ready", **context.device})
    while (task := tasks.next_task(context, waiting)) is not None:
        tasks.perform(context, task)


def _private_stdout() -> Callable[[dict[str, Any]], None]:
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


if __name__ == "__main__":
    main()
