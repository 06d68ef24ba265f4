"""The statistics of batch normalisations of PyTorch, taken anew. Both functions are for use inside
`undisturbed`, which brings back what was there before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cbundles.auditing.tensors import as_array, as_tensor


def normalisations(model: nn.Module) -> dict[str, _BatchNorm]:
    """The batch normalisations that normalise by running statistics, by their names."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


def require_running(model: nn.Module) -> None:
    """Raises ValueError for a batch normalisation that has none."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise ValueError(
                f"{name or type(module).__name__} keeps no running statistics "
                "(track_running_stats=False), so what it does to a sample depends on the batch; "
                'an audit with batch_norm="batch" takes all samples as one batch'
            )


@contextlib.contextmanager
def collecting(model: nn.Module, into: dict[str, np.ndarray]) -> Iterator[None]:
    """Inside, one batch is normalised by its own statistics, which are written into a dictionary
    in the end."""
    norms = normalisations(model)
    before = [(norm, norm.momentum) for norm in norms.values()]
    try:
        for norm in norms.values():
            norm.training = True
            norm.track_running_stats = True
            norm.momentum = 1.0  # so that what is left are the statistics of the batch
            norm.num_batches_tracked = None  # counting would be one more call of a function
        yield
        for name, norm in norms.items():
            into |= {key: as_array(buffer).copy() for key, buffer in _buffers(name, norm).items()}
    finally:
        for norm, momentum in before:
            norm.momentum = momentum


@contextlib.contextmanager
def with_statistics(model: nn.Module, statistics: Mapping[str, np.ndarray]) -> Iterator[None]:
    """Inside, these statistics stand in the place of those that the model has."""
    for name, norm in normalisations(model).items():
        for key, buffer in _buffers(name, norm).items():
            buffer.copy_(as_tensor(statistics[key], buffer.device))
    yield


def _buffers(name: str, norm: _BatchNorm) -> dict[str, torch.Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    return {
        f"{name}.running_mean": norm.running_mean,
        f"{name}.running_var": norm.running_var,
    }
