"""Measuring a population of networks: test accuracy, and the bundles of every layer.

Images pass through the network in batches, and of an activation only the signatures of its rows
remain: 16 bytes for each sample and layer, however wide the layers are. So all layers can be
measured over the whole training set.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.stages import Compiled, Wrapped
from jaxtyping import Array, Bool, Float32, Int32, Shaped, UInt8, UInt32

from cbundles import bundles, spread
from cbundles.arrays import Numbers
from cbundles.data import augment
from cbundles.data.device import Examples
from cbundles.data.pipelines import Augmentation
from cbundles.networks import network, watched
from cbundles.networks.network import Network
from cbundles.networks.shape import CONV_BATCH, ConvShape, FcShape, Shape
from cbundles.readings import BATCH, POOLED, Reading

IMAGES_AT_ONCE = 2048
WARM_UP, TIMED = 3, 20
LAYERS_AT_ONCE = 16


class Measurement(NamedTuple):
    """How bundles are measured."""

    equality: bundles.Equality
    own: Reading  # the one that the run judges by
    further: tuple[Reading, ...]  # measured beside it, in the same pass
    augmentation: Augmentation  # says how images that are still bytes become numbers

    @property
    def readings(self) -> tuple[Reading, ...]:
        return (self.own, *self.further)


class Layers(NamedTuple):
    """Of measured activations; of a population with a leading axis of members."""

    entropy: Float32[Numbers, "*members layers"]  # nats
    conflict_rate: Float32[Numbers, "*members layers"]
    num_bundles: Int32[Numbers, "*members layers"]
    finite: Bool[Numbers, "*members layers"]  # False where an activation is NaN or infinite


class Measured(NamedTuple):
    """What all readings say of a population."""

    own: Layers  # outputs of layers or blocks, and of `readings.POOLED` the features at the end
    branches: Layers | None  # of a ResNet, scaled: see `watched.branch_scale`
    further: dict[str, Layers]  # by the name of a reading; as own


class Rows(NamedTuple):
    """Activations that are measured in the same way. Readings share them: what the block outputs
    are, `block` and `pooled` need not find out twice."""

    batch_norm: str
    amplitude: str
    place: str  # one of those of `watched.visit`
    layers: int  # how many


def rows_of(shape: Shape, measurement: Measurement) -> tuple[Rows, ...]:
    """All that has to be measured, once each, those of one normalisation behind one another."""
    wanted: dict[Rows, None] = {}
    for reading in measurement.readings:
        wanted |= dict.fromkeys(_rows_of_reading(shape, reading))
    if isinstance(shape, ConvShape) and shape.residual:
        wanted[_branch_rows(shape, measurement)] = None
    norms = [reading.batch_norm for reading in measurement.readings]
    return tuple(sorted(wanted, key=lambda rows: norms.index(rows.batch_norm)))


def _rows_of_reading(shape: Shape, reading: Reading) -> list[Rows]:
    outputs = Rows(reading.batch_norm, reading.amplitude, watched.OUTPUTS, shape.layers)
    if reading.last == POOLED:
        return [outputs, outputs._replace(place=watched.POOLED, layers=1)]
    return [outputs]


def _branch_rows(shape: ConvShape, measurement: Measurement) -> Rows:
    own = measurement.own
    return Rows(own.batch_norm, own.amplitude, watched.BRANCHES, shape.branches)


def accuracy(
    subject: Network, test: Examples, *, shape: Shape, augmentation: Augmentation
) -> Float32[Array, ""]:
    """The share of images that a network classifies correctly."""

    def predict(x: Float32[Array, "batch *pixels"]) -> Int32[Array, " batch"]:
        return jnp.argmax(network.logits(shape, subject, x), axis=1)

    predicted = in_batches(test.images, predict, augmentation, batch_of(shape))
    return jnp.mean(predicted == test.labels, dtype=jnp.float32)


def performance(
    subject: Network, examples: Examples, *, shape: Shape, augmentation: Augmentation
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """Mean cross-entropy, and the share of images that are classified correctly."""

    def judge(x: Float32[Array, "batch *pixels"]) -> Float32[Array, "classes batch"]:
        return jax.nn.log_softmax(network.logits(shape, subject, x)).T

    logarithms = in_batches(examples.images, judge, augmentation, batch_of(shape))
    chosen = jnp.take_along_axis(logarithms, examples.labels[None], axis=0)
    correct = jnp.argmax(logarithms, axis=0) == examples.labels
    return -chosen.mean(), jnp.mean(correct, dtype=jnp.float32)


def signatures(
    subject: Network,
    images: Shaped[Numbers, "samples *pixels"],
    scale: bundles.Scale,
    keys: UInt32[Array, " keys"],
    *,
    shape: Shape,
    measurement: Measurement,
) -> UInt32[Array, "rows 4 samples"]:
    """Signatures of all activations of `rows_of`, in its order.

    scale: its amplitude is replaced by this network's, as each reading says. Padding is zero, so it
    neither raises the amplitude nor tells two samples apart.
    """
    parts = []
    for norm, rows in itertools.groupby(rows_of(shape, measurement), lambda r: r.batch_norm):
        of_norm = _signatures_of_norm(
            subject, images, scale, keys, norm, tuple(rows), shape, measurement
        )
        parts.append(of_norm)
    return jnp.concatenate(parts)


def _signatures_of_norm(
    subject: Network,
    images: Shaped[Numbers, "samples *pixels"],
    scale: bundles.Scale,
    keys: UInt32[Array, " keys"],
    norm: str,
    rows: tuple[Rows, ...],
    shape: Shape,
    measurement: Measurement,
) -> UInt32[Array, "rows 4 samples"]:
    """Those of the rows that belong to one normalisation: one forward pass serves them all."""
    amplitudes_at: dict[str, list[str]] = {}
    for one in rows:
        amplitudes_at.setdefault(one.place, []).append(one.amplitude)
    scale_of = {
        over: scale._replace(amplitude=network.amplitude(shape, subject.params, over))
        for over in dict.fromkeys(one.amplitude for one in rows)
    }

    def batch(x: Float32[Array, "batch *pixels"]) -> UInt32[Array, "rows 4 batch"]:
        def see_with(amplitudes: list[str]) -> Callable[[Array], Array]:
            def see(activations: Float32[Array, "batch ..."]) -> UInt32[Array, "ways 4 batch"]:
                signed = [
                    bundles.signature(activations, scale_of[over], keys, measurement.equality)
                    for over in amplitudes
                ]
                return jnp.stack(signed)

            return see

        see = {place: see_with(amplitudes) for place, amplitudes in amplitudes_at.items()}
        seen = watched.visit(shape, subject, x, see, norm)  # (count, amplitudes, 4, B) at a place
        chosen = [seen[one.place][:, amplitudes_at[one.place].index(one.amplitude)] for one in rows]
        return jnp.concatenate(chosen)

    # Normalised by their own statistics, the images of the probe are one batch; so they are where
    # branches are scaled by a statistic of the batch, or images of two batches would differ by it.
    one_batch = (shape.statistics > 0 and norm == BATCH) or watched.BRANCHES in amplitudes_at
    whole = one_batch or not measurement.equality.streams
    at_once = len(images) if whole else batch_of(shape)
    return in_batches(images, batch, measurement.augmentation, at_once)


def batch_of(shape: Shape) -> int:
    return IMAGES_AT_ONCE if isinstance(shape, FcShape) else CONV_BATCH


def in_batches(
    images: Shaped[Numbers, "samples ..."],
    evaluate: Callable[[Array], Array],
    augmentation: Augmentation,
    at_once: int = IMAGES_AT_ONCE,
) -> Shaped[Array, "*_ samples"]:
    """``evaluate(x)`` of all images, (..., N), where x is a batch, float32 (B, H, W, C), and the
    result (..., B). Batches are of one size; the last may overlap the one before it. augmentation:
    says how images that are still bytes become numbers."""
    count = len(images)
    number = -(-count // at_once)
    size = -(-count // number)

    def at(start: Int32[Array, ""]) -> Array:
        batch = lax.dynamic_slice_in_dim(images, start, size)
        return evaluate(spread.divided(as_numbers(batch, augmentation)))

    def one(results: Array, start: Int32[Array, ""]) -> tuple[Array, None]:
        return lax.dynamic_update_slice_in_dim(results, at(start), start, axis=-1), None

    starts = jnp.minimum(jnp.arange(number) * size, count - size)
    like = jax.eval_shape(at, starts[0])
    results, _ = lax.scan(one, jnp.zeros((*like.shape[:-1], count), like.dtype), starts)
    return results


def as_numbers(
    images: Shaped[Array, "batch *pixels"], augmentation: Augmentation
) -> Shaped[Array, "batch *pixels"]:
    """What a network is given of images, float32; what is no longer bytes stays as it is, such as
    augmented images, or the numbers of rows. augmentation: says how bytes become numbers."""
    return augment.plain(images, augmentation) if images.dtype == jnp.uint8 else images


@functools.cache
def accuracy_program(shape: Shape, augmentation: Augmentation) -> Wrapped:
    """`accuracy` of a population, float32 (members,), compiled once per shape, for networks with a
    leading member axis and the test set."""

    def population(networks, test):  # type: ignore[no-untyped-def]
        one = functools.partial(accuracy, shape=shape, augmentation=augmentation)
        return jax.vmap(one, in_axes=(0, None))(networks, test)

    return jax.jit(population)


@functools.cache
def performance_program(shape: Shape, augmentation: Augmentation) -> Wrapped:
    """`performance` of a population, likewise."""
    one = functools.partial(performance, shape=shape, augmentation=augmentation)
    return jax.jit(jax.vmap(one, in_axes=(0, None)))


@functools.cache
def signatures_program(shape: Shape, measurement: Measurement) -> Wrapped:
    """`signatures` of a population, compiled once per shape. All activations of all members in a
    row, cut into pieces of `LAYERS_AT_ONCE`, (LAYERS_AT_ONCE, 4, N), the last one filled up."""

    def population(networks, images, scale, keys):  # type: ignore[no-untyped-def]
        one = functools.partial(signatures, shape=shape, measurement=measurement)
        found = jax.vmap(one, in_axes=(0, None, None, None))(networks, images, scale, keys)
        found = found.reshape(-1, *found.shape[2:])
        pieces = -(-len(found) // LAYERS_AT_ONCE)
        filled = jnp.pad(found, ((0, pieces * LAYERS_AT_ONCE - len(found)), (0, 0), (0, 0)))
        return jnp.split(filled, pieces)

    return jax.jit(population)


@functools.cache
def partition_program(samples: int, num_classes: int, at_once: int = LAYERS_AT_ONCE) -> Compiled:
    """Compiled `bundles.partition_layers` of one piece, (at_once, 4, samples); bundle ids are not
    kept.

    Kept apart from `signatures_program` because it is the same for networks of every shape: it took
    a third of the time of compiling for each of them.
    """

    def piece(signatures, labels):  # type: ignore[no-untyped-def]
        found = bundles.partition_layers(signatures, labels, num_classes)
        layers = Layers(found.entropy, found.conflict_rate, found.num_bundles, found.finite)
        return layers, found.collided

    shapes = (
        jax.ShapeDtypeStruct((at_once, 4, samples), jnp.uint32),
        jax.ShapeDtypeStruct((samples,), jnp.int32),
    )
    return jax.jit(piece).lower(*shapes).compile()


def layers(
    program: Callable[..., Any],
    shape: Shape,
    networks: Network,
    probe: Examples,
    scale: bundles.Scale,
    measurement: Measurement,
) -> Measured:
    """The bundles of all measured activations of a population. program: its `signatures_program`,
    compiled or not. scale: learning rate and batch size count; each reading has its own weight."""
    members, rows = len(networks.params), rows_of(shape, measurement)
    per_member = sum(one.layers for one in rows)

    def pieces_of(salt: int) -> Sequence[Numbers]:
        pieces: Sequence[Numbers] = program(networks, probe.images, scale, keys_for(shape, salt))
        return pieces

    partition = partition_program(len(probe.labels), shape.outputs)
    found = without_collisions(partition, pieces_of, probe.labels)
    # Behind the last layer stands what fills up the last piece.
    of_members = (values[: members * per_member].reshape(members, -1) for values in found)
    return _by_reading(shape, measurement, rows, Layers(*of_members))


def layers_of_one(
    shape: Shape,
    subject: Network,
    probe: Examples,
    measurement: Measurement,
    learning_rate: float,
    batch_size: int,
) -> Measured:
    """`layers` of a single network, without the axis of members: a population of one."""
    alone = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], subject)
    scale = bundles.Scale.of(0.0, learning_rate, batch_size)
    program = signatures_program(shape, measurement)
    return layers(program, shape, alone, probe, scale, measurement)


def without_collisions(
    partition: Compiled,
    pieces_of: Callable[[int], Sequence[UInt32[Numbers, "layers 4 samples"]]],
    labels: Int32[Numbers, " samples"],
) -> Layers:
    """The bundles of signatures. Layers in which two sort keys collided are measured again.

    partition: see `partition_program`
    pieces_of: all signatures with the keys of a salt, in pieces as the partition takes them
    """
    found, unsure = None, None
    for salt in range(bundles.MAX_SALTS):
        results = [partition(piece, labels) for piece in pieces_of(salt)]
        joined = jax.tree.map(lambda *parts: np.concatenate(parts), *results)
        if found is None:
            found, unsure = joined
        else:
            found = jax.tree.map(functools.partial(np.where, unsure), joined[0], found)
            unsure = unsure & joined[1]
        if not unsure.any():
            return Layers(*found)
    raise bundles.CollisionError()


def _by_reading(
    shape: Shape, measurement: Measurement, rows: Sequence[Rows], whole: Layers
) -> Measured:
    """What was measured once, for every reading that needs it. whole: rows behind one another."""
    ends = itertools.accumulate(one.layers for one in rows)
    place = {one: slice(end - one.layers, end) for one, end in zip(rows, ends, strict=True)}

    def of(wanted: Sequence[Rows]) -> Layers:
        parts = [jax.tree.map(lambda a, s=place[one]: a[:, s], whole) for one in wanted]
        return Layers(*jax.tree.map(lambda *a: np.concatenate(a, axis=1), *parts))

    branches = None
    if isinstance(shape, ConvShape) and shape.residual:
        branches = of([_branch_rows(shape, measurement)])
    own, *further = (of(_rows_of_reading(shape, one)) for one in measurement.readings)
    names = (one.name for one in measurement.further)
    return Measured(own, branches, dict(zip(names, further, strict=True)))


def latency(
    shape: Shape,
    subject: Network,
    images: UInt8[Array, "batch *pixels"],
    augmentation: Augmentation,
) -> float:
    """Seconds that one network takes to classify a batch of images: the median of synchronised
    calls after a few that do not count."""

    def classify(subject: Network, images: Array) -> Array:
        return network.logits(shape, subject, augment.plain(images, augmentation))

    program, times = jax.jit(classify), []
    for _ in range(WARM_UP + TIMED):
        started = time.perf_counter()
        program(subject, images).block_until_ready()
        times.append(time.perf_counter() - started)
    return float(np.median(times[WARM_UP:]))


def keys_for(shape: Shape, salt: int = 0) -> np.ndarray:
    """The keys with which the activations of such a network are hashed."""
    return bundles.draw_keys(shape.columns, salt)
