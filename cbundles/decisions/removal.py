"""Which blocks of a trained ResNet to remove, as pure decisions: groups, draws, rankings.

The second of the works that are reproduced here: blocks are conflicting when the un-skipped branch
has H > 0; k of them, of the others, or of all, are drawn again and again and removed. Rankings are
the controls: from the block that a score calls the least important on. Blocks are numbered from 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cbundles.chance import REMOVED_BLOCKS, generator
from cbundles.errors import quoted

CONFLICTING, OTHERS, ALL = "conflicting", "non-conflicting", "all"
GROUPS = (CONFLICTING, OTHERS, ALL)
SINGLE = "single"
# A block's score, and whether high ones go first. See `records.Blocks`.
RANKINGS = {"entropy": True, "scaled_norm": False, "norm": False, "first_order": False}
BOUNDS = (("draws", 1, 10**6), ("every", 1, 10**6), ("seed", 0, 2**32 - 1))  # of the settings
ASKED, ASKED_SHARES = (5, 10, 15), (0.5, 0.6)  # always among the counts: claim C17


@dataclass(frozen=True)
class Settings:
    """Which blocks a study removes. ValueError for what cannot be.

    draws: of each k and group
    every: which k, its multiples, besides one, all, and those that claim C17 asks about
    seed: of the draws
    fair: whether all is done with statistics of batch normalisation taken anew, too, and beside
        further orders and controls
    """

    draws: int = 15
    every: int = 1
    seed: int = 0
    fair: bool = False

    def __post_init__(self) -> None:
        for name, least, most in BOUNDS:
            if not least <= getattr(self, name) <= most:
                value = quoted(getattr(self, name))
                raise ValueError(f"{name} = {value}: must be at least {least} and at most {most}")

    def cover(self, wanted: Settings) -> bool:
        """Whether a study with these settings contains one with those."""
        enough = self.draws >= wanted.draws and self.seed == wanted.seed
        return enough and wanted.every % self.every == 0 and self.fair >= wanted.fair

    def counts(self, members: int, blocks: int) -> list[int]:
        """How many are removed of the members of a group, in a network with so many blocks."""
        every = range(self.every, members + 1, self.every)
        asked = [*ASKED, *(math.ceil(share * blocks) for share in ASKED_SHARES), 1, members]
        return sorted({*every, *(k for k in asked if 1 <= k <= members)})

    def most(self, blocks: int) -> int:
        """At most so many networks are evaluated, of a network with so many blocks."""
        counts = len(self.counts(blocks, blocks))
        drawn = min(blocks, 2 * counts + 2)  # of the two smaller groups together
        return blocks + (counts + drawn) * self.draws + counts * len(RANKINGS)


class Variant(NamedTuple):
    """A network with blocks removed. of: a group, a ranking, or SINGLE."""

    of: str
    removed: tuple[int, ...]


def groups(entropies: Sequence[float | None]) -> dict[str, tuple[int, ...]]:
    """The blocks of each group. entropies: H of each branch, nats; None for one that is not finite,
    which counts as conflicting."""
    conflict = tuple(i for i, h in enumerate(entropies) if h is None or h > 0)
    others = tuple(i for i in range(len(entropies)) if i not in set(conflict))
    return {CONFLICTING: conflict, OTHERS: others, ALL: tuple(range(len(entropies)))}


def ranking(scores: Sequence[float | None], high_first: bool) -> tuple[int, ...]:
    """Blocks in the order in which they go; of equals the later one. A score of None goes first."""
    key = [(-np.inf if s is None else -s if high_first else s, -i) for i, s in enumerate(scores)]
    return tuple(sorted(range(len(key)), key=key.__getitem__))


def variants(blocks: Mapping[str, Sequence[float | None]], settings: Settings) -> list[Variant]:
    """Every network that is evaluated: each block alone; draws of each group and k; each ranking
    and k. A group that is empty, or all, adds nothing. blocks: the scores of all, by name."""
    total = len(blocks["entropy"])
    found = [Variant(SINGLE, (block,)) for block in range(total)]
    for place, (name, members) in enumerate(groups(blocks["entropy"]).items()):
        if name != ALL and len(members) in (0, total):
            continue
        for k in settings.counts(len(members), total):
            for draw in range(settings.draws):
                number = (place * 2**16 + k) * 2**16 + draw
                chance = generator(settings.seed, REMOVED_BLOCKS, number)
                chosen = chance.choice(members, k, replace=False)
                found.append(Variant(name, tuple(sorted(map(int, chosen)))))
    for name, high_first in RANKINGS.items():
        if len(set(blocks[name])) > 1:  # without a difference there is no order
            found += along_order(name, ranking(blocks[name], high_first), settings)
    return found


def along_order(of: str, order: tuple[int, ...], settings: Settings) -> list[Variant]:
    """The networks without the first k blocks of an order of all, for each k."""
    return [Variant(of, order[:k]) for k in settings.counts(len(order), len(order))]


def choose(text: str, blocks: Mapping[str, Sequence[float | None]]) -> tuple[int, ...]:
    """The blocks that ``conflicting``, ``RANKING:COUNT`` or ``1,4,7`` (numbered from 1) names.
    ValueError, with what is valid, for anything else."""
    number = len(blocks["entropy"])
    if text == CONFLICTING:
        return groups(blocks["entropy"])[CONFLICTING]
    name, colon, count = text.partition(":")
    if colon:
        name = name.replace("-", "_")
        if name not in RANKINGS:
            names = ", ".join(RANKINGS).replace("_", "-")
            raise ValueError(f"no ranking {name!r}; valid: {names}")
        if not _is_number(count) or not 1 <= int(count) <= number:
            raise ValueError(f"{count!r} blocks: must be 1 to {number}")
        if len(set(blocks[name])) < 2:
            raise ValueError(f"all blocks have the same {name}; must be another ranking")
        return tuple(sorted(ranking(blocks[name], RANKINGS[name])[: int(count)]))
    numbers = text.split(",")
    if not all(_is_number(n.strip()) and 1 <= int(n) <= number for n in numbers):
        raise ValueError(
            f"must be conflicting, RANKING:COUNT as norm:{number // 2}, or numbers from 1 to "
            f"{number} with commas"
        )
    return tuple(sorted({int(n) - 1 for n in numbers}))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


@dataclass(frozen=True)
class Curve:
    """What removing several blocks at once costs.

    of: the group that they are drawn from, or the ranking that they are the first of
    k: how many
    lost: for each draw, test images that only the whole network classifies correctly
    gained: likewise, those that only the network without the blocks does
    """

    of: str
    k: int
    lost: list[int]
    gained: list[int]


def curves(evaluated: Sequence[tuple[Variant, int, int]]) -> list[Curve]:
    """Outcomes of all draws of a group or ranking and k together, as a record keeps them.
    evaluated: each network, how many images it lost and how many it gained."""
    found: dict[tuple[str, int], Curve] = {}
    for variant, lost, gained in evaluated:
        if variant.of != SINGLE:
            key = (variant.of, len(variant.removed))
            curve = found.setdefault(key, Curve(*key, lost=[], gained=[]))
            curve.lost.append(lost)
            curve.gained.append(gained)
    return list(found.values())
