"""Fully connected networks (paper, sec. 3.3): `depth` hidden layers of one width.

The first layer is s(x W + b). Further ones are *blocks* of one kind, named in `FcShape.block`:

    plain         s(h W + b)                   what the paper trains, with s = relu
    residual1     h + s(h W + b)
    residual2     h + s(h W + b) W2

With `FcShape.normalisation` = layer, every x W + b and h W + b is standardised over the neurons of
its sample before s, then scaled and shifted by numbers that are learned, one of each for a neuron.

Blocks have the same shape, so their weights are stacked and applied with `lax.scan`: one compiled
layer serves any depth. A network may be padded to a larger width (with zeros, which stay zero:
their gradient is zero) and to a larger depth (with layers that are switched off and pass their
input on), so that networks of different shape can share one program. What is standardised has to
know how many neurons are real: their mean is not that of all.

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
from jax import lax
from jax.ad_checkpoint import checkpoint_name as named
from jaxtyping import Array, Float, Float32, Int32, PyTree

from cbundles.arrays import Numbers
from cbundles.chance import FC_OUTER_WEIGHTS, FC_OUTPUT_WEIGHTS, FC_WEIGHTS, Stream, generator
from cbundles.networks.shape import FcShape

PLAIN = "plain-relu"
LAYER = "layer"  # a site: what a hidden layer passes on
NORM_EPSILON = 1e-5  # added to a variance: a sample that all neurons see alike stays finite


def exact_gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x times the normal distribution's function, not the usual approximation by tanh."""
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": exact_gelu,
    "leaky_relu": jax.nn.leaky_relu,  # of slope 0.01 below zero
}


class Norms(NamedTuple):
    """The learned scales and shifts of standardised layers, blocks as in `Params`."""

    first_scale: Float[Numbers, " width"]
    first_shift: Float[Numbers, " width"]
    scale: Float[Numbers, "blocks width"]
    shift: Float[Numbers, "blocks width"]


class Params(NamedTuple):
    """The weights of a network; of all blocks together, the second layer first."""

    first: Float[Numbers, "inputs width"]
    first_bias: Float[Numbers, " width"]
    hidden: Float[Numbers, "blocks width width"]
    hidden_bias: Float[Numbers, "blocks width"]
    last: Float[Numbers, "width outputs"]
    last_bias: Float[Numbers, " outputs"]
    outer: Float[Numbers, "blocks width width"] | tuple[()] = ()  # W2 of residual2
    norms: Norms | tuple[()] = ()


def init(shape: FcShape, seed: int, gain: float = 1.0) -> Params:
    """Initial weights as NumPy arrays: he_uniform, output glorot_uniform, all of them times `gain`;
    biases zero. What is standardised is neither scaled nor shifted.

    Drawn on the host layer by layer, so that a layer's weights depend on the seed and its position
    alone: not on the depth of the network, the device or the version of JAX.
    """

    def uniform(
        limit: float, size: tuple[int, int], stream: Stream, layer: int = 0
    ) -> Float32[np.ndarray, "inputs outputs"]:
        chance = generator(seed, stream, layer)
        drawn = (2 * chance.random(size, np.float32) - 1) * np.float32(limit)
        return (drawn * np.float32(gain)).astype(np.float32)

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
        norms=_initial_norms(shape) if shape.is_normalised else (),
    )


def _initial_norms(shape: FcShape) -> Norms:
    one, blocks = np.ones(shape.width, np.float32), (shape.depth - 1, shape.width)
    return Norms(one, 0 * one, np.ones(blocks, np.float32), np.zeros(blocks, np.float32))


def pad(params: Params, to: FcShape) -> Params:
    """Zeros up to the larger shape. Zero weights and their zero gradients stay zero in training."""
    blocks, width = to.depth - 1, to.width

    def grown(array: Float[Numbers, "..."], *size: int) -> Float[np.ndarray, "..."]:
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
        norms=jax.tree.map(
            lambda array: grown(array, *(blocks, width)[-array.ndim :]),  # of one layer, or of all
            params.norms,
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
        norms=jax.tree.map(
            lambda array: array[(slice(layers), slice(width))[-array.ndim :]], params.norms
        ),
    )


class LayerNorm(nn.Module):
    """Standardises a sample over its neurons, then scales and shifts each of them."""

    @nn.compact
    def __call__(
        self, z: Float[Array, "batch width"], real: Int32[Array, ""] | None
    ) -> Float[Array, "batch width"]:
        """real: of a network padded in width, how many neurons are real; None: all. Padding is zero
        before and, since its scale and shift are, after; it is left out of mean and variance."""
        scale = self.param("scale", nn.initializers.ones, z.shape[-1:])
        shift = self.param("shift", nn.initializers.zeros, z.shape[-1:])
        if real is None:
            centred = z - z.mean(-1, keepdims=True)
            variance = jnp.square(centred).mean(-1, keepdims=True)
        else:
            # Padding is zero, but a mean over it would have a gradient by it, and training would
            # then move it: hence the first mask.
            is_real, count = jnp.arange(z.shape[-1]) < real, real.astype(z.dtype)
            z = jnp.where(is_real, z, 0)
            centred = jnp.where(is_real, z - z.sum(-1, keepdims=True) / count, 0)
            variance = jnp.square(centred).sum(-1, keepdims=True) / count
        return centred * lax.rsqrt(variance + NORM_EPSILON) * scale + shift


class HiddenBlock(nn.Module):
    """One hidden layer after the first. block and normalisation: as in `FcShape`."""

    width: int
    block: str
    normalisation: str

    @nn.compact
    def __call__(
        self,
        a: Float[Array, "batch width"],
        number: Int32[Array, ""],
        depth: Int32[Array, ""] | None,
        width: Int32[Array, ""] | None,
    ) -> tuple[Float[Array, "batch width"], None]:
        kind, s = self.block.split("-")[0], activation_of(self.block)
        output = nn.Dense(self.width, name="inner")(a)
        if self.normalisation != "none":
            output = LayerNorm(name="norm")(output, width)
        output = s(output)
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
        self,
        x: Float[Array, "batch *pixels"],
        depth: Int32[Array, ""] | None = None,
        width: Int32[Array, ""] | None = None,
    ) -> Float[Array, "batch outputs"]:
        """Logits. depth: of a network padded in depth, how many layers are real; the others are the
        identity. width: of one padded in width that is normalised, how many neurons are real."""
        shape = self.shape
        x = x.reshape(len(x), -1)
        a = nn.Dense(shape.width, name="first")(x)
        if shape.is_normalised:
            a = LayerNorm(name="first_norm")(a, width)
        a = named(activation_of(shape.block)(a), LAYER)
        blocks = nn.scan(
            HiddenBlock,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=shape.depth - 1,
        )(shape.width, shape.block, shape.normalisation, name="hidden")
        numbers = jnp.arange(1, shape.depth, dtype=jnp.int32)
        a, _ = blocks(a, numbers, depth, width)
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
    if isinstance(params.norms, Norms):
        norms = params.norms
        tree["first_norm"] = {"scale": norms.first_scale, "shift": norms.first_shift}
        hidden["norm"] = {"scale": norms.scale, "shift": norms.shift}
    return {"params": tree}


def activation_of(block: str) -> Callable[[Array], Array]:
    """s of a kind of block."""
    return ACTIVATIONS[block.split("-")[1]]
