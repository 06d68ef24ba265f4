"""The functions of PyTorch that a model calls, one after the other.

A `TorchFunctionMode` stands above automatic differentiation and sees all of them: those of modules,
of `torch.nn.functional`, operators, and what works in place. While it watches, layers do not take
the fused ways that PyTorch has for inference, which would hide what is inside. Hooks that all
modules share tell whose call it is.

`Recording` writes the calls down as a program, of which `cbundles.observe` finds the sites. Later
runs count calls (`Following`): the k-th call is the k-th one of the recording, so a site's value is
seen at the moment in which it is made, before anything overwrites it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
import torch
from torch.nn.modules import module as every_module
from torch.overrides import TorchFunctionMode

from cbundles.auditing.models.pytorch import words
from cbundles.observe.program import Dtype, Operand

COMPILED = "_orig_mod"  # stands in the names of what is inside a compiled module


class Call(NamedTuple):
    """One call of a function that makes tensors.

    path: of the module that is being called, ``blocks/0``.
    name: of the function, see `words.name_of`.
    operands: the tensors among its arguments, see `words.operands`.
    made: the tensors that are new, or have new numbers in them.
    """

    path: str
    name: str
    operands: Sequence[torch.Tensor]
    made: Sequence[torch.Tensor]


class Place(NamedTuple):
    """Where a value is made: by which call, and as which of the tensors that it makes."""

    call: int
    tensor: int


class OtherCalls(ValueError):
    """A model that does not call for one batch what it called for another."""


class Watcher(Protocol):
    """Who is told of calls."""

    def add(self, call: Call) -> Mapping[int, torch.Tensor]:
        """The next call, which has just been done. Returns what is to stand in the place of some of
        the tensors that it made, by their ids."""


class _Watching(TorchFunctionMode):
    """Shows each call of a function as soon as it is done."""

    def __init__(self, paths: Sequence[str], see: Watcher) -> None:
        super().__init__()
        self.paths = paths  # of the modules that are being called
        self.see = see

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if "alpha" in kwargs and words.PRIMITIVES.get(words.name_of(func)) == "add":
            args, kwargs = self._scaled_before(args, kwargs)
        given = list(tensors_in((args, kwargs)))
        versions = [_version(tensor) for tensor in given]
        result = func(*args, **kwargs)
        changed = [
            tensor
            for tensor, before in zip(given, versions, strict=True)
            if _version(tensor) != before
        ]
        # What returns its argument as it is, such as dropout at inference, makes nothing.
        known = set(map(id, given))
        new = [tensor for tensor in tensors_in(result) if id(tensor) not in known]
        made = list({id(tensor): tensor for tensor in (*changed, *new)}.values())
        if made:
            name = words.name_of(func)
            operands = list(tensors_in(words.operands(name, args, kwargs)))
            others = self.see.add(Call(self.paths[-1], name, operands, made))
            for tensor in changed:
                if id(tensor) in others:
                    tensor.copy_(others[id(tensor)])
            result = _with_others(result, {i: t for i, t in others.items() if i not in known})
        return result

    def _scaled_before(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a sum whose second operand is scaled in it, when that is done before in
        a call of its own: the branch of a residual sum is what is added to the skip."""
        left = dict(kwargs)
        named = [left.pop(name) for name in ("input", "other") if name in left]
        skip, branch = (*args, *named)
        alpha = left.pop("alpha")
        if isinstance(branch, torch.Tensor):
            return (skip, self.__torch_function__(torch.mul, (), (branch, alpha))), left
        return (skip, branch * alpha), left


@contextlib.contextmanager
def watched(model: torch.nn.Module, see: Watcher) -> Iterator[None]:
    """Inside, `see` is told of all calls."""
    with paths_of_calls(model) as paths, _Watching(paths, see):
        yield


@contextlib.contextmanager
def paths_of_calls(model: torch.nn.Module) -> Iterator[Sequence[str]]:
    """Inside, the paths of the modules that are being called, the innermost one last."""
    # By what a module holds: `torch.export` calls one that has two names through proxies.
    names = {id(vars(module)): path_of(name) for name, module in model.named_modules()}
    paths = [""]

    def enter(module: torch.nn.Module, _: Any) -> None:
        paths.append(names.get(id(vars(module)), paths[-1]))

    def leave(*_: Any) -> None:
        paths.pop()

    before = every_module.register_module_forward_pre_hook(enter)
    after = every_module.register_module_forward_hook(leave, always_call=True)
    try:
        yield paths
    finally:
        before.remove()
        after.remove()


def path_of(name: str) -> str:
    """``blocks/0/conv1``, also inside a compiled module."""
    return "/".join(part for part in name.split(".") if part != COMPILED)


@dataclass(frozen=True)
class Aval:
    """What is known of a tensor without its numbers."""

    shape: tuple[int, ...]
    dtype: Dtype

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Aval:
        name = str(tensor.dtype).removeprefix("torch.")
        try:
            return cls(tuple(tensor.shape), jnp.dtype(name))
        except TypeError:  # such as qint8
            return cls(tuple(tensor.shape), np.dtype(object))

    @property
    def ndim(self) -> int:
        return len(self.shape)


@dataclass(frozen=True, eq=False)
class TorchStep:
    """A call as a step of a program: a `cbundles.observe.program.Step`."""

    path: str
    called_name: str
    inputs: tuple[Operand, ...]
    outputs: tuple[int, ...]
    input_avals: tuple[Aval, ...]
    output_avals: tuple[Aval, ...]
    backward: bool = False
    inner: None = None
    repeats: tuple[int, ...] = ()
    scan_sizes: tuple[int, int] = (0, 0)

    @property
    def primitive(self) -> str:
        return words.PRIMITIVES.get(self.called_name, self.called_name)

    @property
    def primitives(self) -> frozenset[str]:
        return words.COMPOSITE.get(self.called_name, frozenset([self.primitive]))

    @property
    def is_elementwise(self) -> bool:
        return words.is_elementwise(self.called_name)

    def hidden(self) -> tuple[()]:
        return ()


