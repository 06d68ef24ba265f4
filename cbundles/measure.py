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


def layers(
    flat: jax.Array,
    depth: jax.Array | None,
    probe: Examples,
    scale: bundles.Scale,
    keys: jax.Array,
    *,
    shape: Shape,
    equality: bundles.Equality,
) -> bundles.Layer:
    """The bundles of all hidden layers on the probe set.

    scale: its amplitude is replaced by this network's largest absolute weight. Padding is zero, so
    it neither raises the amplitude nor tells two samples apart.
    """
    params = unraveler(shape)(flat)
    scale = scale._replace(amplitude=jnp.max(jnp.abs(flat)))

    def signatures(x: jax.Array) -> jax.Array:
        def visit(activations: jax.Array) -> jax.Array:
            return bundles.signature(activations, scale, keys, equality)

        return fc.visit_layers(params, x, visit, depth=depth)

    at_once = BATCH if equality.rule == "weight_amplitude" else len(probe.images)
    stacked = in_batches(probe.images, signatures, at_once)
    found = bundles.partition_layers(stacked, probe.labels, shape.outputs)
    return found._replace(finite=found.finite & jnp.isfinite(scale.amplitude))


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
def layers_program(shape: Shape, equality: bundles.Equality, *, masked: bool) -> Any:
    """`layers` of a population, compiled once per shape; bundle ids are not kept. Run it with
    `run_layers`."""

    def population(flat, depths, probe, scale, keys):  # type: ignore[no-untyped-def]
        one = functools.partial(layers, shape=shape, equality=equality)
        axes = (0, 0 if masked else None, None, None, None)
        found = jax.vmap(one, in_axes=axes)(flat, depths if masked else None, probe, scale, keys)
        return Layers(found.entropy, found.num_bundles, found.finite), jnp.any(found.collided)

    return jax.jit(population)


def run_layers(program: Any, shape: Shape, *arguments: Any) -> Layers:
    """Run a `layers_program`, compiled or not, on all its arguments but the keys; again with other
    keys should two hashes have collided."""
    for salt in range(bundles.MAX_SALTS):
        found, collided = program(*arguments, keys_for(shape, salt))
        if not collided:
            return Layers(*map(np.asarray, found))
    raise bundles.CollisionError()


def keys_for(shape: Shape, salt: int = 0) -> np.ndarray:
    """The keys with which the activations of such a network are hashed."""
    return bundles.draw_keys(shape.width, salt)
