"""Measuring a population of networks: test accuracy, and the bundles of every layer."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cbundles import bundles
from cbundles.models import fc
from cbundles.models.shape import Shape
from cbundles.train import unraveler


class Measurement(NamedTuple):
    """accuracy: float32 (members,). Per hidden layer, (members, L): entropy, float32, nats;
    num_bundles, int32; finite, bool, False where an activation is NaN or infinite."""

    accuracy: Any
    entropy: Any
    num_bundles: Any
    finite: Any


def network(
    flat: jax.Array,
    depth: jax.Array | None,
    test: tuple[jax.Array, jax.Array],
    probe: tuple[jax.Array, jax.Array],
    scale: bundles.Resolution,
    salt: jax.Array,
    *,
    shape: Shape,
) -> tuple[jax.Array, bundles.Layer]:
    """Accuracy on the whole test set and the bundles of all layers on the probe set.

    test, probe: images float32 (N, inputs) and labels int32 (N,). scale: the resolution, in which
    the amplitude is replaced by this network's largest absolute weight. Padding is zero, so it
    neither raises the amplitude nor tells two samples apart.
    """
    params = unraveler(shape)(flat)
    resolution = scale._replace(amplitude=jnp.max(jnp.abs(flat)))
    logits = fc.forward(params, test[0], depth=depth)
    accuracy = jnp.mean(jnp.argmax(logits, axis=1) == test[1], dtype=jnp.float32)

    def visit(activations: jax.Array) -> bundles.Layer:
        return bundles.layer_bundles(activations, probe[1], resolution, salt)

    return accuracy, fc.visit_layers(params, probe[0], visit, depth=depth)


@functools.cache
def program(shape: Shape, *, masked: bool) -> Any:
    """`network` for a population, compiled once per shape; bundle ids are not kept."""

    def population(flat, depths, test, probe, scale, salt):  # type: ignore[no-untyped-def]
        one = functools.partial(network, shape=shape)
        axes = (0, 0 if masked else None, None, None, None, None)
        accuracy, layers = jax.vmap(one, in_axes=axes)(
            flat, depths if masked else None, test, probe, scale, salt
        )
        kept = Measurement(accuracy, layers.entropy, layers.num_bundles, layers.finite)
        return kept, jnp.any(layers.collided)

    return jax.jit(population)


def population(measure: Any, *arguments: Any) -> Measurement:
    """Run a compiled `program`, again with another salt should two fingerprints have collided."""
    for salt in range(bundles.MAX_SALTS):
        measurement, collided = measure(*arguments, np.uint32(salt))
        if not collided:
            return Measurement(*map(np.asarray, measurement))
    raise bundles.CollisionError()
