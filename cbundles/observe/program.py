"""What a program is to those who look for sites in it: steps in a row, whichever library runs them.

`jaxprs` writes programs of JAX out in this form. A program of another library takes part if its
steps say what is asked here; what a step does has the name that JAX has for it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from typing import Any, Protocol

Aval = Any  # what is known of a value before it is computed: of an array its shape and dtype
Dtype = Any  # NumPy's, or of keys JAX's own
Operand = object  # the number of a value; whatever is no `int` is a constant


class Step(Protocol):
    """One operation."""

    @property
    def path(self) -> str:
        """The modules around it inside its block, joined by "/"."""

    @property
    def primitive(self) -> str:
        """What it does, in JAX's words: ``add``, ``dot_general``, ``max``."""

    @property
    def primitives(self) -> Set[str]:
        """The same of everything inside it, and its own."""

    @property
    def called_name(self) -> str:
        """What the model's author calls it: ``relu``."""

    @property
    def is_elementwise(self) -> bool:
        """Whether every element of its output depends on those at the same place alone."""

    @property
    def backward(self) -> bool:
        """Whether it is part of a derivative that the program itself takes."""

    @property
    def inputs(self) -> Sequence[Operand]:
        """What it works on."""

    @property
    def outputs(self) -> Sequence[int]:
        """The numbers of the values that it makes."""

    @property
    def input_avals(self) -> Sequence[Aval]:
        """Of each of the inputs, constants among them."""

    @property
    def output_avals(self) -> Sequence[Aval]:
        """Of each of the outputs."""

    @property
    def inner(self) -> Block | None:
        """What it repeats, or evaluates again."""

    @property
    def repeats(self) -> tuple[int, ...]:
        """The leading axis of what is collected from the block inside."""

    @property
    def scan_sizes(self) -> tuple[int, int]:
        """How many of the inputs are constants, and how many carried, where it repeats a block."""

    def hidden(self) -> Sequence[Block]:
        """What is inside a step that is evaluated as a whole, to be looked at, not evaluated."""


class Block(Protocol):
    """Steps in a row: a whole program, or what a step of it repeats. Every value has a number of
    its own in the whole program, and later values have larger numbers."""

    @property
    def path(self) -> str:
        """The modules around the whole block."""

    @property
    def inputs(self) -> Sequence[int]:
        """The numbers of its arguments."""

    @property
    def constants(self) -> Collection[int]:
        """The numbers of what it holds itself."""

    @property
    def steps(self) -> Sequence[Step]:
        """In the order in which they are executed."""

    @property
    def outputs(self) -> Sequence[Operand]:
        """What it returns."""
