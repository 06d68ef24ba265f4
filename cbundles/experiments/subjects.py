"""A population of networks that change their depth while they are trained.

Fully connected networks are padded to one depth, so that networks of different depth, and the same
network before and after an insertion, share one compiled program; a position is an argument of it.
Padding grows in powers of two, which bounds the number of programs by the logarithm of the depth.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cbundles import measure, train
from cbundles.bundles import Scale
from cbundles.config import Cell
from cbundles.data import augment
from cbundles.data.dataset import Facts
from cbundles.data.device import DeviceData, Examples
from cbundles.experiments import entries, sweep
from cbundles.networks import insertion, network
from cbundles.networks.network import Network
from cbundles.networks.shape import FcShape, Shape, shape_of

CHANGING = ("depth", "inserted")  # what edits change of a shape


class Performance(NamedTuple):
    """Of each member, float32 (members,)."""

    loss: np.ndarray
    accuracy: np.ndarray


class Snapshot(NamedTuple):
    """What an edit may change: to be put back when it is undone."""

    shape: Shape
    state: train.TrainState
    depths: np.ndarray
    rates: np.ndarray


class Subjects:
    """Fully connected networks; `conv_subjects` says what is different for a VGG or ResNet.

    cells: they differ in seed, arm and depth only. shape: padded; depths: int32 (members,), layers
    now; rates: float32 (members,), times the learning rate; compile_seconds and programs: what was
    compiled."""

    def __init__(
        self,
        cells: Sequence[Cell],
        depths: Sequence[int],
        deepest: int,
        data: DeviceData,
        facts: Facts,
    ) -> None:
        """depths: of each member at the start; deepest: that there is room for from the start."""
        cell = cells[0]
        self.cells, self.data, self.facts = cells, data, facts
        self.recipe, self.measurement = sweep.recipe_of(cell), entries.measurement_of(cell)
        self.shape: Any = self._shape(max(deepest, *depths))
        self.depths = np.array(depths, np.int32)
        self.rates = np.ones(len(cells), np.float32)
        self.compile_seconds = 0.0
        self._compiled: dict[Any, Any] = {}
        self._plain = augment.pipeline_for(cell.data).without_chance
        self._scored = _batches(data.probe, cell.training.batch_size, self._plain)
        starts = [
            train.start(network.initial(self._shape(d), c.training.seed, self.shape), self.recipe)
            for c, d in zip(cells, depths, strict=True)
        ]
        self.state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)

    @property
    def programs(self) -> int:
        return len(self._compiled)

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return len(self.data.labels) // self.recipe.batch_size

    def flops(self, member: int) -> int:
        """Of one sample's forward pass through a member as it is now."""
        return self.shape_of(member).flops

    def epoch_flops(self, member: int) -> int:
        """Of an epoch: forward, and backward, which takes twice that."""
        return 3 * self.steps * self.recipe.batch_size * self.flops(member)

    def epoch_flops_at(self, depth: int) -> int:
        """Of an epoch of a network of another depth."""
        return 3 * self.steps * self.recipe.batch_size * self._shape(depth).flops

    def score_flops(self, member: int) -> int:
        """Of scoring: forward, backward, and a product a position."""
        return 4 * self._scored[1].size * self.flops(member)

    def probe_flops(self, member: int) -> int:
        """Of the forward pass of the probe set."""
        return len(self.data.probe.labels) * self.flops(member)

    def advance(self, epoch: int, active: np.ndarray) -> None:
        """One epoch of the members that are active, bool (members,)."""
        seeds = {c.training.seed for c in self.cells}
        plans = {s: train.plan(self.recipe, s, epoch, len(self.data.labels)) for s in seeds}
        mine = [plans[cell.training.seed] for cell in self.cells]
        plan = jax.tree.map(lambda *leaves: np.stack(leaves), *mine)
        self.state = self._run(
            _epoch, self.recipe, self.state, plan, self.depths, self.rates, active,
            self.data.canvas, self.data.labels,
        )  # fmt: skip

    def performance(self, examples: Examples) -> Performance:
        """Mean cross-entropy and accuracy of every member."""
        found = self._run(_performance, self._plain, self.state.network(self.depths), examples)
        return Performance(*map(np.asarray, found))

    def scores(self) -> list[tuple[list[float], list[float]]]:
        """Sensitivities of all positions and of all existing layers of every member, over the probe
        set, in batches as in training; see `insertion.Scores`. Each divided by the number of its
        weights where `growth.scale` says so."""
        zero = self.cells[0].growth.zero
        found = self._run(_scores, zero, self.state.network(self.depths), *self._scored)
        virtual, existing = np.asarray(found.virtual), np.asarray(found.existing)
        if self.cells[0].growth.scale == "size":
            weights = self.shape.width**2
            sizes = [self.shape.inputs * self.shape.width, *[weights] * (self.shape.depth - 1),
                     self.shape.width * self.shape.outputs]  # fmt: skip
            virtual, existing = virtual / weights, existing / np.array(sizes)
        return [
            (_floats(virtual[i, :depth]), _floats([*existing[i, :depth], existing[i, -1]]))
            for i, depth in enumerate(self.depths)
        ]

    def entropy(self) -> list[list[float | None]]:
        """H of every layer of every member on the probe set, nats; None where it is not finite."""
        training = self.cells[0].training
        scale = Scale.of(0.0, training.learning_rate, training.batch_size)
        networks, images = self.state.network(self.depths), self.data.probe.images
        program = self._program(
            measure.signatures_program, self.measurement, networks, images, scale,
            measure.keys_for(self.shape),
        )  # fmt: skip
        found = measure.layers(
            program, self.shape, networks, self.data.probe, scale, self.measurement
        ).own
        return [
            [float(h) if ok else None for h, ok in
             zip(found.entropy[i, :depth], found.finite[i, :depth], strict=True)]
            for i, depth in enumerate(self.depths)
        ]  # fmt: skip

    def shape_of(self, member: int) -> Shape:
        """A member as it is now, without padding."""
        return self._shape(int(self.depths[member]))

    def network_of(self, member: int) -> tuple[Shape, Network]:
        """A member as it is now, without padding, as NumPy arrays."""
        shape, one = self.shape_of(member), jax.tree.map(lambda a: a[member], self.state.network())
        return shape, network.own(shape, self.shape, one)

    def snapshot(self) -> Snapshot:
        """A copy of what an edit may change."""
        return self._now._replace(state=jax.tree.map(jnp.copy, self.state))

    def restore(self, old: Snapshot, which: np.ndarray) -> None:
        """Put members, bool (members,), back as they were."""
        _, self.state, self.depths, self.rates = self.merged(which, old, self._now)

    def merged(self, which: np.ndarray, some: Snapshot, others: Snapshot) -> Snapshot:
        """The members of `some` where which, bool (members,), is true; those of others elsewhere,
        with the padding that the population has now."""
        return Snapshot(
            self.shape,
            _chosen(which, self._fitted(some), self._fitted(others)),
            np.where(which, some.depths, others.depths).astype(np.int32),
            np.where(which, some.rates, others.rates).astype(np.float32),
        )

    @property
    def _now(self) -> Snapshot:
        return Snapshot(self.shape, self.state, self.depths, self.rates)

    def insert(self, positions: np.ndarray, factor: float = 1.0) -> None:
        """Insert a layer into each member at its position, int32 (members,); nothing where it is
        negative. factor: times its learning rate from now on."""
        inserting = positions >= 0
        deepest = int((self.depths + inserting).max())
        if deepest > self.shape.depth:
            now = self._now
            self.shape = self._shape(1 << (deepest - 1).bit_length())
            self.state = self._fitted(now)
        zero = self.cells[0].growth.zero
        self.state = self._run(_insert, zero, self.state, positions.astype(np.int32))
        self.depths = (self.depths + inserting).astype(np.int32)
        self.rates = np.where(inserting, self.rates * factor, self.rates).astype(np.float32)

    def truncate(self, depths: np.ndarray) -> None:
        """Leave each member its first layers, int32 (members,)."""
        self.depths = np.minimum(self.depths, depths).astype(np.int32)
        self.state = self._run(_truncate, None, self.state, self.depths)

    def freeze(self) -> dict[str, Any]:
        """What MessagePack can hold of the population; `thaw` puts it back."""
        return plain(self._now)

    def thaw(self, content: dict[str, Any]) -> None:
        """Continue from what `freeze` returned. ValueError for anything else."""
        self.shape, self.state, self.depths, self.rates = self.thawed(content)

    def thawed(self, content: dict[str, Any]) -> Snapshot:
        """A snapshot from what `plain` made of it. ValueError for anything else."""
        from flax import serialization

        size = json.loads(content["shape"])
        lists = {k: tuple(v) if isinstance(v, list) else v for k, v in size.items()}
        shape = type(self.shape)(**lists)
        state = serialization.from_state_dict(self.state, content["state"])
        depths, rates = np.asarray(content["depths"]), np.asarray(content["rates"])
        known = (state.params.fast.shape, state.params.slow.shape, depths.shape, rates.shape)
        members = len(self.cells)
        mine, theirs = (
            {k: v for k, v in dataclasses.asdict(one).items() if k not in CHANGING}
            for one in (self.shape, shape)
        )
        if mine != theirs or known != (*[(members, shape.parameters)] * 2, (members,), (members,)):
            raise ValueError("it holds other networks")
        return Snapshot(shape, jax.tree.map(jnp.asarray, state), depths, rates)

    def _fitted(self, snapshot: Snapshot) -> train.TrainState:
        """The same networks with the padding that the population has now."""
        have, state = snapshot.shape, snapshot.state
        if have == self.shape:
            return state
        assert isinstance(have, FcShape)
        size, fit = (
            state.params.fast.shape,
            jax.vmap(functools.partial(insertion.resize, have, to=self.shape)),
        )
        return jax.tree.map(lambda leaf: fit(leaf) if leaf.shape == size else leaf, state)

    def _shape(self, depth: int) -> Shape:
        own = shape_of(self.cells[0].model, self.facts)
        assert isinstance(own, FcShape)
        return dataclasses.replace(own, depth=depth)

    def _run(self, build: Callable[..., Any], how: Any, *arguments: Any) -> Any:
        return self._program(build, how, *arguments)(*arguments)

    def _program(self, build: Callable[..., Any], how: Any, *arguments: Any) -> Any:
        """``build(shape, how)`` compiled for arguments, once for each shape."""
        sizes = tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(arguments))
        key = (build, self.shape, how, sizes)
        if key not in self._compiled:
            started = time.perf_counter()
            self._compiled[key] = build(self.shape, how).lower(*arguments).compile()
            self.compile_seconds += time.perf_counter() - started
        return self._compiled[key]


