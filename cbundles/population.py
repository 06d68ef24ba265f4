"""A population: networks that are trained, measured and changed together, one program for each.

    advance      train for some steps, at most to the end of the epoch
    accuracy, performance, measured, headroom, peers, scores
                 what is known of each network: on the test set, on any examples, of the bundles of
                 its layers, how far these are from conflicting, what else one could look at, and
                 where one more layer would help
    insert, truncate
                 change the depth of some of them
    snapshot, restore, merged
                 put some back as they were
    freeze, thaw continue in another process, bit by bit

Its members differ in seed, depth, width and arm only. Each is one row of every array, and none
knows of the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization
from jax.stages import Compiled, Wrapped
from jaxtyping import Array, Bool, Float, Float32, Int32

from cbundles import measure, scan, surgery, train
from cbundles.bundles import Equality, Scale, scales_of_scan
from cbundles.config import SWEEP, Cell
from cbundles.data import augment, pipelines
from cbundles.data.dataset import Facts
from cbundles.data.device import DeviceData, Examples
from cbundles.networks import network
from cbundles.networks.network import Network
from cbundles.networks.shape import ConvShape, FcShape, OwnShape, Shape, shape_from_data, shape_of
from cbundles.peers import Peers, looked_at_program, peers_of_member
from cbundles.spread import Spread, on_host

Tree = TypeVar("Tree")
CHANGED_BY_EDITS = ("depth", "inserted")  # of a shape


class Performance(NamedTuple):
    """Mean cross-entropy, nats, and accuracy, between 0 and 1, of each member."""

    loss: Float32[np.ndarray, " members"]
    accuracy: Float32[np.ndarray, " members"]


class Scores(NamedTuple):
    """Sensitivities of one member: see `insertion.Scores`."""

    positions: list[float]
    existing: list[float]


class Snapshot(NamedTuple):
    """What an edit may change: to be put back when it is undone."""

    shape: Shape
    state: train.TrainState
    depths: Int32[np.ndarray, " members"]
    rates: Float32[np.ndarray, " members"]


def recipe_of(cell: Cell) -> train.Recipe:
    return train.Recipe(
        batch_size=cell.training.batch_size,
        learning_rate=cell.training.learning_rate,
        weight_decay=cell.training.weight_decay,
        augmentation=pipelines.pipeline_for(cell.data),
        precision=cell.training.precision,
        storage=cell.training.storage,
    )


def measurement_of(cell: Cell) -> measure.Measurement:
    probe = cell.probe
    return measure.Measurement(
        equality=Equality(probe.equality, probe.gamma, probe.resolution),
        own=cell.own_reading,
        further=cell.further_readings,
        augmentation=pipelines.pipeline_for(cell.data).without_chance,
    )


class Population:
    """Networks that one program trains and measures together. Networks whose depth may change are
    given their depths, and the room that there is for more; others have the depths of their
    cells."""

    def __init__(
        self,
        cells: Sequence[Cell],
        data: DeviceData,
        facts: Facts,
        *,
        depths: Sequence[int] | None = None,
        room: int = 0,
    ) -> None:
        self.cells = cells
        self.data = data
        self.spread = Spread.beside(data.canvas, len(cells))
        self.facts = facts
        self.recipe = recipe_of(cells[0])
        self.measurement = measurement_of(cells[0])
        self.changes_depth = depths is not None
        own = [shape_of(cell.model, facts) for cell in cells]
        if depths is None:
            depths = [shape.depth for shape in own]
        self.depths = np.array(depths, np.int32)  # layers now
        self.rates = np.ones(len(cells), np.float32)  # times the learning rate
        self.shape = self._padded_shape(own, max(room, *depths))
        with train.arithmetic(self.recipe.precision):
            starts = [self._start(member) for member in range(len(cells))]
            self.state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
            # Of the epoch's steps.
            self.losses = self._members(jnp.zeros((len(cells), self.steps), self.recipe.precision))
        self.epoch = 0  # how many are finished
        self.step = 0  # of the next one
        self.compile_seconds = 0.0
        self._plan: train.Plan | None = None
        self._compiled: dict[Any, Compiled] = {}

    def _padded_shape(self, own: Sequence[Shape], deepest: int) -> Shape:
        """The smallest shape that holds every member. Only fully connected networks are padded."""
        first = own[0]
        if not isinstance(first, FcShape):
            return first
        width = max(shape.width for shape in own if isinstance(shape, FcShape))
        return dataclasses.replace(first, depth=deepest, width=width)

    def _start(self, member: int) -> train.TrainState:
        cell = self.cells[member]
        own, seed = self.shape_of(member), cell.training.seed
        initial = network.initial(own, seed, self.shape, cell.model.gain)
        return train.start(initial, self.recipe)

    # What it is now.

    @property
    def state(self) -> train.TrainState:
        """Of all members, where it belongs: edits may leave it elsewhere."""
        return self._state

    @state.setter
    def state(self, state: train.TrainState) -> None:
        self._state = self._members(state)

    def _members(self, tree: Tree) -> Tree:
        """Arrays with a leading axis of members, where they belong."""
        return tree if self.spread is None else self.spread.members(tree)

    @property
    def steps(self) -> int:
        """Optimizer steps in one epoch."""
        return len(self.data.labels) // self.recipe.batch_size

    @property
    def networks(self) -> Network:
        """What is measured: the fast weights of all members, in float32."""
        state = self.state
        with train.arithmetic(self.recipe.precision):
            fast = state.params.fast.astype(jnp.float32)
        return Network(fast, state.statistics, self._masks, self._real_widths)

    @property
    def _masks(self) -> Int32[np.ndarray, " members"] | None:
        """Depths as programs need them: where all layers are real, and stay, they need none."""
        if not isinstance(self.shape, FcShape):
            return None
        padded = self.changes_depth or (self.depths < self.shape.depth).any()
        return self.depths if padded else None

    @functools.cached_property
    def _real_widths(self) -> Int32[np.ndarray, " members"] | None:
        """Widths as programs need them: where a layer is normalised, and some of it is padding."""
        if not isinstance(self.shape, FcShape) or not self.shape.is_normalised:
            return None
        widths = np.array([cell.model.width for cell in self.cells], np.int32)
        return widths if (widths < self.shape.width).any() else None

    def shape_of(self, member: int) -> Shape:
        """A member as it is now, without padding."""
        if not isinstance(self.shape, FcShape):
            return self.shape
        own = shape_of(self.cells[member].model, self.facts)
        assert isinstance(own, FcShape)
        return dataclasses.replace(own, depth=int(self.depths[member]))

    def network_of(self, member: int) -> tuple[Shape, Network]:
        """A member as it is measured now, without padding, as NumPy arrays."""
        shape = self.shape_of(member)
        whole = Network(self.networks.params, self.state.statistics)
        one = jax.tree.map(lambda leaf: leaf[member], on_host(whole))
        return shape, network.unpadded(shape, self.shape, one)

    @property
    def programs(self) -> set[str]:
        """The names of those that have been compiled, the same in every process."""
        return set(map(_name_of_program, self._compiled))

    # What training costs, in FLOPs.

    def flops(self, member: int) -> int:
        """FLOPs of one sample's forward pass through a member as it is now."""
        return self.shape_of(member).flops

    def epoch_flops(self, member: int) -> int:
        """FLOPs of one epoch: forward, and backward, which takes twice that."""
        return 3 * self.steps * self.recipe.batch_size * self.flops(member)

    def epoch_flops_at(self, depth: int) -> int:
        """FLOPs of one epoch of a fully connected network of another depth."""
        own = shape_of(self.cells[0].model, self.facts)
        assert isinstance(own, FcShape)
        return 3 * self.steps * self.recipe.batch_size * dataclasses.replace(own, depth=depth).flops

    def score_flops(self, member: int) -> int:
        """FLOPs of scoring every position: forward, backward and one matrix product each."""
        return 4 * self._batches_scored[1].size * self.flops(member)

    def probe_flops(self, member: int) -> int:
        """FLOPs of the probe set's forward pass."""
        return len(self.data.probe.labels) * self.flops(member)

    # Training.

    def advance(self, steps: int, active: Bool[np.ndarray, " members"] | None = None) -> None:
        """Train for so many steps, at most to the end of the epoch; only the members that are
        active. Many calls give the same bits as one."""
        if self._plan is None:
            self._plan = self._drawn_plan(self.epoch + 1)
        stop = min(self.step + steps, self.steps)
        with train.arithmetic(self.recipe.precision):
            self._advance_to(stop, self._plan, active)
        self.step = stop
        if stop == self.steps:
            self.epoch, self.step, self._plan = self.epoch + 1, 0, None

    def _advance_to(
        self, stop: int, plan: train.Plan, active: Bool[np.ndarray, " members"] | None
    ) -> None:
        before = None
        if active is not None and not active.all():
            before = jax.tree.map(jnp.copy, self.state)
        self.state, losses = self._run(
            train.advance_program,
            (self.shape, self.recipe),
            self.state,
            self.losses,
            plan,
            np.int32(self.step),
            np.int32(stop),
            self._masks,
            self._real_widths,
            self.rates,
            self.data.canvas,
            self.data.labels,
        )
        self.losses = self._members(losses)
        if before is not None and active is not None:
            self.state = surgery.chosen_members(active, self.state, before)

    def _drawn_plan(self, epoch: int) -> train.Plan:
        """Members of one seed see the same batches."""
        seeds = [cell.training.seed for cell in self.cells]
        of_seed = {
            seed: train.plan(self.recipe, seed, epoch, len(self.data.labels)) for seed in set(seeds)
        }
        plans = [of_seed[seed] for seed in seeds]
        whole: train.Plan = jax.tree.map(lambda *leaves: np.stack(leaves), *plans)
        return whole if self.spread is None else self.spread.batches(whole)

    def mean_losses(self) -> Float32[np.ndarray, " members"]:
        """Over the batches of the epoch so far, or of the last one where it has ended."""
        done = self.step or self.steps
        with train.arithmetic(self.recipe.precision):
            means: Float[np.ndarray, " members"] = on_host(self.losses[:, :done].mean(axis=1))
        return means.astype(np.float32)

    # Measuring.

    @property
    def _plain(self) -> pipelines.Augmentation:
        return self.measurement.augmentation

    def accuracy(self) -> Float32[np.ndarray, " members"]:
        """Share of the test set that each member classifies correctly."""
        how = (self.shape, self._plain)
        shares: Float32[np.ndarray, " members"] = on_host(
            self._run(measure.accuracy_program, how, self.networks, self.data.test)
        )
        return shares

    def performance(self, examples: Examples) -> Performance:
        """Mean cross-entropy and accuracy of every member."""
        how = (self.shape, self._plain)
        found = self._run(measure.performance_program, how, self.networks, examples)
        return Performance(*on_host(found))

    def measured(self) -> measure.Measured:
        """The bundles of all members' layers on the probe set."""
        training = self.cells[0].training
        scale = Scale.of(0.0, training.learning_rate, training.batch_size)
        arguments = (self.networks, self.data.probe.images, scale, measure.keys_for(self.shape))
        how = (self.shape, self.measurement)
        program = self._program_for_host(measure.signatures_program, how, *arguments)
        # Bundles are found on one device, from signatures that are on the host.
        probe = self.data.probe._replace(labels=self._whole_probe.labels)
        with self._compiling():  # which `measure.layers` is going to need
            measure.partition_program(len(self.data.probe.labels), self.shape.outputs)
        return measure.layers(program, self.shape, self.networks, probe, scale, self.measurement)

    def headroom(self) -> Float[np.ndarray, "members layers"]:
        """How far all members' layers are from conflicting, in bits; without meaning where a layer
        is not finite."""
        training = self.cells[0].training
        scales = scales_of_scan(0.0, training.learning_rate, training.batch_size)
        # One network after the other is looked at, on one device.
        networks = self.networks if self.spread is None else on_host(self.networks)
        one = jax.tree.map(lambda leaf: leaf[0], networks)
        probe = self._whole_probe
        arguments = (one, probe.images, scales, measure.keys_for(self.shape))
        how = (self.shape, self.measurement)
        program = self._program(scan.signatures_program, how, *arguments)
        with self._compiling():  # which `scan.headroom` is going to need
            scan.partition_program(probe, self.shape)
            rate_of_inputs = self._conflict_rate_of_inputs
        return scan.headroom(program, self.shape, networks, probe, scales, rate_of_inputs)

    def peers(self) -> list[Peers]:
        """What else is measured of each member, which is fully connected."""
        assert isinstance(self.shape, FcShape)
        how = (self.shape, self.measurement)
        found = on_host(self._run(looked_at_program, how, self.networks, self.data.probe))
        labels = np.asarray(self._whole_probe.labels)
        return [peers_of_member(found, labels, member) for member in range(len(self.cells))]

    @functools.cached_property
    def _whole_probe(self) -> Examples:
        """The probe set on one device."""
        probe = self.data.probe
        return probe if self.spread is None else Examples(*map(jnp.asarray, on_host(probe)))

    @functools.cached_property
    def _conflict_rate_of_inputs(self) -> float:
        return scan.conflict_rate_of_inputs(self._whole_probe, self.shape, self.measurement)

    def scores(self) -> list[Scores]:
        """Sensitivities of all positions and of all existing layers of every member, over the probe
        set, in batches as in training. Each divided by the number of its weights where
        `growth.scale` says so."""
        growth = self.cells[0].growth
        assert not isinstance(self.shape, OwnShape)  # nothing is inserted there
        how = (self.shape, growth.zero)
        found = self._run(surgery.scores_program, how, self.networks, *self._batches_scored)
        virtual, existing = on_host((found.virtual, found.existing))
        if growth.scale == "size":
            of_virtual, of_existing = map(np.array, surgery.weights_scored(self.shape))
            virtual, existing = virtual / of_virtual, existing / of_existing
        return [self._scores_of(i, virtual[i], existing[i]) for i in range(len(self.cells))]

    def _scores_of(self, member: int, virtual: np.ndarray, existing: np.ndarray) -> Scores:
        """Without those of padding, which stands before the output layer."""
        if isinstance(self.shape, ConvShape):
            return Scores(virtual.tolist(), existing.tolist())
        depth = self.depths[member]
        return Scores(virtual[:depth].tolist(), [*existing[:depth].tolist(), float(existing[-1])])

    @functools.cached_property
    def _batches_scored(
        self,
    ) -> tuple[Float32[Array, "batches batch *pixels"], Int32[Array, "batches batch"]]:
        """The probe set in batches; what is left over is left out."""
        probe = self.data.probe
        size = min(self.recipe.batch_size, len(probe.labels))
        used = len(probe.labels) // size * size
        images = augment.plain(probe.images[:used], self._plain)
        labels = jnp.asarray(probe.labels[:used])
        return images.reshape(-1, size, *images.shape[1:]), labels.reshape(-1, size)

    # Changing.

    def insert(self, positions: Int32[np.ndarray, " members"], factor: float = 1.0) -> None:
        """Insert a layer into each member at its position; nothing where that is negative. factor:
        times its learning rate from now on."""
        inserting = positions >= 0
        if not inserting.any():
            return
        if isinstance(self.shape, ConvShape):
            (block,) = positions
            self.shape, self.state = surgery.with_conv_layer(self.shape, self.state, int(block))
        else:
            self._make_room(int((self.depths + inserting).max()))
            how = (self.shape, self.cells[0].growth.zero)
            self.state = self._run(surgery.insert_program, how, self.state, positions)
        self.depths = (self.depths + inserting).astype(np.int32)
        self.rates = np.where(inserting, self.rates * factor, self.rates).astype(np.float32)

    def _make_room(self, depth: int) -> None:
        """Padding grows in powers of two, which bounds the number of programs by the logarithm of
        the depth."""
        assert isinstance(self.shape, FcShape)
        if depth > self.shape.depth:
            larger = dataclasses.replace(self.shape, depth=1 << (depth - 1).bit_length())
            self.state = surgery.padded_state(self.state, self.shape, larger)
            self.shape = larger

    def truncate(self, depths: Int32[np.ndarray, " members"]) -> None:
        """Leave each member its first layers."""
        self.depths = np.minimum(self.depths, depths).astype(np.int32)
        self.state = self._run(surgery.truncate_program, (self.shape,), self.state, self.depths)

    def snapshot(self) -> Snapshot:
        """A copy of what an edit may change."""
        return self._now._replace(state=jax.tree.map(jnp.copy, self.state))

    def restore(self, old: Snapshot, which: Bool[np.ndarray, " members"]) -> None:
        """Put some members back as they were."""
        whole = self.merged(which, old, self._now)
        self.shape, state, self.depths, self.rates = whole
        self.state = jax.tree.map(jnp.copy, state)  # which the next step consumes

    def merged(
        self, which: Bool[np.ndarray, " members"], some: Snapshot, others: Snapshot
    ) -> Snapshot:
        """Members of `some` where `which` is true; those of `others` elsewhere."""
        if isinstance(self.shape, ConvShape):  # alone, and perhaps of another shape in each
            return some if which[0] else others
        padded = [surgery.padded_state(one.state, one.shape, self.shape) for one in (some, others)]
        return Snapshot(
            self.shape,
            surgery.chosen_members(which, *padded),
            np.where(which, some.depths, others.depths).astype(np.int32),
            np.where(which, some.rates, others.rates).astype(np.float32),
        )

    @property
    def _now(self) -> Snapshot:
        return Snapshot(self.shape, self.state, self.depths, self.rates)

    # Interrupting and continuing.

    def freeze(self) -> dict[str, Any]:
        """What MessagePack can hold of the population; `thaw` puts it back."""
        place = {"epoch": self.epoch, "step": self.step, "losses": on_host(self.losses)}
        return {**plain(self._now), **place}

    def thaw(self, content: dict[str, Any]) -> None:
        """Continue from what `freeze` returned. ValueError for anything else."""
        with train.arithmetic(self.recipe.precision):
            self._thaw(content)

    def _thaw(self, content: dict[str, Any]) -> None:
        self.shape, self.state, self.depths, self.rates = self.thawed(content)
        losses = np.asarray(content["losses"])
        epoch, step = int(content["epoch"]), int(content["step"])
        expected = self.losses.shape, self.losses.dtype
        right_losses = (losses.shape, losses.dtype) == expected
        if not right_losses or epoch < 0 or not 0 <= step < self.steps:
            raise ValueError("it holds another place of the training")
        self.epoch, self.step, self._plan = epoch, step, None
        self.losses = self._members(jnp.asarray(losses))

    def thawed(self, content: dict[str, Any]) -> Snapshot:
        """A snapshot from what `plain` made of it. ValueError for anything else."""
        shape = shape_from_data(type(self.shape), json.loads(content["shape"]))
        state = serialization.from_state_dict(self.state, content["state"])
        depths, rates = np.asarray(content["depths"]), np.asarray(content["rates"])
        if not self._may_become(shape) or not self._is_of(shape, state, depths, rates):
            raise ValueError("it holds other networks")
        return Snapshot(shape, jax.tree.map(jnp.asarray, state), depths, rates)

    def _may_become(self, shape: Shape) -> bool:
        """Whether edits can lead from the shape of now to this one."""
        if self.cells[0].kind == SWEEP:
            return shape == self.shape
        mine, theirs = dataclasses.asdict(self.shape), dataclasses.asdict(shape)
        return all(mine[name] == theirs[name] for name in mine if name not in CHANGED_BY_EDITS)

    def _is_of(
        self, shape: Shape, state: train.TrainState, depths: np.ndarray, rates: np.ndarray
    ) -> bool:
        """Whether these are the sizes and number formats of a population of this shape."""
        members = len(self.cells)
        if (depths.shape, rates.shape) != ((members,), (members,)):
            return False
        like = jax.eval_shape(lambda: train.start(network.initial(shape, 0, shape), self.recipe))
        expected = jax.tree.map(lambda a: ((members, *a.shape), np.dtype(a.dtype)), like)
        found = jax.tree.map(lambda a: (np.shape(a), np.asarray(a).dtype), state)
        return bool(expected == found)

    # Programs.

    def _run(self, build: Callable[..., Wrapped], how: tuple[Any, ...], *arguments: Any) -> Any:
        """What ``build(*how)`` makes of arguments."""
        if self.spread is not None:
            arguments = self.spread.arguments(arguments)
        return self._program(build, how, *arguments)(*arguments)

    def _program_for_host(
        self, build: Callable[..., Wrapped], how: tuple[Any, ...], *arguments: Any
    ) -> Callable[..., Any]:
        """``build(*how)`` compiled; of a spread population, what it finds comes to the host."""
        if self.spread is None:
            return self._program(build, how, *arguments)
        return lambda *arguments: on_host(self._run(build, how, *arguments))

    def _program(
        self, build: Callable[..., Wrapped], how: tuple[Any, ...], *arguments: Any
    ) -> Compiled:
        """``build(*how)`` compiled for arguments, once for each of their shapes."""
        sizes = tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(arguments))
        key = (build, how, sizes)
        if key not in self._compiled:
            with self._compiling(), self._mesh_of(arguments):
                self._compiled[key] = build(*how).lower(*arguments).compile()
        return self._compiled[key]

    def _mesh_of(self, arguments: tuple[Any, ...]) -> AbstractContextManager[Any]:
        """What a program has to know while it is traced, where its arguments lie on a mesh."""
        if self.spread is None or not self.spread.has(arguments):
            return contextlib.nullcontext()
        return jax.set_mesh(self.spread.mesh)

    @contextlib.contextmanager
    def _compiling(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.compile_seconds += time.perf_counter() - started


def _name_of_program(key: tuple[Callable[..., Wrapped], tuple[Any, ...], Any]) -> str:
    """key: see `Population._program`."""
    build, how, sizes = key
    return hashlib.sha256(f"{build.__qualname__} {how} {sizes}".encode()).hexdigest()[:12]


def plain(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as nested dictionaries of NumPy arrays."""
    state = serialization.to_state_dict(on_host(snapshot.state))
    shape = json.dumps(dataclasses.asdict(snapshot.shape))
    return {"shape": shape, "state": state, "depths": snapshot.depths, "rates": snapshot.rates}
