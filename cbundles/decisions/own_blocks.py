"""Which measured layers belong to which block of a user's architecture, by their names.

Auto-tuning thinks in blocks, a number of them in each stage; a model has layers with names. The
names say where a layer belongs: ``VGG/stage1_block2/relu`` to block (1, 2), as ``layer1/2/relu``
of torchvision does. Numbers may begin at 0 or at 1. No JAX here, and no model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

# stage_of(name of a layer) -> its stage and block; of a model with one stage the block alone; None,
# or nothing, for a layer that belongs to no block.
StageOf = Callable[[str], Sequence[int] | None]

REPEATED = re.compile(r"#\d+")  # several layers of one name
LONGEST_LIST = 12  # names in a message


def numbers_of_path(name: str) -> tuple[int, ...]:
    """The first two numbers among the modules around a layer, or in the brackets of a scan: its
    stage and its block.

    >>> numbers_of_path("VGG/stage1_block2/relu#3"), numbers_of_path("VGG/stage1/relu[2]")
    ((1, 2), (1, 2))
    >>> numbers_of_path("VGG/relu2")
    ()
    """
    path, slash, label = REPEATED.sub("", name).rpartition("/")
    _, bracket, repetition = label.partition("[")
    found = re.findall(r"\d+", f"{path}{slash}{bracket}{repetition}")
    return tuple(map(int, found[:2]))


def places_of_blocks(
    names: Sequence[str], blocks: Sequence[int], stage_of: StageOf = numbers_of_path
) -> list[int]:
    """Among measured layers the last one of every block, in order; and behind them the last layer
    of all, where it stands behind the last block. ValueError unless there are so many blocks.

    >>> places_of_blocks(["stem/relu", "s0/b0/a", "s0/b0/b", "s0/b1/b", "pooled"], (2,))
    [2, 3, 4]
    """
    last_of: dict[tuple[int, int], int] = {}
    for place, numbers in enumerate(_numbers_of_names(names, stage_of)):
        if len(numbers) == 1 and len(blocks) == 1:
            numbers = (0, *numbers)
        if len(numbers) >= 2:
            stage, block, *_ = numbers
            last_of[stage, block] = place
    in_order = sorted(last_of)
    ends = [last_of[block] for block in in_order]
    found = [stage for stage, _ in in_order]
    if found != _stages_of_blocks(blocks, found) or ends != sorted(ends):
        raise ValueError(_mismatch(names, blocks, stage_of))
    if names and ends and ends[-1] < len(names) - 1:
        ends.append(len(names) - 1)
    return ends


def _numbers_of_names(names: Sequence[str], stage_of: StageOf) -> list[tuple[int, ...]]:
    """What is told of each name. By its path, without the module around all: the number in the name
    of a class, as VGG16 or ResNet50, is none of a stage."""
    if stage_of is numbers_of_path:
        roots = {name.partition("/")[0] for name in names if "/" in name}
        is_shared = len(roots) == 1 and all("/" in name for name in names)
        if is_shared and min(roots)[:1].isupper():
            names = [name.partition("/")[2] for name in names]
    return [_told_numbers(name, stage_of) for name in names]


def _told_numbers(name: str, stage_of: StageOf) -> tuple[int, ...]:
    """ValueError for something else than a stage and a block."""
    told = stage_of(name)
    try:
        numbers = () if told is None else tuple(told)
        if any(number != int(number) for number in numbers):
            raise TypeError
    except (TypeError, ValueError):
        raise ValueError(
            f"stage_of returned {told!r} for {name}: must be a pair of numbers, the stage and the "
            "block, or None for a layer outside of all blocks"
        ) from None
    return numbers


def _stages_of_blocks(blocks: Sequence[int], found: Sequence[int]) -> list[int]:
    """The number of the stage of every block, in order, where the first one has the number that was
    found: some count from 0, others from 1."""
    stages = [stage for stage, count in enumerate(blocks) for _ in range(count)]
    if not found or not stages:
        return stages
    return [stage + found[0] - stages[0] for stage in stages]


def _mismatch(names: Sequence[str], blocks: Sequence[int], stage_of: StageOf) -> str:
    numbers_of_names = _numbers_of_names(names, stage_of)
    told = [
        f"{name} -> {numbers or 'no block'}"
        for name, numbers in zip(names, numbers_of_names, strict=True)
    ]
    more = f", and {len(told) - LONGEST_LIST} more" if len(told) > LONGEST_LIST else ""
    return (
        f"the layers that were measured are not those of blocks {list(blocks)}, in their order: "
        f"{'; '.join(told[:LONGEST_LIST])}{more}. Name the modules so that the first two numbers "
        "of a path are the stage and the block, as stage1_block2; the library also takes "
        "stage_of=lambda name: (stage, block)"
    )
