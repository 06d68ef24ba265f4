"""One face for all families: a network is a flat vector of parameters and one of statistics.

Training, measuring and checkpoints see only this; what the numbers mean is up to `fc` and `conv`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from cbundles.models import conv, fc
from cbundles.models.shape import ConvShape, FcShape, Shape

View = Callable[[Any], Any]


class Network(NamedTuple):
    """params: float32 (P,), trainable; statistics: float32 (S,), of batch normalisation, empty for
    fully connected networks; depth: int32, how many layers of a network padded in depth are real,
    or None. In a population every array has a leading member axis."""

    params: Any
    statistics: Any
    depth: Any = None


def initial(own: Shape, seed: int, padded_to: Shape) -> Network:
    """Initial weights of a network, perhaps inside a larger one, as NumPy arrays."""
    if isinstance(own, ConvShape):
        return Network(*map(flat, conv.init(own, seed)))
    assert isinstance(padded_to, FcShape)
    params = fc.pad(fc.init(own, seed), padded_to)
    return Network(flat(params), np.zeros(0, np.float32))


def flat(tree: Any) -> np.ndarray:
    """The vector of a tree of NumPy arrays, in the order of `views`; empty without any."""
    leaves = [np.zeros(0, np.float32), *(leaf.ravel() for leaf in jax.tree.leaves(tree))]
    return np.concatenate(leaves)


def own(shape: Shape, padded_to: Shape, one: Network) -> Network:
    """A network without its padding, as NumPy arrays."""
    params = np.asarray(one.params)
    if isinstance(shape, FcShape):
        params = flat(fc.cut(views(padded_to)[0](params), shape))
    return Network(params, np.asarray(one.statistics))


@functools.cache
def views(shape: Shape) -> tuple[View, View]:
    """The functions that view flat vectors as the parameters and the statistics of a network."""
    if isinstance(shape, ConvShape):
        params, statistics = conv.init(shape, seed=0)
        return _view(params), _view(statistics)
    one = fc.init(FcShape(1, 1, 1, 1, shape.block), seed=0)
    return _view(fc.pad(one, to=shape)), lambda none: none


def _view(like: Any) -> View:
    """Views a vector as a tree like this one; one of NumPy without compiling anything."""
    leaves, kind = jax.tree.flatten(like)
    shapes = [leaf.shape for leaf in leaves]
    *ends, total = itertools.accumulate(leaf.size for leaf in leaves)

    def view(vector: Any) -> Any:
        if vector.shape != (total,):
            raise ValueError(f"{vector.shape[0]} numbers for a network that has {total}")
        library: Any = np if isinstance(vector, np.ndarray) else jnp
        parts = zip(library.split(vector, ends), shapes, strict=True)
        return jax.tree.unflatten(kind, [part.reshape(shape) for part, shape in parts])

    return view


def training_logits(shape: Shape, network: Network, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits (B, outputs) of a batch, float32 (B, H, W, C), and the statistics after it."""
    params, statistics = views(shape)
    if isinstance(shape, ConvShape):
        logits, now, _ = conv.forward(
            params(network.params),
            statistics(network.statistics),
            x,
            residual=shape.residual,
            norm=conv.TRAIN,
            inserted=shape.inserted,
        )
        return logits, ravel_pytree(now)[0]
    flat = x.reshape(len(x), -1)
    own = params(network.params)
    return fc.forward(own, flat, depth=network.depth, block=shape.block), network.statistics


def logits(
    shape: Shape, network: Network, x: jax.Array, keep: jax.Array | None = None
) -> jax.Array:
    """Logits (B, outputs) of images, float32 (B, H, W, C), when nothing is trained. keep: which
    blocks of a ResNet, see `conv.forward`."""
    params, statistics = views(shape)
    if isinstance(shape, ConvShape):
        return conv.forward(
            params(network.params),
            statistics(network.statistics),
            x,
            residual=shape.residual,
            norm=conv.RUNNING,
            keep=keep,
            inserted=shape.inserted,
        )[0]
    flat = x.reshape(len(x), -1)
    return fc.forward(params(network.params), flat, depth=network.depth, block=shape.block)


def recalibrated(shape: ConvShape, network: Network, x: jax.Array) -> Network:
    """The network with the statistics of images, float32 (B, H, W, C), instead of its own."""
    params, statistics = (view(flat) for view, flat in zip(views(shape), network, strict=False))
    _, now, _ = conv.forward(
        params,
        statistics,
        x,
        residual=shape.residual,
        norm=conv.RESET,
        inserted=shape.inserted,
    )
    return network._replace(statistics=ravel_pytree(now)[0])


def visit(
    shape: Shape, network: Network, x: jax.Array, see: Callable[[jax.Array], Any], norm: str
) -> Any:
    """``see(a)`` of every measured activation, stacked, (shape.monitored, ...): the outputs of
    layers or blocks, then the scaled branches of a ResNet. norm: see `conv.forward`."""
    params, statistics = views(shape)
    if isinstance(shape, ConvShape):

        def see_block(block: conv.Block) -> list[Any]:
            branches = [see(block.branch * block.scale)] if block.branch is not None else []
            return [see(block.output), *branches]

        _, _, seen = conv.forward(
            params(network.params),
            statistics(network.statistics),
            x,
            residual=shape.residual,
            norm=norm,
            visit=see_block,
            inserted=shape.inserted,
        )
        return jnp.concatenate(seen)
    flat = x.reshape(len(x), -1)
    own = params(network.params)
    return fc.visit_layers(own, flat, see, depth=network.depth, block=shape.block)
