"""Fully connected networks (paper, sec. 3.3): `depth` hidden layers of one width.

The first layer is s(x W + b). Further ones are *blocks* of one kind, named in `FcShape.block`:

    plain         s(h W + b)                   what the paper trains, with s = relu
    residual1     h + s(h W + b)
    residual2     h + s(h W + b) W2

Blocks have the same shape, so their weights are stacked and applied with `lax.scan`: one compiled
layer serves any depth. A network may be padded to a larger width (with zeros, which stay zero:
their gradient is zero) and to a larger depth (with layers that are switched off and pass their
input on), so that networks of different shape can share one program.
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

PLAIN = "plain-relu"
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"relu": jax.nn.relu, "tanh": jnp.tanh}
OUTPUT_STREAM, OUTER_STREAM = 2**32, 2**33  # of chance, which no hidden layer uses


class Params(NamedTuple):
    """float32. first (inputs, width), hidden (depth-1, width, width), last (width, outputs), and
    their biases: (width,), (depth-1, width), (outputs,). outer: W2 of residual2, (depth-1, width,
    width), otherwise ()."""

    first: Any
    first_bias: Any
    hidden: Any
    hidden_bias: Any
    last: Any
    last_bias: Any
    outer: Any = ()


def init(shape: FcShape, seed: int) -> Params:
    """Initial weights as NumPy arrays: he_uniform, output glorot_uniform, biases zero.

    Drawn on the host layer by layer, so that a layer's weights depend on the seed and its position
    alone: not on the depth of the network, the device or the version of JAX.
    """

    def uniform(limit: float, size: tuple[int, ...], layer: int) -> np.ndarray:
        generator = np.random.Generator(np.random.Philox(key=[seed, layer]))
        return ((2 * generator.random(size, np.float32) - 1) * np.float32(limit)).astype(np.float32)

    def stacked(stream: int) -> np.ndarray:
        size = (shape.width, shape.width)
        drawn = [uniform(he, size, stream + layer) for layer in range(1, shape.depth)]
        return np.stack(drawn) if drawn else np.zeros((0, *size), np.float32)

    he, width = math.sqrt(6 / shape.width), shape.width
    glorot = math.sqrt(6 / (width + shape.outputs))
    return Params(
        first=uniform(math.sqrt(6 / shape.inputs), (shape.inputs, width), 0),
        first_bias=np.zeros(width, np.float32),
        hidden=stacked(0),
        hidden_bias=np.zeros((shape.depth - 1, width), np.float32),
        last=uniform(glorot, (width, shape.outputs), OUTPUT_STREAM),
        last_bias=np.zeros(shape.outputs, np.float32),
        outer=stacked(OUTER_STREAM) if shape.weights == 2 else (),
    )


def pad(params: Params, to: FcShape) -> Params:
    """Zeros up to the larger shape. Zero weights and their zero gradients stay zero in training."""
    blocks = (to.depth - 1, to.width, to.width)
    target = Params(
        first=(to.inputs, to.width),
        first_bias=(to.width,),
        hidden=blocks,
        hidden_bias=(to.depth - 1, to.width),
        last=(to.width, to.outputs),
        last_bias=(to.outputs,),
        outer=blocks,
    )

    def grow(array: Any, size: tuple[int, ...]) -> Any:
        if isinstance(array, tuple):
            return array
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
        outer=params.outer[:layers, :width, :width] if to.weights == 2 else (),
    )


def forward(
    params: Params, x: jax.Array, *, depth: jax.Array | None = None, block: str = PLAIN
) -> jax.Array:
    """Logits (B, outputs) of x, float32 (B, inputs).

    depth: for a network padded in depth, how many layers are real; the others are the identity.
    """
    hidden = _block(block, depth)
    last, _ = lax.scan(
        lambda a, layer: (hidden(a, layer), None), _first(params, x, block), _layers(params)
    )
    return last @ params.last + params.last_bias


def visit_layers(
    params: Params,
    x: jax.Array,
    visit: Callable[[jax.Array], Any],
    *,
    depth: jax.Array | None = None,
    block: str = PLAIN,
) -> Any:
    """``visit(a)`` of every hidden activation, stacked on a leading axis of length `depth`.

    visit sees a^(l+1), float32 (B, width), after the ReLU and inside the forward pass, so that what
    is measured on an activation does not require storing it.
    """
    # One more, empty layer at the end lets a single compiled body visit the first activation too.
    extended = jax.tree.map(
        lambda a: jnp.concatenate([a, jnp.zeros_like(a, shape=(1, *a.shape[1:]))]), _layers(params)
    )
    hidden = _block(block, depth)
    _, seen = lax.scan(
        lambda a, layer: (hidden(a, layer), visit(a)), _first(params, x, block), extended
    )
    return seen


def tapped(
    params: Params,
    x: jax.Array,
    taps: jax.Array,
    *,
    depth: jax.Array | None = None,
    block: str = PLAIN,
) -> tuple[jax.Array, jax.Array]:
    """Logits (B, outputs), and the activations (depth, B, width) between blocks: after the first
    layer and after each block. taps, of the same shape, are added to them: the gradient by a tap of
    zeros is the gradient by the activation."""
    hidden = _block(block, depth)

    def layer(a: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array]:
        weights, tap = inputs
        return hidden(a + tap, weights), a

    last, between = lax.scan(layer, _first(params, x, block), (_layers(params), taps[:-1]))
    logits = (last + taps[-1]) @ params.last + params.last_bias
    return logits, jnp.concatenate([between, last[None]])


def activation_of(block: str) -> Callable[[jax.Array], jax.Array]:
    """s of a kind of block."""
    return ACTIVATIONS[block.split("-")[1]]


def _layers(params: Params) -> Any:
    """What a scan over the blocks walks along: number, weights, bias, outer weights."""
    numbers = jnp.arange(1, params.hidden.shape[0] + 1)
    return numbers, params.hidden, params.hidden_bias, params.outer


def _first(params: Params, x: jax.Array, block: str) -> jax.Array:
    return activation_of(block)(x @ params.first + params.first_bias)


def _block(block: str, depth: jax.Array | None) -> Callable[[jax.Array, Any], jax.Array]:
    """The function of one block: an activation and what `_layers` holds of it -> activation."""
    kind, s = block.split("-")[0], activation_of(block)

    def hidden(a: jax.Array, layer: Any) -> jax.Array:
        number, weights, bias, outer = layer
        output = s(a @ weights + bias)
        if kind == "residual2":
            output = output @ outer
        if kind != "plain":
            output = a + output
        return output if depth is None else jnp.where(number < depth, output, a)

    return hidden
