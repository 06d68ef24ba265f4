"""Plain functions, and modules that are pytrees, as those of Equinox are."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from cbundles.auditing.jax_subject import (
    UNKNOWN_STATISTICS,
    ModelFunction,
    RunningStatistics,
    named_leaves,
)

Call = Callable[[Any, PyTree], PyTree]  # call(model, batch) -> output


def function_of_callable(model: Any, params: PyTree | None, call: Call | None) -> ModelFunction:
    """``f(params, x)``; a module that is a pytree; or any function of one argument."""
    if not callable(model) and call is None:
        raise ValueError(
            f"cannot audit a {type(model).__name__}: it is no function; pass call=lambda model, "
            "batch: ... that calls it"
        )
    if params is not None:
        return _of_params(model, params, call)
    if _holds_arrays(model):
        return _of_pytree(model, call)
    return _of_one_argument(model, call)


def function_of_variables(
    function: Callable[[PyTree, PyTree], PyTree],
    variables: PyTree,
    statistics: RunningStatistics | str = UNKNOWN_STATISTICS,
) -> ModelFunction:
    """A function of variables. Trainable are real numbers, and of variables as Flax has them those
    of the collection ``params``, whose names go without it; an array alone is called so."""
    named = [(name or "params", leaf) for name, leaf in named_leaves(variables)]
    prefix = "params/" if has_collections(variables) else ""
    names = [name.removeprefix(prefix) for name, _ in named]
    trainable = {
        number: names[number]
        for number, (name, leaf) in enumerate(named)
        if name.startswith(prefix) and _is_real(leaf)
    }
    return ModelFunction(function, variables, names, trainable, statistics=statistics)


def has_collections(variables: PyTree) -> bool:
    """Whether these are collections of variables, as linen has them, one of which is trained."""
    return isinstance(variables, Mapping) and isinstance(variables.get("params"), Mapping)


def _of_params(model: Callable[..., PyTree], params: PyTree, call: Call | None) -> ModelFunction:
    def function(params: PyTree, batch: PyTree) -> PyTree:
        if call is not None:
            return call(functools.partial(model, params), batch)
        return model(params, batch)

    return function_of_variables(function, params)


def _of_pytree(model: Any, call: Call | None) -> ModelFunction:
    """A module that is a pytree: its arrays are arguments, all else stays as it is."""
    leaves, tree = jax.tree.flatten(model)
    names = [name for name, _ in named_leaves(model)]
    places = [place for place, leaf in enumerate(leaves) if _is_array(leaf)]

    def function(arrays: list[jax.Array], batch: PyTree) -> PyTree:
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        copy = jax.tree.unflatten(tree, filled)
        return copy(batch) if call is None else call(copy, batch)

    arrays = [leaves[place] for place in places]
    names_of_arrays = [names[place] for place in places]
    trainable = {
        number: name
        for number, (name, array) in enumerate(zip(names_of_arrays, arrays, strict=True))
        if _is_real(array)
    }
    others = tuple(leaf for leaf in leaves if not _is_array(leaf))
    return ModelFunction(function, arrays, names_of_arrays, trainable, static=(tree, others))


def _of_one_argument(model: Callable[..., PyTree], call: Call | None) -> ModelFunction:
    """A function of a batch. Its weights are inside it; those of a module that it wraps, as
    ``jax.vmap(module)`` does, are known all the same."""
    inside = inspect.unwrap(model)
    constants = dict(named_leaves(inside)) if _holds_arrays(inside) else {}

    def function(nothing: tuple[()], batch: PyTree) -> PyTree:
        return model(batch) if call is None else call(model, batch)

    real = {name: leaf for name, leaf in constants.items() if _is_real(leaf)}
    return ModelFunction(function, (), [], {}, real, static=_TheVery(model))


class _TheVery:
    """Equal to another one only of the very same object: its weights are part of what is traced."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _TheVery) and other.model is self.model

    def __hash__(self) -> int:
        return id(self.model)


def _holds_arrays(model: Any) -> bool:
    """Whether something is a pytree with arrays in it."""
    return not _is_array(model) and any(map(_is_array, jax.tree.leaves(model)))


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _is_real(leaf: Any) -> bool:
    return _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)
