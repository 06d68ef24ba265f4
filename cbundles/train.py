"""Training: one step, any number of steps as one XLA program, and populations of networks.

A network is one flat vector of parameters, in the precision in which it is trained: float32, or
float64, which needs `arithmetic` wherever its arrays are touched. The optimizer is elementwise, so
on a vector it is a handful of fused loops, where a tree of small matrices costs one launch each:
for narrow, deep networks that was a third of a step.

A population is a stack of such vectors trained by the same program, one independent network a row,
each with its own seed, data order, augmentation and depth. A population of one is the ordinary
case. What a network becomes does not depend on who else is in its population (up to rounding).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.stages import Wrapped
from jaxtyping import Array, Float, Int32, PyTree, UInt32

from cbundles.arrays import Numbers
from cbundles.bundles import rounded
from cbundles.chance import EPOCH, generator
from cbundles.config import AS_COMPUTED, FLOAT32, FLOAT64
from cbundles.data import augment, pipelines
from cbundles.networks import network
from cbundles.networks.network import Network
from cbundles.networks.shape import ConvShape, Shape
from cbundles.optim import ranger


class TrainState(NamedTuple):
    """A network in training, or the members of a population: then every leaf has a leading axis.

    params: fast and slow weights, vectors as in `Network`.
    opt_state: Ranger's.
    statistics: of batch normalisation.
    """

    params: optax.LookaheadParams
    opt_state: optax.OptState
    statistics: Float[Numbers, "*members statistics"]

    def network(
        self,
        depth: Int32[Numbers, "*members"] | None = None,
        width: Int32[Numbers, "*members"] | None = None,
    ) -> Network:
        """What is trained and measured: the fast weights. depth, width: see `Network`."""
        return Network(self.params.fast, self.statistics, depth, width)


@dataclass(frozen=True)
class Recipe:
    """What is compiled into the program, besides the network's shape.

    precision: of all that is computed from images, which are float32, and initial weights, which
        were: weights, activations, gradients, losses, the optimizer's moments and arithmetic
    storage: AS_COMPUTED, or the format to whose nearest even numbers the fast and the slow weights
        are rounded before the first step and after each one, those that Lookahead has just set to
        one another included. Nothing else is: moments and statistics of batch normalisation stay
        in the precision, as does the step itself before it is added.
    """

    batch_size: int
    learning_rate: float
    weight_decay: float
    augmentation: pipelines.Augmentation
    precision: str = FLOAT32
    storage: str = AS_COMPUTED

    def optimizer(self, rate: float | Float[Array, ""] = 1.0) -> optax.GradientTransformation:
        """Ranger. rate: times the learning rate."""
        return ranger(self.learning_rate * rate, weight_decay=self.weight_decay)


def arithmetic(precision: str) -> AbstractContextManager[Any]:
    """Where arrays of this precision are made, computed with and copied: elsewhere JAX makes
    float32 of float64."""
    return jax.enable_x64(True) if precision == FLOAT64 else contextlib.nullcontext()


def start(initial: Network, recipe: Recipe) -> TrainState:
    """The state before the first step. Slow weights start equal to the fast ones."""
    fast = jnp.asarray(initial.params, recipe.precision)
    if recipe.storage != AS_COMPUTED:
        fast = rounded(fast, recipe.storage, np.uint32(0))
    synced = optax.LookaheadParams(fast=fast, slow=jnp.copy(fast))  # donated: not one buffer twice
    return TrainState(synced, recipe.optimizer().init(synced), jnp.asarray(initial.statistics))


def loss_of(
    flat: Float[Array, " params"],
    rest: Network,
    x: Float[Array, "batch *pixels"],
    y: Int32[Array, " batch"],
    shape: Shape,
) -> tuple[Float[Array, ""], Float[Numbers, " statistics"]]:
    """Mean softmax cross-entropy of a batch, and the statistics after it. flat: the parameters;
    rest: the network without them."""
    logits, statistics = network.moving_logits(shape, rest._replace(params=flat), x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), statistics


def step(
    state: TrainState,
    x: Float[Array, "batch *pixels"],
    y: Int32[Array, " batch"],
    *,
    shape: Shape,
    recipe: Recipe,
    depth: Int32[Array, ""] | None = None,
    width: Int32[Array, ""] | None = None,
    rate: float | Float[Array, ""] = 1.0,
) -> tuple[TrainState, Float[Array, ""]]:
    """One update of one network; also the batch's loss before it."""
    fast, slopes = state.params.fast, jax.value_and_grad(loss_of, has_aux=True)
    x = x.astype(fast.dtype)
    (loss, statistics), gradient = slopes(fast, state.network(depth, width), x, y, shape)
    optimizer = recipe.optimizer(rate)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    if recipe.storage != AS_COMPUTED:
        params = stored(params, recipe.storage, opt_state.steps_since_sync)
    return TrainState(params, opt_state, statistics), loss


