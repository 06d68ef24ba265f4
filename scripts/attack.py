"""What the product does when it is given nonsense, damaged files, full disks, and killed.

Nothing that is attacked here may answer with a traceback or a wrong number, or lose what was
finished. Every run draws new attacks, from a seed that is printed first; --seed N repeats a run.
Inputs that once failed are tried in every run (tests/data/attacks).

    python scripts/attack.py                    all of it, about 45 minutes on two cores
    python scripts/attack.py --only files       one kind of attack
    python scripts/attack.py --quick            a few of each
    python scripts/attack.py --cases 100000     ten times as many
    python scripts/attack.py --shard 2/8        an eighth, with chance of its own: other machines
                                                do the rest
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from attacks import arrays, configurations, deals, disk, files, kills, pipes, shards
from attacks.attempt import Attempt


class Kind(NamedTuple):
    """attempts: makes so many attacks in a folder of its own; full, quick: how many."""

    attempts: Callable[[Random, int, Path], Iterator[Attempt]]
    full: int
    quick: int


KINDS = {
    "configurations": Kind(configurations.attempts, 4500, 60),
    "deals": Kind(deals.attempts, 1000, 30),
    "files": Kind(files.attempts, 3000, 100),
    "arrays": Kind(arrays.attempts, 1500, 30),
    "kills": Kind(kills.attempts, 40, 1),
    "shards": Kind(shards.attempts, 8, 1),
    "disk": Kind(disk.attempts, 12, 1),
    "pipes": Kind(pipes.attempts, 114, 6),
}
FULL = sum(kind.full for kind in KINDS.values())
FAILURES_SHOWN = 20


class Extent(NamedTuple):
    """cases: in all, None for a few of each kind; shard: its number, of so many shards."""

    cases: int | None
    shard: int
    shards: int

    def attacks_of(self, kind: Kind) -> int:
        """At least one of each kind in each shard."""
        if self.cases is None:
            return kind.quick
        return math.ceil(kind.full * self.cases / FULL / self.shards)

    def chance(self, seed: int, name: str) -> Random:
        """Each kind, and each shard, has chance of its own: --only repeats what a whole run did."""
        part = "" if self.shards == 1 else f" {self.shard}/{self.shards}"
        return Random(f"{seed} {name}{part}")


def attack(name: str, seed: int, extent: Extent) -> tuple[int, list[Attempt]]:
    """How many attacks of a kind were tried, and those that failed."""
    kind = KINDS[name]
    tried, failed = 0, []
    with tempfile.TemporaryDirectory(prefix=f"attack-{name}-") as folder:
        before = Path.cwd()
        os.chdir(folder)
        try:
            chance = extent.chance(seed, name)
            for attempt in kind.attempts(chance, extent.attacks_of(kind), Path(folder)):
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
    parser.add_argument("--cases", type=int, default=FULL, help=f"attacks in all [{FULL}]")
    parser.add_argument("--shard", default="1/1", help="a part of them, such as 2/8")
    parser.add_argument("--seed", type=int, help="repeats a run [a fresh one]")
    arguments = parser.parse_args()
    number, count = map(int, arguments.shard.split("/"))
    extent = Extent(None if arguments.quick else arguments.cases, number, count)
    seed = arguments.seed
    if seed is None:
        seed = Random().randrange(10**6)
    print(f"seed {seed}; --seed {seed} repeats this run", flush=True)
    print(f"{'attack':<16}{'tried':>7}{'failed':>8}{'seconds':>9}", flush=True)
    failures: list[Attempt] = []
    tried_in_all = 0
    for name in [arguments.only] if arguments.only else KINDS:
        started = time.monotonic()
        tried, failed = attack(name, seed, extent)
        seconds = time.monotonic() - started
        print(f"{name:<16}{tried:>7}{len(failed):>8}{seconds:>9.0f}", flush=True)
        failures += failed
        tried_in_all += tried
    print(f"{'all':<16}{tried_in_all:>7}{len(failures):>8}", flush=True)
    for attempt in failures[:FAILURES_SHOWN]:
        print(f"\n{attempt.problem}\n    {attempt.what[:1000]}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
