"""Modules of flax.linen: their weights come beside them, in collections of variables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import PyTree

from cbundles.auditing.jax_subject import NO_NORMALISATION, ModelFunction, RunningStatistics
from cbundles.auditing.models.functions import Call, function_of_variables, has_collections
from cbundles.networks import conv

PARAMS = "params"
STATISTICS = "batch_stats"  # the collection in which Flax keeps them


def function_of_linen_module(
    model: nn.Module, params: PyTree | None, call: Call | None, batch_norm: str
) -> ModelFunction:
    """A linen module. params: its variables, the collection ``params`` alone, or a state of its
    training that has them; a module that is bound to its variables needs none. batch_norm: if
    "running", a call in which it is normalised by the statistics of a batch is refused."""
    if params is None:
        if model.scope is None:
            raise ValueError(
                "params is missing: a linen module does not hold its weights; pass the variables "
                "that model.init made, or that were trained"
            )
        model, params = model.unbind()
    params = params if isinstance(params, Mapping) else variables_of_state(params) or params
    variables = dict(params) if has_collections(params) else {PARAMS: params}
    # Whatever else a call writes, such as running statistics, is given up.
    written = [name for name in variables if name != PARAMS]

    def function(variables: PyTree, batch: PyTree) -> PyTree:
        if not written:
            return model.apply(variables, batch, method=call)
        looked_at = batch_norm == "running"
        with nn.intercept_methods(_as_at_inference) if looked_at else contextlib.nullcontext():
            return model.apply(variables, batch, method=call, mutable=written)[0]

    statistics = _statistics_of(model, variables, written, call)
    return function_of_variables(function, variables, statistics)


def _as_at_inference(
    call_next: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
) -> Any:
    """Raises ValueError for a normalisation by the statistics of whatever batch a model is given:
    samples are looked at some at a time."""
    module = context.module
    if isinstance(module, nn.BatchNorm) and context.method_name == "__call__":
        told = args[1] if len(args) > 1 else kwargs.get("use_running_average")
        if not (module.use_running_average if told is None else told):
            raise ValueError(
                f"{module.name} normalises by the statistics of the batch, as in training; pass a "
                "call at inference, as call=lambda model, x: model(x, train=False), or "
                'batch_norm="batch" with a call such as this one'
            )
    return call_next(*args, **kwargs)


def variables_of_state(state: Any) -> dict[str, PyTree] | None:
    """The variables in a state of training, such as a ``TrainState`` of Flax; None where there are
    none."""
    if getattr(state, PARAMS, None) is None:
        return None
    statistics = getattr(state, STATISTICS, None)
    return {PARAMS: state.params, **({STATISTICS: statistics} if statistics else {})}


def _statistics_of(
    model: nn.Module, variables: Mapping[str, PyTree], written: list[str], call: Call | None
) -> RunningStatistics | str:
    """How the statistics of a module are taken anew, if its normalisations are those of Flax."""
    if STATISTICS not in variables:
        return NO_NORMALISATION
    normalised: list[str] = []

    def by_batch(
        call_next: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        module = context.module
        if not isinstance(module, nn.BatchNorm | conv.BatchNorm):
            return call_next(*args, **kwargs)
        if context.method_name != "__call__":
            return call_next(*args, **kwargs)
        normalised.append(str(module.name))
        if isinstance(module, conv.BatchNorm):
            object.__setattr__(module, "norm", conv.RESET)
            return call_next(*args, **kwargs)
        # The module is frozen, and lives for this call only. Without momentum, what it leaves are
        # the statistics of its batch.
        object.__setattr__(module, "use_running_average", False)
        object.__setattr__(module, "momentum", 0.0)
        object.__setattr__(module, "axis_name", None)  # there are no other devices
        others = {key: value for key, value in kwargs.items() if key != "use_running_average"}
        return call_next(*args[:1], **others)

    def of_batch(variables: PyTree, batch: PyTree) -> PyTree:
        with nn.intercept_methods(by_batch):
            _, left = model.apply(variables, batch, method=call, mutable=written)
        if not normalised:
            raise ValueError(
                "its normalisations are none of Flax, and are told by its own arguments"
            )
        return left[STATISTICS]

    def put(variables: PyTree, statistics: PyTree) -> PyTree:
        return {**variables, STATISTICS: statistics}

    return RunningStatistics(of_batch, put)