def plain(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as nested dictionaries of NumPy arrays."""
    from flax import serialization

    state = serialization.to_state_dict(jax.tree.map(np.asarray, snapshot.state))
    shape = json.dumps(dataclasses.asdict(snapshot.shape))
    return {"shape": shape, "state": state, "depths": snapshot.depths, "rates": snapshot.rates}


def _floats(values: Any) -> list[float]:
    return [float(value) for value in values]


def _batches(probe: Examples, size: int, plain: augment.Augmentation) -> tuple[Any, Any]:
    """The probe set as batches, (batches, B, H, W, C) and (batches, B); what is left over is left
    out."""
    size = min(size, len(probe.labels))
    used = len(probe.labels) // size * size
    images = augment.plain(probe.images[:used], plain)
    batches = (images.reshape(-1, size, *images.shape[1:]), probe.labels[:used].reshape(-1, size))
    return jax.tree.map(jnp.asarray, batches)


def _chosen(which: Any, yes: Any, no: Any) -> Any:
    """Members of `yes` where which, bool (members,), is true, of `no` elsewhere."""

    def pick(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(jnp.reshape(which, (-1, *[1] * (a.ndim - 1))), a, b)

    return jax.tree.map(pick, yes, no)


@functools.cache
def _epoch(shape: FcShape, recipe: train.Recipe) -> Any:
    def one(state, plan, depth, rate, canvas, labels):  # type: ignore[no-untyped-def]
        return train.epoch(
            state, plan, depth, canvas, labels, shape=shape, recipe=recipe, rate=rate
        )[0]

    def population(state, plan, depths, rates, active, canvas, labels):  # type: ignore[no-untyped-def]
        axes = (0, 0, 0, 0, None, None)
        new = jax.vmap(one, in_axes=axes)(state, plan, depths, rates, canvas, labels)
        return _chosen(active, new, state)

    return jax.jit(population, donate_argnums=0)


@functools.cache
def _performance(shape: FcShape, plain: augment.Augmentation) -> Any:
    one = functools.partial(measure.performance, shape=shape, augmentation=plain)
    return jax.jit(jax.vmap(one, in_axes=(0, None)))


@functools.cache
def _scores(shape: FcShape, zero: str) -> Any:
    def one(subject, x, y):  # type: ignore[no-untyped-def]
        return insertion.scores(shape, subject, x, y, zero)

    return jax.jit(jax.vmap(one, in_axes=(0, None, None)))


@functools.cache
def _insert(shape: FcShape, zero: str) -> Any:
    """New layers compute the identity; what the optimizer keeps of their weights is zero, of all
    others it stays."""

    def one(state, position):  # type: ignore[no-untyped-def]
        def edit(leaf, *, virtual):  # type: ignore[no-untyped-def]
            if leaf.shape != state.params.fast.shape:
                return leaf
            return insertion.insert(shape, leaf, position, zero, virtual=virtual)

        weights = jax.tree.map(functools.partial(edit, virtual=True), state.params)
        moments = jax.tree.map(functools.partial(edit, virtual=False), state.opt_state)
        return train.TrainState(weights, moments, state.statistics)

    return jax.jit(jax.vmap(one))


@functools.cache
def _truncate(shape: FcShape, how: None) -> Any:
    def one(state, depth):  # type: ignore[no-untyped-def]
        def edit(leaf):  # type: ignore[no-untyped-def]
            return insertion.truncate(shape, leaf, depth) if leaf.shape == size else leaf

        size = state.params.fast.shape
        return jax.tree.map(edit, state)

    return jax.jit(jax.vmap(one))
