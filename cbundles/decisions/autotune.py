"""Auto-tuning (paper, sec. 3.6): remove conflicting layers after the first epochs, start again.

A network is trained; when its last layer conflicts after one of the first epochs, training stops,
the first conflicting block and all later ones of its stage are removed, and the smaller network is
trained from scratch. Every attempt is an ordinary cell, so the whole history of a tuned network can
be read from records, and interrupted tuning goes on by reading them.

What "conflicts" means is a setting of the network (`training.stop_conflicting`, see `criterion`),
and so is what the last layer is (`probe.last`): behind the last block the globally pooled features
may be measured, too. Where they alone conflict, the last block goes: they are made of its output.

Each restart removes at least one block, so there are at most as many restarts as blocks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from cbundles import criterion
from cbundles.config import BLOCKS_OF_BUILD, Cell, Model, layers_of_block, layers_with
from cbundles.wording import counted

STAGE, CONFLICTING, NEXT = RULES = ("stage", "conflicting", "next")
SYMBOLS = {criterion.ENTROPY: "H", criterion.CONFLICT_RATE: "conflict rate"}


def prune(
    blocks: Sequence[int],
    measured: Sequence[float | None],
    rule: str = STAGE,
    by: str = criterion.ENTROPY,
) -> tuple[int, ...]:
    """The blocks of each stage that remain.

    measured: H^l of each block in order, nats, or its conflict rate, and perhaps of the pooled
        features; None where activations are not finite, which counts as conflicting
    by: which of the two, as in `criterion`

    rule ``stage``: the first conflicting block and all later ones of its stage go (the paper);
    ``conflicting``: of these, only those that conflict themselves (a later revision of the code);
    ``next``: as ``stage``, but a block goes by what is measured behind the block after it, and the
    last one by the pooled features, since the paper's revision of the code reads its list one place
    too far. Without a conflict, all remain. ValueError when the numbers do not fit.

    >>> prune((3, 4), [0, 0, 0, 0, 0.1, 0, 2.3])
    (3, 1)
    >>> prune((3, 4), [0, 0, 0, 0, 0.1, 0, 2.3, 2.3], rule="next")
    (3, 0)
    """
    if rule not in RULES:
        raise ValueError(f"rule = {rule!r}: must be one of {', '.join(RULES)}")
    conflict = conflicting_blocks(sum(blocks), measured, rule, by)
    left, start = list(blocks), 0
    for stage, count in enumerate(blocks):
        here = conflict[start : start + count]
        start += count
        if any(here):
            first = here.index(True)
            left[stage] = first + (here[first:].count(False) if rule == CONFLICTING else 0)
            break
    return tuple(left)


def conflicting_blocks(
    count: int, measured: Sequence[float | None], rule: str, by: str
) -> list[bool]:
    """Which of so many blocks count as conflicting; see `prune`. The last one does where only what
    is behind it conflicts."""
    if len(measured) not in (count, count + 1):
        raise ValueError(f"{count} blocks, but {len(measured)} values")
    if rule == NEXT and len(measured) == count:
        raise ValueError("rule next: the pooled features are not among the values")
    conflict = [criterion.conflicts(by, value) for value in measured]
    if rule == NEXT:
        return conflict[1:]
    blocks = conflict[:count]
    blocks[-1] = blocks[-1] or (conflict[-1] and not any(blocks))
    return blocks


@dataclasses.dataclass(frozen=True)
class Decision:
    """What one finished attempt leads to.

    epoch: after which it was measured
    by: H or the conflict rate, as in `criterion`
    stages: that of the last block of each stage that has any
    pooled: that of the pooled features; None also where they are not measured
    has_pooled: whether they are
    conflict: the first conflicting block, counted from 1, or None when the network was trained to
        the end
    only_pooled: no block conflicts, but the features behind them do
    rule: by which blocks go, see `prune`; by NEXT `conflict` is the block before the first
        conflicting one
    before, left: the blocks of each stage then, and those that remain
    of_vgg: whether they are those of a VGG, of which one knows how many layers they have
    """

    epoch: int
    by: str
    stages: tuple[float | None, ...]
    pooled: float | None
    has_pooled: bool
    conflict: int | None
    only_pooled: bool
    rule: str
    before: tuple[int, ...]
    left: tuple[int, ...]
    of_vgg: bool = True

    def __str__(self) -> str:
        heights = " ".join(map(_number, self.stages))
        text = f"epoch {self.epoch}: {SYMBOLS[self.by]} at the end of each stage {heights}"
        if self.has_pooled:
            behind = "of the pooled features" if self.of_vgg else "behind the last block"
            text += f", {behind} {_number(self.pooled)}"
        if self.conflict is None:
            return (
                f"{text}; {self._after_the_checks()}, trained to the end: {self._named(self.left)}"
            )
        gone = sum(self.before) - sum(self.left)
        which = f"first conflicting block {self.conflict} of {sum(self.before)}"
        if self.rule == NEXT:
            which = f"first block to go, as what is behind it conflicts, {self.conflict}"
        if self.only_pooled:
            behind = "the pooled features conflict" if self.of_vgg else "what is behind conflicts"
            which = f"only {behind}, so the last block, {self.conflict}, goes"
        if self.of_vgg:
            first, second = layers_of_block(self.conflict)
            which += f" (layers {first} and {second})"
        return (
            f"{text}; {which}; "
            f"removes {counted(gone, 'block')}: "
            f"{self._named(self.before)} -> {self._named(self.left)}"
        )

    def _named(self, blocks: Sequence[int]) -> str:
        return f"{layers_with(blocks)} layers {list(blocks)}" if self.of_vgg else str(list(blocks))

    def _after_the_checks(self) -> str:
        """What the last layer does at the end of the training of a network that was kept."""
        last = self.pooled if self.has_pooled else self.stages[-1]
        if last is None:
            return "diverged after the checks"
        conflicts = criterion.conflicts(self.by, last)
        return "conflicts only after the checks" if conflicts else "no conflict"


def _number(value: float | None) -> str:
    """Three decimals; two digits of what is less, since any value above 0 may be a conflict."""
    if value is None:
        return "nan"
    return f"{value:.3f}" if value == 0 or value >= 0.01 else f"{value:.2g}"


def decide(cell: Cell, epoch: int, measured: Sequence[float | None], rule: str) -> Decision:
    """What an attempt leads to that ended after an epoch. measured: of each block then, and of the
    pooled features where the network's reading has them, by the network's own criterion."""
    by, checks = cell.training.stop_conflicting, cell.training.checks
    return decide_on_blocks(
        cell.blocks, epoch, measured, by=by, checks=checks, rule=rule, of_vgg=not cell.model.is_own
    )


def decide_on_blocks(
    blocks: tuple[int, ...],
    epoch: int,
    measured: Sequence[float | None],
    *,
    by: str,
    checks: int,
    rule: str = STAGE,
    of_vgg: bool = False,
) -> Decision:
    """The same of any network that is made of blocks. by: the criterion; checks: after so many of
    the first epochs a network may be pruned; of_vgg: see `Decision`."""
    ends = [sum(blocks[: i + 1]) - 1 for i, count in enumerate(blocks) if count]
    has_pooled = len(measured) > sum(blocks)
    unchanged = Decision(
        epoch=epoch,
        by=by,
        stages=tuple(measured[end] for end in ends),
        pooled=measured[-1] if has_pooled else None,
        has_pooled=has_pooled,
        conflict=None,
        only_pooled=False,
        rule=rule,
        before=blocks,
        left=blocks,
        of_vgg=of_vgg,
    )
    if epoch > checks or not criterion.conflicts(by, measured[-1]):
        return unchanged
    conflicting = conflicting_blocks(sum(blocks), measured, rule, by)
    only_pooled = not any(criterion.conflicts(by, value) for value in measured[: sum(blocks)])
    return dataclasses.replace(
        unchanged,
        conflict=conflicting.index(True) + 1,
        only_pooled=only_pooled,
        left=prune(blocks, measured, rule, by),
    )


def following(cell: Cell, decision: Decision) -> Cell | None:
    """The next attempt, or None when there is none: nothing conflicts, or nothing would be left."""
    if decision.conflict is None or not sum(decision.left):
        return None
    return dataclasses.replace(cell, model=_with_blocks(cell.model, decision.left))


def _with_blocks(model: Model, blocks: Sequence[int]) -> Model:
    if model.is_own:
        keywords = {**model.other_keywords, BLOCKS_OF_BUILD: list(blocks)}
        return dataclasses.replace(model, keywords=json.dumps(keywords, sort_keys=True))
    depth = layers_with(blocks)
    return dataclasses.replace(model, blocks=",".join(map(str, blocks)), depth=depth)
