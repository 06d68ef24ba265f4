"""What a training loop returns, as a model and its numbers; and these numbers as a file.

A model of PyTorch, nnx or Keras holds its numbers; of a linen module they come beside it: in a
pair with it, in variables, or in a state with ``params`` (and ``batch_stats``), as a ``TrainState``
of Flax.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jaxtyping import PyTree

from cbundles.auditing.jax_subject import named_leaves
from cbundles.auditing.models import linen, pytorch
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
        if isinstance(made, tuple) and len(made) == 2:
            return cls(*made)
        module = built[0] if isinstance(built, tuple) else built
        if not isinstance(module, nn.Module):
            return cls(made, None)
        if isinstance(made, nn.Module) and made.scope is not None:  # bound to its variables
            return cls(made, None)
        return cls(module, _variables_in(made))


def _variables_in(state: Any) -> PyTree:
    """The variables in a state of a linen module's training."""
    if isinstance(state, Mapping) and linen.PARAMS in state:
        return {name: state[name] for name in (linen.PARAMS, linen.STATISTICS) if name in state}
    variables = linen.variables_of_state(state)
    if variables is None:
        raise ValueError(
            f"train returned a {type(state).__name__} for a linen module, which does not hold its "
            "weights: return (module, variables), the variables, or a state with params"
        )
    return variables


def numbers_of(trained: Trained) -> dict[str, np.ndarray]:
    """All numbers of a model, by their names."""
    if pytorch.is_module(trained.model):
        state = trained.model.state_dict().items()
        return {name: np.asarray(as_array(tensor)) for name, tensor in state}
    leaves = named_leaves(_tree_of(trained))
    return {name: np.asarray(leaf) for name, leaf in leaves if _is_numbers(leaf)}


def with_numbers(trained: Trained, numbers: Mapping[str, np.ndarray]) -> Trained:
    """The model with these numbers, as `numbers_of` returned them. trained: as ``build`` returned
    it, a linen module perhaps without any. Raises ValueError for the numbers of another model."""
    model = trained.model
    if pytorch.is_module(model):
        like = model.state_dict()
        if like.keys() != numbers.keys():
            raise ValueError("they are of another model")
        model.load_state_dict({name: as_tensor(numbers[name], like[name].device) for name in like})
        return trained
    if trained.params is None and isinstance(model, nn.Module):
        split = {tuple(name.split("/")): value for name, value in numbers.items()}
        return dataclasses.replace(trained, params=traverse_util.unflatten_dict(split))
    tree = _tree_of(trained)
    named = named_leaves(tree)
    if {name for name, leaf in named if _is_numbers(leaf)} != numbers.keys():
        raise ValueError("they are of another model")
    filled = [jnp.asarray(numbers[name]) if name in numbers else leaf for name, leaf in named]
    whole = jax.tree.unflatten(jax.tree.structure(tree), filled)
    if isinstance(model, nnx.Module):
        nnx.update(model, whole)
        return trained
    if trained.params is None:
        return dataclasses.replace(trained, model=whole)
    return dataclasses.replace(trained, params=whole)


def _is_numbers(leaf: Any) -> bool:
    """Whether this is an array that a file can hold: keys of random numbers stay as built."""
    return hasattr(leaf, "dtype") and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _tree_of(trained: Trained) -> PyTree:
    """What holds the numbers. Without any where the model is of a library that is not known."""
    if isinstance(trained.model, nnx.Module):
        return nnx.state(trained.model)
    return trained.model if trained.params is None else trained.params
