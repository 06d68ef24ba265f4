"""What is left of a program when some of its residual branches go, for good.

A residual sum without its branch is its skip; whatever only the branch needed is not needed any
more, parameters among it. To find out, the program is written out once more, as *operations* in a
row: a scan with such a sum inside is unrolled, so that each of its repetitions can differ, and a
remat is written out. Then operations are kept from the last to the first, where something needs
them.

A scan that is unrolled walks along stacks of arrays, such as the weights of its blocks. Of a stack
that is an argument of the program, rows are asked for by themselves (`Part`), so that those of
removed blocks need not exist.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import PyTreeDef
from jaxtyping import PyTree

from cbundles.observe import jaxprs
from cbundles.observe.jaxprs import Block, Step, Traced, Value
from cbundles.observe.sites import Found, others_that_need

Place = tuple[int, ...]  # which repetition: () outside any scan, (2,) in one, (2, 0) in two


class ResidualSum(NamedTuple):
    """A sum of a skip and a branch.

    site, branch_site: their names.
    place: which repetition.
    number: of the sum's value in the program.
    skip: which operand of the sum is the skip, 0 or 1.
    others: who else needs the branch; "" where nobody does.
    """

    site: str
    branch_site: str
    place: Place
    number: int
    skip: int
    others: str

    @property
    def name(self) -> str:
        """Of the site; in a scan with the repetition: ``stack/sum[3]``."""
        return _name_at(self.site, self.place)

    @property
    def branch(self) -> str:
        """The same of its branch."""
        return _name_at(self.branch_site, self.place)


class Part(NamedTuple):
    """An argument of a program, or a row of it."""

    leaf: int  # the number of the array among all leaves of the arguments
    place: Place = ()  # of a row: ``array[place]``


class Constant(NamedTuple):
    """What a program itself holds."""

    value: Value


Reference = int | Part | Constant  # a value: made by an operation, an argument, or held


class Operation(NamedTuple):
    """One step of what is left."""

    function: Callable[[list[Value]], Sequence[Value]]
    inputs: list[Reference]
    outputs: list[int]
    step: Step | None  # of the program, of which it is one


@dataclasses.dataclass(frozen=True, eq=False)
class Remainder:
    """What is left of a program: operations in order, all of which are needed."""

    operations: tuple[Operation, ...]
    outputs: tuple[Reference, ...]
    output_tree: PyTreeDef

    @functools.cached_property
    def needed(self) -> tuple[Part, ...]:
        """The arguments that are still needed, in order; no row of one that is needed as a
        whole."""
        parts = {ref for ref in self._references() if isinstance(ref, Part)}
        return tuple(sorted(part for part in parts if not parts & set(around(part))))

    @property
    def constants(self) -> list[Value]:
        """What the program itself holds and still needs, each once."""
        held = [ref.value for ref in self._references() if isinstance(ref, Constant)]
        return list({id(value): value for value in held}.values())

    def run(self, value_of: Callable[[Part], Value]) -> PyTree:
        """The result of the program, of the values of all parts that are `needed`. For use inside
        `jit` and `grad`."""
        parts = {part: value_of(part) for part in self.needed}
        values: dict[int, Value] = {}
        for operation in self.operations:
            operands = [looked_up(ref, values, parts) for ref in operation.inputs]
            results = operation.function(operands)
            values.update(zip(operation.outputs, results, strict=True))
        results = [looked_up(ref, values, parts) for ref in self.outputs]
        return jax.tree.unflatten(self.output_tree, results)

    def _references(self) -> Iterator[Reference]:
        for operation in self.operations:
            yield from operation.inputs
        yield from self.outputs


def looked_up(ref: Reference, values: dict[int, Value], parts: dict[Part, Value]) -> Value:
    """What a reference stands for. parts: `Remainder.needed`."""
    if isinstance(ref, Constant):
        return ref.value
    if not isinstance(ref, Part):
        return values[ref]
    if ref in parts:
        return parts[ref]
    (whole,) = parts.keys() & set(around(ref))
    return row_of(parts[whole], ref.place[len(whole.place) :])


def row_of(array: Value, place: Place) -> Value:
    """``array[place]``, as a slice, which takes no gathering."""
    for row in place:
        array = jax.lax.index_in_dim(array, row, keepdims=False)
    return array


def around(part: Part) -> list[Part]:
    """The argument and the rows of it in which a part is."""
    return [Part(part.leaf, part.place[:axes]) for axes in range(len(part.place))]


def residual_sums(block: Block, found: Found) -> tuple[ResidualSum, ...]:
    """All residual sums of a program, in the order in which they are made."""
    branch_names = found.branch_names()
    sums = {found.numbers[name]: name for name in found.branches}

    def sums_in(block: Block, place: Place) -> Iterator[ResidualSum]:
        for step in block.steps:
            if step.inner is not None:
                for row in [(row,) for row in step.order] if step.repeats else [()]:
                    yield from sums_in(step.inner, place + row)
            for number in sums.keys() & set(step.outputs):
                name = sums[number]
                branch = found.branches[name]
                skip = 1 - step.inputs.index(branch)
                others = others_that_need(branch, step, block)
                yield ResidualSum(name, branch_names[name], place, number, skip, others)

    return tuple(sums_in(block, ()))


def _name_at(name: str, place: Place) -> str:
    return f"{name}[{', '.join(map(str, place))}]" if place else name


def without(traced: Traced, sums: Collection[ResidualSum], *, unrolled: bool) -> Remainder:
    """What is left of a program when these sums are their skips. unrolled: all scans are unrolled
    and all remats written out, not only those with such a sum inside."""
    writer = _Writer({(one.number, one.place): one.skip for one in sums}, unrolled)
    arguments = [Part(leaf) for leaf in range(len(traced.block.inputs))]
    outputs = writer.write(traced.block, arguments, ())
    operations = _needed(writer.operations, outputs)
    return Remainder(tuple(operations), tuple(outputs), traced.output_tree)


class _Writer:
    """Writes a program out as operations. skips: of each sum that loses its branch, by the number
    of its value and the repetition, which operand is the skip."""

    def __init__(self, skips: dict[tuple[int, Place], int], unrolled: bool) -> None:
        self.skips = skips
        self.unrolled = unrolled
        self.operations: list[Operation] = []
        self.numbers = itertools.count()

    def write(self, block: Block, arguments: Sequence[Reference], place: Place) -> list[Reference]:
        """Append the operations of a block, in one repetition, and return its results."""
        known = dict(zip(block.inputs, arguments, strict=True))
        known |= {number: Constant(value) for number, value in block.constants.items()}

        def referred(operands: Sequence[jaxprs.Operand]) -> list[Reference]:
            return [known[o] if isinstance(o, int) else Constant(o.val) for o in operands]

        for step in block.steps:
            known.update(
                zip(step.outputs, self._written(step, referred(step.inputs), place), strict=True)
            )
        return referred(block.outputs)

    def _written(self, step: Step, inputs: list[Reference], place: Place) -> list[Reference]:
        """The results of one step."""
        skips = [self.skips[key] for key in ((n, place) for n in step.outputs) if key in self.skips]
        if skips:
            return [inputs[skips[0]]]
        if step.inner is None or not (self.unrolled or self._loses_some(step.inner, place)):
            return self._append(functools.partial(jaxprs.bind, step), inputs, step)
        if step.repeats:
            return self._unroll(step, step.inner, inputs, place)
        return self.write(step.inner, inputs, place)

    def _unroll(
        self, step: Step, body: Block, inputs: list[Reference], place: Place
    ) -> list[Reference]:
        constants, carried = step.scan_sizes
        fixed, stacks = inputs[:constants], inputs[constants + carried :]
        state = inputs[constants : constants + carried]
        collected: dict[int, list[Reference]] = {}
        for row in step.order:
            slices = [self._row(stack, row) for stack in stacks]
            results = self.write(body, [*fixed, *state, *slices], (*place, row))
            state, collected[row] = results[:carried], results[carried:]
        columns = zip(*(collected[row] for row in sorted(collected)), strict=True)
        return [*state, *(self._append(_stacked, column)[0] for column in columns)]

    def _row(self, stack: Reference, row: int) -> Reference:
        if isinstance(stack, Part):
            return stack._replace(place=(*stack.place, row))
        return self._append(lambda values: [row_of(values[0], (row,))], [stack])[0]

    def _append(
        self,
        function: Callable[[list[Value]], Sequence[Value]],
        inputs: Sequence[Reference],
        step: Step | None = None,
    ) -> list[Reference]:
        count = 1 if step is None else len(step.outputs)
        outputs = [next(self.numbers) for _ in range(count)]
        self.operations.append(Operation(function, list(inputs), outputs, step))
        return list(outputs)

    def _loses_some(self, block: Block, place: Place) -> bool:
        """Whether a branch goes in some repetition of a block inside this one."""
        inside = _numbers_in(block)
        return any(
            number in inside and where[: len(place)] == place for number, where in self.skips
        )


def _stacked(values: list[Value]) -> list[Value]:
    return [jnp.stack(values)]


def _numbers_in(block: Block) -> set[int]:
    """The numbers of all values that are made in a block."""
    numbers: set[int] = set()
    for step in block.steps:
        numbers |= set(step.outputs)
        if step.inner is not None:
            numbers |= _numbers_in(step.inner)
    return numbers


def _needed(operations: list[Operation], outputs: Sequence[Reference]) -> list[Operation]:
    """The operations that something needs, in order."""
    wanted = {ref for ref in outputs if isinstance(ref, int)}
    kept = []
    for operation in reversed(operations):
        has_effects = operation.step is not None and operation.step.has_effects
        if has_effects or not wanted.isdisjoint(operation.outputs):
            kept.append(operation)
            wanted |= {ref for ref in operation.inputs if isinstance(ref, int)}
    return kept[::-1]
