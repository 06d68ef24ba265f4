"""Inserting layers into fully connected networks without changing what they compute (third work).

A *virtual* block computes the identity. The gradient G of the loss by its weights says how much a
real layer would help there; its closed form needs only the activations h at that place and the
gradient delta of the loss by them, so one backward pass serves all places:

    block                       identity                   G, in the layout of `fc.Params`
    plain-relu                  W = I, b = 0               sum over samples of h (1[h > 0] delta)^T
    residual2, zero = outer     W = 0.8 I, b = 0, W2 = 0   ... of s(0.8 h) delta^T
    residual2, zero = inner     W = 0, b = 0, W2 = 0.8 I   ... of 0.8 s'(0) h delta^T
    residual1                   W = 0, b = 0               ... of s'(0) h delta^T

Position p is before block p, counted from 0; the last one is after the last block. A network of
`depth` layers has `depth` positions and becomes one of depth + 1 layers.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float32, Int32, PyTree

from cbundles.arrays import Numbers
from cbundles.networks import fc, network, watched
from cbundles.networks.network import Network
from cbundles.networks.shape import FcShape

HALF = 0.8  # the weight of the half of a two-weight block that is not zero
OUTER = "outer"


class Scores(NamedTuple):
    """Squared Frobenius norms of gradients of the loss.

    virtual: by the weights of a virtual block at each position.
    existing: by the weights of the first layer, of each block (those that `virtual` speaks of), of
    the last layer. Padding has zeros.
    """

    virtual: Float32[Numbers, "*members positions"]
    existing: Float32[Numbers, "*members layers"]


# Weights, biases and outer weights of all blocks of a network.
Blocks = tuple[
    Float32[Numbers, "blocks width width"],
    Float32[Numbers, "blocks width"],
    Float32[Numbers, "blocks width width"] | tuple[()],
]


def virtual_gradient(
    block: str,
    zero: str,
    h: Float32[Array, "*positions batch width"],
    delta: Float32[Array, "*positions batch width"],
) -> Float32[Array, "*positions width width"]:
    """G, of activations h and gradients delta."""
    kind, s = block.split("-")[0], fc.activation_of(block)
    if kind == "plain":
        return _outer(h, jnp.where(h > 0, delta, 0))
    if kind == "residual2" and zero == OUTER:
        return _outer(s(HALF * h), delta)
    slope = jax.grad(s)(0.0)
    return _outer(h, delta) * (slope if kind == "residual1" else HALF * slope)


def _outer(
    a: Float32[Array, "*positions batch width"], b: Float32[Array, "*positions batch width"]
) -> Float32[Array, "*positions width width"]:
    return jnp.swapaxes(a, -1, -2) @ b


def gradients(
    shape: FcShape,
    subject: Network,
    x: Float32[Array, "batch *pixels"],
    y: Int32[Array, " batch"],
    zero: str,
) -> tuple[Float32[Array, "positions width width"], fc.Params]:
    """G of every position, and the gradient by the parameters, of the mean cross-entropy of a batch
    x with classes y."""
    by_params, behind = watched.slopes(shape, subject, x, y)
    h, delta = (jnp.stack(arrays) for arrays in zip(*behind, strict=True))
    gradient = network.views(shape)[0](by_params)
    return virtual_gradient(shape.block, zero, h, delta), gradient


def scores(
    shape: FcShape,
    subject: Network,
    x: Float32[Array, "batches batch *pixels"],
    y: Int32[Array, "batches batch"],
    zero: str,
) -> Scores:
    """Sensitivities of all positions: gradients are averaged over the batches first, then
    squared."""

    def add(
        total: PyTree, batch: tuple[Float32[Array, "batch *pixels"], Int32[Array, " batch"]]
    ) -> tuple[PyTree, None]:
        found = gradients(shape, subject, *batch, zero)
        return jax.tree.map(lambda a, b: a + b / len(x), total, found), None

    like = jax.eval_shape(lambda: gradients(shape, subject, x[0], y[0], zero))
    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
    (virtual, mean), _ = lax.scan(add, nothing, (x, y))
    blocks = mean.hidden
    if zero == OUTER and not isinstance(mean.outer, tuple):
        blocks = mean.outer
    ends = [jnp.square(end).sum()[None] for end in (mean.first, mean.last)]
    existing = jnp.concatenate([ends[0], jnp.square(blocks).sum((1, 2)), ends[1]])
    return Scores(jnp.square(virtual).sum((1, 2)), existing)


def insert(
    shape: FcShape,
    flat: Float32[Array, " params"],
    position: Int32[Array, ""],
    zero: str,
    *,
    virtual: bool,
) -> Float32[Array, " params"]:
    """Parameters with a block more at a position; the last block, which must be padding, is lost.
    virtual: the block is the identity; otherwise all zeros, as for what an optimizer keeps of each
    weight. A negative position leaves everything as it is."""
    view = network.views(shape)[0]
    params, number = view(flat), jnp.arange(shape.depth - 1)
    source = jnp.where(number <= position, number, number - 1)
    fill = _identity(shape, zero) if virtual else jax.tree.map(jnp.zeros_like, _blocks_of(params))

    def moved(
        array: Float32[Array, "blocks *block"], new: Float32[Numbers, "..."]
    ) -> Float32[Array, "blocks *block"]:
        here = (number == position).reshape(-1, *[1] * (array.ndim - 1))
        return jnp.where(position < 0, array, jnp.where(here, new, array[source]))

    return _with_blocks(params, jax.tree.map(moved, _blocks_of(params), fill))


def truncate(
    shape: FcShape, flat: Float32[Array, " params"], depth: Int32[Array, ""]
) -> Float32[Array, " params"]:
    """Parameters of which only the first `depth` layers, and the last, are left."""
    params, number = network.views(shape)[0](flat), jnp.arange(1, shape.depth)

    def kept(array: Float32[Array, "blocks *block"]) -> Float32[Array, "blocks *block"]:
        return jnp.where((number < depth).reshape(-1, *[1] * (array.ndim - 1)), array, 0)

    return _with_blocks(params, jax.tree.map(kept, _blocks_of(params)))


def resize(
    shape: FcShape, flat: Float32[Array, " params"], to: FcShape
) -> Float32[Array, " new_params"]:
    """Parameters of a network with more, or less, padding in depth."""
    params, blocks = network.views(shape)[0](flat), to.depth - 1

    def fit(array: Float32[Array, "blocks *block"]) -> Float32[Array, "new_blocks *block"]:
        missing = max(0, blocks - len(array))
        return jnp.pad(array[:blocks], [(0, missing), *[(0, 0)] * (array.ndim - 1)])

    return _with_blocks(params, jax.tree.map(fit, _blocks_of(params)))


def _blocks_of(params: fc.Params) -> Blocks:
    return params.hidden, params.hidden_bias, params.outer


def _with_blocks(params: fc.Params, blocks: Blocks) -> Float32[Array, " params"]:
    hidden, bias, outer = blocks
    return ravel_pytree(params._replace(hidden=hidden, hidden_bias=bias, outer=outer))[0]


@functools.cache
def _identity(
    shape: FcShape, zero: str
) -> tuple[
    Float32[np.ndarray, "width width"],
    Float32[np.ndarray, " width"],
    Float32[np.ndarray, "width width"] | tuple[()],
]:
    """Weights, bias and outer weights of a virtual block."""
    one, none = np.eye(shape.width, dtype=np.float32), np.zeros([shape.width] * 2, np.float32)
    bias = none[0]
    if shape.block == fc.PLAIN:
        return one, bias, ()
    if shape.weights == 1:
        return none, bias, ()
    half = np.float32(HALF) * one
    return (half, bias, none) if zero == OUTER else (none, bias, half)
