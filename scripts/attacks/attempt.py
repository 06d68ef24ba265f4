"""One attack and its outcome, and the in-process command line that many attacks type into."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cbundles import cli

SECONDS = 20  # after which an answer counts as none


class Attempt(NamedTuple):
    """what: enough to do it again; problem: what should not have happened, None where nothing."""

    what: str
    problem: str | None


class Answer(NamedTuple):
    """What a command left behind; code is None where an exception came out of it."""

    code: int | None
    out: str
    err: str


class HungError(BaseException):
    """No `Exception`: nothing that the product catches."""


def answer_to(arguments: Sequence[str]) -> Answer:
    """Type a command into this process."""
    out, err = io.StringIO(), io.StringIO()
    code: int | None = 0
    typed, sys.argv = sys.argv, ["cbundles", *arguments]
    try:
        with limited(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except (Exception, HungError):
        code = None
        err.write(traceback.format_exc())
    finally:
        sys.argv = typed
    return Answer(code, out.getvalue(), err.getvalue())


def problem_of(answer: Answer, allowed: Sequence[int], places: Sequence[str]) -> str | None:
    """What is wrong with an answer. places: a refusal must name one of these."""
    if answer.code is None:
        return "traceback: " + answer.err.strip().splitlines()[-1][:200]
    if "Traceback (most recent call last)" in answer.out + answer.err:
        return "a traceback was printed"
    if answer.code not in allowed:
        return f"exit code {answer.code}: {answer.err.strip()[-200:]}"
    if answer.code != 2:
        return None
    if not answer.err.strip():
        return "exit code 2 without a word"
    if not any(place in answer.err for place in places):
        return f"names no place: {answer.err.strip()[:200]}"
    return None


@contextlib.contextmanager
def limited(seconds: int = SECONDS) -> Iterator[None]:
    """HungError after so many seconds."""

    def stop(*_: Any) -> None:
        raise HungError(f"no answer after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
