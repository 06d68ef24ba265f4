"""Records of a run without what the clock said."""

from __future__ import annotations

import json
from pathlib import Path


def untimed_records(folder: Path) -> list[object]:
    """The sealed records of a run without what the clock said."""
    lines = (folder / "records.jsonl").read_text().splitlines()[1:]  # without the header
    return sorted((without_times(json.loads(line)) for line in lines), key=str)


def without_times(value: object) -> object:
    if isinstance(value, dict):
        kept = {key: each for key, each in value.items() if "seconds" not in key}
        return {key: without_times(each) for key, each in kept.items()}
    return [without_times(each) for each in value] if isinstance(value, list) else value
