"""From text to a record and back. What is read is checked: nothing of the wrong structure gets in.

A record is one JSON object, with the number of its format before all else. Older formats are
brought into today's form first, see `earlier`.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from cbundles import formats
from cbundles.errors import InputError
from cbundles.records import earlier
from cbundles.records.studies import LesionRecord, MeasuredRecord, PrunedRecord
from cbundles.records.toy import ToyRecord
from cbundles.records.trained import GrowRecord, SweepRecord, TuneRecord

# What is left of one cell, or of a toy.
CellRecord = SweepRecord | GrowRecord | TuneRecord | ToyRecord
AnyRecord = CellRecord | LesionRecord | PrunedRecord | MeasuredRecord


def encode(record: AnyRecord) -> bytes:
    """A record as a file of its own holds it."""
    content = {"format": formats.NEWEST[formats.RECORD], **msgspec.to_builtins(record)}
    return msgspec.json.encode(content) + b"\n"


def decode(text: bytes, kind: str, place: str) -> AnyRecord:
    """What `encode`, or an earlier version, made of a record; see `record_of`."""
    return record_of(parsed(text), kind, place)


def parsed(text: bytes | str) -> Any:
    """JSON of any version: earlier ones wrote NaN and infinity, which no JSON has, where a network
    had diverged; today's write null."""
    return json.loads(text, parse_constant=lambda _: None)


def record_of(content: Any, kind: str, place: str) -> AnyRecord:
    """The record of this content. ValueError, with the path of the field that is wrong and what
    belongs there; InputError for one that only another version can read.

    kind: of earlier records, which do not say it
    place: file, and line where it has several, for messages
    """
    if isinstance(content, dict):
        formats.check(formats.RECORD, content, place)
        number = content.pop("format", 1)
        if number < formats.NEWEST[formats.RECORD]:
            content = earlier.in_todays_form(content, number, kind)
    try:
        return msgspec.convert(content, AnyRecord)
    except InputError as error:  # a setting that this version does not have
        raise InputError(f"{place}: {error}") from None
