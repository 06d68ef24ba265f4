"""Fully connected networks (paper, sec. 3.3): `depth` hidden layers of one width.

The first layer is s(x W + b). Further ones are *blocks* of one kind, named in `FcShape.block`:

    plain         s(h W + b)                   what the paper trains, with s = relu
    residual1     h + s(h W + b)
    residual2     h + s(h W + b) W2

Blocks have the same shape, so their weights are stacked and applied with `lax.scan`: one compiled
layer serves any depth. A network may be padded to a larger width (with zeros, which stay zero:
their gradient is zero) and to a larger depth (with layers that are switched off and pass their
input on), so that networks of different shape can share one program.

`Params` holds the weights as they are drawn, padded, and kept in one vector; `FullyConnected` is
the network itself, a Flax module.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name as named
from jaxtyping import Array, Float32, Int32, PyTree

from cbundles.arrays import Numbers
from cbundles.chance import FC_OUTER_WEIGHTS, FC_OUTPUT_WEIGHTS, FC_WEIGHTS, Stream, generator
from cbundles.networks.shape import FcShape

PLAIN = "plain-relu"
LAYER = "layer"  # a site: what a hidden layer passes on
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": jax.nn.relu, "tanh": jnp.tanh}


class Params(NamedTuple):
    """The weights of a network; of all blocks together, the second layer first."""

    first: Float32[Numbers, "inputs width"]
    first_bias: Float32[Numbers, " width"]
    hidden: Float32[Numbers, "blocks width width"]
    hidden_bias: Float32[Numbers, "blocks width"]
    last: Float32[Numbers, "width outputs"]
    last_bias: Float32[Numbers, " outputs"]
    outer: Float32[Numbers, "blocks width width"] | tuple[()] = ()  # W2 of residual2


def init(shape: FcShape, seed: int) -> Params:
    """Initial weights as NumPy arrays: he_uniform, output glorot_uniform, biases zero.

    Drawn on the host layer by layer, so that a layer's weights depend on the seed and its position
    alone: not on the depth of the network, the device or the version of JAX.
    """

    def uniform(
        limit: float, size: tuple[int, int], stream: Stream, layer: int = 0
    ) -> Float32[np.ndarray, "inputs outputs"]:
        chance = generator(seed, stream, layer)
        return ((2 * chance.random(size, np.float32) - 1) * np.float32(limit)).astype(np.float32)

    def stacked(stream: Stream) -> Float32[np.ndarray, "blocks width width"]:
        size = (shape.width, shape.width)
        drawn = [uniform(he, size, stream, layer) for layer in range(1, shape.depth)]
        return np.stack(drawn) if drawn else np.zeros((0, *size), np.float32)

    he, width = math.sqrt(6 / shape.width), shape.width
    glorot = math.sqrt(6 / (width + shape.outputs))
    return Params(
        first=uniform(math.sqrt(6 / shape.inputs), (shape.inputs, width), FC_WEIGHTS),
        first_bias=np.zeros(width, np.float32),
        hidden=stacked(FC_WEIGHTS),
        hidden_bias=np.zeros((shape.depth - 1, width), np.float32),
        last=uniform(glorot, (width, shape.outputs), FC_OUTPUT_WEIGHTS),
        last_bias=np.zeros(shape.outputs, np.float32),
        outer=stacked(FC_OUTER_WEIGHTS) if shape.weights == 2 else (),
    )


def pad(params: Params, to: FcShape) -> Params:
    """Zeros up to the larger shape. Zero weights and their zero gradients stay zero in training."""
    blocks, width = to.depth - 1, to.width

    def grown(array: Float32[Numbers, "..."], *size: int) -> Float32[np.ndarray, "..."]:
        return np.pad(array, [(0, n - have) for n, have in zip(size, array.shape, strict=True)])

    return Params(
        first=grown(params.first, to.inputs, width),
        first_bias=grown(params.first_bias, width),
        hidden=grown(params.hidden, blocks, width, width),
        hidden_bias=grown(params.hidden_bias, blocks, width),
        last=grown(params.last, width, to.outputs),
        last_bias=grown(params.last_bias, to.outputs),
        outer=(
            () if isinstance(params.outer, tuple) else grown(params.outer, blocks, width, width)
        ),
    )


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
        outer=() if isinstance(params.outer, tuple) else params.outer[:layers, :width, :width],
    )


class HiddenBlock(nn.Module):
    """One hidden layer after the first. block: its kind, as in `FcShape.block`."""

    width: int
    block: str

    @nn.compact
    def __call__(
        self,
        a: Float32[Array, "batch width"],
        number: Int32[Array, ""],
        depth: Int32[Array, ""] | None,
    ) -> tuple[Float32[Array, "batch width"], None]:
        kind, s = self.block.split("-")[0], activation_of(self.block)
        output = s(nn.Dense(self.width, name="inner")(a))
        if kind == "residual2":
            output = nn.Dense(self.width, use_bias=False, name="outer")(output)
        if kind != "plain":
            output = a + output
        if depth is not None:
            output = jnp.where(number < depth, output, a)
        return named(output, LAYER), None


class FullyConnected(nn.Module):
    """A network of the paper's section 3.3. Every hidden layer's output is a site named `LAYER`."""

    shape: FcShape

    @nn.compact
    def __call__(
        self, x: Float32[Array, "batch *pixels"], depth: Int32[Array, ""] | None = None
    ) -> Float32[Array, "batch outputs"]:
        """Logits. depth: of a network padded in depth, how many layers are real; the others are the
        identity."""
        shape = self.shape
        x = x.reshape(len(x), -1)
        a = named(activation_of(shape.block)(nn.Dense(shape.width, name="first")(x)), LAYER)
        blocks = nn.scan(
            HiddenBlock,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast),
            length=shape.depth - 1,
        )(shape.width, shape.block, name="hidden")
        a, _ = blocks(a, jnp.arange(1, shape.depth), depth)
        return nn.Dense(shape.outputs, name="last")(a)


def variables(params: Params) -> dict[str, PyTree]:
    """The parameters as the variables of `FullyConnected`."""
    hidden = {"inner": {"kernel": params.hidden, "bias": params.hidden_bias}}
    if not isinstance(params.outer, tuple):
        hidden["outer"] = {"kernel": params.outer}
    tree = {
        "first": {"kernel": params.first, "bias": params.first_bias},
        "hidden": hidden,
        "last": {"kernel": params.last, "bias": params.last_bias},
    }
    return {"params": tree}


def activation_of(block: str) -> Callable[[Array], Array]:
    """s of a kind of block."""
    return ACTIVATIONS[block.split("-")[1]]
