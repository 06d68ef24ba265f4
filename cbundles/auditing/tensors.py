"""Tensors of PyTorch and arrays of NumPy, each as the other. PyTorch is imported by whoever has
tensors, not here."""

from __future__ import annotations

import sys
from typing import Any

import jax.numpy as jnp
import numpy as np


def as_array(value: Any) -> Any:
    """A tensor as an array, with its memory if it is on the CPU; anything else as it is."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return value
    tensor = value.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # which NumPy does not know by itself
        return tensor.contiguous().view(torch.int16).numpy().view(np.dtype(jnp.bfloat16))
    return tensor.resolve_conj().resolve_neg().numpy()


def as_tensor(value: Any, device: Any) -> Any:
    """An array as a tensor with memory of its own, since a model may write to it."""
    import torch

    array = np.array(value, order="C")
    if array.dtype == jnp.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).to(device)
    return torch.from_numpy(array).to(device)
