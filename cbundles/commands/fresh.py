"""`--fresh`: do again what is finished. First everything is checked, then said, then replaced.

What is replaced stays on disk until the first new record is there; see `cbundles.replacing`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from cbundles.commands.output import say_beside_results
from cbundles.commands.running import Options
from cbundles.errors import InputError
from cbundles.executor import local
from cbundles.store import Kept, Kind, Store
from cbundles.wording import counted

NOTHING_NEW = "nothing was finished; the earlier run is as it was"


def start_over(
    cells: Sequence[str],
    populations: Sequence[str],
    store: Store,
    options: Options,
    needed: float,
    console: Console,
) -> None:
    """Forget cells, once it is sure that they can be made again.

    cells: their identities
    populations: the keys of those that are trained anew
    needed: bytes on disk that the new run will take
    """
    if options.ray is None:
        local.require_device(options.device)
    require_room(store.folder, needed)
    say_what_is_replaced(cells, store, options, console)
    store.replace(cells, populations)


def say_what_is_replaced(
    cells: Sequence[str], store: Store, options: Options, console: Console
) -> None:
    """How many finished networks, and from when."""
    finished = sum(store.has(cell) for cell in cells)
    if finished:
        text = f"--fresh replaces {counted(finished, 'finished network')} in {store.folder}"
        if store.written:
            text += f", last written {store.written}"
        say_beside_results(f"{text}, once a new one is finished", options, console)


def study_again(
    names: Sequence[str],
    kind: Kind[Kept],
    store: Store,
    options: Options,
    console: Console,
) -> None:
    """Forget studies that are about to be made again.

    names: of their records, some of which may not be there
    """
    finished = [name for name in names if store.has(name, kind)]
    if not finished:
        return
    say_beside_results(
        f"--fresh replaces what was found of {counted(len(finished), 'network')} in "
        f"{store.folder}, once a new result is there",
        options,
        console,
    )
    store.replace_studies(kind, finished)


def require_room(folder: Path, needed: float) -> None:
    """InputError when the disk of a folder has less than so many bytes left."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise InputError(
            f"{folder}: about {needed / 1e6:,.0f} MB are needed, and {free / 1e6:,.0f} MB are "
            "free; make room, or choose another folder with --out"
        )
