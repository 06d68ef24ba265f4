"""Auto-tuning (paper, sec. 3.6): remove conflicting layers after the first epochs, start again.

A network is trained; when its last layer conflicts after one of the first epochs, training stops,
the first conflicting block and all later ones of its stage are removed, and the smaller network is
trained from scratch. Every attempt is an ordinary cell, so the whole history of a tuned network can
be read from records, and interrupted tuning goes on by reading them.

Each restart removes at least one block, so there are at most as many restarts as blocks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cbundles.config import Cell, layers_of_block

RULES = ("stage", "conflicting")


def prune(
    blocks: Sequence[int], entropies: Sequence[float | None], rule: str = "stage"
) -> tuple[int, ...]:
    """The blocks of each stage that remain. entropies: H^l of each block in order, nats; None for
    one whose activations are not finite, which counts as conflicting.

    rule ``stage``: the first conflicting block and all later ones of its stage go (the paper);
    ``conflicting``: of these, only those that conflict themselves (the original code).
    Without a conflict, all remain. ValueError when the numbers do not fit.

    >>> prune((3, 4), [0, 0, 0, 0, 0.1, 0, 2.3])
    (3, 1)
    """
    if rule not in RULES:
        raise ValueError(f"rule = {rule!r}: must be one of {', '.join(RULES)}")
    if len(entropies) != sum(blocks):
        raise ValueError(f"{sum(blocks)} blocks, but {len(entropies)} entropies")
    conflict = [entropy is None or entropy > 0 for entropy in entropies]
    left, start = list(blocks), 0
    for stage, count in enumerate(blocks):
        here = conflict[start : start + count]
        start += count
        if any(here):
            first = here.index(True)
            left[stage] = first + (here[first:].count(False) if rule == "conflicting" else 0)
            break
    return tuple(left)


@dataclasses.dataclass(frozen=True)
class Decision:
    """What one finished attempt leads to. epoch: after which it was measured; stages: H of the last
    block of each stage that has any; conflict: the first conflicting block, counted from 1, or None
    when the network was trained to the end; left: the blocks that remain."""

    epoch: int
    stages: tuple[float | None, ...]
    conflict: int | None
    before: tuple[int, ...]
    left: tuple[int, ...]

    def __str__(self) -> str:
        heights = " ".join("nan" if h is None else f"{h:.3f}" for h in self.stages)
        text = f"epoch {self.epoch}: H at the end of each stage {heights}"
        if self.conflict is None:
            return f"{text}; {self._after_the_checks()}, trained to the end: {_named(self.left)}"
        gone = sum(self.before) - sum(self.left)
        first, second = layers_of_block(self.conflict)
        return (
            f"{text}; first conflicting block {self.conflict} of {sum(self.before)} "
            f"(layers {first} and {second}); "
            f"removes {gone} blocks: {_named(self.before)} -> {_named(self.left)}"
        )

    def _after_the_checks(self) -> str:
        """What the last layer does at the end of the training of a network that was kept."""
        if self.stages[-1] is None:
            return "diverged after the checks"
        return "conflicts only after the checks" if self.stages[-1] > 0 else "no conflict"


def _named(blocks: Sequence[int]) -> str:
    return f"{2 + 2 * sum(blocks)} layers {list(blocks)}"


def decide(cell: Cell, epoch: int, entropies: Sequence[float | None], rule: str) -> Decision:
    """What an attempt leads to that ended after an epoch. entropies: H^l of each block then."""
    blocks = cell.blocks
    ends = [sum(blocks[: i + 1]) - 1 for i, count in enumerate(blocks) if count]
    stages = tuple(entropies[end] for end in ends)
    last = entropies[-1]
    if epoch > cell.training.conflict_checks or not (last is None or last > 0):
        return Decision(epoch, stages, None, blocks, blocks)
    first = next(i for i, h in enumerate(entropies, start=1) if h is None or h > 0)
    return Decision(epoch, stages, first, blocks, prune(blocks, entropies, rule))


def following(cell: Cell, decision: Decision) -> Cell | None:
    """The next attempt, or None when there is none: nothing conflicts, or nothing would be left."""
    if decision.conflict is None or not sum(decision.left):
        return None
    blocks, depth = ",".join(map(str, decision.left)), 2 + 2 * sum(decision.left)
    return dataclasses.replace(
        cell, model=dataclasses.replace(cell.model, blocks=blocks, depth=depth)
    )
