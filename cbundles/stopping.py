"""SIGTERM and SIGHUP stop a command as Ctrl-C does.

A scheduler sends the first when a job's time is up, a terminal the second when it is closed. Left
alone, either ends Python on the spot: no word of how far the run is, and an earlier run that
`--fresh` was to replace waits for the next command to be put back.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 128 + signal.SIGINT  # the exit code that Typer makes of a KeyboardInterrupt


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Within this a signal that stops is a KeyboardInterrupt. What stopped the command is one line
    on standard error, and the exit code is 128 and the signal's number, as shells have it."""
    stopped_by = signal.SIGINT

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal stopped_by
        # Schedulers repeat themselves: a second one must not interrupt what the first one began.
        _ignore(handlers)
        stopped_by = signal.Signals(number)
        raise KeyboardInterrupt

    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` has one ignored
                handlers[number] = signal.signal(number, interrupt)
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        print(f"cbundles: stopped by {stopped_by.name}", file=sys.stderr)
        sys.exit(128 + stopped_by)
    finally:
        for number, before in handlers.items():
            signal.signal(number, before)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Undo what a library does to SIGTERM in here: Ray has it end the process without a word."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def ignore_in_worker() -> None:
    """Leave it to the command to stop its workers. A scheduler sends its signal to all processes of
    a job at once: a worker that ended by itself would be told as a network that failed."""
    _ignore((signal.SIGINT, *STOPPING))


def _ignore(numbers: Iterable[int]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
