"""Patterns that names of parameters match."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Sequence

from cbundles.errors import did_you_mean


def matching(names: Collection[str], patterns: Sequence[str]) -> set[str]:
    """The names that match some pattern. Raises ValueError for one that no name matches."""
    found = set()
    for pattern in patterns:
        fitting = {name for name in names if fnmatch.fnmatchcase(name, pattern)}
        if not fitting:
            hint = did_you_mean(pattern, names, most=20)
            raise ValueError(f"trainable: no parameter {pattern!r}: {hint}")
        found |= fitting
    return found
