"""The smaller model as a file of StableHLO, by `jax.export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
from jax import export
from jaxtyping import PyTree

from cbundles.errors import in_one_line
from cbundles.files import write_atomically
from cbundles.removing.removed import Exported


def write_stablehlo(
    model: Callable[[PyTree, PyTree], PyTree], params: PyTree, inputs: PyTree, path: str | Path
) -> Exported:
    """Write a model with its parameters: ``jax.export.deserialize(content).call(inputs)``.

    It takes batches of any size where JAX can trace the model so, or else batches like `inputs`.
    """

    def whole(inputs: PyTree) -> PyTree:
        # Behind a barrier they are not folded into each other, which would round differently.
        return model(jax.lax.optimization_barrier(params), inputs)

    path = Path(path)
    (batch,) = {leaf.shape[0] for leaf in jax.tree.leaves(inputs)}
    any_size = export.symbolic_shape("batch")
    try:
        content, only = _serialized(whole, _forms(inputs, any_size[0])), None
    except ImportError as error:
        raise ValueError(
            "export writes StableHLO with flatbuffers: pip install 'cbundles[export]'"
        ) from error
    except Exception:  # whatever a model raises that asks how large its batch is
        content, only = _of_one_size(whole, _forms(inputs, batch)), batch
    write_atomically(path, content)
    return Exported(path, only)


def _of_one_size(function: Callable[[PyTree], PyTree], inputs: PyTree) -> bytes:
    """Raises ValueError for what cannot be written down, such as a call back into Python."""
    try:
        return _serialized(function, inputs)
    except Exception as error:  # whatever jax.export raises
        raise ValueError(f"jax.export cannot write this model: {in_one_line(error)}") from error


def _forms(inputs: PyTree, batch: object) -> PyTree:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype), inputs
    )


def _serialized(function: Callable[[PyTree], PyTree], inputs: PyTree) -> bytes:
    return bytes(export.export(jax.jit(function))(inputs).serialize())
