"""A population in training, what is known of each member so far, and the clock: what a run is
interrupted with, and continued from.

Sweeps, grow and tune are policies over it: they advance the population, look at it, and write down
what they see in its members.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flax import serialization

from cbundles.errors import DamagedCheckpoint
from cbundles.experiments.entries import require_numbers
from cbundles.population import Population, Snapshot, plain

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# What a policy knows of one network: a dataclass.
Member = TypeVar("Member", bound="DataclassInstance")


@dataclass
class RunState(Generic[Member]):
    """Valid until the next one is asked for: programs consume the arrays of the population."""

    population: Population
    members: list[Member]
    kept: Snapshot | None = None  # what members with an edit on trial were before
    seconds: list[float] = field(default_factory=list)  # from each entry to the next, no compiling
    probe_seconds: list[float] = field(default_factory=list)  # each time bundles were measured
    pending_seconds: float = 0.0  # since the last entry
    compile_seconds: float = 0.0  # also of processes that were interrupted
    # Names of those that were compiled, likewise: a process that continues compiles them again.
    programs: set[str] = field(default_factory=set)

    @property
    def epoch(self) -> int:
        """How many are finished."""
        return self.population.epoch

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Add what happens inside to the clock, and what was compiled apart from it."""
        compiled = self.population.compile_seconds
        started = perf_counter()
        yield
        compiled = self.population.compile_seconds - compiled
        self.pending_seconds += perf_counter() - started - compiled
        self.compile_seconds += compiled
        self.programs |= self.population.programs

    def entry_is_written(self) -> None:
        """The time until now belongs to what has just been written down."""
        self.seconds.append(round(self.pending_seconds, 4))
        self.pending_seconds = 0.0

    def freeze(self) -> bytes:
        """As bytes (MessagePack): plain arrays and numbers, nothing that executes."""
        clock = {name: getattr(self, name) for name in CLOCK} | {"programs": sorted(self.programs)}
        content = {
            "population": self.population.freeze(),
            "kept": {} if self.kept is None else plain(self.kept),
            "members": json.dumps([dataclasses.asdict(member) for member in self.members]),
            "clock": json.dumps(clock),
        }
        return serialization.msgpack_serialize(content)


CLOCK = ("seconds", "probe_seconds", "pending_seconds", "compile_seconds", "programs")


def thaw(
    frozen: bytes, population: Population, member_of: Callable[[dict[str, Any], int], Member]
) -> RunState[Member]:
    """What `RunState.freeze` was given. DamagedCheckpoint for anything else. member_of: makes one
    of plain data and of its number, and raises some error for what is none: it ends in a record."""
    try:
        content = serialization.msgpack_restore(frozen)
        if "history" in content:
            content = _from_first_format(content, population)
        population.thaw(content["population"])
        kept = population.thawed(content["kept"]) if content["kept"] else None
        members = json.loads(content["members"])
        if len(members) != len(population.cells):
            raise ValueError("it holds other networks")
        clock = json.loads(content["clock"])
        if clock.keys() != set(CLOCK):
            raise ValueError("its clock is incomplete")
        require_numbers([*clock["seconds"], *clock["probe_seconds"]])
        require_numbers(clock[name] for name in ("pending_seconds", "compile_seconds"))
        clock["programs"] = _names_of_programs(clock["programs"])
        made = [member_of(member, number) for number, member in enumerate(members)]
        return RunState(population, made, kept, **clock)
    except Exception as error:  # whatever a damaged file makes the decoder raise
        raise DamagedCheckpoint(str(error)) from error


def _names_of_programs(programs: Any) -> set[str]:
    """Until there were names, checkpoints held how many programs there were."""
    if isinstance(programs, int):
        return {f"without a name {number}" for number in range(programs)}
    if not all(isinstance(name, str) for name in programs):
        raise ValueError("its programs have no names")
    return set(programs)


def _from_first_format(content: dict[str, Any], population: Population) -> dict[str, Any]:
    """A checkpoint of a sweep as it was before populations could pause within an epoch."""
    times = {name: content[name] for name in ("seconds", "probe_seconds", "compile_seconds")}
    place = {
        "state": content["state"],
        "epoch": len(times["seconds"]) - 1,
        "step": 0,
    }
    return {
        "population": {**population.freeze(), **place},
        "kept": {},
        "members": json.dumps([{"history": history} for history in content["history"]]),
        "clock": json.dumps({**times, "pending_seconds": 0.0, "programs": 0}),
    }
