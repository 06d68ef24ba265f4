"""Models of every library, as something that an audit can observe (`subject.Subject`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import flax.linen as nn
from flax import nnx
from jaxtyping import PyTree

from cbundles.auditing.jax_subject import JaxSubject, ModelFunction
from cbundles.auditing.models import functions, keras, linen, nnx_modules, pytorch
from cbundles.auditing.models.functions import Call
from cbundles.auditing.models.patterns import matching
from cbundles.auditing.subject import Subject

__all__ = ["Call", "is_changed_in_place", "subject_of"]

TELL_IT = (
    'batch_norm="batch": {what} is told so by its own arguments; pass call=lambda model, batch: '
    "model(batch, ...) in which it is"
)


def subject_of(
    model: Any,
    *,
    params: PyTree | None,
    call: Call | None,
    trainable: str | Sequence[str] | None,
    batch_norm: str,
) -> Subject:
    """A model of any library, ready to be observed; see `audit` for the arguments. Raises
    ValueError for what is no model, or lacks something."""
    patterns = [trainable] if isinstance(trainable, str) else trainable
    if pytorch.is_module(model) and not keras.is_model(model):
        _without_params(params, "a PyTorch module")
        return pytorch.subject_of_module(model, call, patterns, batch_norm)
    function = _model_function(model, params, call, batch_norm)
    if patterns is not None:
        function = _only_trainable(function, patterns)
    return JaxSubject(function)


def is_changed_in_place(model: Any) -> bool:
    """Whether training changes the model itself, which holds its own weights."""
    return isinstance(model, nnx.Module) or pytorch.is_module(model) or keras.is_model(model)


def _model_function(
    model: Any, params: PyTree | None, call: Call | None, batch_norm: str
) -> ModelFunction:
    told = batch_norm == "running" or call is not None
    if isinstance(model, nnx.Module):
        _without_params(params, "an nnx module")
        return nnx_modules.function_of_nnx_module(model, call, batch_norm)
    if isinstance(model, nn.Module):
        if not told:
            raise ValueError(TELL_IT.format(what="a linen module"))
        return linen.function_of_linen_module(model, params, call, batch_norm)
    if keras.is_model(model):
        _without_params(params, "a Keras model")
        if not told:
            raise ValueError(TELL_IT.format(what="a Keras model"))
        return keras.function_of_keras_model(model, call)
    if not told:
        raise ValueError(TELL_IT.format(what="a function"))
    return functions.function_of_callable(model, params, call)


def _without_params(params: PyTree | None, what: str) -> None:
    if params is not None:
        raise ValueError(f"params: {what} holds its own weights; leave it out")


def _only_trainable(function: ModelFunction, patterns: Sequence[str]) -> ModelFunction:
    """With fewer trainable parameters. Raises ValueError for a pattern that no name matches."""
    chosen = matching([*function.trainable.values(), *function.constants], patterns)
    return replace(
        function,
        trainable={number: name for number, name in function.trainable.items() if name in chosen},
        constants={name: value for name, value in function.constants.items() if name in chosen},
    )
