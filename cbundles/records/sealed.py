"""The records of a run that is complete, in one file: `records.jsonl` and its kin.

A header, then a line for each record, sorted for people. Where records come from is the same for
many: it stands once in the header, and each line has the number of its own.

    {"format": 2, "origins": [{"platform": "cpu", ...}]}
    {"kind": "sweep", "cell": "0a246314bf00", "origin": 0, "config": {...}, ...}

Packed by gzip it is `records.jsonl.gz`, a seventh of the size.

A file of format 1 holds records of formats 1 and 2, whose number, if they have one, stands in their
line; one of format 2 holds records of format 3.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cbundles import formats
from cbundles.errors import InputError
from cbundles.records import earlier
from cbundles.records.origin import NetworkRecord, Origin
from cbundles.records.reading import AnyRecord, parsed, record_of

PACKED = ".gz"  # at the end of a packed file's name
GZIP = b"\x1f\x8b"  # at the beginning of its content


def encode(records: Sequence[AnyRecord], packed: bool = False) -> bytes:
    """The content of the file."""
    origins: list[Origin] = []
    lines = []
    for record in sorted(records, key=_order_for_people):
        if record.origin not in origins:
            origins.append(record.origin)
        line = {**msgspec.to_builtins(record), "origin": origins.index(record.origin)}
        lines.append(msgspec.json.encode(line))
    header = {"format": formats.NEWEST[formats.SEALED], "origins": origins}
    content = b"\n".join([msgspec.json.encode(header), *lines, b""])
    # Without the time of packing, so that the same records are the same bytes.
    return gzip.compress(content, mtime=0) if packed else content


def decode(path: Path, kind: str, damaged: list[str] | None = None) -> dict[str, AnyRecord]:
    """The records in the file by their ids. InputError, which names the line, for a damaged one;
    with a list for what is damaged, it is told there and left out.

    kind: of earlier records, which do not say it
    """
    try:
        header, *lines = _unpacked(path.read_bytes()).splitlines()
        content = parsed(header)
        formats.check(formats.SEALED, content, str(path))
        origins = [
            msgspec.convert(earlier.origin_of(origin), Origin) for origin in content["origins"]
        ]
        is_newest = content.get("format") == formats.NEWEST[formats.SEALED]
    except (
        OSError,
        EOFError,
        zlib.error,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        complain(f"{path}: damaged ({_told(error)}); restore it from a copy", damaged)
        return {}
    records: dict[str, AnyRecord] = {}
    for number, line in enumerate(lines, start=2):
        place = f"{path}:{number}"
        try:
            record = record_of(_content_of(line, origins, is_newest), kind, place)
        except (ValueError, TypeError, RecursionError) as error:
            complain(f"{place}: damaged record ({error}); {_way_out(path)}", damaged)
            continue
        records[record.id] = record
    return records


def complain(text: str, damaged: list[str] | None) -> None:
    """Add to the list of what is damaged; InputError where nobody keeps one."""
    if damaged is None:
        raise InputError(text) from None
    damaged.append(text)


def _unpacked(content: bytes) -> bytes:
    return gzip.decompress(content) if content.startswith(GZIP) else content


def _way_out(path: Path) -> str:
    if path.name.endswith(PACKED):
        return f"unpack it with `gunzip {path.name}`, then delete that line"
    return "delete that line"


def _content_of(line: bytes, origins: Sequence[Origin], is_newest: bool) -> Any:
    """The content of a record, with its origin in the place of its number."""
    content = msgspec.json.decode(line) if is_newest else parsed(line)
    if not isinstance(content, dict):
        return content
    number = content.get("origin")
    if type(number) is not int or not 0 <= number < len(origins):
        raise ValueError(f"origin is {number!r}, not the number of one of {len(origins)} origins")
    content["origin"] = origins[number]
    if is_newest:
        content["format"] = formats.NEWEST[formats.RECORD]
    return content


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _order_for_people(record: AnyRecord) -> tuple[Any, ...]:
    """Alike networks behind one another: by data set, family, width, depth and seed."""
    if not isinstance(record, NetworkRecord):
        return "", "", 0, 0, 0, record.id
    return record.dataset, record.family, record.width, record.depth, record.seed, record.id
