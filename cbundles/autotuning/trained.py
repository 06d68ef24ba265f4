"""What a training loop returns, as a model and its numbers; and these numbers as a file.

A model of PyTorch, nnx, Equinox or Keras holds its numbers; of a linen module they come beside it:
in a pair with it, in variables, or in a state with ``params`` (and ``batch_stats``), as a
``TrainState`` of Flax; of a function in a pair with it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jaxtyping import PyTree

from cbundles.auditing.jax_subject import named_leaves
from cbundles.auditing.models import is_changed_in_place, keras, linen, pytorch
from cbundles.auditing.models.functions import has_collections
from cbundles.auditing.tensors import as_array, as_tensor


@dataclass(frozen=True)
class Trained:
    """A model as it is measured. params: of a model that does not hold its numbers."""

    model: Any
    params: PyTree | None

    @classmethod
    def of_loop(cls, made: Any, built: Any) -> Trained:
        """What ``train`` returned, where ``build`` had returned this. Raises ValueError where there
        is nothing to measure."""
        is_function_with_numbers = _is_function_with_numbers(built)
        if _is_linen_with_numbers(made) or (
            is_function_with_numbers and _is_function_with_numbers(made)
        ):
            return cls(*made)
        module = built[0] if isinstance(built, tuple) else built
        if isinstance(module, nn.Module):
            if isinstance(made, nn.Module) and made.scope is not None:  # bound to its variables
                return cls(*made.unbind())
            variables = _variables_in(made)
            if variables is not None:
                return cls(module, variables)
        elif is_function_with_numbers and _is_like(made, built[1]):
            return cls(module, made)
        elif callable(made) or is_changed_in_place(made) or type(made) is type(module):
            return cls(made, None)
        raise ValueError(
            f"train returned a {type(made).__name__} for a {_kind_of(module)}: it must return the "
            "model, or its state (of a linen module, which does not hold its weights: variables, "
            "or something with params), or a pair (module, variables) or (function, params), or "
            "None where it has trained in place"
        )


def unchangeable_numbers(made: Any) -> list[jax.Array]:
    """The arrays of what is about to be trained, where all its numbers are arrays of JAX, which
    never change; none where training may change the model itself."""
    model = made[0] if isinstance(made, tuple) else made
    if is_changed_in_place(model):
        return []
    numbers = [leaf for leaf in jax.tree.leaves(made) if isinstance(leaf, jax.Array | np.ndarray)]
    arrays = [number for number in numbers if isinstance(number, jax.Array)]
    return arrays if len(arrays) == len(numbers) else []


def require_trained_in_place(made: Any, given: Sequence[jax.Array]) -> None:
    """ValueError where training returned None, and what it was given still has the very arrays that
    it had: `unchangeable_numbers`."""
    after = unchangeable_numbers(made)
    if given and len(after) == len(given) and all(map(operator.is_, after, given)):
        model = made[0] if isinstance(made, tuple) else made
        raise ValueError(
            "train returned None, and all weights are those that it was given: "
            f"a {_kind_of(model)} is not trained in place; return what was trained"
        )


def _is_linen_with_numbers(made: Any) -> bool:
    return isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)


def _is_function_with_numbers(made: Any) -> bool:
    is_pair = isinstance(made, tuple) and len(made) == 2
    return is_pair and (inspect.isroutine(made[0]) or isinstance(made[0], functools.partial))


def _is_like(made: Any, built: PyTree) -> bool:
    """Whether these are parameters as those that a function was built with."""
    like, as_built = (str(jax.tree.structure(tree)) for tree in (made, built))
    return like == as_built


def _kind_of(module: Any) -> str:
    if isinstance(module, nn.Module):
        return "linen module"
    return f"model, {type(module).__name__}"


def _variables_in(state: Any) -> PyTree | None:
    """The variables in a state of a linen module's training. None where there are none."""
    if isinstance(state, Mapping) and linen.PARAMS in state:
        if all(isinstance(value, Mapping) for value in state.values()):  # collections, all of them
            return dict(state)
        return {name: state[name] for name in (linen.PARAMS, linen.STATISTICS) if name in state}
    return linen.variables_of_state(state)


def numbers_of(trained: Trained) -> dict[str, np.ndarray]:
    """All numbers of a model, by their names."""
    if keras.is_model(trained.model):
        # Layers are named anew whenever a model is built, and the order of variables stays.
        variables = enumerate(trained.model.variables)
        return {str(place): np.asarray(variable) for place, variable in variables}
    if pytorch.is_module(trained.model):
        state = _tensors_of(trained.model).items()
        return {name: np.asarray(as_array(tensor)) for name, tensor in state}
    leaves = named_leaves(_tree_of(trained))
    return {name: np.asarray(leaf) for name, leaf in leaves if _is_numbers(leaf)}


