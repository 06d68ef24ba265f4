"""Modules of flax.nnx: a copy in evaluation mode is observed, never the model itself."""

from __future__ import annotations

from flax import nnx

from cbundles.auditing.jax_subject import ModelFunction, named_leaves
from cbundles.auditing.models.functions import Call
from cbundles.observe import nnx_function


def function_of_nnx_module(model: nnx.Module, call: Call | None, batch_norm: str) -> ModelFunction:
    """An nnx module, without dropout. batch_norm: whether normalised by the statistics of the
    "batch", or the "running" ones."""
    copy = nnx.clone(model)
    copy.eval()
    if batch_norm == "batch":
        copy.set_attributes(use_running_average=False, raise_if_not_found=False)
    function, state = nnx_function(copy, call)
    named = named_leaves(state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    trainable = {
        number: name
        for number, (name, variable) in enumerate(named)
        if isinstance(variable, nnx.Param)
    }
    return ModelFunction(function, state, trainable)
