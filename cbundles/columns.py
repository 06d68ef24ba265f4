"""A list of dictionaries with the same keys as one dictionary of lists, and back.

The history of a network names every quantity once for each epoch; by columns it is half as long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = "columns"


def to_columns(entries: Sequence[Mapping[str, Any]]) -> Any:
    """``{"columns": {key: values}}`` of entries with the same keys; of others the entries
    themselves. What is a dictionary in every entry becomes columns, too.

    >>> to_columns([{"a": 1, "b": {"c": 2}}, {"a": 3, "b": {"c": 4}}])
    {'columns': {'a': [1, 3], 'b': {'columns': {'c': [2, 4]}}}}
    >>> from_columns(to_columns([{"a": 1}, {"b": 2}]))
    [{'a': 1}, {'b': 2}]
    """
    if not entries or not entries[0] or any(entry.keys() != entries[0].keys() for entry in entries):
        return list(entries)
    columns = {}
    for key in entries[0]:
        values = [entry[key] for entry in entries]
        nested = all(isinstance(value, Mapping) for value in values)
        columns[key] = to_columns(values) if nested else values
    return {COLUMNS: columns}


def from_columns(content: Any) -> list[dict[str, Any]]:
    """The entries of which `to_columns` made the content."""
    if isinstance(content, list):
        return content
    columns = {}
    for key, values in content[COLUMNS].items():
        columns[key] = from_columns(values) if isinstance(values, dict) else values
    keys = list(columns)
    return [dict(zip(keys, row, strict=True)) for row in zip(*columns.values(), strict=True)]
