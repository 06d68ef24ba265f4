"""Steps of the first epoch after which networks are measured, besides the ends of epochs.

Conflicts show early, and an epoch of a large network may take hours. Steps are optimizer steps,
counted from the start of training.
"""

from __future__ import annotations

NONE = "none"  # networks are measured between epochs alone


def canonical(given: object) -> str:
    """Steps, as a list, a number, or a text with commas, in one form: ascending, each once, with
    commas; ``none`` without any. ValueError says what is wrong with one.

    >>> canonical([500, 50, 50])
    '50,500'
    """
    if isinstance(given, str):
        each: list[object] = list(given.split(","))
    else:
        each = given if isinstance(given, list) else [given]
    if each in ([], [NONE]):
        return NONE
    return ",".join(str(step) for step in sorted({_step(one) for one in each}))


def parse(steps: str) -> tuple[int, ...]:
    """The steps in a text of `canonical`."""
    return () if steps == NONE else tuple(int(step) for step in steps.split(","))


def _step(given: object) -> int:
    step = _number_from_text(given) if isinstance(given, str) else given
    if not isinstance(step, int) or isinstance(step, bool):
        raise ValueError(f"{given!r} is no step; whole numbers, such as [50, 150, 500]")
    if step < 1:
        raise ValueError("the initial network is measured anyway; nearest valid: 1")
    return step


def _number_from_text(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
