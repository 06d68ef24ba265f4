"""SIGTERM and SIGHUP stop a command as Ctrl-C, SIGINT, does.

A scheduler sends the first when a job's time is up, a terminal the second when it is closed. Left
alone, either ends Python on the spot: no word of how far the run is, and an earlier run that
`--fresh` was to replace waits for the next command to be put back.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 128 + signal.SIGINT  # the exit code that Typer makes of a KeyboardInterrupt
# Schedulers and impatient people repeat themselves, which must not interrupt what the first signal
# began. A later one counts again: Python drops an exception that is raised in some callbacks.
REPEATED_WITHIN_SECONDS = 3


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Within this a signal that stops is a KeyboardInterrupt. What stopped the command is one line
    on standard error, and the exit code is 128 and the signal's number, as shells have it."""
    stopped_by, stopped_at = signal.SIGINT, -math.inf

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal stopped_by, stopped_at
        if time.monotonic() - stopped_at > REPEATED_WITHIN_SECONDS:
            stopped_by, stopped_at = signal.Signals(number), time.monotonic()
            raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            # `nohup`, and shells that start something in the background, have some ignored.
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        print(f"cbundles: stopped by {stopped_by.name}", file=sys.stderr)
        sys.exit(128 + stopped_by)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Undo what a library does to SIGTERM in here: Ray has it end the process without a word."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """A signal that stops waits for the end of this. A process that is being started can be stopped
    only once there is something to stop it by."""
    came: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            handler = signal.getsignal(number)
            if callable(handler):  # neither ignored nor left to the system
                before[number] = handler
                signal.signal(number, lambda which, frame: came.append(which))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for which in came:
            signal.raise_signal(which)


def ignore_in_worker() -> None:
    """Leave it to the command to stop its workers. A scheduler sends its signal to all processes of
    a job at once: a worker that ended by itself would be told as a network that failed."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
