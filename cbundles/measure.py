"""Measuring a population of networks: test accuracy, and the bundles of every layer.

Images pass through the network in batches, and of an activation only the signatures of its rows
remain: 16 bytes for each sample and layer, however wide the layers are. So all layers can be
measured over the whole training set.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cbundles import bundles
from cbundles.data import augment
from cbundles.data.device import Examples
from cbundles.models import fc
from cbundles.models.shape import Shape
from cbundles.train import unraveler

BATCH = 2048
LAYERS_AT_ONCE = 16


class Layers(NamedTuple):
    """Per hidden layer, (members, L): entropy, float32, nats; num_bundles, int32; finite, bool,
    False where an activation is NaN or infinite."""

    entropy: Any
    num_bundles: Any
    finite: Any


def accuracy(
    flat: jax.Array, depth: jax.Array | None, test: Examples, *, shape: Shape
) -> jax.Array:
    """The share of images that the network of these parameters (P,) classifies correctly."""
    params = unraveler(shape)(flat)

    def predict(x: jax.Array) -> jax.Array:
        return jnp.argmax(fc.forward(params, x, depth=depth), axis=1)

    predicted = in_batches(test.images, predict)
    return jnp.mean(predicted == test.labels, dtype=jnp.float32)


def signatures(
    flat: jax.Array,
    depth: jax.Array | None,
    images: jax.Array,
    scale: bundles.Scale,
    keys: jax.Array,
    *,
    shape: Shape,
    equality: bundles.Equality,
) -> jax.Array:
    """Signatures of all hidden layers, uint32 (L, 4, N).

    scale: its amplitude is replaced by this network's largest absolute weight. Padding is zero, so
    it neither raises the amplitude nor tells two samples apart.
    """
    params = unraveler(shape)(flat)
    scale = scale._replace(amplitude=jnp.max(jnp.abs(flat)))

    def batch(x: jax.Array) -> jax.Array:
        def visit(activations: jax.Array) -> jax.Array:
            return bundles.signature(activations, scale, keys, equality)

        return fc.visit_layers(params, x, visit, depth=depth)

    return in_batches(images, batch, BATCH if equality.streams else len(images))


def in_batches(
    images: jax.Array, evaluate: Callable[[jax.Array], jax.Array], at_once: int = BATCH
) -> jax.Array:
    """``evaluate(x)`` of all images, (..., N), where x is a batch, float32 (B, inputs), and the
    result (..., B). Batches are of one size; the last may overlap the one before it."""
    count = len(images)
    number = -(-count // at_once)
    size = -(-count // number)

    def at(start: jax.Array) -> jax.Array:
        batch = lax.dynamic_slice_in_dim(images, start, size)
        pixels = augment.to_float(batch) if batch.dtype == jnp.uint8 else batch
        return evaluate(pixels.reshape(size, -1))

    def one(results: jax.Array, start: jax.Array) -> tuple[jax.Array, None]:
        return lax.dynamic_update_slice_in_dim(results, at(start), start, axis=-1), None

    starts = jnp.minimum(jnp.arange(number) * size, count - size)
    like = jax.eval_shape(at, starts[0])
    results, _ = lax.scan(one, jnp.zeros((*like.shape[:-1], count), like.dtype), starts)
    return results


@functools.cache
def accuracy_program(shape: Shape, *, masked: bool) -> Any:
    """`accuracy` of a population, float32 (members,), compiled once per shape: (members, P)
    parameters, depths (members,) that count when `masked`, and the test set."""

    def population(flat, depths, test):  # type: ignore[no-untyped-def]
        one = functools.partial(accuracy, shape=shape)
        axes = (0, 0 if masked else None, None)
        return jax.vmap(one, in_axes=axes)(flat, depths if masked else None, test)

    return jax.jit(population)


@functools.cache
def signatures_program(shape: Shape, equality: bundles.Equality, *, masked: bool) -> Any:
    """`signatures` of a population, compiled once per shape. All layers of all members in a row,
    cut into pieces of `LAYERS_AT_ONCE`, (LAYERS_AT_ONCE, 4, N), the last one filled up."""

    def population(flat, depths, images, scale, keys):  # type: ignore[no-untyped-def]
        one = functools.partial(signatures, shape=shape, equality=equality)
        axes = (0, 0 if masked else None, None, None, None)
        found = jax.vmap(one, in_axes=axes)(flat, depths if masked else None, images, scale, keys)
        found = found.reshape(-1, *found.shape[2:])
        pieces = -(-len(found) // LAYERS_AT_ONCE)
        filled = jnp.pad(found, ((0, pieces * LAYERS_AT_ONCE - len(found)), (0, 0), (0, 0)))
        return jnp.split(filled, pieces)

    return jax.jit(population)


@functools.cache
def partition_program(samples: int, num_classes: int) -> Any:
    """Compiled `bundles.partition_layers` of one piece; bundle ids are not kept.

    Kept apart from `signatures_program` because it is the same for networks of every shape: it took
    a third of the time of compiling for each of them.
    """

    def piece(signatures, labels):  # type: ignore[no-untyped-def]
        found = bundles.partition_layers(signatures, labels, num_classes)
        return Layers(found.entropy, found.num_bundles, found.finite), found.collided

    shapes = (
        jax.ShapeDtypeStruct((LAYERS_AT_ONCE, 4, samples), jnp.uint32),
        jax.ShapeDtypeStruct((samples,), jnp.int32),
    )
    return jax.jit(piece).lower(*shapes).compile()


def layers(
    program: Any,
    shape: Shape,
    flat: jax.Array,
    depths: jax.Array | None,
    probe: Examples,
    scale: bundles.Scale,
) -> Layers:
    """The bundles of all hidden layers of a population. program: its `signatures_program`, compiled
    or not. Layers in which two sort keys collided are measured again with other keys."""
    partition = partition_program(len(probe.labels), shape.outputs)
    count, found, unsure = len(flat) * shape.depth, None, None
    for salt in range(bundles.MAX_SALTS):
        pieces = program(flat, depths, probe.images, scale, keys_for(shape, salt))
        results = [partition(piece, probe.labels) for piece in pieces]
        joined = jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *results)
        if found is None:
            found, unsure = joined
        else:
            found = jax.tree.map(functools.partial(np.where, unsure), joined[0], found)
            unsure = unsure & joined[1]
        if not unsure.any():
            return Layers(*(values.reshape(len(flat), shape.depth) for values in found))
    raise bundles.CollisionError()


def keys_for(shape: Shape, salt: int = 0) -> np.ndarray:
    """The keys with which the activations of such a network are hashed."""
    return bundles.draw_keys(shape.width, salt)
