"""Shards: a run is shared out to several commands, on one machine or on many.

Each command deals all populations of the grid by predicted cost and takes its own share. The deal
depends on the grid alone, never on what is finished or on how fast a machine is, so all of them
come to the same one without a word to each other.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cbundles.errors import InputError, quoted
from cbundles.executor.planner import Job

AnyJob = TypeVar("AnyJob", bound=Job)
# Nine digits are more shards than anybody has, and few enough to be read as a number.
NUMBER_AND_COUNT = re.compile(r"(-?[0-9]{1,9})/(-?[0-9]{1,9})")


@dataclass(frozen=True)
class Shard:
    """One of `count` equal parts of a run.

    number: from 1 to `count`
    """

    number: int
    count: int

    @classmethod
    def of_text(cls, text: str) -> Shard:
        """What was typed, ``3/8``. InputError for what is no shard."""
        typed = NUMBER_AND_COUNT.fullmatch(text)
        if typed is None:
            raise InputError(f"--shard {quoted(text)}: must be NUMBER/COUNT, such as 1/8")
        number, count = int(typed[1]), int(typed[2])
        if not 1 <= number <= count:
            most = max(1, count)
            nearest = cls(min(max(1, number), most), most)
            reason = f"shards are numbered from 1 to {count}" if count > 0 else "there must be one"
            raise InputError(f"--shard {text}: {reason}; nearest valid: {nearest}")
        return cls(number, count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def folder_name(self) -> str:
        """Of what it writes for itself alone: its log and its lock."""
        return f"shard-{self.number}-of-{self.count}"

    def share(self, jobs: Sequence[AnyJob], costs: Mapping[str, float]) -> list[AnyJob]:
        """The jobs of this shard, in their own order. costs: predicted seconds of each job, by its
        key."""
        dealt = deal(costs, self.count)
        return [job for job in jobs if dealt[job.key] == self.number]


def deal(costs: Mapping[str, float], count: int) -> dict[str, int]:
    """The shard, from 1 to `count`, of each job: the longest first, always to the shard that has
    least to do. costs: predicted seconds of each job, by its key."""
    # The number decides between shards that have equally much to do, the key between equal jobs.
    loads = [(0.0, number) for number in range(1, min(count, len(costs)) + 1)]
    dealt = {}
    for key in sorted(costs, key=lambda key: (-costs[key], key)):
        load, number = loads[0]
        dealt[key] = number
        heapq.heapreplace(loads, (load + costs[key], number))
    return dealt
