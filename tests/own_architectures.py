"""Architectures as users write them, small, for `test_own_networks`; some cannot be trained."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

CLASSES = 10


class MLP(nn.Module):
    depth: int
    width: int
    activation: str = "relu"
    classes: int = CLASSES

    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1)
        for number in range(self.depth):
            x = getattr(nn, self.activation)(nn.Dense(self.width, name=f"layer{number}")(x))
        return nn.Dense(self.classes, name="head")(x)


def mlp(depth, width=8, activation="relu", classes=CLASSES):
    return MLP(depth, width, activation, classes)


class Normalised(nn.Module):
    """Convolutions, batch normalisation, a named value, and a scan of equal blocks."""

    filters: tuple[int, ...]

    @nn.compact
    def __call__(self, x, train=False):
        for filters in self.filters:
            x = nn.Conv(filters, (3, 3), 4)(x)
            x = nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))
        x = checkpoint_name(x.mean((1, 2)), "pooled")
        blocks = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = blocks()(x, None)
        return nn.Dense(CLASSES)(x)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.relu(nn.Dense(x.shape[-1])(x)), None


def normalised(filters=(4, 6)):
    return Normalised(tuple(filters))


def widths_in_a_list(widths=[4], more=True):  # noqa: B006
    all_widths = widths.copy()
    all_widths.extend([8, 8])
    return MLP(len(all_widths), all_widths[0], "relu" if more else "tanh")


class Untold(nn.Module):
    """Normalises by batches, but cannot be told of training."""

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=False)(nn.Dense(4)(x.reshape(len(x), -1)))
        return nn.Dense(CLASSES)(nn.relu(x))


class Dropping(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dropout(0.5, deterministic=not train)(nn.Dense(4)(x.reshape(len(x), -1)))
        return nn.Dense(CLASSES)(nn.relu(x))


class Coarse(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(CLASSES, param_dtype=jnp.float16)(nn.relu(x.reshape(len(x), -1)))


class OneMap(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(CLASSES)(x.reshape(len(x), -1))


def nothing():
    return {"no": "module"}


def raising(size=3):
    raise ValueError(f"no network of size {size}")


def source(source=1):
    return MLP(source, 4)


def typed(bn=False, depth=2, heads=4, rate=0.5):
    return MLP(depth, heads)


def named_as_ours(block="plain", activation="relu"):
    """Keywords that other families have, too."""
    return MLP(len(str(block)), 4)


def any_depth(depth=None, rate=0.5):
    return MLP(depth or 2, 4)


def sizes_of_another_kind(depth=(2, 2)):
    return mlp(sum(depth))


def leaving(depth=2):
    raise SystemExit(3)


def collecting(**sizes):
    return MLP(**sizes)


def by_position(depth, /):
    return MLP(depth, 4)


class Plain(nn.Module):
    """Stages of dense blocks; the names of the blocks say where they are."""

    blocks: tuple[int, ...]
    width: int
    name_of: str

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.width, name="stem")(x.reshape(len(x), -1)))
        for stage, count in enumerate(self.blocks):
            for number in range(count):
                name = self.name_of.format(stage=stage, number=number)
                x = DenseBlock(self.width, name=name)(x)
        return nn.Dense(CLASSES, name="head")(x)


class DenseBlock(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.width)(x))
        return nn.relu(nn.Dense(self.width)(x))


def staged(blocks=(1, 8, 1), width=16, name_of="stage{stage}_block{number}"):
    return Plain(tuple(blocks), width, name_of)


def counted(blocks=4):
    return staged((blocks,))


def undecided(blocks):
    return staged(blocks)
