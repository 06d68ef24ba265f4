"""Models of Keras 3 on JAX. Keras is imported by whoever made the model, not here."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from jaxtyping import Array, PyTree

from cbundles.auditing.jax_subject import (
    NO_NORMALISATION,
    ModelFunction,
    RunningStatistics,
    distinct,
)
from cbundles.auditing.models.functions import Call


def is_model(model: Any) -> bool:
    """Whether this is a layer or model of Keras."""
    layer = getattr(sys.modules.get("keras"), "Layer", None)  # Keras 2 has none
    return layer is not None and isinstance(model, layer)


def function_of_keras_model(model: Any, call: Call | None) -> ModelFunction:
    """A built Keras model, in inference unless `call` says otherwise; what a call would write, such
    as running statistics, is given up."""
    keras = sys.modules["keras"]
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"this Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=jax before it is "
            "imported"
        )
    if not model.built:
        raise ValueError("this Keras model has no weights yet; call it, or build it, first")
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()  # while `fit` runs, it alone has the numbers
    variables = [*model.trainable_variables, *model.non_trainable_variables]

    def function(numbers: list[Array], batch: PyTree) -> PyTree:
        replaced = list(zip(variables, numbers, strict=True))
        with keras.StatelessScope(state_mapping=replaced):
            return model(batch, training=False) if call is None else call(model, batch)

    names = list(distinct(one.path for one in variables))  # layers may have the same name
    trainable = dict(enumerate(names[: len(model.trainable_variables)]))
    return ModelFunction(
        function,
        [one.value for one in variables],
        names,
        trainable,
        statistics=_statistics_of(model, variables, call),
    )


def _statistics_of(
    model: Any, variables: Sequence[Any], call: Call | None
) -> RunningStatistics | str:
    """How the statistics of a model are taken anew; those of frozen layers stay as they are."""
    keras = sys.modules["keras"]
    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    if not norms:
        return NO_NORMALISATION
    moved = {id(one) for norm in norms for one in (norm.moving_mean, norm.moving_variance)}
    places = [place for place, one in enumerate(variables) if id(one) in moved]

    def of_batch(numbers: list[Array], batch: PyTree) -> list[Array]:
        replaced = list(zip(variables, numbers, strict=True))
        with _by_batch(norms), keras.StatelessScope(state_mapping=replaced) as scope:
            _ = model(batch, training=False) if call is None else call(model, batch)
        return [scope.get_current_value(variables[place]) for place in places]

    def put(numbers: list[Array], statistics: list[Array]) -> list[Array]:
        new = dict(zip(places, statistics, strict=True))
        return [new.get(place, number) for place, number in enumerate(numbers)]

    return RunningStatistics(of_batch, put)


@contextlib.contextmanager
def _by_batch(norms: Sequence[Any]) -> Iterator[None]:
    """Inside, these layers normalise by the statistics of the batch, which they leave behind."""
    before = [(norm, norm.momentum) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        # An attribute of the object, in front of the method of its class.
        norm.call = functools.partial(_call_in_training, norm.call)
    try:
        yield
    finally:
        for norm, momentum in before:
            norm.momentum = momentum
            del norm.call


def _call_in_training(call: Call, *args: Any, **kwargs: Any) -> Any:
    return call(*args, **{**kwargs, "training": True})
