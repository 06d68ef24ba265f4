"""VGG and ResNet (paper, sec. 3.1): one convolutional family with a `residual` flag.

A stem, four stages of basic blocks, a linear output. A block is conv3x3 - BN - ReLU - conv3x3 - BN
(- add the skip) - ReLU. Blocks of a stage that have the same shape are stacked and applied with
`lax.scan`; only the first block of stages 2 to 4, which halves the image, stands alone. Layers may
have been inserted after blocks: relu(conv3x3 + bias), without normalisation, so that one with a
Dirac kernel is the identity on what follows a ReLU. Stacks are cut there.

A network consists of trainable parameters (`Params`) and of the running statistics of its batch
normalisations (`Params` too, with `Norm` in place of `Unit`), as they are drawn and kept in two
vectors. `ConvNet` is the network itself, a Flax module; `variables` brings one to the other.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name as named
from jaxtyping import Array, Float32, PyTree

from cbundles.arrays import Numbers
from cbundles.chance import CONV_WEIGHTS, generator
from cbundles.networks import lowering
from cbundles.networks.shape import POOL_ABOVE, ConvShape

MOMENTUM, EPSILON = 0.99, 1e-3

Kernels = tuple[tuple[int, ...], ...]


class Unit(NamedTuple):
    """A convolution and its normalisation."""

    kernel: Float32[Numbers, "*blocks size size channels filters"]
    bias: Float32[Numbers, "*blocks filters"]
    gamma: Float32[Numbers, "*blocks filters"]
    beta: Float32[Numbers, "*blocks filters"]


class Layer(NamedTuple):
    """An inserted layer."""

    kernel: Float32[Numbers, "3 3 filters filters"]
    bias: Float32[Numbers, " filters"]


class Norm(NamedTuple):
    """Moving averages of a normalisation's batch statistics."""

    mean: Float32[Numbers, "*blocks filters"]
    variance: Float32[Numbers, "*blocks filters"]


UnitOrNorm = Any  # all of one kind in a tree; beartype does not know generic named tuples


class Stage(NamedTuple):
    """first: units of the block that changes shape: two, a third for the skip of a ResNet, or the
    skip alone; none in a stage without such a block. rest: two units, each stacked over the other
    blocks."""

    first: tuple[UnitOrNorm, ...]
    rest: tuple[UnitOrNorm, ...]


class Params(NamedTuple):
    """All of `Unit`s: the trainable parameters; all of `Norm`s, without last: the statistics.
    inserted: in the order of `ConvShape.inserted`, none in the statistics."""

    stem: UnitOrNorm
    stages: tuple[Stage, ...]
    last: Float32[Numbers, "features outputs"] | tuple[()]
    last_bias: Float32[Numbers, " outputs"] | tuple[()]
    inserted: tuple[Layer, ...] = ()


# What batch normalisation does: `running` normalises by the running statistics (inference),
# `batch` by those of the batch, `train` too and moves the running ones towards them, `reset` too
# and puts them in place of the running ones.
NORMS = TRAIN, BATCH, RUNNING, RESET = "train", "batch", "running", "reset"

# Sites, in the order in which a block makes them. A branch is what is added to a skip; FIRST and
# SECOND are the outputs of its convolutions, whose spread is the scale of a branch.
FIRST, SECOND, BRANCH, SKIP = "convolution1", "convolution2", "branch", "skip"
BLOCK, INSERTED, POOLED = "block", "inserted", "pooled"

# Names of the convolutions and normalisations in a block, by how many units it has: a branch has
# two, a projected skip is a third, and a block that has lost its branch is this skip alone.
PAIR = (("conv1", "bn1"), ("conv2", "bn2"))
SKIP_PAIR = (("conv_skip", "bn_skip"),)
NAMES = {0: (), 1: SKIP_PAIR, 2: PAIR, 3: PAIR + SKIP_PAIR}


