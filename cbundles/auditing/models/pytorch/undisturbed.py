"""Running a module of PyTorch in evaluation, and leaving it as it was."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextlib.contextmanager
def undisturbed(model: nn.Module, *, by_batch: bool) -> Iterator[None]:
    """Inside, a module may be called as often as one likes; afterwards its modes, its buffers, its
    attributes, the tensors that are its parameters, and the chance that PyTorch draws from are as
    before. by_batch: batch normalisations use the statistics of the batch, and not those that they
    have collected."""
    devices = {tensor.device for tensor in model.parameters() if tensor.is_cuda}
    with (
        torch.inference_mode(False),  # in which tensors do not tell whether they were written to
        torch.no_grad(),
        torch.random.fork_rng(sorted(devices, key=str)),
        _not_compiled(),
        _same_buffers(model),
        _same_attributes(model),
        _evaluating(model, by_batch),
    ):
        yield


@contextlib.contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Inside, gradients reach all that is computed from parameters, whoever of them is trained."""
    frozen = [p for p in model.parameters() if p.is_floating_point() and not p.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


@contextlib.contextmanager
def _evaluating(model: nn.Module, by_batch: bool) -> Iterator[None]:
    """Sets modes one by one: `train` and `eval` may be overridden, and do more."""
    before = [(module, module.training) for module in model.modules()]
    tracking = [(m, m.track_running_stats) for m in model.modules() if isinstance(m, _BatchNorm)]
    try:
        for module, _ in before:
            module.training = by_batch and isinstance(module, _BatchNorm)
        for norm, tracks in tracking:
            # In training, one that does not track statistics uses those of the batch.
            norm.track_running_stats = tracks and not by_batch
        yield
    finally:
        for module, mode in before:
            module.training = mode
        for norm, tracks in tracking:
            norm.track_running_stats = tracks


@contextlib.contextmanager
def _same_buffers(model: nn.Module) -> Iterator[None]:
    """Whatever a call writes to buffers, such as running statistics, is given up."""
    before = [
        (module, dict(module._buffers))
        for module in model.modules()
        if not isinstance(module, torch.jit.ScriptModule)  # which cannot have others
    ]
    copies = [(buffer, buffer.clone()) for buffer in model.buffers() if not buffer.is_inference()]
    try:
        yield
    finally:
        for module, buffers in before:
            module._buffers.clear()
            module._buffers.update(buffers)
        for buffer, copy in copies:
            # (Its version does not tell: normalisations write to statistics without a word.)
            if not torch.equal(buffer, copy):
                buffer.copy_(copy)


@contextlib.contextmanager
def _same_attributes(model: nn.Module) -> Iterator[None]:
    """Whatever a call puts into attributes, such as a state for the next one, is given up, and
    parameters whose tensor it exchanged have their own again. (What it writes *into* such a tensor
    stays: a copy of all of them would cost as much memory as the model.)"""
    before = [
        (module, dict(module.__dict__))
        for module in model.modules()
        if not isinstance(module, torch.jit.ScriptModule)
    ]
    tensors = [(parameter, parameter.data) for parameter in model.parameters()]
    try:
        yield
    finally:
        for module, attributes in before:
            module.__dict__.clear()
            module.__dict__.update(attributes)
        for parameter, tensor in tensors:
            if parameter.data_ptr() != tensor.data_ptr():
                parameter.data = tensor


def _not_compiled() -> contextlib.AbstractContextManager[Any]:
    """Inside, what was compiled runs as it was written, so that its calls are seen."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and importing it takes long
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")
