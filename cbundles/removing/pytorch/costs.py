"""What modules of PyTorch cost and say: the whole model beside the smaller one."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import torch
from jaxtyping import PyTree
from torch.fx import GraphModule
from torch.utils.flop_counter import FlopCounterMode

from cbundles.auditing.models.functions import Call
from cbundles.auditing.models.pytorch.calls import tensors_in
from cbundles.auditing.models.pytorch.subject import TorchSubject
from cbundles.auditing.tensors import as_tensor
from cbundles.removing.comparing import Program, count_correct, median_seconds
from cbundles.removing.given import Given
from cbundles.removing.pytorch.branches import Calling
from cbundles.removing.pytorch.exporting import name_in_the_model
from cbundles.removing.report import Cost

CLOSE = 1e-4  # of the largest output


def costs_of(
    subject: TorchSubject, additions: int, small: GraphModule, given: Given
) -> tuple[Cost, Cost]:
    """What a model and the smaller one cost, and get right. additions: that the model calls."""
    model = subject.model
    batch = as_tensors(given.inputs.first, subject.device)
    whole = called_plainly(model, subject.call)
    seconds_before, seconds_after = _median_seconds([whole, small], batch)

    def cost(module: torch.nn.Module, program: Program, counted: Program, seconds: float) -> Cost:
        return Cost(
            flops=_flops_of(counted, batch),
            parameters=_numbers_of(module),
            bytes=_bytes_of(module),
            seconds=seconds,
            correct=correct_of(program, given, subject.device),
        )

    # Called by `Calling`, the model does not take fused ways, whose products are not counted.
    counted = Calling(model, subject.call, [], additions)
    before = cost(model, whole, counted, seconds_before)
    return before, cost(small, small, small, seconds_after)


def called_plainly(model: torch.nn.Module, call: Call | None) -> Program:
    """A model as its user calls it."""
    return model if call is None else lambda batch: call(model, batch)


def correct_of(program: Program, given: Given, device: torch.device) -> int | None:
    """How many samples a model classifies correctly; None without labels."""
    return count_correct(
        lambda batch: program(as_tensors(batch, device)), given.inputs, given.labels
    )


def as_tensors(batch: PyTree, device: torch.device) -> PyTree:
    """Arrays as tensors."""
    return jax.tree.map(lambda leaf: as_tensor(leaf, device), batch)


def check_difference(small: GraphModule, zeroed: Calling, batch: PyTree) -> None:
    """Raises ValueError where the smaller module differs by more than rounding from the whole model
    in which the branches are zero: such a model depends on more than its batch."""
    with torch.no_grad():
        results = [  # each of its own batch: a model may write to it
            map(torch.Tensor.double, tensors_in(one(jax.tree.map(torch.clone, batch))))
            for one in (small, zeroed)
        ]
        pairs = list(zip(*results, strict=True))
    largest = max(float(theirs.abs().nan_to_num(0, 0).max()) for _, theirs in pairs)
    difference = max(_largest_difference(ours, theirs) for ours, theirs in pairs)
    if difference > CLOSE * largest:
        raise ValueError(
            f"the exported module differs by {difference:.2g} from the model in which these "
            "branches are zero; does what it computes depend on more than the batch?"
        )


def _largest_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Infinite where only one of two numbers is NaN; two NaNs, or infinities, are equal."""
    differences = (ours - theirs).abs().nan_to_num(torch.inf)
    equal = (ours == theirs) | (ours.isnan() & theirs.isnan())
    return float(differences.masked_fill(equal, 0).max())


def numbers_in(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and statistics, by their names."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name_in_the_model(name): one for name, one in named if one.is_floating_point()}


def _numbers_of(module: torch.nn.Module) -> int:
    return sum(tensor.numel() for tensor in numbers_in(module).values())


def _bytes_of(module: torch.nn.Module) -> int:
    return sum(one.numel() * one.element_size() for one in numbers_in(module).values())


def _flops_of(program: Program, batch: PyTree) -> float:
    """Of products and convolutions: those that PyTorch counts."""
    with FlopCounterMode(display=False) as counter:
        program(batch)
    return float(counter.get_total_flops())


def _median_seconds(programs: Sequence[Program], batch: PyTree) -> list[float]:
    def until_done(program: Program) -> Program:
        def compute(batch: PyTree) -> PyTree:
            output = program(batch)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            return output

        return compute

    with torch.inference_mode():
        return median_seconds([until_done(program) for program in programs], batch)