def init(shape: ConvShape, seed: int, gain: float = 1.0) -> tuple[Params, Params]:
    """Initial parameters and statistics, as NumPy arrays.

    Convolutions he_normal (truncated, as Keras draws it), stem and output glorot_uniform, all of
    them times `gain`; biases zero; gamma 1, beta 0; running mean 0 and variance 1; inserted layers
    are the identity. Drawn on the host: a block's weights depend on the seed and its place (stage,
    number) alone.
    """

    def chance(stage: int, block: int = 0, place: int = 0) -> np.random.Generator:
        return generator(seed, CONV_WEIGHTS, (stage * 2**16 + block) * 4 + place)

    def block(stage: int, number: int, kernels: Kernels) -> tuple[Unit, ...]:
        draws = (chance(1 + stage, number, place) for place in range(len(kernels)))
        drawn = [_he_normal(c, k) for c, k in zip(draws, kernels, strict=True)]
        return tuple(_unit(kernel * np.float32(gain)) for kernel in drawn)

    stages = []
    for stage, plan in enumerate(shape.stages):
        alone = block(stage, 0, plan.first)
        rest = [block(stage, bool(alone) + i, plan.rest) for i in range(plan.repeats)]
        none = tuple(_unit(np.zeros(kernel, np.float32)) for kernel in plan.rest)
        stacked = jax.tree.map(lambda like, *a: np.stack([like, *a])[1:], none, *rest)
        stages.append(Stage(alone, stacked))
    last = (shape.features, shape.outputs)
    params = Params(
        stem=_unit(_glorot_uniform(chance(0), shape.stem) * np.float32(gain)),
        stages=tuple(stages),
        last=_glorot_uniform(chance(0, 1), last) * np.float32(gain),
        last_bias=np.zeros(shape.outputs, np.float32),
        inserted=tuple(virtual(kernel[-1]) for kernel in shape.inserted_kernels),
    )
    return params, _statistics(params)


def virtual(filters: int) -> Layer:
    """An inserted layer that passes on unchanged what is not negative: a Dirac kernel, no bias."""
    kernel = np.zeros((3, 3, filters, filters), np.float32)
    kernel[1, 1] = np.eye(filters)
    return Layer(kernel, np.zeros(filters, np.float32))


def _unit(kernel: Float32[np.ndarray, "size size channels filters"]) -> Unit:
    zeros, ones = np.zeros(kernel.shape[-1], np.float32), np.ones(kernel.shape[-1], np.float32)
    return Unit(kernel, zeros, ones, zeros)


def _statistics(params: Params) -> Params:
    """Statistics before any training, one `Norm` for each `Unit`."""
    return jax.tree.map(
        lambda unit: Norm(np.zeros_like(unit.beta), np.ones_like(unit.beta)),
        params._replace(last=(), last_bias=(), inserted=()),
        is_leaf=lambda node: isinstance(node, Unit),
    )


def _glorot_uniform(
    chance: np.random.Generator, size: tuple[int, ...]
) -> Float32[np.ndarray, "..."]:
    limit = math.sqrt(6 / (math.prod(size[:-2]) * (size[-2] + size[-1])))
    return ((2 * chance.random(size, np.float32) - 1) * np.float32(limit)).astype(np.float32)


def _he_normal(chance: np.random.Generator, size: tuple[int, ...]) -> Float32[np.ndarray, "..."]:
    """A normal distribution cut at two standard deviations, of variance 2 / fan_in."""
    values = chance.standard_normal(size, np.float32)
    while (outside := np.abs(values) > 2).any():
        values[outside] = chance.standard_normal(int(outside.sum()), np.float32)
    deviation = 0.87962566  # of a standard normal distribution cut at 2
    return values * np.float32(math.sqrt(2 / math.prod(size[:-1])) / deviation)


class Convolution(nn.Module):
    """SAME, with bias; computed as `lowering` finds best."""

    filters: int
    size: int = 3
    stride: int = 1

    @nn.compact
    def __call__(
        self, x: Float32[Array, "batch height width channels"]
    ) -> Float32[Array, "batch new_height new_width filters"]:
        size = (self.size, self.size, x.shape[-1], self.filters)
        kernel = self.param("kernel", nn.initializers.he_normal(), size)
        bias = self.param("bias", nn.initializers.zeros, (self.filters,))
        return lowering.convolve(x, kernel, self.stride) + bias


