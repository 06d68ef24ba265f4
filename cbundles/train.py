"""Training: one step, any number of steps as one XLA program, and populations of networks.

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
from jax.stages import Wrapped
from jaxtyping import Array, Float32, Int32

from cbundles.arrays import Numbers
from cbundles.chance import EPOCH, generator
from cbundles.data import augment
from cbundles.networks import network
from cbundles.networks.network import Network
from cbundles.networks.shape import Shape
from cbundles.optim import ranger


class TrainState(NamedTuple):
    """A network in training, or the members of a population: then every leaf has a leading axis.

    params: fast and slow weights, vectors as in `Network`.
    opt_state: Ranger's.
    statistics: of batch normalisation.
    """

    params: optax.LookaheadParams
    opt_state: optax.OptState
    statistics: Float32[Numbers, "*members statistics"]

    def network(self, depth: Int32[Numbers, "*members"] | None = None) -> Network:
        """What is measured: the fast weights."""
        return Network(self.params.fast, self.statistics, depth)


@dataclass(frozen=True)
class Recipe:
    """What is compiled into the program, besides the network's shape."""

    batch_size: int
    learning_rate: float
    weight_decay: float
    augmentation: augment.Augmentation

    def optimizer(self, rate: float | Float32[Array, ""] = 1.0) -> optax.GradientTransformation:
        """Ranger. rate: times the learning rate."""
        return ranger(self.learning_rate * rate, weight_decay=self.weight_decay)


def start(initial: Network, recipe: Recipe) -> TrainState:
    """The state before the first step. Slow weights start equal to the fast ones."""
    fast = jnp.asarray(initial.params)
    synced = optax.LookaheadParams(fast=fast, slow=jnp.copy(fast))  # donated: not one buffer twice
    return TrainState(synced, recipe.optimizer().init(synced), jnp.asarray(initial.statistics))


def loss_of(
    flat: Float32[Array, " params"],
    rest: Network,
    x: Float32[Array, "batch *pixels"],
    y: Int32[Array, " batch"],
    shape: Shape,
) -> tuple[Float32[Array, ""], Float32[Numbers, " statistics"]]:
    """Mean softmax cross-entropy of a batch, and the statistics after it. flat: the parameters;
    rest: the network without them."""
    logits, statistics = network.moving_logits(shape, rest._replace(params=flat), x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), statistics


def step(
    state: TrainState,
    x: Float32[Array, "batch *pixels"],
    y: Int32[Array, " batch"],
    *,
    shape: Shape,
    recipe: Recipe,
    depth: Int32[Array, ""] | None = None,
    rate: float | Float32[Array, ""] = 1.0,
) -> tuple[TrainState, Float32[Array, ""]]:
    """One update of one network; also the batch's loss before it."""
    fast, slopes = state.params.fast, jax.value_and_grad(loss_of, has_aux=True)
    (loss, statistics), gradient = slopes(fast, state.network(depth), x, y, shape)
    optimizer = recipe.optimizer(rate)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    return TrainState(optax.apply_updates(state.params, updates), opt_state, statistics), loss


class Plan(NamedTuple):
    """All chance of one epoch. order: rows of the training set; draws: the augmentation of each of
    these images, with the same leading axes."""

    order: Int32[Numbers, "*members steps batch"]
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


def advance(
    state: TrainState,
    losses: Float32[Array, " steps"],
    plan: Plan,
    start: Int32[Array, ""],
    stop: Int32[Array, ""],
    depth: Int32[Array, ""] | None,
    rate: Float32[Array, ""],
    canvas: Float32[Array, "images height width channels"],
    labels: Int32[Array, " images"],
    *,
    shape: Shape,
    recipe: Recipe,
) -> tuple[TrainState, Float32[Array, " steps"]]:
    """The steps of an epoch from `start` to before `stop`, of one network; also the losses, those
    of these steps anew. canvas: see `augment.canvas`.

    The bounds are arguments of the program: an epoch in one call or in many gives the same bits,
    and another number of steps needs no other program.
    """

    def one(
        number: Int32[Array, ""], carried: tuple[TrainState, Float32[Array, " steps"]]
    ) -> tuple[TrainState, Float32[Array, " steps"]]:
        state, losses = carried
        chosen = jax.tree.map(lambda a: a[number], plan)
        x = augment.view(canvas, chosen.order, chosen.draws, recipe.augmentation)
        y = labels[chosen.order]
        state, loss = step(state, x, y, shape=shape, recipe=recipe, depth=depth, rate=rate)
        return state, losses.at[number].set(loss)

    return lax.fori_loop(start, stop, one, (state, losses))


@functools.cache
def advance_program(shape: Shape, recipe: Recipe) -> Wrapped:
    """`advance` for a population, compiled once per shape: of states, losses, plans, depths (None
    where none is, or becomes, shallower than `shape`) and rates with a leading member axis. States
    and losses are donated: pass them in, use what comes out.
    """

    def population(state, losses, plan, start, stop, depths, rates, canvas, labels):  # type: ignore[no-untyped-def]
        one = functools.partial(advance, shape=shape, recipe=recipe)
        axes = (0, 0, 0, None, None, 0, 0, None, None)
        return jax.vmap(one, in_axes=axes)(
            state, losses, plan, start, stop, depths, rates, canvas, labels
        )

    return jax.jit(population, donate_argnums=(0, 1))


def whole_epoch(
    state: TrainState, plan: Plan, canvas: Float32[Array, "_ _ _ _"], labels: Int32[Array, " _"]
) -> tuple[Any, ...]:
    """The arguments with which `advance_program` does all steps of a plan, of networks that are not
    padded in depth. state, plan: with a leading member axis."""
    members, steps = np.shape(plan.order)[:2]
    losses, rates = jnp.zeros((members, steps)), jnp.ones(members)
    return state, losses, plan, np.int32(0), np.int32(steps), None, rates, canvas, labels
