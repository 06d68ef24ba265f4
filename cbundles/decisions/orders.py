"""Further orders in which blocks go: by what others measure, by their place alone, and greedily.

`removal.RANKINGS` are those of the study itself. These are what it is compared with: scores that
others would take, controls that know nothing of the network, and the order of greedy removal, which
is found by trying and stands for what a score could know; a strict bound it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cbundles.decisions.removal import ranking

# Scores of blocks, and whether high ones go first.
PEERS = {"conflict_rate": True, "block_change": False, "relu_state_entropy": False}
LAST_FIRST, FIRST_FIRST = "last_first", "first_first"
BY_PLACE = (LAST_FIRST, FIRST_FIRST)
GREEDY = "greedy"
FURTHER = (*PEERS, *BY_PLACE, GREEDY)
GREEDY_IMAGES = 256  # of training, by whose loss greedy removal chooses
GREEDY_CANDIDATES = 12  # blocks that it tries at a step after the first
FITTED_ON = 1024  # images of training on which statistics of batch normalisation are taken anew

# cost_without(sets of blocks) -> what each set costs: smaller is better.
CostWithout = Callable[[Sequence[tuple[int, ...]]], Sequence[float]]


@dataclass(frozen=True)
class GreedySoFar:
    """Greedy removal under way.

    gone: blocks, in the order in which they went
    costs: of each block, what it cost together with those that were gone when it was last tried;
        none before the first step
    tried: how many sets of blocks were tried
    """

    gone: tuple[int, ...] = ()
    costs: tuple[float, ...] = ()
    tried: int = 0


def one_more_gone(
    so_far: GreedySoFar, blocks: int, cost_without: CostWithout, at_most: int | None = None
) -> GreedySoFar:
    """The block goes without which, besides those that are gone, the cost is the smallest; of
    equals the later one.

    blocks: how many the network has
    at_most: try no more than so many blocks, those that cost least when they were last tried; the
        first time all are tried. None: always all.
    """
    left = [block for block in range(blocks) if block not in so_far.gone]
    costs = list(so_far.costs) or [0.0] * blocks
    if so_far.costs and at_most is not None:
        left = sorted(left, key=costs.__getitem__)[:at_most]
    left.sort()
    for block, cost in zip(left, cost_without([(*so_far.gone, b) for b in left]), strict=True):
        costs[block] = float(cost)
    best = left[ranking([costs[block] for block in left], high_first=False)[0]]
    return GreedySoFar((*so_far.gone, best), tuple(costs), so_far.tried + len(left))


def tried_by_greedy(blocks: int, at_most: int | None = None) -> int:
    """How many sets of blocks `one_more_gone` tries until all blocks are gone.

    >>> tried_by_greedy(4), tried_by_greedy(4, at_most=2)
    (10, 9)
    """
    later = [min(left, at_most or left) for left in range(1, blocks)]
    return blocks + sum(later)


def further_orders(
    scores: Mapping[str, Sequence[float | None]], greedy: Sequence[int]
) -> dict[str, tuple[int, ...]]:
    """Every order of `FURTHER`, by name; without those by a score that is the same for all blocks.

    scores: of `PEERS`
    greedy: all blocks, as greedy removal took them
    """
    orders = {
        name: ranking(scores[name], high_first)
        for name, high_first in PEERS.items()
        if len(set(scores[name])) > 1
    }
    blocks = range(len(greedy))
    orders[LAST_FIRST] = tuple(reversed(blocks))
    orders[FIRST_FIRST] = tuple(blocks)
    orders[GREEDY] = tuple(greedy)
    return orders
