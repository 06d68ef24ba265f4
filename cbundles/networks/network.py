"""One face for all families: a network is a flat vector of parameters and one of statistics.

Training, measuring and checkpoints see only this; what the numbers mean is up to `fc` and `conv`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from cbundles.networks import conv, fc
from cbundles.networks.shape import ConvShape, FcShape, Shape
from cbundles.readings import ALL

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


def amplitude(shape: Shape, params: jax.Array, over: str) -> jax.Array:
    """w, the largest absolute weight of a network, float32 (). params: float32 (P,). over: whether
    that is `readings.ALL` of them, or `readings.HIDDEN` ones, which is what the paper's revision
    takes: of a fully connected network all but the output layer, of a VGG or ResNet all but the
    normalisation of the stem. Padding is zero, so it does not raise it."""
    if over == ALL:
        return jnp.max(jnp.abs(params))
    tree = views(shape)[0](params)
    if isinstance(shape, ConvShape):
        stem = tree.stem._replace(gamma=(), beta=())
        tree = tree._replace(stem=stem)
    else:
        tree = tree._replace(last=(), last_bias=())
    largest = [jnp.max(jnp.abs(leaf), initial=0.0) for leaf in jax.tree.leaves(tree)]
    return jnp.max(jnp.stack(largest))


def module_of(shape: Shape, norm: str = conv.RUNNING) -> nn.Module:
    """The network as a Flax module. norm: one of `conv.NORMS`; fully connected ones have none."""
    if isinstance(shape, ConvShape):
        return conv.ConvNet(shape, norm)
    return fc.FullyConnected(shape)


def variables_of(shape: Shape, network: Network) -> dict[str, Any]:
    """The numbers of a network as the variables of its module."""
    of_params, of_statistics = views(shape)
    params = of_params(network.params)
    if isinstance(shape, ConvShape):
        return conv.variables(shape, params, of_statistics(network.statistics))
    return fc.variables(params)


def logits(shape: Shape, network: Network, x: jax.Array, norm: str = conv.RUNNING) -> jax.Array:
    """Logits (B, outputs) of images, float32 (B, H, W, C), when no statistics are kept."""
    module, variables = module_of(shape, norm), variables_of(shape, network)
    arguments = (x,) if isinstance(shape, ConvShape) else (x, network.depth)
    return cast(jax.Array, module.apply(variables, *arguments))


def moving_logits(
    shape: Shape, network: Network, x: jax.Array, norm: str = conv.TRAIN
) -> tuple[jax.Array, jax.Array]:
    """Logits (B, outputs) of a batch, float32 (B, H, W, C), and the statistics (S,) after it."""
    if not isinstance(shape, ConvShape):
        return logits(shape, network, x), network.statistics
    module, variables = module_of(shape, norm), variables_of(shape, network)
    found, moved = module.apply(variables, x, mutable=["batch_stats"])
    like = views(shape)[1](network.statistics)
    now = conv.statistics_of(shape, moved["batch_stats"], like)
    return found, ravel_pytree(now)[0]


def recalibrated(shape: ConvShape, network: Network, x: jax.Array) -> Network:
    """The network with the statistics of images, float32 (B, H, W, C), instead of its own."""
    return network._replace(statistics=moving_logits(shape, network, x, conv.RESET)[1])
