"""Inserting layers into a VGG or ResNet, and what a layer would be worth before it is there.

A new layer is virtual: it leaves the function as it is. Behind any block, where activations are not
negative, relu(conv3x3(h)) with a Dirac kernel is that, and its gradient says how much a real layer
there would help. It follows from h and from the gradient of what comes after it, so that one
backward pass scores all places, and no larger network is built.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, Int32, PyTree

from cbundles.arrays import Numbers
from cbundles.networks import conv, lowering, watched
from cbundles.networks.insertion import Scores
from cbundles.networks.network import Network, flat, views
from cbundles.networks.shape import ConvShape

Kernels = tuple[Float32[Numbers, "_ _ _ _"], ...]


def gradients(
    shape: ConvShape,
    network: Network,
    x: Float32[Array, "batch height width channels"],
    y: Int32[Array, " batch"],
) -> tuple[tuple[Float32[Array, "3 3 _ _"], ...], Kernels]:
    """Gradients of a batch's mean softmax cross-entropy by kernels, normalised as in training.

    First by that of a virtual layer behind every block and what has been inserted there; then by
    those that exist: stem, blocks (two each, the skip's after them), inserted layers. Sensitivities
    are squared norms of their means over batches: to be averaged first.
    """
    by_params, behind = watched.slopes(shape, network, x, y, conv.TRAIN)
    virtual = tuple(virtual_gradient(h, delta) for h, delta in behind)
    return virtual, _kernels(views(shape)[0](by_params))


def scores(
    shape: ConvShape,
    network: Network,
    x: Float32[Array, "batches batch height width channels"],
    y: Int32[Array, "batches batch"],
) -> Scores:
    """Sensitivities of all positions, and of all kernels that exist: gradients are averaged over
    the batches first, then squared."""

    def add(total: PyTree, batch: tuple[Array, Array]) -> tuple[PyTree, None]:
        found = gradients(shape, network, *batch)
        return jax.tree.map(lambda a, b: a + b / len(x), total, found), None

    like = jax.eval_shape(lambda: gradients(shape, network, x[0], y[0]))
    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
    means, _ = lax.scan(add, nothing, (x, y))
    return Scores(*(jnp.stack([jnp.square(g).sum() for g in part]) for part in means))


def sizes(shape: ConvShape) -> tuple[list[int], list[int]]:
    """Weights of a virtual layer's kernel at each position, and of each kernel that exists, in the
    order of `scores`."""
    kernels = jax.eval_shape(lambda: _kernels(views(shape)[0](jnp.zeros(shape.parameters))))
    return [9 * place[2] ** 2 for place in shape.places], [kernel.size for kernel in kernels]


def virtual_gradient(
    h: Float[Array, "batch height width filters"], delta: Float[Array, "batch height width filters"]
) -> Float[Array, "3 3 filters filters"]:
    """The gradient by the kernel of a virtual layer.

    h: its input, not negative; delta: the gradient by its output, which is h. As in `jax.nn.relu`
    the slope at 0 is 0.
    """
    return kernel_gradient(h, jnp.where(h > 0, delta, 0))


def kernel_gradient(
    h: Float[Array, "batch height width filters"], delta: Float[Array, "batch height width filters"]
) -> Float[Array, "3 3 filters filters"]:
    """The gradient by the kernel of a convolution of h, of which delta is the gradient by the
    output."""
    d = h.shape[-1]
    somewhere = jnp.zeros((3, 3, d, d), h.dtype)  # linear in the kernel: the same gradient anywhere
    _, back = jax.vjp(lambda kernel: lowering.convolve(h, kernel, 1), somewhere)
    return back(delta)[0]


def _kernels(params: conv.Params) -> Kernels:
    """Every convolution's kernel."""
    found = [params.stem.kernel]
    for stage in params.stages:
        found += [unit.kernel for unit in stage.first]
        stacks = [unit.kernel for unit in stage.rest]
        found += [kernel for block in zip(*stacks, strict=True) for kernel in block]
    return (*found, *(layer.kernel for layer in params.inserted))


def grown(shape: ConvShape, block: int) -> ConvShape:
    """The shape with one more layer inserted after a block, numbered from 0."""
    return dataclasses.replace(shape, inserted=tuple(sorted((*shape.inserted, block))))


def insert(
    shape: ConvShape, flat_params: Float32[Numbers, " params"], block: int, *, virtual: bool
) -> Float32[np.ndarray, " new_params"]:
    """The vector with a layer after a block and what has been inserted there before, for the shape
    `grown`. virtual: the layer passes everything on; otherwise it is zero, for vectors that belong
    to the parameters, such as an optimizer's moments."""
    tree = views(shape)[0](np.asarray(flat_params))
    layer = conv.virtual(shape.places[block][2])
    layers = list(tree.inserted)
    new = layer if virtual else jax.tree.map(np.zeros_like, layer)
    layers.insert(bisect_right(shape.inserted, block), new)
    return flat(tree._replace(inserted=tuple(layers)))
