"""Files that are whole at every moment: written under another name beside their place, then moved.

A killed process leaves such a *staging file* behind. Several processes may write into one folder,
also from several machines that share a disk, so each staging file says who writes it:

    .records.jsonl.1234@node7.k2x81_9a     of process 1234 on the machine node7
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import IO

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system that knows none
STAGING = re.compile(r"\..+\.(?P<process>\d+)@(?P<host>[^@/]+)\.[a-z0-9_]{8}")  # `staging_path`


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that it is, at every moment, absent, the old one or the new one."""
    write_parts_atomically(path, [content])


def write_parts_atomically(path: Path, parts: Iterable[bytes | str]) -> None:
    """The same for a file that is made part by part, and need not fit into memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = staging_path(path)
    try:
        with staging.open("xb") as file:
            for part in parts:
                if isinstance(part, str):
                    # In names of folders surrogates stand for bytes that are not UTF-8.
                    part = part.encode(errors="surrogateescape")
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            staging.unlink()
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(path)  # a full disk does not say which file it has no room for
        raise


def lock(file: IO[str], operation: int) -> None:
    """What `fcntl.flock` does. A lock spares work and mistakes, and nothing hangs on it: where the
    file system knows none, as NFS may, this does nothing."""
    import fcntl

    try:
        fcntl.flock(file, operation)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def staging_path(path: Path) -> Path:
    """A name beside a file or folder that is to be written. It is for `open` and `mkdir`, which
    heed the user's umask: what `tempfile` makes, nobody else may read."""
    writer = f"{os.getpid()}@{socket.gethostname()}"
    return path.with_name(f".{path.name}.{writer}.{secrets.token_hex(4)}")


def clear_staging_files(folder: Path) -> None:
    """Remove what killed processes of this machine left in a folder and in those inside it, files
    and folders. Of a process on another machine nobody here can say whether it still writes."""
    for pattern in (".*", "*/.*"):
        for path in folder.glob(pattern):
            writer = STAGING.fullmatch(path.name)
            if writer is None or _may_write(writer):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _may_write(writer: re.Match[str]) -> bool:
    """Whether the process that a staging file names is there, as far as is known."""
    if writer["host"] != socket.gethostname():
        return True
    try:
        os.kill(int(writer["process"]), 0)  # signal 0 asks only whether it could be sent
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's; not a number of a process
        return True
    return True
