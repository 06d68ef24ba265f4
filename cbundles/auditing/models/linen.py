"""Modules of flax.linen: their weights come beside them, in collections of variables."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import PyTree

from cbundles.auditing.jax_subject import ModelFunction
from cbundles.auditing.models.functions import Call, has_collections, trainable_of


def function_of_linen_module(
    model: nn.Module, params: PyTree | None, call: Call | None
) -> ModelFunction:
    """A linen module. params: its variables, or the collection ``params`` alone; a module that is
    bound to its variables needs none."""
    if params is None:
        if model.scope is None:
            raise ValueError(
                "params is missing: a linen module does not hold its weights; pass the variables "
                "that model.init made, or that were trained"
            )
        model, params = model.unbind()
    variables = params if has_collections(params) else {"params": params}
    # Whatever else a call writes, such as running statistics, is given up.
    written = [name for name in variables if name != "params"]

    def function(variables: PyTree, batch: PyTree) -> PyTree:
        if written:
            return model.apply(variables, batch, method=call, mutable=written)[0]
        return model.apply(variables, batch, method=call)

    return ModelFunction(function, variables, trainable_of(variables))