@dataclass(frozen=True, eq=False)
class TorchProgram:
    """All that a model called for one batch: a `cbundles.observe.program.Block`.

    places: where values are made, by their numbers.
    """

    inputs: tuple[int, ...]
    constants: frozenset[int]
    steps: tuple[TorchStep, ...]
    outputs: tuple[Operand, ...]
    places: Mapping[int, Place]
    path: str = ""

    def calls_the_same(self, other: TorchProgram) -> bool:
        """Whether another one differs in shapes at most."""
        calls, others = (
            [(step.path, step.called_name, step.outputs) for step in program.steps]
            for program in (self, other)
        )
        return calls == others

    def shape_at(self, place: Place) -> tuple[int, ...]:
        """Of the value that is made there."""
        return self.steps[place.call].output_avals[place.tensor].shape


class Recording:
    """Writes calls down. Every value has a number; what works in place makes a new value."""

    def __init__(self, inputs: Sequence[torch.Tensor]) -> None:
        self._inputs = range(len(inputs))
        self._steps: list[TorchStep] = []
        self._places: dict[int, Place] = {}
        self._constants: set[int] = set()
        self._next = len(inputs)
        self._numbers = {id(tensor): number for number, tensor in enumerate(inputs)}
        self._alive = list(inputs)  # an id stands for one tensor only as long as this lives

    def add(self, call: Call) -> Mapping[int, torch.Tensor]:
        operands = list(call.operands)
        if call.name in words.COMPOSITE:  # biases have one axis
            operands = [tensor for tensor in operands if tensor.ndim > 1]
        inputs: list[Operand] = [self._number_of(tensor) for tensor in operands]
        outputs = []
        for place, tensor in enumerate(call.made):
            number = self._new(tensor)
            self._places[number] = Place(len(self._steps), place)
            outputs.append(number)
        if words.PRIMITIVES.get(call.name) == "add" and len(operands) == 1:
            # A sum with a number, which is a constant.
            inputs, operands = [*inputs, None], [*operands, torch.empty(())]
        step = TorchStep(
            call.path,
            call.name,
            tuple(inputs),
            tuple(outputs),
            tuple(map(Aval.of, operands)),
            tuple(map(Aval.of, call.made)),
        )
        self._steps.append(step)
        return {}

    def program(self, result: Any) -> TorchProgram:
        """What was recorded. result: of the model."""
        outputs = tuple(self._number_of(tensor) for tensor in tensors_in(result))
        return TorchProgram(
            tuple(self._inputs),
            frozenset(self._constants),
            tuple(self._steps),
            outputs,
            self._places,
        )

    def _number_of(self, tensor: torch.Tensor) -> int:
        if id(tensor) not in self._numbers:  # a buffer, or another tensor that the model holds
            self._constants.add(self._new(tensor))
        return self._numbers[id(tensor)]

    def _new(self, tensor: torch.Tensor) -> int:
        self._numbers[id(tensor)] = number = self._next
        self._alive.append(tensor)
        self._next += 1
        return number


class Following:
    """Follows a model through the calls of a recording, and shows values as they are made.

    steps: of the recording.
    look: for some of the places, what is to be called with the value there; what it returns, if
        anything, stands in the place of the value from then on.
    """

    def __init__(
        self,
        steps: Sequence[TorchStep],
        look: Mapping[Place, Sequence[Callable[[torch.Tensor], torch.Tensor | None]]],
    ) -> None:
        self.steps = steps
        self.look = look
        self.calls = 0

    def add(self, call: Call) -> Mapping[int, torch.Tensor]:
        expected = self.steps[self.calls] if self.calls < len(self.steps) else None
        if expected is None or not _fits(call, expected):
            raise OtherCalls(self._difference(call, expected))
        others = {}
        for tensor, value in enumerate(call.made):
            for look in self.look.get(Place(self.calls, tensor), ()):
                other = look(value)
                if other is not None:
                    others[id(value)] = other
        self.calls += 1
        return others

    def end(self) -> None:
        """Raises OtherCalls where the model stopped early."""
        if self.calls < len(self.steps):
            raise OtherCalls(self._difference(None, self.steps[self.calls]))

    def _difference(self, call: Call | None, expected: TorchStep | None) -> str:
        now = "nothing" if call is None else f"{call.path}/{call.name}".lstrip("/")
        then = "nothing"
        if expected is not None:
            then = f"{expected.path}/{expected.called_name}".lstrip("/")
        return (
            "the model does not do the same for all batches: as call number "
            f"{self.calls + 1} of a PyTorch function comes {now} where {then} came before, so its "
            "layers cannot be compared"
        )


def _fits(call: Call, step: TorchStep) -> bool:
    same_function = call.path == step.path and call.name == step.called_name
    return same_function and len(call.made) == len(step.outputs)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in lists, tuples and dictionaries."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)


def _with_others(value: Any, others: Mapping[int, torch.Tensor]) -> Any:
    """A tensor, or tensors in tuples and lists, some of which are others now."""
    if not others:
        return value
    if isinstance(value, torch.Tensor):
        return others.get(id(value), value)
    if isinstance(value, (list, tuple)):
        parts = [_with_others(part, others) for part in value]
        return value._make(parts) if hasattr(value, "_make") else type(value)(parts)
    return value


def _version(tensor: torch.Tensor) -> int | None:
    """How often a tensor was written to, where that is counted."""
    return None if tensor.is_inference() else tensor._version
