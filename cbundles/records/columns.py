"""Measurements by columns: a list for each quantity, with a value for each time it was measured.

A network is measured again and again, and a record says each quantity's name once. While it is in
training its measurements are *entries* instead, dictionaries with a value for each quantity:
`by_columns` turns them around.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import msgspec

Number = float | None  # None where it was not finite


class Columns(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True,
              forbid_unknown_fields=True):  # fmt: skip
    """Lists that are equally long. A quantity that was not measured is None."""

    @classmethod
    def of_entries(cls, entries: Sequence[Mapping[str, Any]]) -> Self:
        """Of a list of measurements, each with a value for every quantity."""
        return msgspec.convert(by_columns(entries), cls)

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in self._lists().items()}
        (first, length), *others = lengths.items()
        if not length:
            raise ValueError(f"{first} is empty")
        for name, other in others:
            if other != length:
                raise ValueError(f"{name} has {other} values, {first} has {length}")

    def _lists(self) -> dict[str, list[Any]]:
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: values for name, values in fields.items() if isinstance(values, list)}

    def __len__(self) -> int:
        """How many values each quantity has."""
        # Without `_lists`: reports ask this of every record again and again.
        fields = (getattr(self, name) for name in self.__struct_fields__)
        return len(next(field for field in fields if isinstance(field, list)))


class Layers(Columns, kw_only=True, frozen=True):
    """What was measured of every layer of a fully connected network, or block of a VGG or ResNet.

    entropy: H^l, nats: a list for each measurement, with a number for each layer
    conflict_rate: c^l, likewise; None also where it was not measured yet, in earlier versions
    num_bundles: likewise, of the probe set
    """

    entropy: list[list[Number]]
    conflict_rate: list[list[Number]]
    num_bundles: list[list[int]]

    def __post_init__(self) -> None:
        super().__post_init__()
        of_branches = [name for name in self._lists() if "branch" in name]
        self._require_as_many_layers([name for name in self._lists() if name not in of_branches])
        self._require_as_many_layers(of_branches)  # behind the last block there is no branch

    def _require_as_many_layers(self, names: Sequence[str]) -> None:
        """ValueError unless these have as many layers as one another, at every measurement."""
        each_time = [
            (f"{name}[{number}]", len(measurement))
            for name in names
            for number, measurement in enumerate(getattr(self, name))
            if isinstance(measurement, list)
        ]
        for place, layers in each_time:
            first, expected = each_time[0]
            if layers != expected:
                raise ValueError(f"{place} has {layers} layers, {first} {expected}")

    def last(self, quantity: str) -> list[Number]:
        """Of the last layer alone, at every measurement."""
        return [measurement[-1] for measurement in getattr(self, quantity)]


def by_columns(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Entries, which have the same keys, as lists by key; also what is nested in them. ValueError
    for entries that differ in their keys.

    >>> by_columns([{"a": 1, "b": {"c": 2}}, {"a": 3, "b": {"c": 4}}])
    {'a': [1, 3], 'b': {'c': [2, 4]}}
    """
    columns: dict[str, Any] = {}
    for key in dict.fromkeys(key for entry in entries for key in entry):
        values = [entry[key] for entry in entries if key in entry]
        if len(values) != len(entries):
            raise ValueError(f"{key} is missing in some of its entries")
        nested = all(isinstance(value, Mapping) for value in values)
        columns[key] = by_columns(values) if nested else values
    return columns
