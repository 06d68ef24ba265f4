"""Standard output and error as a command finds them: closed, full, or unable to write a letter."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys

# What says that the machine has no more to give, not that something wrong was asked of it.
EXHAUSTED = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EPIPE,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
)


def make_usable() -> None:
    """Open the standard streams that are closed, and let each show what its encoding lacks.

    Were they left closed, the next file that is opened would get the number of standard output, and
    what is printed would end in it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence_output() -> None:
    """Nothing more can be written to standard output: let the interpreter not try at its end."""
    with contextlib.suppress(OSError, ValueError):  # without a descriptor: a test's
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def told(error: OSError) -> str:
    """Place and reason of what the operating system refused."""
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"
