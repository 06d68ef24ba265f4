"""Layers inserted into networks in training, or taken away: weights, and what an optimizer keeps.

Fully connected networks are padded to one depth, so that networks of different depth, and the same
network before and after an insertion, share one program, of which the position is an argument. A
VGG or ResNet is not padded: a layer makes it another shape, which is compiled anew.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Wrapped
from jaxtyping import Array, Float32, Int32, PyTree

from cbundles.networks import conv_insertion, insertion
from cbundles.networks.network import Network
from cbundles.networks.shape import ConvShape, FcShape, Shape
from cbundles.train import TrainState


@functools.cache
def scores_program(shape: FcShape | ConvShape, zero: str) -> Wrapped:
    """Compiled `insertion.Scores` of a population on batches of images and labels."""

    def one(
        subject: Network,
        x: Float32[Array, "batches batch *pixels"],
        y: Int32[Array, "batches batch"],
    ) -> insertion.Scores:
        if isinstance(shape, ConvShape):
            return conv_insertion.scores(shape, subject, x, y)
        return insertion.scores(shape, subject, x, y, zero)

    return jax.jit(jax.vmap(one, in_axes=(0, None, None)))


def weights_scored(shape: FcShape | ConvShape) -> tuple[list[int], list[int]]:
    """How many weights belong to each of the scores, in their order."""
    if isinstance(shape, ConvShape):
        return conv_insertion.sizes(shape)
    block = shape.width**2
    blocks = [block] * (shape.depth - 1)
    return [block] * shape.depth, [
        shape.inputs * shape.width,
        *blocks,
        shape.width * shape.outputs,
    ]


@functools.cache
def insert_program(shape: FcShape, zero: str) -> Wrapped:
    """Compiled: states of a population in which a layer follows each position; nothing changes
    where that is negative. New layers compute the identity; what the optimizer keeps of their
    weights is zero, of all others it stays."""

    def one(state: TrainState, position: Int32[Array, ""]) -> TrainState:
        def with_layer(vector: Array, *, virtual: bool) -> Array:
            return insertion.insert(shape, vector, position, zero, virtual=virtual)

        return _edited(state, with_layer)

    return jax.jit(jax.vmap(one))


def with_conv_layer(
    shape: ConvShape, state: TrainState, block: int
) -> tuple[ConvShape, TrainState]:
    """A population of one VGG or ResNet, with a layer inserted after a block."""

    def with_layer(vector: Array, *, virtual: bool) -> Array:
        longer = conv_insertion.insert(shape, vector[0], block, virtual=virtual)
        return jnp.asarray(longer[None])

    return conv_insertion.grown(shape, block), _edited(state, with_layer)


def _edited(state: TrainState, edit: Callable[..., Array]) -> TrainState:
    """A state in which all vectors of parameters, and those that belong to them, are edited."""
    size = state.params.fast.shape

    def of_parameters(tree: PyTree, *, virtual: bool) -> PyTree:
        return jax.tree.map(
            lambda leaf: edit(leaf, virtual=virtual) if leaf.shape == size else leaf, tree
        )

    return TrainState(
        of_parameters(state.params, virtual=True),
        of_parameters(state.opt_state, virtual=False),
        state.statistics,
    )


@functools.cache
def truncate_program(shape: FcShape) -> Wrapped:
    """Compiled: states of a population of which the first layers are left, so many of each."""

    def one(state: TrainState, depth: Int32[Array, ""]) -> TrainState:
        def without_layers(vector: Array, *, virtual: bool) -> Array:
            return insertion.truncate(shape, vector, depth)

        return _edited(state, without_layers)

    return jax.jit(jax.vmap(one))


def padded_state(state: TrainState, have: Shape, want: Shape) -> TrainState:
    """The same fully connected networks, a population, with other padding in depth."""
    if have == want:
        return state
    assert isinstance(have, FcShape)
    assert isinstance(want, FcShape)
    size = state.params.fast.shape
    fit = jax.vmap(functools.partial(insertion.resize, have, to=want))
    return jax.tree.map(lambda leaf: fit(leaf) if leaf.shape == size else leaf, state)


def chosen_members(which: np.ndarray, yes: PyTree, no: PyTree) -> PyTree:
    """Members of `yes` where which, bool (members,), is true, of `no` elsewhere."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(jnp.reshape(which, (-1, *[1] * (a.ndim - 1))), a, b)

    return jax.tree.map(pick, yes, no)
