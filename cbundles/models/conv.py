"""VGG and ResNet (paper, sec. 3.1): one convolutional family with a `residual` flag.

A stem, four stages of basic blocks, a linear output. A block is conv3x3 - BN - ReLU - conv3x3 - BN
(- add the skip) - ReLU. Blocks of a stage that have the same shape are stacked and applied with
`lax.scan`; only the first block of stages 2 to 4, which halves the image, stands alone. Layers may
have been inserted after blocks: relu(conv3x3 + bias), without normalisation, so that one with a
Dirac kernel is the identity on what follows a ReLU. Stacks are cut there.

A network consists of trainable parameters (`Params`) and of the running statistics of its batch
normalisations (`Params` too, with `Norm` in place of `Unit`).
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cbundles.models import lowering
from cbundles.models.shape import POOL_ABOVE, ConvShape

MOMENTUM, EPSILON = 0.99, 1e-3
SCALE_EPSILON = 1e-6

Kernels = tuple[tuple[int, ...], ...]


class Unit(NamedTuple):
    """A convolution and its normalisation. kernel (k, k, C, D); bias, gamma, beta (D,)."""

    kernel: Any
    bias: Any
    gamma: Any
    beta: Any


class Layer(NamedTuple):
    """An inserted layer. kernel (3, 3, D, D); bias (D,)."""

    kernel: Any
    bias: Any


class Norm(NamedTuple):
    """Moving averages of a normalisation's batch statistics, (D,) each."""

    mean: Any
    variance: Any


class Stage(NamedTuple):
    """first: units of the block that changes shape: two, a third for the skip of a ResNet, or the
    skip alone; none in a stage without such a block. rest: two units, each stacked over the other
    blocks, (n, ...)."""

    first: tuple[Any, ...]
    rest: tuple[Any, ...]


class Params(NamedTuple):
    """All of `Unit`s: the trainable parameters; all of `Norm`s, without last: the statistics.
    inserted: `Layer`s in the order of `ConvShape.inserted`, none in the statistics."""

    stem: Any
    stages: tuple[Stage, ...]
    last: Any
    last_bias: Any
    inserted: tuple[Any, ...] = ()


class Block(NamedTuple):
    """What can be seen of a block, float32 (B, H, W, D) each. output: after the ReLU; of a ResNet
    also skip: what is added to its branch; branch: before that; scale: float32 (), by which the
    original code multiplies a branch to measure it, 1 / (deviation of the first convolution's
    output x that of the second's), over all images, pixels and filters. It takes back that batch
    normalisation makes small differences as large as any."""

    output: jax.Array
    skip: Any = None
    branch: Any = None
    scale: Any = None


Visit = Callable[[Block], Any]
TRAIN, BATCH, RUNNING, RESET = "train", "batch", "running", "reset"


def init(shape: ConvShape, seed: int) -> tuple[Params, Params]:
    """Initial parameters and statistics, as NumPy arrays.

    Convolutions he_normal (truncated, as Keras draws it), stem and output glorot_uniform, biases
    zero; gamma 1, beta 0; running mean 0 and variance 1; inserted layers are the identity. Drawn on
    the host: a block's weights depend on the seed and its place (stage, number) alone.
    """

    def chance(stage: int, block: int = 0, place: int = 0) -> np.random.Generator:
        stream = (stage * 2**16 + block) * 4 + place
        return np.random.Generator(np.random.Philox(key=[seed, stream]))

    def block(stage: int, number: int, kernels: Kernels) -> tuple[Unit, ...]:
        draws = (chance(1 + stage, number, place) for place in range(len(kernels)))
        return tuple(_unit(_he_normal(c, k)) for c, k in zip(draws, kernels, strict=True))

    stages = []
    for stage, plan in enumerate(shape.stages):
        alone = block(stage, 0, plan.first)
        rest = [block(stage, bool(alone) + i, plan.rest) for i in range(plan.repeats)]
        none = tuple(_unit(np.zeros(kernel, np.float32)) for kernel in plan.rest)
        stacked = jax.tree.map(lambda like, *a: np.stack([like, *a])[1:], none, *rest)
        stages.append(Stage(alone, stacked))
    last = (shape.features, shape.outputs)
    params = Params(
        stem=_unit(_glorot_uniform(chance(0), shape.stem)),
        stages=tuple(stages),
        last=_glorot_uniform(chance(0, 1), last),
        last_bias=np.zeros(shape.outputs, np.float32),
        inserted=tuple(virtual(kernel[-1]) for kernel in shape.inserted_kernels),
    )
    return params, _statistics(params)


