"""Evaluates a program step by step, and does at its sites what a run asks for.

Everything here happens while JAX traces, so a run is an ordinary function: it may stand inside
`jit`, `vmap` and `grad`, and nothing of it is left at run time but what it asked for. Steps at
whose sites nothing is asked are bound as they are; scans and remats with such sites are built
again around an evaluated body.

A value that may be left out (`Effects.keep`) goes into a `lax.cond` together with all steps that
only it needs (`_arranged`); a run that leaves it out does not spend time on them. What leaves a
branch out for good is `removal`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact, PyTree, Shaped

from cbundles.observe import jaxprs
from cbundles.observe.jaxprs import Block, Step, Value

Values = dict[int, Value]  # by number
Readings = dict[str, PyTree]  # by the name of the (last) site that was read


class Effects(NamedTuple):
    """What goes into sites, by their names. Inside a scan of length n all arrays have a leading
    axis of n, of which each repetition is given its part."""

    keep: dict[str, Bool[Array, "*repeats"]]  # the value is zero where it is not kept
    gate: dict[str, Inexact[Array, "..."]]  # the value is multiplied by this
    perturb: dict[str, Shaped[Array, "..."]]  # this is added to the value

    def at(self, names: Iterable[str]) -> Effects:
        """Only those at sites of these names."""
        chosen = set(names)
        return Effects(*({n: a for n, a in by.items() if n in chosen} for by in self))


class Read(NamedTuple):
    """function(values of the sites of these numbers, the last of which is made last)."""

    numbers: tuple[int, ...]
    function: Callable[..., PyTree]


class _Optional(NamedTuple):
    """A value that may be left out, and the steps that only it needs; the last one makes it."""

    number: int
    keep: Bool[Array, ""]
    steps: list[Step]


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """names: of the sites of a value, by its number. reads: by the name of their last site."""

    names: dict[int, list[str]]
    reads: dict[str, Read]

    def evaluate(
        self, block: Block, arguments: Sequence[Value], effects: Effects
    ) -> tuple[list[Value], Readings]:
        """The outputs of a block, and what was read in it."""
        values = dict(zip(block.inputs, arguments, strict=True)) | block.constants
        needed = {operand for operand in block.outputs if isinstance(operand, int)}
        readings = self._perform(block.steps, needed, values, effects)
        return _looked_up(block.outputs, values), readings

    def _perform(
        self, steps: Sequence[Step], needed: set[int], values: Values, effects: Effects
    ) -> Readings:
        """Evaluate steps in order and add to values what they make. needed: numbers of values that
        are used afterwards."""
        readings: Readings = {}
        for item in self._arranged(steps, needed, effects):
            if isinstance(item, _Optional):
                made, seen = self._left_out_or_not(item, values, effects)
            else:
                made, seen = self._compute(item, values, effects)
            values |= made
            readings |= seen
            for number in made:
                kept = isinstance(item, _Optional)
                readings |= self._at_sites(number, values, effects, kept=kept)
        return readings

    def _compute(self, step: Step, values: Values, effects: Effects) -> tuple[Values, Readings]:
        """The results of one step, and what was read inside it."""
        operands = _looked_up(step.inputs, values)
        inner = step.inner
        names = set() if inner is None else set(self._names_in(inner.steps))
        inside = effects.at(names)
        if inner is None or not (any(inside) or names & self.reads.keys()):
            return dict(zip(step.outputs, jaxprs.bind(step, operands), strict=True)), {}

        def body(arguments: list[Value], effects: Effects) -> tuple[list[Value], Readings]:
            return self.evaluate(inner, arguments, effects)

        rebuilt = jaxprs.bind_scan if step.primitive == "scan" else jaxprs.bind_remat
        results, readings = rebuilt(step, body, operands, inside)
        return dict(zip(step.outputs, results, strict=True)), readings

    def _at_sites(self, number: int, values: Values, effects: Effects, *, kept: bool) -> Readings:
        """Change a value as its sites ask for, then read it. kept: `keep` has been seen to."""
        names = self.names.get(number, [])
        for name in names:
            if name in effects.keep and not kept:
                zeros = jnp.zeros_like(values[number])
                values[number] = jnp.where(effects.keep[name], values[number], zeros)
            if name in effects.gate:
                values[number] = values[number] * effects.gate[name]
            if name in effects.perturb:
                values[number] = values[number] + effects.perturb[name]
        reads = {name: self.reads[name] for name in names if name in self.reads}
        return {
            name: read.function(*_looked_up(read.numbers, values)) for name, read in reads.items()
        }

    def _left_out_or_not(
        self, item: _Optional, values: Values, effects: Effects
    ) -> tuple[Values, Readings]:
        """A value that may be left out, and whatever readers want of the steps that it needs."""
        *before, last = item.steps
        numbers_made = {number for step in item.steps for number in step.outputs}
        # A reader of one site has read it when it was made; one of several may still be to come.
        groups = [read.numbers for read in self.reads.values() if len(read.numbers) > 1]
        wanted = {number for group in groups for number in group}

        def whole() -> tuple[Values, Readings]:
            inside = dict(values)
            needed = {operand for operand in last.inputs if isinstance(operand, int)}
            readings = self._perform(before, needed, inside, effects)
            made, seen = self._compute(last, inside, effects)
            inside |= made
            exported = {item.number} | (wanted & numbers_made)
            return {number: inside[number] for number in exported}, readings | seen

        def nothing() -> tuple[Values, Readings]:
            return jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), like)

        like = jax.eval_shape(whole)
        made, readings = jax.lax.cond(item.keep, whole, nothing)
        # What was made on the way has met its sites already; the value itself has not.
        values |= made
        return {item.number: made[item.number]}, readings

    def _arranged(
        self, steps: Sequence[Step], needed: set[int], effects: Effects
    ) -> list[Step | _Optional]:
        """The steps in order, those together that can be left out together."""
        optional: dict[Step, _Optional] = {}
        taken: set[Step] = set()
        # From the last to the first: what is optional inside an optional value is its own affair.
        for step in reversed(steps):
            for number in step.outputs:
                keeps = [effects.keep[n] for n in self.names.get(number, []) if n in effects.keep]
                if not keeps or step in taken:
                    continue
                part = self._only_for(number, steps, needed)
                if part:
                    keep = functools.reduce(jnp.logical_and, keeps)
                    optional[step] = _Optional(number, keep, part)
                    taken |= set(part)
        arranged: list[Step | _Optional] = []
        for step in steps:
            if step in optional:
                arranged.append(optional[step])
            elif step not in taken:
                arranged.append(step)
        return arranged

    def _only_for(self, target: int, steps: Sequence[Step], needed: set[int]) -> list[Step]:
        """As `_only_for`, without what a reader of several sites wants at a time before that."""
        needed = set(needed)
        while True:
            part = _only_for(target, steps, needed)
            inside = {number for step in part for number in step.outputs}
            groups = [
                read.numbers for read in self.reads.values() if max(read.numbers) not in inside
            ]
            wanted = {n for group in groups if max(group) < target for n in group} & inside - needed
            if not wanted:
                return part
            needed |= wanted

    def _names_in(self, steps: Iterable[Step]) -> list[str]:
        """The names of all sites in these steps and inside them."""
        names: list[str] = []
        for step in steps:
            if step.inner is not None:
                names += self._names_in(step.inner.steps)
            for number in step.outputs:
                names += self.names.get(number, [])
        return names


def _only_for(target: int, steps: Sequence[Step], needed: set[int]) -> list[Step]:
    """The steps whose results are used for nothing but the value `target`, in order. Empty if the
    step that makes it makes other things that are used."""
    inside, elsewhere = {target}, needed - {target}
    part = []
    for step in reversed(steps):
        inputs = {operand for operand in step.inputs if isinstance(operand, int)}
        if not inside.isdisjoint(step.outputs) and elsewhere.isdisjoint(step.outputs):
            part.append(step)
            inside |= inputs
        else:
            elsewhere |= inputs - {target}
    return part[::-1]


def _looked_up(operands: Iterable[jaxprs.Operand], values: Values) -> list[Value]:
    return [values[o] if isinstance(o, int) else o.val for o in operands]
