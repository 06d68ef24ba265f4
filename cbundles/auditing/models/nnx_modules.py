"""Modules of flax.nnx: a copy in evaluation mode is observed, never the model itself."""

from __future__ import annotations

from typing import Any

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
    names: list[str] = []
    trainable: dict[int, str] = {}
    for name, variable in named_leaves(state, is_leaf=_is_variable):
        value = variable.get_value() if _is_variable(variable) else variable
        for inside, _ in named_leaves(value):  # a variable may hold no array, or several
            if isinstance(variable, nnx.Param):
                trainable[len(names)] = f"{name}/{inside}".strip("/")
            names.append(f"{name}/{inside}".strip("/"))
    return ModelFunction(
        function,
        state,
        names,
        trainable,
        statistics=_statistics_of(copy, call),
        static=nnx.split(copy)[0],
    )


def _is_variable(leaf: Any) -> bool:
    return isinstance(leaf, nnx.Variable)


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
