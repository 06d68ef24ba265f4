"""What `--fresh` replaces stays on disk until there is something in its place.

Before a run forgets its records, its folder is set aside in `before-fresh/`, as hard links: that
takes neither time nor space. It goes as soon as there is a record that was not there before. A
command that ends without one, stopped or failed, puts everything back; after one that was killed,
whoever opens the folder next does.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

# The folders in which new records appear, a file each: those of `store.KINDS`.
RECORDS = ("cells", "lesions", "pruned", "measured")
ASIDE = "before-fresh"
# Under these names it is not yet whole, or not whole any more, and says nothing.
GATHERING, LEAVING = ".before-fresh.gathering", ".before-fresh.leaving"
# What is no part of a run: the lock that this process holds, and what workers printed.
APART = (".lock", "logs", ASIDE, GATHERING, LEAVING)


def set_aside(folder: Path) -> None:
    """Keep all that is in a folder; what happens to it afterwards is judged by `settle`."""
    shutil.copytree(
        folder,
        folder / GATHERING,
        copy_function=_link,
        ignore=shutil.ignore_patterns(*APART),
    )
    (folder / GATHERING).rename(folder / ASIDE)


def settle(folder: Path, is_of_run: Callable[[Path], bool]) -> bool:
    """Remove what was set aside when there is a new record, else put it back; returns whether it
    was put back. Nothing to do where nothing was set aside. is_of_run: whether a run writes a file
    at this place in its folder: others, which somebody keeps there, stay in any case."""
    for unfinished in (GATHERING, LEAVING):
        shutil.rmtree(folder / unfinished, ignore_errors=True)
    aside = folder / ASIDE
    if not aside.is_dir():
        return False
    is_to_be_put_back = not _has_new_record(folder)
    if is_to_be_put_back:
        _put_back(folder, is_of_run)
    # Renamed first: half of it, after a kill, would be taken for the whole.
    aside.rename(folder / LEAVING)
    shutil.rmtree(folder / LEAVING, ignore_errors=True)
    return is_to_be_put_back


def _has_new_record(folder: Path) -> bool:
    for records in RECORDS:
        for record in (folder / records).glob("*.json"):
            before = folder / ASIDE / records / record.name
            if not before.is_file() or not filecmp.cmp(record, before, shallow=False):
                return True
    return False


def _put_back(folder: Path, is_of_run: Callable[[Path], bool]) -> None:
    """Make the run what it was. Everything stays in `before-fresh/` meanwhile, so that this can
    be repeated when it is interrupted."""
    kept = {path.relative_to(folder / ASIDE) for path in _files_in(folder / ASIDE)}
    for place in kept:
        target, before = folder / place, folder / ASIDE / place
        if target.exists() and target.samefile(before):
            continue
        staging = target.with_name(f".{target.name}.put_back")
        staging.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(before, staging)
        staging.replace(target)
    for path in list(_files_in(folder)):
        place = path.relative_to(folder)
        if place not in kept and is_of_run(place):
            path.unlink()


def _files_in(folder: Path) -> Iterator[Path]:
    """All files of a run, in any depth."""
    for path in folder.iterdir():
        if path.name in APART:
            continue
        if path.is_dir():
            yield from _files_in(path)
        else:
            yield path


def _link(source: str | Path, target: str | Path) -> None:
    """Another name for a file; a copy on file systems that know no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
