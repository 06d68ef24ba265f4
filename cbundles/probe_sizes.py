"""Further probe sets with which kept networks are measured, named by how many samples they have.

H grows with the probe set; the conflict rate should not. So the same networks are measured with
several. A size is text: a number, or ``all`` for the whole training set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from cbundles.config import Probe

ALL, NONE = "all", "none"


def parse(text: str) -> tuple[str, ...]:
    """The sizes in a text with commas, ascending, each once. ValueError says what is wrong.

    >>> parse("2048, all, 512,512")
    ('512', '2048', 'all')
    """
    if text == NONE:
        return ()
    return in_order({_size(word.strip()) for word in text.split(",")})


def in_order(sizes: Iterable[str]) -> tuple[str, ...]:
    """Ascending."""
    return tuple(sorted(sizes, key=lambda size: (size == ALL, len(size), size)))


def probe_of(probe: Probe, size: str) -> Probe:
    """The probe set like another one, but of this size: another draw, with the same seed."""
    return dataclasses.replace(probe, samples=ALL if size == ALL else int(size))


def _size(word: str) -> str:
    if word == ALL:
        return word
    if not (word.isascii() and word.isdigit()):
        raise ValueError(f"{word!r} is no number of samples; such as 128,512,8192,{ALL}")
    if int(word) == 0:
        raise ValueError("0 samples have no bundles; nearest valid: 1")
    return str(int(word))
