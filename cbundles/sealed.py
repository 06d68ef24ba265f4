"""The records of a run that is complete, in one file: `records.jsonl` and its kin.

A header, then a line for each record, sorted for people. What many records share (where they come
from) stands once in the header, and histories are kept by columns. A record that is read from here
is the one that was written, key for key.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cbundles import formats
from cbundles.columns import from_columns, to_columns
from cbundles.errors import InputError

Record = dict[str, Any]
# Keys that say on what, with what and from which data a record was made.
ORIGIN = ("platform", "device", "processor", "versions", "commit", "data_fingerprint")


def encode(records: Sequence[Record]) -> str:
    """The content of the file."""
    origins: list[Record] = []
    lines = []
    for record in sorted(records, key=_order_for_people):
        origin = {key: record[key] for key in ORIGIN if key in record}
        if origin not in origins:
            origins.append(origin)
        line = {key: value for key, value in record.items() if key not in origin}
        line["origin"] = origins.index(origin)
        if "history" in line:
            line["history"] = to_columns(line["history"])
        lines.append(json.dumps(line))
    header = {"format": formats.NEWEST[formats.SEALED], "origins": origins}
    return "\n".join([json.dumps(header), *lines, ""])


def decode(path: Path, damaged: list[str] | None = None) -> dict[str, Record]:
    """The records in the file by their ids. InputError, which names the line, for a damaged one;
    with a list for what is damaged, it is told there and left out."""
    try:
        header, *lines = path.read_text().splitlines()
        content = json.loads(header)
        formats.check(formats.SEALED, content, str(path))
        origins: list[Record] = content["origins"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        complain(f"{path}: damaged ({_told(error)}); restore it from a copy", damaged)
        return {}
    records: dict[str, Record] = {}
    for number, line in enumerate(lines, start=2):
        try:
            record = _decode_line(line, origins)
            records[str(record["cell"])] = record
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            place = f"{path}:{number}"
            complain(f"{place}: damaged record ({_told(error)}); delete that line", damaged)
    return records


def complain(text: str, damaged: list[str] | None) -> None:
    """Add to the list of what is damaged; InputError where nobody keeps one."""
    if damaged is None:
        raise InputError(text) from None
    damaged.append(text)


def _decode_line(line: str, origins: Sequence[Record]) -> Record:
    record: Record = json.loads(line)
    record |= origins[record.pop("origin")]
    if "history" in record:
        record["history"] = from_columns(record["history"])
    return record


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _order_for_people(record: Record) -> tuple[Any, ...]:
    """Alike networks behind one another: by data set, family, width, depth and seed."""
    config = record.get("config", {})
    data, model = config.get("data", {}), config.get("model", {})
    size = [model.get(key) or 0 for key in ("width", "base_filters", "depth")]
    seed = config.get("training", {}).get("seed", 0)
    return data.get("name", ""), model.get("family", ""), *size, seed, str(record["cell"])
