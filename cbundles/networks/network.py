"""One face for all families: a network is a flat vector of parameters and one of statistics.

Training, measuring and checkpoints see only this; what the numbers mean is up to `fc`, `conv` and
`own`, each of which provides initial numbers, their order in the vectors, and a Flax module.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Float32, Int32, PyTree, Shaped

from cbundles.arrays import Numbers
from cbundles.networks import conv, fc, own
from cbundles.networks.shape import ConvShape, FcShape, OwnShape, Shape
from cbundles.readings import ALL

View = Callable[[Float[Numbers, " numbers"]], PyTree]


class Network(NamedTuple):
    """The numbers of a network, or of the members of a population.

    params: those that are trained.
    statistics: of batch normalisation, empty for fully connected networks.
    depth: how many layers of a network padded in depth are real.
    width: how many neurons of one padded in width are, where the network has to know it (`fc`).
    """

    params: Float[Numbers, "*members params"]
    statistics: Float[Numbers, "*members statistics"]
    depth: Int32[Numbers, "*members"] | None = None
    width: Int32[Numbers, "*members"] | None = None


def initial(shape: Shape, seed: int, padded_to: Shape, gain: float = 1.0) -> Network:
    """Initial weights of a network, perhaps inside a larger one, as NumPy arrays. gain: times all
    kernels, but for those of a user's architecture."""
    if isinstance(shape, OwnShape):
        params, statistics = own.split(_architecture_of(shape).drawn(seed, shape.image))
        return Network(flat(params), flat(statistics))
    if isinstance(shape, ConvShape):
        return Network(*map(flat, conv.init(shape, seed, gain)))
    assert isinstance(padded_to, FcShape)
    params = fc.pad(fc.init(shape, seed, gain), padded_to)
    return Network(flat(params), np.zeros(0, np.float32))


def flat(tree: PyTree) -> Float[np.ndarray, " numbers"]:
    """The vector of a tree of NumPy arrays, in the order of `views`; empty without any."""
    leaves = [np.zeros(0, np.float32), *(leaf.ravel() for leaf in jax.tree.leaves(tree))]
    return np.concatenate(leaves)


def unpadded(shape: Shape, padded_to: Shape, one: Network) -> Network:
    """A network without its padding, as NumPy arrays."""
    params = np.asarray(one.params)
    if isinstance(shape, FcShape):
        params = flat(fc.cut(views(padded_to)[0](params), shape))
    return Network(params, np.asarray(one.statistics))


@functools.cache
def views(shape: Shape) -> tuple[View, View]:
    """The functions that view flat vectors as the parameters and the statistics of a network."""
    if isinstance(shape, OwnShape):
        variables = own.shapes_of_variables(_architecture_of(shape), shape.image)
        params, statistics = own.split(variables)
        return _view(params), _view(statistics)
    if isinstance(shape, ConvShape):
        params, statistics = conv.init(shape, seed=0)
        return _view(params), _view(statistics)
    one = fc.init(dataclasses.replace(shape, inputs=1, depth=1, width=1, outputs=1), seed=0)
    return _view(fc.pad(one, to=shape)), lambda none: none


def _view(like: PyTree) -> View:
    """Views a vector as a tree like this one; one of NumPy without compiling anything."""
    leaves, kind = jax.tree.flatten(like)
    if not leaves:
        return lambda none: like
    shapes = [leaf.shape for leaf in leaves]
    *ends, total = itertools.accumulate(leaf.size for leaf in leaves)

    def view(vector: Float[Numbers, " numbers"]) -> PyTree:
        if vector.shape != (total,):
            raise ValueError(f"{vector.shape[0]} numbers for a network that has {total}")
        library: ModuleType = np if isinstance(vector, np.ndarray) else jnp
        parts = zip(library.split(vector, ends), shapes, strict=True)
        return jax.tree.unflatten(kind, [part.reshape(shape) for part, shape in parts])

    return view


def amplitude(shape: Shape, params: Float32[Numbers, " params"], over: str) -> Float32[Array, ""]:
    """w, the largest absolute weight of a network.

    over: whether that is `readings.ALL` of them, or `readings.HIDDEN` ones, which is what the
    paper's revision takes: of a fully connected network all but the output layer, of a VGG or
    ResNet all but the normalisation of the stem; of a user's architecture always all. Padding is
    zero, so it does not raise it.
    """
    if over == ALL or isinstance(shape, OwnShape):
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
    if isinstance(shape, OwnShape):
        return _architecture_of(shape).module  # which is told by its own call
    if isinstance(shape, ConvShape):
        return conv.ConvNet(shape, norm)
    return fc.FullyConnected(shape)


def variables_of(shape: Shape, network: Network) -> dict[str, PyTree]:
    """The numbers of a network as the variables of its module."""
    of_params, of_statistics = views(shape)
    params = of_params(network.params)
    if isinstance(shape, OwnShape):
        return own.joined(params, of_statistics(network.statistics))
    if isinstance(shape, ConvShape):
        return conv.variables(shape, params, of_statistics(network.statistics))
    return fc.variables(params)


def logits(
    shape: Shape, network: Network, x: Float[Array, "batch *pixels"], norm: str = conv.RUNNING
) -> Float[Array, "batch outputs"]:
    """Logits of images, when no statistics are kept."""
    if isinstance(shape, OwnShape):
        architecture, variables = _architecture_of(shape), variables_of(shape, network)
        if norm == conv.RUNNING:
            return architecture.logits(variables, x)
        return architecture.logits_in_training(variables, x)[0]
    module, variables = module_of(shape, norm), variables_of(shape, network)
    padding = () if isinstance(shape, ConvShape) else (network.depth, network.width)
    return cast(Array, module.apply(variables, x, *padding))


def moving_logits(
    shape: Shape, network: Network, x: Float[Array, "batch *pixels"], norm: str = conv.TRAIN
) -> tuple[Float[Array, "batch outputs"], Float[Numbers, " statistics"]]:
    """Logits of a batch of images, and the statistics after it. norm: not of a user's architecture,
    which knows training alone."""
    if isinstance(shape, OwnShape):
        architecture, variables = _architecture_of(shape), variables_of(shape, network)
        found, kept = architecture.logits_in_training(variables, x)
        return found, ravel_pytree(kept)[0]
    if not isinstance(shape, ConvShape):
        return logits(shape, network, x), network.statistics
    module, variables = module_of(shape, norm), variables_of(shape, network)
    found, moved = module.apply(variables, x, mutable=["batch_stats"])
    like = views(shape)[1](network.statistics)
    now = conv.statistics_of(shape, moved["batch_stats"], like)
    return found, ravel_pytree(now)[0]


def layers_seen(
    shape: OwnShape,
    network: Network,
    x: Float[Array, "batch *pixels"],
    see: Callable[[Array], Array],
    norm: str,
) -> Shaped[Array, "layers ..."]:
    """What is seen at every layer of a user's architecture, stacked."""
    return own.see_layers(
        _architecture_of(shape),
        shape.sites,
        variables_of(shape, network),
        x,
        see,
        by_batch=norm != conv.RUNNING,
    )


def _architecture_of(shape: OwnShape) -> own.Architecture:
    return own.architecture_of(own.Named(shape.build, shape.source, shape.keywords))


def recalibrated(
    shape: ConvShape, network: Network, x: Float32[Array, "batch height width channels"]
) -> Network:
    """The network with the statistics of images instead of its own."""
    return network._replace(statistics=moving_logits(shape, network, x, conv.RESET)[1])
