"""Training: one step, one epoch as one XLA program, and populations of networks.

A network is one flat float32 vector of parameters. The optimizer is elementwise, so on a vector it
is a handful of fused loops, where a tree of small matrices costs one launch each: for narrow, deep
networks that was a third of a step.

A population is a stack of such vectors trained by the same program, one independent network a row,
each with its own seed, data order, augmentation and depth. A population of one is the ordinary
case. What a network becomes does not depend on who else is in its population (up to rounding).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from cbundles.chance import EPOCH, generator
from cbundles.data import augment
from cbundles.networks import network
from cbundles.networks.network import Network
from cbundles.networks.shape import Shape
from cbundles.optim import ranger


class TrainState(NamedTuple):
    """params: fast and slow weights, float32 (P,) each; opt_state: Ranger's; statistics: of batch
    normalisation, float32 (S,).

    In a population every leaf has a leading member axis.
    """

    params: optax.LookaheadParams
    opt_state: Any
    statistics: Any

    def network(self, depth: Any = None) -> Network:
        """What is measured: the fast weights."""
        return Network(self.params.fast, self.statistics, depth)


@dataclass(frozen=True)
class Recipe:
    """What is compiled into the epoch program, besides the network's shape."""

    batch_size: int
    learning_rate: float
    weight_decay: float
    augmentation: augment.Augmentation

    def optimizer(self, rate: Any = 1.0) -> optax.GradientTransformation:
        """Ranger. rate: times the learning rate, a number or a traced float32 ()."""
        return ranger(self.learning_rate * rate, weight_decay=self.weight_decay)


def start(initial: Network, recipe: Recipe) -> TrainState:
    """The state before the first step. Slow weights start equal to the fast ones."""
    fast = jnp.asarray(initial.params)
    synced = optax.LookaheadParams(fast=fast, slow=jnp.copy(fast))  # donated: not one buffer twice
    return TrainState(synced, recipe.optimizer().init(synced), jnp.asarray(initial.statistics))


def loss_of(
    flat: jax.Array, rest: Network, x: jax.Array, y: jax.Array, shape: Shape
) -> tuple[jax.Array, jax.Array]:
    """Mean softmax cross-entropy of a batch of parameters (P,), and the statistics after it.

    rest: the network without its parameters; x: float32 (B, H, W, C); y: int32 (B,).
    """
    logits, statistics = network.moving_logits(shape, rest._replace(params=flat), x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), statistics


def step(
    state: TrainState,
    x: jax.Array,
    y: jax.Array,
    *,
    shape: Shape,
    recipe: Recipe,
    depth: jax.Array | None = None,
    rate: Any = 1.0,
) -> tuple[TrainState, jax.Array]:
    """One update of one network; also the batch's loss before it. See `loss_of` for shapes."""
    fast, slopes = state.params.fast, jax.value_and_grad(loss_of, has_aux=True)
    (loss, statistics), gradient = slopes(fast, state.network(depth), x, y, shape)
    optimizer = recipe.optimizer(rate)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    return TrainState(optax.apply_updates(state.params, updates), opt_state, statistics), loss


class Plan(NamedTuple):
    """All chance of one epoch. order: int32 (steps, B), rows of the training set; draws: the
    augmentation of each of these images, (steps, B, ...)."""

    order: Any
    draws: augment.Draws


def plan(recipe: Recipe, seed: int, number: int, examples: int) -> Plan:
    """The plan of epoch `number`, drawn on the host: the same on every device, and resumable.

    The last, partial batch is dropped.
    """
    steps = examples // recipe.batch_size
    used = steps * recipe.batch_size
    chance = generator(seed, EPOCH, number)
    order = chance.permutation(examples).astype(np.int32)[:used]
    flat = Plan(order, augment.draw(chance, used, recipe.augmentation))
    return jax.tree.map(lambda a: a.reshape(steps, recipe.batch_size, *a.shape[1:]), flat)


def epoch(
    state: TrainState,
    plan: Plan,
    depth: jax.Array | None,
    canvas: jax.Array,
    labels: jax.Array,
    *,
    shape: Shape,
    recipe: Recipe,
    rate: Any = 1.0,
) -> tuple[TrainState, jax.Array]:
    """One pass over the training set, of one network; also the mean loss over its batches.

    canvas: float32 (N, H, W, C), see `augment.canvas`; labels: int32 (N,).
    """

    def batch(state: TrainState, chosen: Plan) -> tuple[TrainState, jax.Array]:
        images = augment.view(canvas, chosen.order, chosen.draws, recipe.augmentation)
        chosen_labels = labels[chosen.order]
        return step(
            state, images, chosen_labels, shape=shape, recipe=recipe, depth=depth, rate=rate
        )

    state, losses = lax.scan(batch, state, plan)
    return state, losses.mean()


@functools.cache
def epoch_program(shape: Shape, recipe: Recipe) -> Any:
    """`epoch` for a population, compiled once per shape: (members, ...) states and plans; depths
    (members,) when some member is shallower than `shape`, otherwise None. The state is donated:
    pass it in, use what comes out.
    """

    def population(state, plan, depths, canvas, labels):  # type: ignore[no-untyped-def]
        one = functools.partial(epoch, shape=shape, recipe=recipe)
        return jax.vmap(one, in_axes=(0, 0, 0, None, None))(state, plan, depths, canvas, labels)

    return jax.jit(population, donate_argnums=0)
