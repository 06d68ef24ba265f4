"""What is kept on disk carries the number of its format, and is read by it.

    record      1  without a number; the `network` of a study is the hash of a file
                2  with the largest entropy of the probe set, later ones also with conflict rates
                   and, where it was asked for, with what was measured within the first epoch;
                   `network` is the hash of its numbers
                3  by columns, with its kind: see `records.earlier` for what was before
    records     1  the records of a complete run in one file
                2  those of format 3: see `records.sealed`
    run         1  run.json; the first ones have no number
    checkpoint  1  a mark, the SHA-256 of what follows, and that (see `seal`): the state of a run
    network     1  see `networks.saved`
    study       1  see `records.worked`

A number is raised when the meaning of what is there changes. All that were ever written stay
readable, but for checkpoints, which are there only until a run ends: those without a number start
again, and so do the first ones of networks that change their depth.
"""

from __future__ import annotations

import hashlib
from typing import Any

from cbundles.errors import DamagedCheckpoint, InputError

RECORD, SEALED, RUN, NETWORK = "record", "file of records", "run", "network"
STUDY = "worked study"
NEWEST = {RECORD: 3, SEALED: 2, RUN: 1, NETWORK: 1, STUDY: 1}
CHECKPOINT_MARK = b"cbundles checkpoint 1\n"
DIGEST_BYTES = hashlib.sha256().digest_size


def check(kind: str, content: dict[str, Any], place: str) -> None:
    """InputError when content is of a format that this version does not know."""
    number, newest = content.get("format", 1), NEWEST[kind]
    if type(number) is not int or not 1 <= number <= newest:
        known = "format 1" if newest == 1 else f"formats 1 to {newest}"
        raise InputError(
            f"{place}: {kind} of format {number!r}, but this version of cbundles reads {known}; "
            "read it with the version that wrote it, or a newer one"
        )


def seal(content: bytes) -> bytes:
    """A checkpoint as it is kept: nothing that was changed by a single bit can pass `unseal`."""
    return CHECKPOINT_MARK + hashlib.sha256(content).digest() + content


def unseal(sealed: bytes) -> bytes:
    """The content of a checkpoint. DamagedCheckpoint when it is not what `seal` returned."""
    if not sealed.startswith(CHECKPOINT_MARK):
        raise DamagedCheckpoint("it is of another format")
    digest_and_content = sealed[len(CHECKPOINT_MARK) :]
    digest, content = digest_and_content[:DIGEST_BYTES], digest_and_content[DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise DamagedCheckpoint("its checksum is wrong")
    return content
