"""How many steps to train at once: a whole epoch where that is short, some seconds where it is not.

An epoch of VGG-120 with 64 filters takes two hours on two cores: without pauses nothing could be
saved or told for so long. Where the pauses fall changes no bit of the result.
"""

from __future__ import annotations

import math
import os
import time

import jax
import numpy as np

from cbundles.errors import InputError
from cbundles.population import Population
from cbundles.spread import agreed


def seconds_named(variable: str, default: float) -> float:
    """What a variable of the environment says. InputError where that is no time."""
    text = os.environ.get(variable, str(default))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"{variable} = {text!r}: must be seconds; nearest valid: {default:g}")
    return seconds


PAUSE_SECONDS = seconds_named("CBUNDLES_PAUSE_SECONDS", 10)  # from one to the next
FIRST_STEPS = 16  # to learn how long one takes


class Pace:
    """Advances a population from pause to pause."""

    def __init__(self, population: Population) -> None:
        self._population = population
        self._seconds_per_step: float | None = None

    def advance(self, active: np.ndarray | None = None, until: int | None = None) -> None:
        """Train to the end of the epoch, or for about `PAUSE_SECONDS`; compiling does not count.
        active: which members, bool (members,). until: no further than after so many steps of the
        epoch."""
        population, left = self._population, PAUSE_SECONDS
        goal = population.steps if until is None else until
        while True:
            steps = min(self._steps_within(left), goal - population.step)
            left -= self._train(steps, active)
            assert self._seconds_per_step is not None
            arrived = population.step in (0, goal)
            if arrived or left < self._seconds_per_step:
                return

    def _steps_within(self, seconds: float) -> int:
        if self._seconds_per_step is None:
            return FIRST_STEPS
        return max(1, int(seconds / self._seconds_per_step))

    def _train(self, steps: int, active: np.ndarray | None) -> float:
        """Seconds that these steps took."""
        population = self._population
        before, compiled = population.step, population.compile_seconds
        started = time.perf_counter()
        population.advance(steps, active)
        jax.block_until_ready(population.losses)
        # All processes that train it pause together.
        seconds = agreed(time.perf_counter() - started - (population.compile_seconds - compiled))
        done = (population.step or population.steps) - before
        self._seconds_per_step = seconds / done
        return seconds
