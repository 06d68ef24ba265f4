"""A module of PyTorch that is called without some of its residual branches.

The residual sums are known from what an audit records: each is the n-th call of an addition. When
it comes, the sum has the numbers of its skip, in place where the model adds in place. The branch
itself is still computed; that nobody needs it is for `exporting` to see.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import PyTree
from torch.overrides import TorchFunctionMode

from cbundles.auditing.models.functions import Call
from cbundles.auditing.models.pytorch import calls, words
from cbundles.auditing.models.pytorch.calls import tensors_in
from cbundles.auditing.models.pytorch.subject import TorchSubject
from cbundles.observe import Site, Skipped
from cbundles.observe.sites import find, others_that_need

ADDS = frozenset(name for name, primitive in words.PRIMITIVES.items() if primitive == "add")


class TorchSum(NamedTuple):
    """A residual sum."""

    name: str  # of its site
    branch: str  # the same of its branch
    call: int  # it is the n-th addition that the model calls, counted from 0
    path: str  # of the module that calls it
    skip: int  # which of its operands is the skip
    others: str  # who else needs the branch; "" where nobody does


@dataclass(frozen=True)
class TorchObserved:
    """A module of which the residual sums are known.

    additions: how many the module calls, residual or not.
    """

    residual_sums: tuple[TorchSum, ...]
    sites: tuple[Site, ...]
    skipped: tuple[Skipped, ...]
    additions: int


def observed_sums(subject: TorchSubject, batch: PyTree) -> TorchObserved:
    """Find the residual sums that a module calls for a batch."""
    program = subject.program(batch)
    found = find(program)
    names = {number: name for name, number in found.numbers.items()}
    branch_names = found.branch_names()
    additions = [step for step in program.steps if step.called_name in ADDS]
    sums = []
    for place, step in enumerate(additions):
        name = names.get(step.outputs[0], "")
        if name not in found.branches:
            continue
        branch = found.branches[name]
        side = step.inputs.index(branch)
        others = others_that_need(branch, step, program)
        sums.append(TorchSum(name, branch_names[name], place, step.path, 1 - side, others))
    sites = subject.sites(batch)
    return TorchObserved(tuple(sums), sites.found, sites.skipped, len(additions))


class _WithoutBranches(TorchFunctionMode):
    """Gives skips in the place of some sums."""

    def __init__(self, paths: Sequence[str], sums: Mapping[int, TorchSum]) -> None:
        super().__init__()
        self.paths = paths  # of the modules that are being called
        self.sums = sums
        self.additions = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = words.name_of(func)
        if name not in ADDS:
            return func(*args, **kwargs)
        residual = self.sums.get(self.additions)
        self.additions += 1
        if residual is None:
            return func(*args, **kwargs)
        operands = list(tensors_in(words.operands(name, args, kwargs)))
        if self.paths[-1] != residual.path or len(operands) != 2:
            raise calls.OtherCalls(f"an addition in {self.paths[-1]} where {residual.path} added")
        # A copy, because what the model calls next may overwrite its sum.
        skip = operands[residual.skip].clone()
        if residual.skip == 1 and "alpha" in kwargs:
            skip = skip * kwargs["alpha"]
        total = func(*args, **kwargs)
        if any(total is given for given in tensors_in((args, kwargs))):  # it works in place
            return total.copy_(skip)
        return skip.to(total.dtype)


@contextlib.contextmanager
def without_branches(
    model: torch.nn.Module, sums: Sequence[TorchSum], additions: int
) -> Iterator[None]:
    """Inside, a model is called once, and these sums are their skips. additions: how many of
    them it calls. Raises OtherCalls where it calls other ones."""
    with (
        calls.paths_of_calls(model) as paths,
        _WithoutBranches(paths, {one.call: one for one in sums}) as mode,
    ):
        yield
    if mode.additions != additions:
        raise calls.OtherCalls(f"{mode.additions} additions where {additions} came before")


class Calling(torch.nn.Module):
    """A module that calls another one as its user does, without some branches."""

    def __init__(
        self,
        model: torch.nn.Module,
        call: Call | None,
        sums: Sequence[TorchSum],
        additions: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.call = call
        self.sums = sums
        self.additions = additions

    def forward(self, batch: Any) -> Any:
        with without_branches(self.model, self.sums, self.additions):
            return self.model(batch) if self.call is None else self.call(self.model, batch)