def virtual(filters: int) -> Layer:
    """An inserted layer that passes on unchanged what is not negative: a Dirac kernel, no bias."""
    kernel = np.zeros((3, 3, filters, filters), np.float32)
    kernel[1, 1] = np.eye(filters)
    return Layer(kernel, np.zeros(filters, np.float32))


def _unit(kernel: np.ndarray) -> Unit:
    zeros, ones = np.zeros(kernel.shape[-1], np.float32), np.ones(kernel.shape[-1], np.float32)
    return Unit(kernel, zeros, ones, zeros)


def _statistics(params: Params) -> Params:
    """Statistics before any training, one `Norm` for each `Unit`."""
    return jax.tree.map(
        lambda unit: Norm(np.zeros_like(unit.beta), np.ones_like(unit.beta)),
        params._replace(last=(), last_bias=(), inserted=()),
        is_leaf=lambda node: isinstance(node, Unit),
    )


def _glorot_uniform(chance: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    limit = math.sqrt(6 / (math.prod(size[:-2]) * (size[-2] + size[-1])))
    return ((2 * chance.random(size, np.float32) - 1) * np.float32(limit)).astype(np.float32)


def _he_normal(chance: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """A normal distribution cut at two standard deviations, of variance 2 / fan_in."""
    values = chance.standard_normal(size, np.float32)
    while (outside := np.abs(values) > 2).any():
        values[outside] = chance.standard_normal(int(outside.sum()), np.float32)
    deviation = 0.87962566  # of a standard normal distribution cut at 2
    return values * np.float32(math.sqrt(2 / math.prod(size[:-1])) / deviation)


def forward(
    params: Params,
    statistics: Params,
    x: jax.Array,
    *,
    residual: bool,
    norm: str,
    visit: Visit | None = None,
    keep: jax.Array | None = None,
    gates: jax.Array | None = None,
    inserted: tuple[int, ...] = (),
    taps: Sequence[jax.Array] | None = None,
) -> tuple[jax.Array, Params, Any]:
    """Logits (B, outputs) of images x, float32 (B, H, W, C); statistics; what `visit` returned.

    norm: ``running`` normalises by the running statistics (inference), ``batch`` by those of x,
    ``train`` by those of x and moves the running ones towards them, ``reset`` by those of x and
    puts them in place of the running ones.
    visit sees every `Block`; what it returns is stacked in the order of the blocks, without taps.
    keep: bool (blocks,), of a ResNet; a block that is not kept is its skip alone, and its branch
    costs nothing. gates: float32 (blocks, B), by which the branches of a ResNet are multiplied.
    inserted: `ConvShape.inserted`, where the inserted layers stand.
    taps: for every block float32 (B, H, W, D), added behind it and its inserted layers. With taps
    the third result is a pair: what visit returned, and a list of the activations, float32
    (B, H, W, D), that they are added to.
    """
    x, stem = _normalised(_convolved(x, params.stem, 2), params.stem, statistics.stem, norm)
    x = jax.nn.relu(x)
    if x.shape[2] * 2 > POOL_ABOVE:
        window = (1, 3, 3, 1)
        x = lax.reduce_window(x, -jnp.inf, lax.max, window, (1, 2, 2, 1), "SAME")
    stages, seen, tapped, number = [], [], [], 0
    block = functools.partial(_block, norm=norm, visit=visit, residual=residual)

    def follow(a: jax.Array, block: int) -> jax.Array:
        """What comes after a block: its inserted layers and its tap."""
        for place, layer in zip(inserted, params.inserted, strict=True):
            if place == block:
                a = jax.nn.relu(lowering.convolve(a, layer.kernel, 1) + layer.bias)
        if taps is None:
            return a
        tapped.append(a)
        return a + taps[block]

    def surgery(start: int, end: int) -> tuple[Any, Any]:
        return (None if keep is None else keep[start:end],
                None if gates is None else gates[start:end])  # fmt: skip

    for units, past in zip(params.stages, statistics.stages, strict=True):
        first: Any = ()
        if units.first:
            alone = jax.tree.map(operator.itemgetter(0), surgery(number, number + 1))
            x, first, view = block(x, units.first, past.first, *alone, stride=2)
            seen.append(jax.tree.map(lambda a: a[None], view))
            x = follow(x, number)
            number += 1

        def one(a: jax.Array, layer: Any) -> tuple[jax.Array, Any]:
            units, past, here, tap = layer
            output, now, view = block(a, units, past, *here, stride=1)
            if tap is None:
                return output, (now, view, ())
            return output + tap, (now, view, output)

        rest, count = [], len(past.rest[0].mean)
        for begin, end in _runs(number, count, inserted):
            stacks = _part((units.rest, past.rest), begin - number, end - number, count)
            within = None
            if taps is not None:  # the last block's comes only after its inserted layers
                within = jnp.stack([*taps[begin : end - 1], jnp.zeros_like(taps[end - 1])])
            layers = (*stacks, surgery(begin, end), within)
            x, (now, views, outputs) = lax.scan(one, x, layers)
            rest.append(now)
            seen.append(views)
            tapped += [*outputs][:-1]
            x = follow(x, end - 1)
        number += count
        stages.append(Stage(first, _joined(rest) if rest else past.rest))
    logits = x.mean((1, 2)) @ params.last + params.last_bias
    stacked = _joined(seen) if seen else ()
    now = statistics._replace(stem=stem, stages=tuple(stages))
    return logits, now, stacked if taps is None else (stacked, tapped)


def _runs(start: int, count: int, inserted: tuple[int, ...]) -> list[tuple[int, int]]:
    """First and last plus one of the blocks that can be scanned together, of `count` equal blocks
    from number `start`: until an inserted layer follows. None where there are no blocks."""
    end = start + count
    ends = [block + 1 for block in sorted(set(inserted)) if start <= block < end - 1]
    return list(itertools.pairwise([start, *ends, end])) if count else []


def _part(tree: Any, begin: int, end: int, count: int) -> Any:
    """Rows of arrays (count, ...); all of them without tracing a copy."""
    return tree if end - begin == count else jax.tree.map(lambda a: a[begin:end], tree)


def _joined(parts: list[Any]) -> Any:
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)


def _block(
    a: jax.Array,
    units: tuple[Unit, ...],
    past: tuple[Norm, ...],
    keep: Any,
    gate: Any,
    *,
    stride: int,
    norm: str,
    visit: Visit | None,
    residual: bool,
) -> tuple[jax.Array, tuple[Norm, ...], Any]:
    """Output, statistics, and what was seen, of one block of two units, of three with a skip, or of
    the skip alone. keep, gate: see `forward`, of this block."""
    pair = len(units) // 2 * 2  # units of the branch; a further one is the skip's
    skip, now_skip = a, past[pair:]
    if units[pair:]:
        projected = _convolved(a, units[pair], stride)
        skip, alone = _normalised(projected, units[pair], past[pair], norm)
        now_skip = (alone,)

    def full() -> tuple[Any, ...]:
        first = _convolved(a, units[0], stride)
        h, now_first = _normalised(first, units[0], past[0], norm)
        second = _convolved(jax.nn.relu(h), units[1], 1)
        branch, now_second = _normalised(second, units[1], past[1], norm)
        scale = lax.rsqrt(first.var() + SCALE_EPSILON) * lax.rsqrt(second.var() + SCALE_EPSILON)
        return branch, scale, (now_first, now_second)

    def none() -> tuple[Any, ...]:
        return jnp.zeros_like(skip), jnp.float32(1), past[:pair]

    if not pair:
        branch, scale, now = none()
    elif keep is None:
        branch, scale, now = full()
    else:
        branch, scale, now = lax.cond(keep, full, none)
    if gate is not None:
        branch = branch * gate[:, None, None, None]
    output = jax.nn.relu(branch + skip if residual else branch)
    view: Any = ()
    if visit:
        view = visit(Block(output, skip, branch, scale) if residual else Block(output))
    return output, (*now, *now_skip), view


def _convolved(a: jax.Array, unit: Unit, stride: int) -> jax.Array:
    return lowering.convolve(a, unit.kernel, stride) + unit.bias


def _normalised(a: jax.Array, unit: Unit, past: Norm, norm: str) -> tuple[jax.Array, Norm]:
    """Batch normalisation of a, (B, H, W, D), and the running statistics after it."""
    mean, variance, now = past.mean, past.variance, past
    if norm != RUNNING:
        mean = a.mean((0, 1, 2))
        variance = jnp.square(a - mean).mean((0, 1, 2))
    if norm in (TRAIN, RESET):
        momentum = MOMENTUM if norm == TRAIN else 0.0
        count = a.size // a.shape[-1]
        unbiased = variance * (count / (count - 1))  # as Keras keeps it, unlike what it uses
        now = jax.tree.map(
            lambda old, new: momentum * old + (1 - momentum) * new, past, Norm(mean, unbiased)
        )
    return (a - mean) * (unit.gamma * lax.rsqrt(variance + EPSILON)) + unit.beta, now