class BatchNorm(nn.Module):
    """Batch normalisation as in Keras: it normalises by the biased variance of a batch and keeps
    the unbiased one. norm: one of `NORMS`."""

    norm: str

    @nn.compact
    def __call__(
        self, x: Float32[Array, "batch height width channels"]
    ) -> Float32[Array, "batch height width channels"]:
        size = (x.shape[-1],)
        gamma = self.param("gamma", nn.initializers.ones, size)
        beta = self.param("beta", nn.initializers.zeros, size)
        kept_mean = self.variable("batch_stats", "mean", jnp.zeros, size)
        kept_variance = self.variable("batch_stats", "variance", jnp.ones, size)
        mean, variance = kept_mean.value, kept_variance.value
        if self.norm != RUNNING:
            mean = x.mean((0, 1, 2))
            variance = jnp.square(x - mean).mean((0, 1, 2))
        if self.norm in (TRAIN, RESET) and not self.is_initializing():
            momentum = MOMENTUM if self.norm == TRAIN else 0.0
            count = x.size // x.shape[-1]
            unbiased = variance * (count / max(count - 1, 1))  # of one number it is 0 anyway
            kept_mean.value = momentum * kept_mean.value + (1 - momentum) * mean
            kept_variance.value = momentum * kept_variance.value + (1 - momentum) * unbiased
        return (x - mean) * (gamma * lax.rsqrt(variance + EPSILON)) + beta


class BasicBlock(nn.Module):
    """conv3x3 - BN - ReLU - conv3x3 - BN (- add the skip) - ReLU. bare: without its branch."""

    filters: int
    stride: int
    residual: bool
    norm: str
    bare: bool = False

    @nn.compact
    def __call__(
        self, x: Float32[Array, "batch height width channels"], _: None = None
    ) -> tuple[Float32[Array, "batch new_height new_width filters"], None]:
        skip = x
        if self.residual and self.stride > 1:
            projected = Convolution(self.filters, 1, self.stride, name="conv_skip")(x)
            skip = BatchNorm(self.norm, name="bn_skip")(projected)
        if self.bare:
            return named(nn.relu(skip), BLOCK), None
        first = named(Convolution(self.filters, stride=self.stride, name="conv1")(x), FIRST)
        h = nn.relu(BatchNorm(self.norm, name="bn1")(first))
        second = named(Convolution(self.filters, name="conv2")(h), SECOND)
        branch = named(BatchNorm(self.norm, name="bn2")(second), BRANCH)
        output = branch + named(skip, SKIP) if self.residual else branch
        return named(nn.relu(output), BLOCK), None


class Inserted(nn.Module):
    """A layer that came later: relu(conv3x3), without normalisation."""

    filters: int

    @nn.compact
    def __call__(
        self, x: Float32[Array, "batch height width filters"]
    ) -> Float32[Array, "batch height width filters"]:
        return named(nn.relu(Convolution(self.filters, name="conv")(x)), INSERTED)


class ConvNet(nn.Module):
    """A VGG or ResNet; equal blocks behind one another are stacked and scanned. norm: one of
    `NORMS`. Sites are named after what they are: see the constants above."""

    shape: ConvShape
    norm: str = RUNNING

    @nn.compact
    def __call__(
        self, x: Float32[Array, "batch height width channels"]
    ) -> Float32[Array, "batch outputs"]:
        """Logits of images."""
        shape = self.shape
        stem = Convolution(shape.filters, 7, 2, name="stem")(x)
        x = nn.relu(BatchNorm(self.norm, name="stem_bn")(stem))
        if x.shape[2] * 2 > POOL_ABOVE:
            window = (1, 3, 3, 1)
            x = lax.reduce_window(x, -jnp.inf, lax.max, window, (1, 2, 2, 1), "SAME")
        number = 0
        for stage, count in enumerate(shape.blocks):
            filters = shape.filters * 2**stage
            halves = bool(shape.stages[stage].first)
            if halves:
                bare = stage in shape.bare
                block = BasicBlock(
                    filters, 2, shape.residual, self.norm, bare, name=_name_of_first(stage)
                )
                x = self._inserted(block(x)[0], number)
            for begin, end in scanned_runs(shape, stage):
                blocks = nn.scan(
                    BasicBlock,
                    variable_axes={"params": 0, "batch_stats": 0},
                    split_rngs={"params": True},
                    length=end - begin,
                    in_axes=nn.broadcast,
                )(filters, 1, shape.residual, self.norm, name=_name_of_run(begin, end))
                x = self._inserted(blocks(x, None)[0], end - 1)
            number += count
        features = named(x.mean((1, 2)), POOLED)
        return nn.Dense(shape.outputs, name="head")(features)

    def _inserted(
        self, x: Float32[Array, "batch height width filters"], block: int
    ) -> Float32[Array, "batch height width filters"]:
        """Apply the layers that have been inserted after a block."""
        for place, after in enumerate(self.shape.inserted):
            if after == block:
                x = Inserted(x.shape[-1], name=f"inserted{place}")(x)
        return x


