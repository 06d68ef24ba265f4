"""The product's training: a population, all steps of a turn in one program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from cbundles import train
from cbundles.data import augment
from cbundles.executor.planner import CPU_POPULATION, CPU_POPULATION_MAX_WIDTH
from cbundles.networks import network
from training_peers.task import FC, SEED, Task

STOP = 4  # its place among the arguments of `train.whole_epoch`


class WholeTurn:
    """As a worker of a sweep trains on a CPU: one network, or four that are narrow."""

    def __init__(self, task: Task) -> None:
        is_narrow = task.family == FC and task.width <= CPU_POPULATION_MAX_WIDTH
        self.networks = CPU_POPULATION if is_narrow else 1
        self.task = task
        self.recipe = task.recipe(augmented=task.augmented)
        self.turn = 0
        images, labels = task.images()
        self.images, self.labels = jnp.asarray(images), jnp.asarray(labels)
        self.canvas = jax.jit(augment.canvas, static_argnums=1)(
            self.images, self.recipe.augmentation
        )
        self.state = self._start()

    def first_losses(self, steps: int) -> list[float]:
        plain = self.task.recipe(augmented=False)
        canvas = jax.jit(augment.canvas, static_argnums=1)(self.images, plain.augmentation)
        return [float(loss) for loss in self._train(plain, 1, canvas, self._start(), steps)[0]]

    def train_for_a_turn(self) -> None:
        self.turn += 1
        losses = self._train(self.recipe, self.turn, self.canvas, self.state, self.task.steps)
        losses.block_until_ready()

    def _train(
        self, recipe: train.Recipe, turn: int, canvas: Array, state: train.TrainState, steps: int
    ) -> Array:
        """The losses of so many steps of a turn, which change `state`: the same program does a part
        of them, since where it stops is one of its arguments."""
        plan = self._plan(recipe, turn)
        arguments = [*train.whole_epoch(state, plan, canvas, self.labels)]
        arguments[STOP] = np.int32(steps)
        self.state, losses = train.advance_program(self.task.shape, recipe)(*arguments)
        return losses[:, :steps]

    def _seeds(self) -> range:
        return range(SEED, SEED + self.networks)

    def _start(self) -> train.TrainState:
        shape = self.task.shape
        networks = [network.initial(shape, seed, shape) for seed in self._seeds()]
        states: train.TrainState = _stacked([train.start(one, self.recipe) for one in networks])
        return states

    def _plan(self, recipe: train.Recipe, turn: int) -> train.Plan:
        plans = [train.plan(recipe, seed, turn, len(self.labels)) for seed in self._seeds()]
        together: train.Plan = _stacked(plans)
        return together


class MatrixProducts:
    """The limit: as many FLOPs as the steps of a turn, in products of two large matrices."""

    SIDE = 2048

    def __init__(self, task: Task) -> None:
        self.networks = 1
        flops_of_column = 2 * self.SIDE**2
        columns = round(task.steps * task.flops_of_step / flops_of_column)
        self.products, self.columns_left = divmod(columns, self.SIDE)
        self.matrix = jnp.asarray(np.eye(self.SIDE, dtype=np.float32))
        self.narrower = self.matrix[:, : self.columns_left]
        self.product = jax.jit(jnp.matmul)

    def first_losses(self, steps: int) -> list[float]:
        del steps  # it trains nothing
        return []

    def train_for_a_turn(self) -> None:
        result = self.matrix
        for _ in range(self.products):
            result = self.product(result, self.matrix)
        self.product(result, self.narrower).block_until_ready()


def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
