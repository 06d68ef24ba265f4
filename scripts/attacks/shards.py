"""Several shards at once that write into one folder, of which some are killed and started again.

The run that is completed from what they leave must be that of one process.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

from attacks import kills, processes
from attacks.attempt import Attempt
from attacks.processes import SCENARIOS, Scenario, Whole

DEALT = [one for one in SCENARIOS if one.name in ("sweep", "images", "autotune", "lesion")]


def attempts(chance: Random, count: int, folder: Path) -> Iterator[Attempt]:
    """Two or three shards; each has an even chance to be killed, some seconds after the start."""
    cache = {"CBUNDLES_CACHE": str(folder / "cache")}
    undisturbed = processes.Undisturbed(folder, cache)
    for number in range(count):
        scenario = DEALT[number % len(DEALT)]
        whole = undisturbed.of(scenario)
        moments = draw(chance, whole)
        place = folder / scenario.name / str(number) / "run"
        problem = killed_and_completed(scenario, place, moments, cache, whole)
        yield Attempt(f"{scenario.name} in shards that are killed after {moments} s", problem)


def draw(chance: Random, whole: Whole) -> list[float | None]:
    """After how many seconds each of some shards is killed, None where it is not."""
    shards = range(chance.randint(2, 3))
    return [chance.uniform(0, whole.seconds) if chance.random() < 0.5 else None for _ in shards]


def killed_and_completed(
    scenario: Scenario,
    folder: Path,
    moments: list[float | None],
    cache: dict[str, str],
    whole: Whole,
) -> str | None:
    """What is wrong about a run whose shards are started at once and killed at these moments,
    started again, and then completed by the command for the whole run."""
    parts = [
        scenario._replace(killed_as=f"--shard {number}/{len(moments)}")
        for number in range(1, len(moments) + 1)
    ]
    started = [processes.start(part, folder, cache) for part in parts]
    try:
        for process, seconds in zip(started, moments, strict=True):
            if seconds is not None:
                kill_after(process, seconds)
        for number, part in enumerate(parts):
            if moments[number] is not None:
                started[number] = processes.start(part, folder, cache)
        for part, process in zip(parts, started, strict=True):
            said, _ = process.communicate(timeout=processes.LONGEST)
            if process.returncode != 0 or "Traceback" in said:
                return f"{part.killed_as}: exit code {process.returncode}: {said[-300:]}"
    finally:
        for process in started:
            process.kill()
            process.wait()
    return kills.wrong_continuation(scenario, folder, cache, whole)


def kill_after(process: subprocess.Popen[str], seconds: float) -> None:
    """Kill a process that runs longer than this from now on."""
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
