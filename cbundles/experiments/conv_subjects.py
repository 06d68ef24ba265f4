"""A VGG or ResNet that gets layers while it is trained: a population of one.

It is not padded: an insertion makes another shape, and that is compiled anew. Programs therefore
number one for each shape and purpose, and `compile_seconds` tells what they take.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cbundles import train
from cbundles.config import Cell
from cbundles.data.dataset import Facts
from cbundles.data.device import DeviceData
from cbundles.experiments.subjects import Snapshot, Subjects
from cbundles.networks import conv_insertion
from cbundles.networks.network import Network
from cbundles.networks.shape import ConvShape, Shape, shape_of


class ConvSubjects(Subjects):
    """One network. A position is that of the block which an inserted layer follows."""

    def __init__(self, cells: Sequence[Cell], data: DeviceData, facts: Facts) -> None:
        depth = shape_of(cells[0].model, facts).depth
        super().__init__(cells, [depth], depth, data, facts)

    def _shape(self, depth: int) -> Shape:
        return shape_of(self.cells[0].model, self.facts)

    def shape_of(self, member: int) -> Shape:
        shape: ConvShape = self.shape
        return shape

    def network_of(self, member: int) -> tuple[Shape, Network]:
        one = jax.tree.map(lambda a: np.asarray(a[0]), self.state.network())
        return self.shape_of(0), one

    def scores(self) -> list[tuple[list[float], list[float]]]:
        found = self._run(_scores, None, self.state.network(), *self._scored)
        values = [np.asarray(part[0], float) for part in (found.virtual, found.existing)]
        if self.cells[0].growth.scale == "size":
            sizes = conv_insertion.sizes(self.shape)
            values = [part / np.array(size) for part, size in zip(values, sizes, strict=True)]
        virtual, existing = (part.tolist() for part in values)
        return [(virtual, existing)]

    def merged(self, which: np.ndarray, some: Snapshot, others: Snapshot) -> Snapshot:
        return some if which[0] else others

    def restore(self, old: Snapshot, which: np.ndarray) -> None:
        if which[0]:
            self.shape, state, self.depths, self.rates = old
            self.state = jax.tree.map(jnp.copy, state)

    def insert(self, positions: np.ndarray, factor: float = 1.0) -> None:
        block, size = int(positions[0]), self.state.params.fast.shape
        if block < 0:
            return

        def edit(leaf: Any, *, virtual: bool) -> Any:
            if leaf.shape != size:
                return leaf
            longer = conv_insertion.insert(self.shape, leaf[0], block, virtual=virtual)
            return jnp.asarray(longer[None])

        weights = jax.tree.map(functools.partial(edit, virtual=True), self.state.params)
        moments = jax.tree.map(functools.partial(edit, virtual=False), self.state.opt_state)
        self.state = train.TrainState(weights, moments, self.state.statistics)
        self.shape = conv_insertion.grown(self.shape, block)
        self.depths, self.rates = self.depths + 1, self.rates * np.float32(factor)


@functools.cache
def _scores(shape: ConvShape, how: None) -> Any:
    one = functools.partial(conv_insertion.scores, shape)
    return jax.jit(jax.vmap(one, in_axes=(0, None, None)))
