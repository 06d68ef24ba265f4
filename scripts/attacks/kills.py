"""Processes that are killed at a known moment, once or twice, and continued.

The moment is the n-th time that a file is put in its place, just before or just after. What the
continued run ends with must be what a run without interruption ends with, and what was finished
before the kill must not be done again.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from attacks import processes
from attacks.attempt import Attempt
from attacks.processes import SCENARIOS, Scenario

FREEZING = processes.ROOT / "tests/freezing"


class Kill(NamedTuple):
    """When: `number` writes of files that match `at`; of the last one before or after it."""

    at: str
    number: int
    before: bool


# What once went wrong: the checkpoint of networks that were finished stayed for ever.
KEPT = {
    "tune": [Kill("cells/*", 2, before=False)],
    "lesion": [Kill("cells/*", 1, before=False)],
}


def attempts(chance: Random, count: int, folder: Path) -> Iterator[Attempt]:
    """All scenarios in turn."""
    chosen = list(itertools.islice(itertools.cycle(SCENARIOS), count))
    needed = list(dict.fromkeys(scenario.name for scenario in chosen))
    cache = {"CBUNDLES_CACHE": str(folder / "cache")}
    wholes = {}
    for scenario in SCENARIOS:
        if scenario.name in needed:
            whole = folder / scenario.name / "whole/run"
            ended = processes.run_to_the_end(scenario, whole, cache)
            if ended.code != 0:
                yield Attempt(f"{scenario.name}, not killed", ended.said[-500:])
                return
            wholes[scenario.name] = processes.what_was_found(whole)

    def tried(numbered: tuple[int, Scenario, list[Kill]]) -> Attempt:
        number, scenario, kills = numbered
        place = folder / scenario.name / str(number) / "run"
        problem = _killed_and_continued(scenario, place, kills, cache, wholes[scenario.name])
        told = [f"{k.number}. {k.at}, {'before' if k.before else 'after'}" for k in kills]
        return Attempt(f"{scenario.name}, killed at {told}", problem)

    drawn = []
    for number, scenario in enumerate(chosen):
        first_round = number < len(SCENARIOS)
        kept = KEPT.get(scenario.name) if first_round else None
        drawn.append((number, scenario, kept or _kills(chance, scenario)))
    with ThreadPoolExecutor(processes.AT_ONCE) as pool:
        yield from pool.map(tried, drawn)


def _kills(chance: Random, scenario: Scenario) -> list[Kill]:
    kills = []
    for _ in range(chance.choice((1, 1, 2))):
        at = chance.choice(list(scenario.writes))
        number = chance.randint(1, scenario.writes[at])
        kills.append(Kill(at, number, chance.random() < 0.5))
    return kills


def _killed_and_continued(
    scenario: Scenario,
    folder: Path,
    kills: list[Kill],
    cache: dict[str, str],
    whole: dict[str, list[Any]],
) -> str | None:
    for number, kill in enumerate(kills):
        reached = _kill_at(scenario, folder, kill, cache)
        if not reached and number == 0:
            return "it was never reached"
    finished = processes.seconds_of(folder)
    ended = processes.run_to_the_end(scenario, folder, cache)
    if ended.code != 0 or "Traceback" in ended.said:
        return f"continued: exit code {ended.code}: {ended.said[-300:]}"
    if processes.what_was_found(folder) != whole:
        return "its records are others than without a kill"
    after = processes.seconds_of(folder)
    if any(after[cell] != seconds for cell, seconds in finished.items()):
        return "what was finished was done again"
    left = processes.left_over(folder)
    return f"it left {left}" if left else None


def _kill_at(scenario: Scenario, folder: Path, kill: Kill, cache: dict[str, str]) -> bool:
    """Whether the moment came before the end."""
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
