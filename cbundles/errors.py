"""What can go wrong without being a mistake in this program."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Something the user gave cannot work: a message that names the place and the way out.

    The command line prints it without a traceback and exits with code 2.
    """


class DamagedCheckpoint(ValueError):
    """What should continue a run is not what was saved for it: it starts from the beginning."""


def did_you_mean(value: object, choices: Iterable[str]) -> str:
    """``did you mean 'width'? (valid: depth, family, width)``: nearest choice first, then all."""
    valid = sorted(choices)
    nearest = difflib.get_close_matches(str(value), valid, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"{hint}(valid: {', '.join(valid)})"
