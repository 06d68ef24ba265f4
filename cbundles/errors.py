"""What can go wrong without being a mistake in this program."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Sequence

LONGEST_QUOTE = 300  # characters of what a user wrote, in a message


class InputError(Exception):
    """Something the user gave cannot work: a message that names the place and the way out.

    The command line prints it without a traceback and exits with code 2.
    """


class DamagedCheckpoint(ValueError):
    """What should continue a run is not what was saved for it: it starts from the beginning."""


def did_you_mean(value: object, choices: Iterable[str], most: int | None = None) -> str:
    """``did you mean 'width'? (valid: depth, family, width)``: nearest choice first, then all; or
    so many that are nearest, and how many others there are."""
    valid = sorted(set(choices))
    typed = in_one_line(value)  # comparing takes the square of its length
    nearest = _nearest(typed, valid, most=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    others = ""
    if most is not None and len(valid) > most:
        others = f" and {len(valid) - most} more"
        valid = _nearest(typed, valid, most=most, cutoff=0)
    return f"{hint}(valid: {', '.join(valid)}{others})"


def _nearest(typed: str, valid: Sequence[str], *, most: int, cutoff: float) -> list[str]:
    """Whether letters are small or capital makes no difference."""
    by_small: dict[str, list[str]] = {}
    for choice in valid:
        by_small.setdefault(choice.lower(), []).append(choice)
    found: list[str] = []
    for small in difflib.get_close_matches(typed.lower(), by_small, n=most, cutoff=cutoff):
        found += difflib.get_close_matches(typed, by_small[small], n=most, cutoff=0)
    return found[:most]


def in_one_line(text: object) -> str:
    """A text for a message: without line breaks, and cut where it is very long."""
    line = " ".join(str(text).split())
    return line if len(line) <= LONGEST_QUOTE else f"{line[:LONGEST_QUOTE]}..."


def quoted(value: object) -> str:
    """A value as Python writes it, cut where it is very long or contains itself."""
    return _ShortRepr().repr(value)


class _ShortRepr(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 5
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 20
        self.maxstring = self.maxother = LONGEST_QUOTE

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write numbers of more than 4300 digits."""
        digits = round(x.bit_length() * 0.30103)
        return repr(x) if digits < LONGEST_QUOTE else f"a number of about {digits} digits"
