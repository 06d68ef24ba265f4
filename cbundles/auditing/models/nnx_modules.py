"""Modules of flax.nnx: a copy in evaluation mode is observed, never the model itself."""

from __future__ import annotations

from flax import nnx
from jaxtyping import PyTree

from cbundles.auditing.jax_subject import (
    NO_NORMALISATION,
    ModelFunction,
    RunningStatistics,
    named_leaves,
)
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
    return ModelFunction(
        function,
        state,
        [name for name, _ in named],
        trainable,
        statistics=_statistics_of(copy, call),
    )


def _statistics_of(model: nnx.Module, call: Call | None) -> RunningStatistics | str:
    """How the statistics of a module are taken anew. model: in evaluation."""
    if not any(isinstance(module, nnx.BatchNorm) for _, module in nnx.iter_modules(model)):
        return NO_NORMALISATION
    copy = nnx.clone(model)
    # Without momentum, what a call leaves are the statistics of its batch. There are no other
    # devices with which it would share them.
    copy.set_attributes(nnx.BatchNorm, use_running_average=False, momentum=0.0, axis_name=None)

    def call_and_look(model: nnx.Module, batch: PyTree) -> PyTree:
        _ = model(batch) if call is None else call(model, batch)
        return nnx.state(model, nnx.BatchStat)

    of_batch, _ = nnx_function(copy, call_and_look)
    return RunningStatistics(of_batch, nnx.merge_state)
