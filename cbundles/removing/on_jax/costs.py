"""What models on JAX cost and say: the whole model beside the smaller one."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from cbundles.arrays import Numbers
from cbundles.auditing.jax_subject import ModelFunction
from cbundles.observe import Observed, Remainder
from cbundles.observe.removal import row_of
from cbundles.removing.comparing import Program, count_correct, median_seconds
from cbundles.removing.given import Given
from cbundles.removing.on_jax.smaller import SmallerModel
from cbundles.removing.report import Cost, Report


def compare(
    whole: ModelFunction,
    observed: Observed,
    smaller: SmallerModel,
    kept: Mapping[str, Array],
    renewed: Mapping[str, Array] | None,
    given: Given,
) -> Report:
    """A whole model beside the smaller one.

    observed: the whole model, for the first batch. kept: the parameters that the smaller one needs,
    as they are; renewed: with statistics taken anew.
    """
    batch = given.inputs.first
    before = functools.partial(jax.jit(whole.function), whole.variables)
    program = jax.jit(smaller)
    after = functools.partial(program, kept)
    right_renewed = None
    if renewed is not None:
        right_renewed = count_correct(
            functools.partial(program, renewed), given.inputs, given.labels
        )

    leaves = jax.tree.leaves((whole.variables, batch))
    seconds_before, seconds_after = median_seconds([until_done(before), until_done(after)], batch)
    all_unrolled = observed.without((), unrolled=True)
    return Report(
        blocks=smaller.sums,
        gone=tuple(smaller.gone(all_unrolled)),
        before=Cost(
            flops_of(all_unrolled, leaves),
            *_sizes_of(observed.without(()), leaves[: len(whole.names)]),
            seconds_before,
            count_correct(before, given.inputs, given.labels),
        ),
        after=Cost(
            flops_of(smaller.remainder(batch, unrolled=True), leaves),
            *_sizes_of(smaller.remainder(batch), leaves[: len(whole.names)]),
            seconds_after,
            count_correct(after, given.inputs, given.labels),
        ),
        batch=given.inputs.size,
        judged=given.judged,
        recalibrated=right_renewed,
        training=_training(smaller),
    )


def until_done(program: Program) -> Program:
    """A program that ends when all is computed."""

    def compute(batch: PyTree) -> PyTree:
        return jax.block_until_ready(program(batch))

    return compute


def _sizes_of(program: Remainder, variables: Sequence[Numbers]) -> tuple[int, int]:
    """How many numbers a program needs, of the variables and of those that it holds itself, and
    their bytes."""
    arrays = [
        row_of(jnp.asarray(variables[part.leaf]), part.place)
        for part in program.needed
        if part.leaf < len(variables)
    ]
    arrays += [jnp.asarray(value) for value in program.constants if np.ndim(value) > 0]
    return sum(array.size for array in arrays), sum(array.nbytes for array in arrays)


def _training(smaller: SmallerModel) -> str:
    """Whether a model can be trained further, in a sentence."""
    if not smaller.trainable and smaller.parts:
        return "It cannot be trained further: none of its arrays that are left was trainable."
    if not smaller.trainable:
        return (
            "It cannot be trained further, since its weights are inside the function: pass the "
            "module itself and call=."
        )
    others = len(smaller.parts) - len(smaller.trainable)
    frozen = f"; {others} others, such as running statistics, are frozen" if others else ""
    return f"It can be trained further: {len(smaller.trainable)} arrays{frozen}."


def flops_of(unrolled: Remainder, leaves: Sequence[Numbers]) -> float:
    """FLOPs of a program of these arguments, as XLA counts them: multiplications and additions. Of
    a loop it counts one repetition, so scans have to be unrolled; what is inside a `while` counts
    once."""

    def program(leaves: Sequence[Array]) -> PyTree:
        return unrolled.run(lambda part: row_of(leaves[part.leaf], part.place))

    cost = jax.jit(program).lower(leaves).cost_analysis()
    return float((cost or {}).get("flops", 0))  # some devices do not tell
