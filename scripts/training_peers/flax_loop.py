"""The loop that a person would write with Flax and optax: one jitted step for each batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from flax_networks import Perceptron, Vgg
from jaxtyping import Array, PyTree

from cbundles.optim import ranger
from training_peers.task import (
    BATCH,
    FC,
    LEARNING_RATE,
    WEIGHT_DECAY,
    Task,
    first_weights,
    strides_of,
)


class FlaxLoop:
    """Batches are cut on the host; the state stays on the device and is donated."""

    def __init__(self, task: Task) -> None:
        self.networks = 1
        self.images, self.labels = task.batches()
        is_fc = task.family == FC
        model = (
            Perceptron(task.depth, task.width)
            if is_fc
            else Vgg(task.width, tuple(strides_of(task)))
        )
        optimizer = ranger(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        trained, statistics = _variables(task)
        slow = jax.tree.map(jnp.copy, trained)  # donated: not one buffer twice
        params = optax.LookaheadParams(fast=trained, slow=slow)
        self.state = (params, optimizer.init(params), statistics)

        def loss_of(fast: PyTree, statistics: PyTree, x: Array, y: Array) -> tuple[Array, PyTree]:
            variables = {"params": fast, **statistics}
            logits, moved = model.apply(variables, x, mutable=list(statistics))
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), moved

        def step(state: PyTree, x: Array, y: Array) -> tuple[PyTree, Array]:
            params, memory, statistics = state
            slopes = jax.value_and_grad(loss_of, has_aux=True)
            (loss, statistics), gradient = slopes(params.fast, statistics, x, y)
            updates, memory = optimizer.update(gradient, memory, params)
            return (optax.apply_updates(params, updates), memory, statistics), loss

        self.step = jax.jit(step, donate_argnums=0)

    def first_losses(self, steps: int) -> list[float]:
        return [float(self._step_on(number)) for number in range(steps)]

    def train_for_a_turn(self) -> None:
        for number in range(len(self.labels) // BATCH):
            loss = self._step_on(number)
        loss.block_until_ready()

    def _step_on(self, number: int) -> Array:
        rows = slice(number * BATCH, (number + 1) * BATCH)
        self.state, loss = self.step(self.state, self.images[rows], self.labels[rows])
        return loss


def _variables(task: Task) -> tuple[PyTree, PyTree]:
    """Parameters and statistics, by the names that Flax gives to modules without one."""
    weights = first_weights(task)
    params: dict[str, PyTree] = {}
    statistics: dict[str, PyTree] = {}
    for number, unit in enumerate(weights.convolutions):
        params[f"Conv_{number}"] = {"kernel": unit.kernel, "bias": unit.bias}
        params[f"BatchNorm_{number}"] = {"scale": unit.gamma, "bias": unit.beta}
        size = unit.gamma.shape
        statistics[f"BatchNorm_{number}"] = {"mean": jnp.zeros(size), "var": jnp.ones(size)}
    for number, (kernel, bias) in enumerate(weights.dense):
        params[f"Dense_{number}"] = {"kernel": kernel, "bias": bias}
    on_device = jax.tree.map(jnp.asarray, params)
    return on_device, {"batch_stats": statistics} if statistics else {}
