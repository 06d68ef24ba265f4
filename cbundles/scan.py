"""Headroom of the networks of a sweep: how far is each of their layers from conflicting?

A scan measures layers as if the network were trained with each of many learning rates (see
`bundles.headroom`), in the reading that the run judges by. It looks at some of the probe set only,
and at one network at a time, because it has that many signatures of every activation.

It is a pass of its own. So whether it is made changes no bit of what `measure` finds.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Compiled, Wrapped
from jaxtyping import Array, Float, Shaped, UInt32

from cbundles import bundles, measure
from cbundles.arrays import Numbers
from cbundles.bits import SCANNED_ROWS
from cbundles.bundles import Scale
from cbundles.bundles.headroom import BITS
from cbundles.data.device import Examples
from cbundles.measure import Measurement
from cbundles.networks import network, watched
from cbundles.networks.network import Network
from cbundles.networks.shape import Shape
from cbundles.readings import BATCH, POOLED


def scanned_samples(probe: Examples) -> Examples:
    """The part of the probe set in which conflicts are counted."""
    return some_of(probe, SCANNED_ROWS)


def some_of(examples: Examples, count: int) -> Examples:
    """So many of the examples, or all, evenly spread."""
    rows = bundles.evenly_spread(len(examples.labels), count)
    return Examples(examples.images[rows], examples.labels[rows])


def conflict_rate_of_inputs(probe: Examples, shape: Shape, measurement: Measurement) -> float:
    """Of the scanned samples themselves: equal ones conflict in every layer, where their labels
    differ. Without a weight and with a step of 1, only equal numbers are equal."""
    scanned = scanned_samples(probe)
    found = bundles.bundle_entropy(
        measure.as_numbers(scanned.images, measurement.augmentation),
        np.asarray(scanned.labels),
        num_classes=shape.outputs,
        amplitude=0.0,
        learning_rate=1.0,
        batch_size=1,
    )
    assert found.conflict_rate is not None  # images are finite
    return found.conflict_rate


def signatures(
    subject: Network,
    images: Shaped[Numbers, "samples *pixels"],
    scales: Scale,
    keys: UInt32[Array, " keys"],
    *,
    shape: Shape,
    measurement: Measurement,
) -> UInt32[Array, "layers scales 4 scanned"]:
    """Signatures of the scanned samples in every layer, or block (and in the pooled features, where
    the run's reading has them), at every scale.

    images: of the whole probe set
    scales: see `bundles.scales_of_scan`; their amplitude is replaced by this network's
    """
    own = measurement.own
    part = bundles.evenly_spread(len(images), SCANNED_ROWS)
    # Normalised by the statistics of the probe set, all of it passes through the network.
    needs_all = shape.statistics > 0 and own.batch_norm == BATCH
    passing = jnp.asarray(images if needs_all else images[part])
    x = measure.as_numbers(passing, measurement.augmentation)
    amplitude = network.amplitude(shape, subject.params, own.amplitude)
    of_network = scales._replace(amplitude=jnp.full_like(scales.amplitude, amplitude))

    def see(activations: Float[Array, "batch ..."]) -> UInt32[Array, "scales 4 scanned"]:
        rows = activations[part] if needs_all else activations
        return bundles.signatures_of_scan(rows, of_network, keys, measurement.equality)

    places = [watched.OUTPUTS, watched.POOLED] if own.last == POOLED else [watched.OUTPUTS]
    seen = watched.visit(shape, subject, x, dict.fromkeys(places, see), own.batch_norm)
    return jnp.concatenate([seen[place] for place in places])


@functools.cache
def signatures_program(shape: Shape, measurement: Measurement) -> Wrapped:
    """`signatures` of one network, compiled once per shape."""
    return jax.jit(functools.partial(signatures, shape=shape, measurement=measurement))


def partition_program(probe: Examples, shape: Shape) -> Compiled:
    """That of `measure`, for one layer at all scales."""
    scanned = min(len(probe.labels), SCANNED_ROWS)
    return measure.partition_program(scanned, shape.outputs, len(BITS))


def headroom(
    program: Wrapped | Compiled,
    shape: Shape,
    networks: Network,
    probe: Examples,
    scales: Scale,
    rate_of_inputs: float,
) -> Float[np.ndarray, "members layers"]:
    """The headroom of all layers of a population, in bits.

    program: the `signatures_program` of its shape, compiled or not
    rate_of_inputs: see `conflict_rate_of_inputs`
    """
    partition = partition_program(probe, shape)
    labels = scanned_samples(probe).labels

    def of_member(member: int) -> list[float]:
        subject = jax.tree.map(lambda leaf: leaf[member], networks)

        def layers_of(salt: int) -> list[UInt32[np.ndarray, "scales 4 scanned"]]:
            keys = measure.keys_for(shape, salt)
            return list(np.asarray(program(subject, probe.images, scales, keys)))

        found = measure.without_collisions(partition, layers_of, labels)
        rates = np.asarray(found.conflict_rate).reshape(-1, len(BITS))
        return [bundles.bits_of_headroom(of_layer, rate_of_inputs) for of_layer in rates]

    return np.array([of_member(member) for member in range(len(networks.params))])
