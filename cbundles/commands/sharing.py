"""What a command does that is one shard of a run: its share of the populations, and what it says at
the end instead of showing tables."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from cbundles.commands.output import say, say_failures
from cbundles.commands.running import Options, costs
from cbundles.config import Images
from cbundles.data.dataset import Facts
from cbundles.executor.planner import PopulationJob
from cbundles.store import Store
from cbundles.wording import counted


def share_of(
    populations: Sequence[PopulationJob], facts: Mapping[Images, Facts], options: Options
) -> list[PopulationJob]:
    """The populations that this command trains, of those of the whole run: all without a shard."""
    if options.shard is None:
        return list(populations)
    return options.shard.share(populations, costs(populations, facts))


def held(store: Store, options: Options) -> contextlib.AbstractContextManager[None]:
    """Hold the run, or the shard of it that this command does, for this process."""
    return store.locked() if options.shard is None else store.shared(options.shard.folder_name)


@dataclass(frozen=True)
class ShareOutcome:
    """What there is after one shard has been run.

    share: how many networks this shard has to train, or to study
    done: how many of these are finished
    failed: how many of these failed
    left: how many of the whole run are not finished
    """

    share: int
    done: int
    failed: int
    left: int

    def tell(self, store: Store, options: Options, console: Console) -> int:
        """Say what this shard has done, what is left of the run, and how that is completed.
        Returns the exit code."""
        if options.as_json:
            self._print_as_data(store, options)
        else:
            self._say(store, options, console)
        return 1 if self.failed else 0

    def _say(self, store: Store, options: Options, console: Console) -> None:
        everything = counted(self.share, "network")
        done = "" if self.done == self.share else f"{self.done} of "
        say(console, f"\nshard {options.shard}: {done}{everything} of its share finished")
        if self.left:
            say(console, f"left of the run in {store.folder}: {counted(self.left, 'network')}")
            then = "when all shards have ended"
        else:
            say(console, f"nothing is left of the run in {store.folder}")
            then = "now"
        say(
            console,
            f"{then}, the same command without --shard completes and seals the run and draws its "
            f"tables; so does cbundles report {store.folder.parent}, as far as it is complete",
        )
        say_failures(console, self.failed, store, fresh=False)

    def _print_as_data(self, store: Store, options: Options) -> None:
        done = {
            "event": "done",
            "shard": str(options.shard),
            "share": self.share,
            "finished": self.done,
            "failed": self.failed,
            "left": self.left,
            "folder": str(store.folder),
        }
        print(json.dumps(done))
