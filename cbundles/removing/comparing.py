"""What a model takes and what it says, before and after: latency, predictions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import PyTree

from cbundles.auditing.batches import CutArrays
from cbundles.auditing.tensors import as_array
from cbundles.removing.given import Labels

ROUNDS, FEWEST_ROUNDS = 25, 3
SECONDS = 4.0  # of timing, where that is enough for the fewest rounds

Program = Callable[[PyTree], PyTree]  # inputs -> output


def median_seconds(
    programs: Sequence[Program], inputs: PyTree, rounds: int = ROUNDS, seconds: float = SECONDS
) -> list[float]:
    """How long each program takes: medians of calls in turn, so that whatever else the machine does
    meets all of them alike. The first calls, which prepare things, do not count. Programs end when
    all is computed."""
    taken: list[list[float]] = [[] for _ in programs]
    for program in programs:
        program(inputs)
    started = time.perf_counter()
    while len(taken[0]) < rounds:
        for program, own in zip(programs, taken, strict=True):
            before = time.perf_counter()
            program(inputs)
            own.append(time.perf_counter() - before)
        if len(taken[0]) >= FEWEST_ROUNDS and time.perf_counter() - started > seconds:
            break
    return [statistics.median(own) for own in taken]


def count_correct(program: Program, batches: CutArrays, labels: Labels | None) -> int | None:
    """How many samples, or tokens, a model classifies correctly; None without labels. Raises
    ValueError where its output holds no class scores."""
    if labels is None:
        return None
    right = np.zeros(labels.classes.shape, bool)
    for start, batch in batches:
        part = slice(start, start + batches.size)
        found = np.asarray(as_array(labels.scores(program(batch)))).argmax(-1)
        right[part] = found == labels.classes[part]
    return int(right.sum())
