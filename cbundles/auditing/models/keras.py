"""Models of Keras 3 on JAX. Keras is imported by whoever made the model, not here."""

from __future__ import annotations

import sys
from typing import Any

from jaxtyping import Array, PyTree

from cbundles.auditing.jax_subject import ModelFunction
from cbundles.auditing.models.functions import Call


def is_model(model: Any) -> bool:
    """Whether this is a layer or model of Keras."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Layer)


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
    variables = [*model.trainable_variables, *model.non_trainable_variables]

    def function(numbers: list[Array], batch: PyTree) -> PyTree:
        replaced = list(zip(variables, numbers, strict=True))
        with keras.StatelessScope(state_mapping=replaced):
            return model(batch, training=False) if call is None else call(model, batch)

    trainable = {number: one.path for number, one in enumerate(model.trainable_variables)}
    return ModelFunction(
        function,
        [one.value for one in variables],
        trainable,
        statistics="a Keras model in training drops out, too, so its statistics stay as they are",
    )
