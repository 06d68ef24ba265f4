"""Which networks a run keeps: those after some epochs, and the trained ones.

An epoch is written as its number, 0 for the initial network, or as `LAST`: after the end of the
training, also where that came early because a layer conflicted.
"""

from __future__ import annotations

from collections.abc import Sequence

from cbundles.errors import InputError, in_one_line, quoted

LAST = "last"
MOST_DIGITS = 10  # of an epoch


def parse_epochs(text: str) -> tuple[str, ...]:
    """``0,1,last`` as epochs, each once. Raises InputError for anything else."""
    epochs = [part.strip() for part in text.split(",")]
    for epoch in epochs:
        is_number = epoch.isascii() and epoch.isdecimal() and len(epoch) <= MOST_DIGITS
        if epoch != LAST and not is_number:
            raise InputError(
                f"--keep-weights {in_one_line(text)}: {quoted(epoch)} is no epoch; numbers and "
                f"{LAST!r} with commas, such as 0,1,{LAST}"
            )
    return tuple(dict.fromkeys(epoch if epoch == LAST else str(int(epoch)) for epoch in epochs))


def epochs_of(kept: Sequence[str], trained: int) -> list[str]:
    """The epochs that are kept of a network that is trained for so many: the number of its last one
    means `LAST`."""
    return list(dict.fromkeys(LAST if epoch == str(trained) else epoch for epoch in kept))


def too_late(kept: Sequence[str], trained: int) -> str | None:
    """An epoch that a network which is trained for so many never reaches, if there is one."""
    return next((epoch for epoch in kept if epoch != LAST and int(epoch) > trained), None)