def scanned_runs(shape: ConvShape, stage: int) -> list[tuple[int, int]]:
    """First and last plus one of the blocks of a stage that are scanned together, numbered in the
    whole network: equal ones, up to where an inserted layer follows."""
    plan = shape.stages[stage]
    start = sum(shape.blocks[:stage]) + bool(plan.first)
    end = start + plan.repeats
    ends = [block + 1 for block in sorted(set(shape.inserted)) if start <= block < end - 1]
    return list(itertools.pairwise([start, *ends, end])) if plan.repeats else []


def _name_of_first(stage: int) -> str:
    return f"stage{stage}_first"


def _name_of_run(begin: int, end: int) -> str:
    return f"blocks{begin}_{end - 1}"


def variables(shape: ConvShape, params: Params, statistics: Params) -> dict[str, PyTree]:
    """Parameters and statistics as the variables of `ConvNet`."""
    trained: dict[str, PyTree] = {"head": {"kernel": params.last, "bias": params.last_bias}}
    kept: dict[str, PyTree] = {}

    def add(name: str, convolution: str, norm: str, unit: Unit, past: Norm) -> None:
        into = trained if not name else trained.setdefault(name, {})
        into[convolution] = {"kernel": unit.kernel, "bias": unit.bias}
        into[norm] = {"gamma": unit.gamma, "beta": unit.beta}
        into = kept if not name else kept.setdefault(name, {})
        into[norm] = {"mean": past.mean, "variance": past.variance}

    add("", "stem", "stem_bn", params.stem, statistics.stem)
    for stage, (units, past) in enumerate(zip(params.stages, statistics.stages, strict=True)):
        names = NAMES[len(units.first)]
        for (conv, norm), unit, one in zip(names, units.first, past.first, strict=True):
            add(_name_of_first(stage), conv, norm, unit, one)
        offset = sum(shape.blocks[:stage]) + bool(units.first)
        for begin, end in scanned_runs(shape, stage):
            rows = slice(begin - offset, end - offset)
            whole = rows.stop - rows.start == shape.stages[stage].repeats
            for (conv, norm), unit, one in zip(PAIR, units.rest, past.rest, strict=True):
                # All rows without tracing a copy.
                part = (unit, one) if whole else jax.tree.map(lambda a, r=rows: a[r], (unit, one))
                add(_name_of_run(begin, end), conv, norm, *part)
    for place, layer in enumerate(params.inserted):
        trained[f"inserted{place}"] = {"conv": {"kernel": layer.kernel, "bias": layer.bias}}
    return {"params": trained, "batch_stats": kept}


def statistics_of(shape: ConvShape, batch_stats: dict[str, PyTree], like: Params) -> Params:
    """The statistics in `ConvNet`'s variables, as `init` returns them; like: of this structure."""

    def norm(name: str, which: str) -> Norm:
        found = batch_stats[name][which] if name else batch_stats[which]
        return Norm(found["mean"], found["variance"])

    stages = []
    for stage, past in enumerate(like.stages):
        first = tuple(norm(_name_of_first(stage), which) for _, which in NAMES[len(past.first)])
        parts = [
            tuple(norm(_name_of_run(b, e), which) for _, which in PAIR)
            for b, e in scanned_runs(shape, stage)
        ]
        rest = jax.tree.map(lambda *a: jnp.concatenate(a), *parts) if parts else past.rest
        stages.append(Stage(first, rest))
    return like._replace(stem=norm("", "stem_bn"), stages=tuple(stages))
