"""Which sites make the output of a program: between their values and an output lies only what works
element by element, or moves elements, as a sigmoid behind the class scores does.

A program is walked through backwards from its outputs. A walk ends at the first site that it meets,
at whatever mixes elements, and at a scan, whose last repetition is not a place of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from cbundles.observe import jaxprs
from cbundles.observe.program import Aval, Block, Operand, Step


def sites_of_output(block: Block, numbers: Mapping[str, int]) -> frozenset[str]:
    """The names of these sites. numbers: of the sites' values, by the sites' names."""
    made_by = dict(_steps_by_output(block))
    sites = set(numbers.values())
    waiting, seen = [number for number in block.outputs if isinstance(number, int)], set[int]()
    while waiting:
        number = waiting.pop()
        if number in seen:
            continue
        seen.add(number)
        if number in made_by and number not in sites:
            waiting += _same_elements(made_by[number], number)
    return frozenset(name for name, number in numbers.items() if number in seen)


def _steps_by_output(block: Block) -> Iterator[tuple[int, Step]]:
    for step in block.steps:
        for number in step.outputs:
            yield number, step
        if step.inner is not None and not step.repeats:
            yield from _steps_by_output(step.inner)


def _same_elements(step: Step, number: int) -> Iterator[int]:
    """The inputs of a step of which one of its outputs has each element, changed or moved."""
    if step.inner is not None:
        if not step.repeats:  # it is evaluated again in the backward pass, here once
            yield from _values([step.inner.outputs[step.outputs.index(number)]])
    elif step.is_elementwise or step.primitive in jaxprs.MOVES:
        elements = _elements(step.output_avals[step.outputs.index(number)])
        for operand, aval in zip(step.inputs, step.input_avals, strict=True):
            if _elements(aval) == elements:
                yield from _values([operand])


def _values(operands: list[Operand]) -> Iterator[int]:
    return (operand for operand in operands if isinstance(operand, int))


def _elements(aval: Aval) -> int:
    return math.prod(getattr(aval, "shape", ()))