def with_numbers(
    trained: Trained,
    numbers: Mapping[str, np.ndarray],
    inputs: PyTree = None,
    call: Callable[..., Any] | None = None,
) -> Trained:
    """The model with these numbers, as `numbers_of` returned them. Raises ValueError for the
    numbers of another model: of other names or shapes.

    trained: as ``build`` returned it, a linen module perhaps without any
    inputs, call: on what such a module is called, and how; so is a Keras model that is not built
    """
    model = trained.model
    if keras.is_model(model):
        if not model.built:
            first = jax.tree.map(lambda leaf: leaf[:1], inputs)
            _ = model(first) if call is None else call(model, first)
        variables = {str(place): variable for place, variable in enumerate(model.variables)}
        _check_numbers(numbers, variables)
        for name, variable in variables.items():
            variable.assign(numbers[name])
        return trained
    if pytorch.is_module(model):
        like = _tensors_of(model)
        _check_numbers(numbers, like)
        filled = {name: as_tensor(numbers[name], like[name].device) for name in like}
        model.load_state_dict(filled, strict=False)  # what is no tensor stays as built
        return trained
    if trained.params is None and isinstance(model, nn.Module):
        _check_numbers(numbers, _shapes_of_linen_module(model, numbers, inputs, call))
        split = {tuple(name.split("/")): value for name, value in numbers.items()}
        return dataclasses.replace(trained, params=traverse_util.unflatten_dict(split))
    tree = _tree_of(trained)
    if isinstance(model, nn.Module) and not any(linen.PARAMS in name for name in numbers):
        numbers = {f"{linen.PARAMS}/{name}": value for name, value in numbers.items()}
    named = named_leaves(tree)
    _check_numbers(numbers, {name: leaf for name, leaf in named if _is_numbers(leaf)})
    leaves = [jnp.asarray(numbers[name]) if name in numbers else leaf for name, leaf in named]
    whole = jax.tree.unflatten(jax.tree.structure(tree), leaves)
    if isinstance(model, nnx.Module):
        nnx.update(model, whole)
        return trained
    if trained.params is None:
        return dataclasses.replace(trained, model=whole)
    return dataclasses.replace(trained, params=whole)


def _check_numbers(numbers: Mapping[str, np.ndarray], like: Mapping[str, Any]) -> None:
    """ValueError unless they have the names and shapes of these."""
    shapes = {name: tuple(value.shape) for name, value in like.items()}
    if shapes != {name: value.shape for name, value in numbers.items()}:
        raise ValueError("they are of another model")


def _shapes_of_linen_module(
    module: nn.Module,
    numbers: Mapping[str, np.ndarray],
    inputs: PyTree,
    call: Callable[..., Any] | None,
) -> dict[str, Any]:
    """What a module keeps, in those collections that numbers are of. Raises ValueError where it
    cannot be called so."""
    try:
        made = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, method=call), inputs)
    except Exception as error:  # whatever a module raises
        raise ValueError("they are of a model that is called otherwise") from error
    collections = {name.partition("/")[0] for name in numbers}
    if linen.PARAMS in collections:
        variables = {name: made[name] for name in made if name in collections}
    else:  # this collection alone, as an audit also takes it
        variables = made.get(linen.PARAMS, {})
    return dict(named_leaves(variables))


def _tensors_of(module: Any) -> dict[str, Any]:
    """The state of a module of PyTorch, without what a module keeps beside its tensors."""
    state = module.state_dict().items()
    return {name: value for name, value in state if hasattr(value, "shape")}


def _is_numbers(leaf: Any) -> bool:
    """Whether this is an array that a file can hold: keys of random numbers stay as built."""
    is_array = isinstance(leaf, jax.Array | np.ndarray | np.generic)
    return is_array and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _tree_of(trained: Trained) -> PyTree:
    """What holds the numbers. Without any where the model is of a library that is not known."""
    if isinstance(trained.model, nnx.Module):
        # Streams of random numbers begin as they were built: no file holds their keys.
        return nnx.state(trained.model, nnx.Not(nnx.RngState))
    if isinstance(trained.model, nn.Module) and isinstance(trained.params, Mapping):
        # A loop may begin with the parameters alone and return them among other variables.
        params = trained.params
        return dict(params) if has_collections(params) else {linen.PARAMS: params}
    return trained.model if trained.params is None else trained.params
