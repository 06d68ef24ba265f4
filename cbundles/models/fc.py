"""Fully connected networks (paper, sec. 3.3): `depth` hidden Dense+ReLU layers of one width.

Hidden layers after the first all have the same shape, so their weights are stacked and applied
with `lax.scan`: one compiled layer serves any depth. A network may be padded to a larger width
(with zeros, which stay zero: their gradient is zero) and to a larger depth (with layers that are
switched off and pass their input on), so that networks of different shape can share one program.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cbundles.models.shape import FcShape


class Params(NamedTuple):
    """float32. first (inputs, width), hidden (depth-1, width, width), last (width, outputs), and
    their biases: (width,), (depth-1, width), (outputs,)."""

    first: Any
    first_bias: Any
    hidden: Any
    hidden_bias: Any
    last: Any
    last_bias: Any


def init(shape: FcShape, seed: int) -> Params:
    """Initial weights as NumPy arrays: he_uniform, output glorot_uniform, biases zero.

    Drawn on the host layer by layer, so that a layer's weights depend on the seed and its position
    alone: not on the depth of the network, the device or the version of JAX.
    """

    def uniform(limit: float, size: tuple[int, ...], layer: int) -> np.ndarray:
        generator = np.random.Generator(np.random.Philox(key=[seed, layer]))
        return ((2 * generator.random(size, np.float32) - 1) * np.float32(limit)).astype(np.float32)

    he, width = math.sqrt(6 / shape.width), shape.width
    hidden = [uniform(he, (width, width), layer) for layer in range(1, shape.depth)]
    output_layer = 2**32  # a stream that no hidden layer uses
    return Params(
        first=uniform(math.sqrt(6 / shape.inputs), (shape.inputs, width), 0),
        first_bias=np.zeros(width, np.float32),
        hidden=np.stack(hidden) if hidden else np.zeros((0, width, width), np.float32),
        hidden_bias=np.zeros((shape.depth - 1, width), np.float32),
        last=uniform(math.sqrt(6 / (width + shape.outputs)), (width, shape.outputs), output_layer),
        last_bias=np.zeros(shape.outputs, np.float32),
    )


def pad(params: Params, to: FcShape) -> Params:
    """Zeros up to the larger shape. Zero weights and their zero gradients stay zero in training."""
    target = Params(
        first=(to.inputs, to.width),
        first_bias=(to.width,),
        hidden=(to.depth - 1, to.width, to.width),
        hidden_bias=(to.depth - 1, to.width),
        last=(to.width, to.outputs),
        last_bias=(to.outputs,),
    )

    def grow(array: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        return np.pad(array, [(0, n - have) for n, have in zip(size, array.shape, strict=True)])

    return Params(*(grow(a, size) for a, size in zip(params, target, strict=True)))


def cut(params: Params, to: FcShape) -> Params:
    """The network inside a padded one: what `pad` made larger."""
    layers, width = to.depth - 1, to.width
    return Params(
        first=params.first[:, :width],
        first_bias=params.first_bias[:width],
        hidden=params.hidden[:layers, :width, :width],
        hidden_bias=params.hidden_bias[:layers, :width],
        last=params.last[:width],
        last_bias=params.last_bias,
    )


def forward(params: Params, x: jax.Array, *, depth: jax.Array | None = None) -> jax.Array:
    """Logits (B, outputs) of x, float32 (B, inputs).

    depth: for a network padded in depth, how many layers are real; the others are the identity.
    """
    last, _ = lax.scan(
        lambda a, layer: (_hidden(a, layer, depth), None), _first(params, x), _layers(params)
    )
    return last @ params.last + params.last_bias


def visit_layers(
    params: Params,
    x: jax.Array,
    visit: Callable[[jax.Array], Any],
    *,
    depth: jax.Array | None = None,
) -> Any:
    """``visit(a)`` of every hidden activation, stacked on a leading axis of length `depth`.

    visit sees a^(l+1), float32 (B, width), after the ReLU and inside the forward pass, so that what
    is measured on an activation does not require storing it.
    """
    # One more, empty layer at the end lets a single compiled body visit the first activation too.
    extended = jax.tree.map(
        lambda a: jnp.concatenate([a, jnp.zeros_like(a, shape=(1, *a.shape[1:]))]), _layers(params)
    )
    _, seen = lax.scan(
        lambda a, layer: (_hidden(a, layer, depth), visit(a)), _first(params, x), extended
    )
    return seen


def _layers(params: Params) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What a scan over the hidden layers after the first walks along: number, weights, bias."""
    return jnp.arange(1, params.hidden.shape[0] + 1), params.hidden, params.hidden_bias


def _first(params: Params, x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ params.first + params.first_bias)


def _hidden(
    a: jax.Array, layer: tuple[jax.Array, jax.Array, jax.Array], depth: jax.Array | None
) -> jax.Array:
    number, weights, bias = layer
    output = jax.nn.relu(a @ weights + bias)
    return output if depth is None else jnp.where(number < depth, output, a)
