"""What the product does when it is given nonsense, damaged files, full disks, and killed.

Nothing that is attacked here may answer with a traceback or a wrong number, or lose what was
finished. Every run draws new attacks, from a seed that is printed first; --seed N repeats a run.
Inputs that once failed are tried in every run (tests/data/attacks).

    python scripts/attack.py                    all of it, 20 minutes on two cores
    python scripts/attack.py --only files       one kind of attack
    python scripts/attack.py --quick            a few of each
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from attacks import arrays, configurations, disk, files, kills, pipes, shards
from attacks.attempt import Attempt


class Kind(NamedTuple):
    """attempts: makes so many attacks in a folder of its own; full, quick: how many."""

    attempts: Callable[[Random, int, Path], Iterator[Attempt]]
    full: int
    quick: int


KINDS = {
    "configurations": Kind(configurations.attempts, 2000, 60),
    "files": Kind(files.attempts, 1500, 100),
    "arrays": Kind(arrays.attempts, 1000, 30),
    "kills": Kind(kills.attempts, 25, 1),
    "shards": Kind(shards.attempts, 8, 1),
    "disk": Kind(disk.attempts, 12, 1),
    "pipes": Kind(pipes.attempts, 114, 6),
}
FAILURES_SHOWN = 20


def attack(name: str, seed: int, quick: bool) -> tuple[int, list[Attempt]]:
    """How many attacks of a kind were tried, and those that failed."""
    kind = KINDS[name]
    tried, failed = 0, []
    with tempfile.TemporaryDirectory(prefix=f"attack-{name}-") as folder:
        before = Path.cwd()
        os.chdir(folder)
        try:
            # Each kind has chance of its own: --only repeats what a whole run did.
            count = kind.quick if quick else kind.full
            for attempt in kind.attempts(Random(f"{seed} {name}"), count, Path(folder)):
                tried += 1
                if attempt.problem is not None:
                    failed.append(attempt)
        finally:
            os.chdir(before)
    return tried, failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--only", choices=KINDS, help="one kind of attack")
    parser.add_argument("--quick", action="store_true", help="a few attacks of each kind")
    parser.add_argument("--seed", type=int, help="repeats a run [a fresh one]")
    arguments = parser.parse_args()
    seed = arguments.seed
    if seed is None:
        seed = Random().randrange(10**6)
    print(f"seed {seed}; --seed {seed} repeats this run", flush=True)
    print(f"{'attack':<16}{'tried':>7}{'failed':>8}{'seconds':>9}", flush=True)
    failures: list[Attempt] = []
    for name in [arguments.only] if arguments.only else KINDS:
        started = time.monotonic()
        tried, failed = attack(name, seed, arguments.quick)
        seconds = time.monotonic() - started
        print(f"{name:<16}{tried:>7}{len(failed):>8}{seconds:>9.0f}", flush=True)
        failures += failed
    for attempt in failures[:FAILURES_SHOWN]:
        print(f"\n{attempt.problem}\n    {attempt.what[:1000]}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