def stored(
    params: optax.LookaheadParams, storage: str, steps: Int32[Array, ""]
) -> optax.LookaheadParams:
    """Fast and slow weights as their storage keeps them. steps: a number that is never negative,
    which the compiler does not know, see `rounded`."""
    opaque_zero: UInt32[Array, ""] = (steps < 0).astype(jnp.uint32)
    return jax.tree.map(lambda weights: rounded(weights, storage, opaque_zero), params)


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
    losses: Float[Array, " steps"],
    plan: Plan,
    start: Int32[Array, ""],
    stop: Int32[Array, ""],
    depth: Int32[Array, ""] | None,
    width: Int32[Array, ""] | None,
    rate: Float[Array, ""],
    canvas: Float[Array, "images height width channels"],
    labels: Int32[Array, " images"],
    *,
    shape: Shape,
    recipe: Recipe,
) -> tuple[TrainState, Float[Array, " steps"]]:
    """The steps of an epoch from `start` to before `stop`, of one network; also the losses, those
    of these steps anew. canvas: see `augment.canvas`.

    The bounds are arguments of the program: an epoch in one call or in many gives the same bits,
    and another number of steps needs no other program.
    """

    def one(
        number: Int32[Array, ""], carried: tuple[TrainState, Float[Array, " steps"]]
    ) -> tuple[TrainState, Float[Array, " steps"]]:
        state, losses = carried
        chosen = jax.tree.map(lambda a: a[number], plan)
        x = augment.view(canvas, chosen.order, chosen.draws, recipe.augmentation)
        y = labels[chosen.order]
        state, loss = step(
            state, x, y, shape=shape, recipe=recipe, depth=depth, width=width, rate=rate
        )
        return state, losses.at[number].set(loss)

    rate = rate.astype(recipe.precision)
    return lax.fori_loop(start, stop, one, (state, losses))


@functools.cache
def advance_program(shape: Shape, recipe: Recipe) -> Wrapped:
    """`advance` for a population, compiled once per shape: of states, losses, plans, depths (None
    where none is, or becomes, shallower than `shape`), widths (None where no network has to know
    its own) and rates with a leading member axis. States and losses are donated: pass them in, use
    what comes out.
    """

    def population(state, losses, plan, start, stop, depths, widths, rates, canvas, labels):  # type: ignore[no-untyped-def]
        one = functools.partial(advance, shape=shape, recipe=recipe)
        axes = (0, 0, 0, None, None, 0, 0, 0, None, None)
        given = (state, losses, plan, start, stop, depths, widths, rates, canvas, labels)
        if isinstance(shape, ConvShape) and len(rates) == 1:
            return _alone(one, axes, given)
        return jax.vmap(one, in_axes=axes)(*given)

    return jax.jit(population, donate_argnums=(0, 1))


def _alone(
    function: Callable[..., PyTree], axes: Sequence[int | None], given: Sequence[PyTree]
) -> PyTree:
    """What `vmap` of the function does for a single member, without it: under `vmap` both sides of
    a `cond` are computed, see `materialised`."""
    first = (
        each if axis is None else jax.tree.map(lambda leaf: leaf[0], each)
        for each, axis in zip(given, axes, strict=True)
    )
    return jax.tree.map(lambda leaf: leaf[None], function(*first))


def whole_epoch(
    state: TrainState, plan: Plan, canvas: Float[Array, "_ _ _ _"], labels: Int32[Array, " _"]
) -> tuple[Any, ...]:
    """The arguments with which `advance_program` does all steps of a plan, of networks that are not
    padded. state, plan: with a leading member axis."""
    members, steps = np.shape(plan.order)[:2]
    losses, rates = jnp.zeros((members, steps)), jnp.ones(members)
    return state, losses, plan, np.int32(0), np.int32(steps), None, None, rates, canvas, labels
