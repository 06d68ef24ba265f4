"""Programs as JAX traces them, written out in a row. Only this file knows versions of JAX.

JAX traces a function to equations, and some of these call programs of their own: `jit` does, and
with it much of `jax.numpy`. `trace` writes such calls out in place, so that everything in a loop
body, say a shortcut and its branch, stands side by side. What is left is a `Block` of `Step`s. A
step is evaluated as a whole (`bind`); only scans and remats have a block of steps inside. Every
value has a number of its own in the whole program, and later values have larger numbers.

`jax.extend` promises no compatibility. JAX is therefore bounded above in pyproject.toml at the
version on which the tests have passed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any, cast

import jax
from jax.extend import core
from jax.tree_util import PyTreeDef
from jaxtyping import PyTree

from cbundles.observe.program import Aval, Dtype

Value = Any  # what JAX computes with: arrays, numbers, keys, references

Program = core.Jaxpr | core.ClosedJaxpr
Atom = core.Var | core.Literal  # an input or output of an equation
Operand = int | core.Literal  # the same where it is written out: the number of a value, or itself
Body = Callable[[list[Value], PyTree], tuple[list[Value], PyTree]]  # of a scan or remat, see below


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


# Equations that are nothing but a call, and where they keep the program that they call.
CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr"}
REMATS = ("checkpoint", "remat", "remat2")
CUSTOM_DERIVATIVES = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")

# An element of the output depends on the elements at the same place in the inputs alone.
ELEMENTWISE = words(
    """abs add add_any and cbrt ceil clamp convert_element_type copy cos cosh div eq erf erf_inv
    erfc exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min mul ne
    neg not one_minus_square or pow reduce_precision rem round rsqrt select_n sign sin sinh sqrt
    square stop_gradient sub tan tanh xor"""
)
# Only places things elsewhere.
MOVES = words(
    """broadcast_in_dim concatenate convert_element_type copy dynamic_slice expand_dims gather pad
    reshape rev slice split squeeze stop_gradient transpose"""
)


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One equation of a program that has been written out: a `program.Step`."""

    equation: core.JaxprEqn
    path: str  # the scopes around it inside its block: modules' names, joined by "/"
    backward: bool  # part of a derivative that the program itself takes
    inputs: tuple[Operand, ...]
    outputs: tuple[int, ...]
    inner: Block | None  # what a scan repeats, or a remat evaluates again

    @property
    def primitive(self) -> str:
        return str(self.equation.primitive.name)

    @property
    def primitives(self) -> Set[str]:
        return primitives_in(self.equation)

    @property
    def called_name(self) -> str:
        return called_name(self.equation)

    @property
    def is_elementwise(self) -> bool:
        return is_elementwise(self.equation)

    @property
    def has_effects(self) -> bool:
        """Whether it does something besides making values: prints, or writes to a reference."""
        return bool(self.equation.effects)

    @property
    def input_avals(self) -> Sequence[Aval]:
        return [atom.aval for atom in self.equation.invars]

    @property
    def output_avals(self) -> Sequence[Aval]:
        return [atom.aval for atom in self.equation.outvars]

    @property
    def repeats(self) -> tuple[int, ...]:
        """The leading axis of what is collected from the block inside."""
        return (self.equation.params["length"],) if self.primitive == "scan" else ()

    @property
    def scan_sizes(self) -> tuple[int, int]:
        """How many inputs of a scan are constants, and how many carried."""
        params = self.equation.params
        if "ft_in" in params:  # JAX 0.12
            constants, carried, _ = params["ft_in"].unpack()
            return len(constants), len(carried)
        return params["num_consts"], params["num_carry"]

    @property
    def order(self) -> Sequence[int]:
        """The rows along which a scan walks, in its order."""
        (length,) = self.repeats
        return range(length)[::-1] if self.equation.params["reverse"] else range(length)

    @property
    def broadcast_to(self) -> Sequence[int]:
        """Which axes of the output those of the input are, of a `broadcast_in_dim`."""
        return cast(Sequence[int], self.equation.params["broadcast_dimensions"])

    def hidden(self) -> list[Block]:
        return [
            _Writer(itertools.count()).block(jaxpr, "", backward=self.backward)
            for jaxpr in _programs_in(self.equation)
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Steps in a row: a whole program, or the body of a scan or of a remat."""

    path: str  # the scopes around the whole block
    inputs: tuple[int, ...]
    constants: dict[int, Value]
    steps: tuple[Step, ...]
    outputs: tuple[Operand, ...]


@dataclasses.dataclass(frozen=True)
class Traced:
    """A function that has been traced: what it does, takes and gives."""

    block: Block
    inputs: tuple[tuple[tuple[int, ...], Dtype], ...]  # shape and dtype of each array
    input_tree: PyTreeDef
    output_tree: PyTreeDef


def trace(function: Callable[..., PyTree], *examples: PyTree) -> Traced:
    """The program of a function of these arrays, or of arrays of these shapes and dtypes."""
    program, result = jax.make_jaxpr(function, return_shape=True)(*examples)
    inputs = tuple((aval.shape, aval.dtype) for aval in program.in_avals)
    block = _Writer(itertools.count()).block(program, "", backward=False)
    return Traced(block, inputs, jax.tree.structure(examples), jax.tree.structure(result))


class _Writer:
    """Writes one block: a program, and in their places the programs that it calls."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self.numbers = numbers
        self.steps: list[Step] = []
        self.constants: dict[int, Value] = {}

    def block(self, program: Program, path: str, *, backward: bool) -> Block:
        inputs = [next(self.numbers) for _ in _open(program).invars]
        outputs = self.write(program, inputs, "", backward)
        return Block(path, tuple(inputs), self.constants, tuple(self.steps), tuple(outputs))

    def write(
        self, program: Program, arguments: Sequence[Operand], path: str, backward: bool
    ) -> list[Operand]:
        """Append the steps of a program of these arguments, and return its results."""
        jaxpr = _open(program)
        known: dict[core.Var, Operand] = dict(zip(jaxpr.invars, arguments, strict=True))
        for variable, constant in zip(jaxpr.constvars, _constants(program), strict=True):
            number = known[variable] = next(self.numbers)
            self.constants[number] = constant

        def operand(atom: Atom) -> Operand:
            return atom if isinstance(atom, core.Literal) else known[atom]

        results: Sequence[Operand]
        for equation in jaxpr.eqns:
            inputs = tuple(operand(atom) for atom in equation.invars)
            scopes, reverse = _scopes(equation)
            here, back = f"{path}/{scopes}".strip("/"), backward or reverse
            name = equation.primitive.name
            if name in CALLS and not is_elementwise_function(equation):
                called = equation.params[CALLS[name]]
                results = self.write(called, inputs, here, back)
            else:
                inner = None
                if name == "scan" or name in REMATS:
                    repeated = equation.params["jaxpr"]
                    inner = _Writer(self.numbers).block(repeated, here, backward=back)
                outputs = tuple(next(self.numbers) for _ in equation.outvars)
                self.steps.append(Step(equation, here, back, inputs, outputs, inner))
                results = outputs
            known.update(zip(equation.outvars, results, strict=True))
        return [operand(atom) for atom in jaxpr.outvars]


def _open(program: Program) -> core.Jaxpr:
    """The jaxpr of a closed or an open one; since JAX 0.12 they are one class."""
    return cast(core.Jaxpr, getattr(program, "jaxpr", program))


def _constants(program: Program) -> Sequence[Value]:
    """Those of an open jaxpr, which is only looked at, are not known."""
    return getattr(program, "consts", ()) or [None] * len(_open(program).constvars)


def _scopes(equation: core.JaxprEqn) -> tuple[str, bool]:
    """The scopes in which an equation was made, and whether by reverse differentiation."""
    stack = equation.source_info.name_stack.stack
    # Between the scopes stand the transformations that were applied, such as vmap or jvp.
    is_scope = [type(entry).__name__ == "Scope" for entry in stack]
    names = [entry.name for entry, named in zip(stack, is_scope, strict=True) if named]
    others = [entry.name for entry, named in zip(stack, is_scope, strict=True) if not named]
    return "/".join(filter(None, names)), "transpose" in others


def is_elementwise_function(equation: core.JaxprEqn) -> bool:
    """Whether this calls a function of one array, element by element, such as `jax.nn.silu`. It
    stays one step. Private helpers of JAX, such as `_where`, are parts of functions."""
    arrays = [atom for atom in equation.invars if _axes(atom) > 0]
    one_to_one = len(arrays) == len(equation.outvars) == 1
    return one_to_one and not called_name(equation).startswith("_") and is_elementwise(equation)


def is_elementwise(equation: core.JaxprEqn) -> bool:
    """Whether every element of the output depends on the inputs' elements at its place alone."""
    name = equation.primitive.name
    if name == "broadcast_in_dim":
        return _axes(equation.invars[0]) == 0  # one number for all elements
    if name in CALLS or name in CUSTOM_DERIVATIVES:
        return all(is_elementwise(part) for jaxpr in _programs_in(equation) for part in jaxpr.eqns)
    return name in ELEMENTWISE


def _axes(atom: Atom) -> int:
    return getattr(atom.aval, "ndim", 0)


def called_name(equation: core.JaxprEqn) -> str:
    """The name of the Python function that an equation calls; the primitive's if it is no call."""
    if "name" in equation.params:
        return str(equation.params["name"])
    if equation.primitive.name in CUSTOM_DERIVATIVES:
        return str(_programs_in(equation)[0].debug_info.func_name)
    return str(equation.primitive.name)


def primitives_in(equation: core.JaxprEqn) -> set[str]:
    """The names of an equation's primitive and of all inside it."""
    names = {str(equation.primitive.name)}
    for jaxpr in _programs_in(equation):
        for part in jaxpr.eqns:
            names |= primitives_in(part)
    return names


def _programs_in(equation: core.JaxprEqn) -> list[core.Jaxpr]:
    return list(core.jaxprs_in_params(equation.params))


def channels_first(block: Block) -> bool:
    """Whether a convolution in it has the features in its second axis, not the last one."""
    for step in block.steps:
        if step.inner is not None and channels_first(step.inner):
            return True
        if step.primitive == "conv_general_dilated":
            _, features, *pixels = step.equation.params["dimension_numbers"].lhs_spec
            if features < min(pixels):
                return True
    return False


def product_flops(block: Block) -> int:
    """Multiplications and additions of all matrix products and convolutions in it. Of a `cond` all
    sides count, and a `while` counts as one repetition."""
    total = 0
    for step in block.steps:
        if step.primitive == "dot_general":
            total += _flops_of_product(step.equation)
        elif step.primitive == "conv_general_dilated":
            total += _flops_of_convolution(step.equation)
        elif step.inner is not None:
            total += math.prod(step.repeats) * product_flops(step.inner)
        else:
            total += sum(map(product_flops, step.hidden()))
    return total


def _flops_of_product(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left: Aval = equation.invars[0].aval
    output: Aval = equation.outvars[0].aval
    return int(2 * output.size * math.prod(left.shape[axis] for axis in contracted))


def _flops_of_convolution(equation: core.JaxprEqn) -> int:
    """Each output is a sum over the kernel of its own feature."""
    kernel: Aval = equation.invars[1].aval
    output: Aval = equation.outvars[0].aval
    features, *_ = equation.params["dimension_numbers"].rhs_spec
    return int(2 * output.size * kernel.size // kernel.shape[features])


def bind(step: Step, values: Sequence[Value]) -> list[Value]:
    """Evaluate a step as JAX itself does, with its derivative rules: relu'(0) is 0. Evaluating
    what is inside a custom derivative instead would lose its rule."""
    primitive, equation = step.equation.primitive, step.equation
    with equation.ctx.manager, _scope(step):
        results = primitive.bind(*values, **primitive.get_bind_params(equation.params))
    return list(results) if primitive.multiple_results else [results]


def bind_scan(
    step: Step, body: Body, values: Sequence[Value], extra: PyTree
) -> tuple[list[Value], PyTree]:
    """A scan with another body: ``body(values, extra) -> (results, collected)``, where extra has a
    leading axis to walk along. Returns the scan's own results, and what was collected, stacked."""
    constants, carried = step.scan_sizes
    fixed = values[:constants]
    start, along = values[constants : constants + carried], values[constants + carried :]

    def once(
        state: list[Value], inputs: tuple[list[Value], PyTree]
    ) -> tuple[list[Value], tuple[list[Value], PyTree]]:
        slices, extra_slices = inputs
        results, collected = body([*fixed, *state, *slices], extra_slices)
        return results[:carried], (results[carried:], collected)

    how = {name: step.equation.params[name] for name in ("length", "reverse", "unroll")}
    with _scope(step):
        end, (stacked, collected) = jax.lax.scan(once, list(start), (list(along), extra), **how)
    return [*end, *stacked], collected


def bind_remat(
    step: Step, body: Body, values: Sequence[Value], extra: PyTree
) -> tuple[list[Value], PyTree]:
    """``body(values, extra)``, of which a backward pass keeps as little as it would of the step."""
    how = {name: step.equation.params[name] for name in ("prevent_cse", "policy")}
    with _scope(step):
        return jax.checkpoint(body, **how)(list(values), extra)


def _scope(step: Step) -> contextlib.AbstractContextManager[None]:
    """Modules' names stay in what is evaluated, and so in profiles."""
    return jax.named_scope(step.path) if step.path else contextlib.nullcontext()
