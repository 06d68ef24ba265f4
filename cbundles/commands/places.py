"""Which folder a command writes to.

The repository holds published runs in `results/`: claims are judged on them, and their origin never
changes by itself. A run of the same name goes to `reproduction/` instead, unless the command is
told to `--publish`. Every other run goes to `results/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cbundles.commands.flags import RESULTS
from cbundles.errors import InputError
from cbundles.store import Store

REPRODUCTION = Path("reproduction")


class Place(NamedTuple):
    """A folder, and what there is to say about it."""

    folder: Path
    note: str | None


def place_for(name: str, given: Path | None, *, publish: bool) -> Place:
    """Where a run goes. InputError when that is a folder from which it has to keep away.

    name: of the run, and of its folder where none is given
    given: by `--out`, or since the run is there already
    publish: whether it may be added to a published run
    """
    folder = given or RESULTS / name
    if publish or not Store(folder).is_published:
        return Place(folder, None)
    if given is not None:
        raise InputError(
            f"{folder}: holds a published run, which stays as it is; choose another folder, such "
            f"as {reproduction_of(RESULTS / name)}, or add to it with --publish"
        )
    own = reproduction_of(folder)
    note = f"{folder} holds the published run; this one goes to {own}; --publish adds to it"
    return Place(own, note)


def reproduction_of(folder: Path) -> Path:
    """What stands for a folder in `results/` when somebody else makes the same runs."""
    if not folder.is_relative_to(RESULTS):
        return folder
    return REPRODUCTION / folder.relative_to(RESULTS)
