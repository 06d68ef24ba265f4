"""Processes that are killed with SIGKILL, once or several times, and continued.

The moment is the n-th time that a file is put in its place, just before or just after; or a time by
the clock. What the continued run ends with must be what a run without interruption ends with, and
what was finished before the kill must not be done again.
"""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import NamedTuple

from attacks import processes
from attacks.attempt import Attempt
from attacks.processes import SCENARIOS, Scenario, Whole

FREEZING = processes.ROOT / "tests/freezing"
BY_THE_CLOCK = 0.4  # of the kills that are drawn


class Kill(NamedTuple):
    """When: `number` writes of files that match `at`; of the last one before or after it."""

    at: str
    number: int
    before: bool

    def __str__(self) -> str:
        return f"{self.number}. {self.at}, {'before' if self.before else 'after'}"


class TimedKill(NamedTuple):
    """When: so many seconds after the start."""

    seconds: float

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s"


# What once went wrong: the checkpoint of networks that were finished stayed for ever.
KEPT = {
    "tune": [Kill("cells/*", 2, before=False)],
    "lesion": [Kill("cells/*", 1, before=False)],
}


def attempts(chance: Random, count: int, folder: Path) -> Iterator[Attempt]:
    """All scenarios in turn."""
    chosen = list(itertools.islice(itertools.cycle(SCENARIOS), count))
    cache = {"CBUNDLES_CACHE": str(folder / "cache")}
    undisturbed = processes.Undisturbed(folder, cache)
    wholes: dict[str, Whole] = {}
    for scenario in chosen:
        try:
            wholes[scenario.name] = undisturbed.of(scenario)
        except processes.FailedError as error:
            yield Attempt(f"{scenario.name}, not killed", str(error))
            return

    def tried(numbered: tuple[int, Scenario, list[Kill | TimedKill]]) -> Attempt:
        number, scenario, kills = numbered
        place = folder / scenario.name / str(number) / "run"
        problem = _killed_and_continued(scenario, place, kills, cache, wholes[scenario.name])
        return Attempt(f"{scenario.name}, killed at {[str(kill) for kill in kills]}", problem)

    drawn: list[tuple[int, Scenario, list[Kill | TimedKill]]] = []
    for number, scenario in enumerate(chosen):
        first_round = number < len(SCENARIOS)
        kept = KEPT.get(scenario.name) if first_round else None
        whole = wholes[scenario.name]
        kills = [draw(chance, scenario, whole) for _ in range(chance.choice((1, 1, 2)))]
        drawn.append((number, scenario, [*kept] if kept else kills))
    with ThreadPoolExecutor(processes.AT_ONCE) as pool:
        yield from pool.map(tried, drawn)


def draw(chance: Random, scenario: Scenario, whole: Whole) -> Kill | TimedKill:
    """A moment of a scenario."""
    if chance.random() < BY_THE_CLOCK:
        return TimedKill(chance.uniform(0, whole.seconds))
    at = chance.choice(list(scenario.writes))
    return Kill(at, chance.randint(1, scenario.writes[at]), chance.random() < 0.5)


def _killed_and_continued(
    scenario: Scenario,
    folder: Path,
    kills: list[Kill | TimedKill],
    cache: dict[str, str],
    whole: Whole,
) -> str | None:
    for number, kill in enumerate(kills):
        reached = kill_at(scenario, folder, kill, cache)
        if not reached and number == 0 and isinstance(kill, Kill):
            return "it was never reached"
    return wrong_continuation(scenario, folder, cache, whole)


def wrong_continuation(
    scenario: Scenario, folder: Path, cache: dict[str, str], whole: Whole
) -> str | None:
    """What is wrong about how a run ends that was killed before."""
    finished = processes.seconds_of(folder)
    ended = processes.run_to_the_end(scenario, folder, cache)
    if ended.code != 0 or "Traceback" in ended.said:
        return f"continued: exit code {ended.code}: {ended.said[-300:]}"
    if processes.what_was_found(folder) != whole.found:
        return "its records are others than without a kill"
    after = processes.seconds_of(folder)
    if any(after[cell] != seconds for cell, seconds in finished.items()):
        return "what was finished was done again"
    left = processes.left_over(folder)
    return f"it left {left}" if left else None


def kill_at(
    scenario: Scenario, folder: Path, kill: Kill | TimedKill, cache: dict[str, str]
) -> bool:
    """Start a command and kill it; whether the moment came before the end."""
    if isinstance(kill, TimedKill):
        with processes.start(scenario, folder, cache) as process:
            try:
                process.communicate(timeout=kill.seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                return True
        return False
    sign = folder.with_name("frozen")
    sign.parent.mkdir(parents=True, exist_ok=True)
    sign.unlink(missing_ok=True)
    environment = {
        **cache,
        "FREEZE_AT": f"{folder}/{kill.at}",
        "FREEZE_AFTER": str(kill.number),
        "FREEZE_SIGN": str(sign),
        "PYTHONPATH": f"{FREEZING}:{processes.product_environment()['PYTHONPATH']}",
    }
    if kill.before:
        environment["FREEZE_BEFORE"] = "1"
    with processes.start(scenario, folder, environment) as process:
        deadline = time.monotonic() + processes.LONGEST
        while not sign.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    return sign.exists()
