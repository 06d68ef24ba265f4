"""Disks that are full, too small for a file, or read-only, in the middle of a run.

A run must say what is missing, and end with the right records once there is space. Where no file
system of a few pages may be mounted, a limit on the size of a file stands in for a full disk.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from attacks import processes
from attacks.attempt import Attempt
from attacks.processes import SCENARIOS, Ended, Scenario

PAGE = 4096
REASONS = ("No space left on device", "File too large", "Read-only file system")
# Bytes of disks that once were full in the middle of a figure, which had a traceback for an answer.
KEPT = {"sweep": 118_784, "grow": 282_624}


def attempts(chance: Random, count: int, folder: Path) -> Iterator[Attempt]:
    """Results, or the cache, on a disk that is too small; or results on a read-only one."""
    cache = {"CBUNDLES_CACHE": str(folder / "cache")}
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in ("sweep", "grow")]
    wholes = {}
    for scenario in scenarios:
        whole = folder / scenario.name / "whole/run"
        processes.run_to_the_end(scenario, whole, cache)
        wholes[scenario.name] = processes.what_was_found(whole)
    mountable = _can_mount(folder / "trial")
    if not mountable:
        print("(no file system may be mounted here: a limit on the size of files stands in)")
    for scenario in scenarios[: count if mountable else 0]:
        place = folder / scenario.name / "kept"
        whole_records = wholes[scenario.name]
        yield _filled_and_continued(scenario, place, KEPT[scenario.name], cache, whole_records)
    for number in range(count):
        scenario = chance.choice(scenarios)
        place = folder / scenario.name / str(number)
        place.mkdir(parents=True)
        if not mountable:
            blocks = chance.randrange(60)  # of 512 or 1024 bytes, as the shell has it
            limit = f"ulimit -f {blocks}"
            ended = processes.run_to_the_end(scenario, place / "run", cache, limit)
            what = f"{scenario.name}, files of at most {blocks} blocks"
        elif number % 6 == 5:
            what = f"{scenario.name}, cache of {PAGE} bytes"
            with _small_disk(place / "cache", PAGE):
                small_cache = {"CBUNDLES_CACHE": str(place / "cache")}
                ended = processes.run_to_the_end(scenario, place / "run", small_cache)
        elif number % 6 == 4:
            what = f"{scenario.name}, results on a disk that is read-only"
            with _small_disk(place / "disk", PAGE, "ro"):
                ended = processes.run_to_the_end(scenario, place / "disk/run", cache)
        else:
            size = PAGE * chance.randrange(2, 80)
            yield _filled_and_continued(scenario, place, size, cache, wholes[scenario.name])
            continue
        problem = _wrong_end(ended)
        if problem is None:
            problem = _wrong_continuation(scenario, place / "run", cache, wholes[scenario.name])
        yield Attempt(what, problem)


def _filled_and_continued(
    scenario: Scenario, place: Path, size: int, cache: dict[str, str], whole: dict[str, list[Any]]
) -> Attempt:
    what = f"{scenario.name}, results on a disk of {size} bytes"
    disk = place / "disk"
    with _small_disk(disk, size):
        problem = _wrong_end(processes.run_to_the_end(scenario, disk / "run", cache))
        if problem is None:
            _mount("remount,size=64m", disk)
            problem = _wrong_continuation(scenario, disk / "run", cache, whole)
    return Attempt(what, problem)


def _wrong_end(ended: Ended) -> str | None:
    """What is wrong about how a run without space has ended."""
    if "Traceback" in ended.said:
        return f"traceback: {ended.said[-500:]}"
    told = any(reason in ended.said for reason in REASONS)
    if ended.code == 0:
        return "exit code 0, and yet something could not be written" if told else None
    if ended.code not in (1, 2):
        return f"exit code {ended.code}: {ended.said[-300:]}"
    return None if told else f"the reason is not told: {ended.said[-300:]}"


def _wrong_continuation(
    scenario: Scenario, folder: Path, cache: dict[str, str], whole: dict[str, list[Any]]
) -> str | None:
    ended = processes.run_to_the_end(scenario, folder, cache)
    if ended.code != 0:
        return f"with space, exit code {ended.code}: {ended.said[-300:]}"
    return None if processes.what_was_found(folder) == whole else "with space, other records"


@contextlib.contextmanager
def _small_disk(place: Path, size: int, options: str = "rw") -> Iterator[None]:
    place.mkdir(parents=True)
    _mount(f"size={size},{options}", place)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _mount(options: str, place: Path) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    subprocess.run(command, check=True, capture_output=True)


def _can_mount(place: Path) -> bool:
    try:
        with _small_disk(place, PAGE):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
