"""Sweeps (paper, sec. 3.3): train networks of a grid, measure every layer after every epoch.

`run` trains one population: cells that differ in seed, depth or width only. It yields after the
initial weights were measured and after each epoch, and can continue from anything it yielded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cbundles import measure, train
from cbundles.bundles import Scale, largest_entropy
from cbundles.config import Cell
from cbundles.data import augment
from cbundles.data.dataset import Facts
from cbundles.data.device import DeviceData
from cbundles.errors import DamagedCheckpoint
from cbundles.experiments import entries
from cbundles.networks import network
from cbundles.networks.shape import FcShape, Shape, shape_of


@dataclass(frozen=True)
class Moment:
    """A population between two epochs. `state` is valid until the next Moment is asked for.

    history: for each member, one entry per measurement. seconds: for each entry, what the epoch,
    the test and the probe took, compilation not included. probe_seconds: the part of it in which
    bundles were measured. compile_seconds: what compiling took, in all.
    """

    state: train.TrainState
    history: list[list[dict[str, Any]]]
    seconds: list[float]
    probe_seconds: list[float]
    compile_seconds: float

    @property
    def epoch(self) -> int:
        return len(self.seconds) - 1


def shared_shape(cells: Sequence[Cell], facts: Facts) -> Shape:
    """The smallest shape that holds every member. Only fully connected networks are padded."""
    shapes = [shape_of(cell.model, facts) for cell in cells]
    first = shapes[0]
    if not isinstance(first, FcShape):
        return first
    depth, width = max(c.model.depth for c in cells), max(c.model.width for c in cells)
    return FcShape(first.inputs, depth, width, first.outputs, first.block)


def recipe_of(cell: Cell) -> train.Recipe:
    return train.Recipe(
        batch_size=cell.training.batch_size,
        learning_rate=cell.training.learning_rate,
        weight_decay=cell.training.weight_decay,
        augmentation=augment.pipeline_for(cell.data),
    )


def run(
    cells: Sequence[Cell], data: DeviceData, facts: Facts, resume: bytes | None = None
) -> Iterator[Moment]:
    """Train cells as one population; yields a Moment at initialisation and after each epoch.

    resume: what `freeze` made of an earlier Moment; training then continues after it, and on the
    CPU ends bit-identical to a run that was never interrupted.
    """
    shape = shared_shape(cells, facts)
    recipe, training, measurement = (
        recipe_of(cells[0]),
        cells[0].training,
        entries.measurement_of(cells[0]),
    )
    depths = None
    if isinstance(shape, FcShape) and any(cell.model.depth < shape.depth for cell in cells):
        depths = jnp.asarray([cell.model.depth for cell in cells], jnp.int32)
    scale = Scale.of(0.0, training.learning_rate, training.batch_size)
    if resume is None:
        initial = _initial(cells, facts, shape, recipe)
        moment = Moment(initial, [[] for _ in cells], [], [], compile_seconds=0.0)
    else:
        moment = _thaw(resume, _initial(cells, facts, shape, recipe), cells, facts)
    state = moment.state

    def epoch_plan(number: int) -> train.Plan:
        plans = [train.plan(recipe, c.training.seed, number, len(data.labels)) for c in cells]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *plans)

    started = time.perf_counter()
    networks = state.network(depths)
    accuracy_program = measure.accuracy_program(shape, measurement.augmentation)
    test = accuracy_program.lower(networks, data.test).compile()
    signatures_program = measure.signatures_program(shape, measurement)
    keys = measure.keys_for(shape)
    sign = signatures_program.lower(networks, data.probe.images, scale, keys).compile()
    measure.partition_program(len(data.probe.labels), facts.num_classes)
    run_epoch = train.epoch_program(shape, recipe)
    run_epoch = run_epoch.lower(state, epoch_plan(0), depths, data.canvas, data.labels).compile()
    compiled = moment.compile_seconds + time.perf_counter() - started

    for number in range(len(moment.seconds), training.epochs + 1):
        started = time.perf_counter()
        losses = None
        if number > 0:
            state, losses = run_epoch(state, epoch_plan(number), depths, data.canvas, data.labels)
        networks = state.network(depths)
        accuracy = np.asarray(test(networks, data.test))
        trained = time.perf_counter()
        measured = measure.layers(sign, shape, networks, data.probe, scale, measurement)
        ended = time.perf_counter()
        moment = Moment(
            state=state,
            history=[
                [
                    *past,
                    entries.entry_of_member(
                        accuracy[i],
                        measured,
                        i,
                        shape_of(cell.model, facts),
                        None if losses is None else losses[i],
                    ),
                ]
                for i, (past, cell) in enumerate(zip(moment.history, cells, strict=True))
            ],
            seconds=[*moment.seconds, round(ended - started, 4)],
            probe_seconds=[*moment.probe_seconds, round(ended - trained, 4)],
            compile_seconds=compiled,
        )
        yield moment
        if 1 <= number <= training.conflict_checks and conflicts(moment.history[0][-1]):
            return


def conflicts(entry: dict[str, Any]) -> bool:
    """Whether the last layer conflicts in this measurement; so does a network that diverged."""
    entropy = entry["entropy"][-1]
    return entropy is None or entropy > 0


def _initial(
    cells: Sequence[Cell], facts: Facts, shape: Shape, recipe: train.Recipe
) -> train.TrainState:
    """The initial weights of each cell, padded to the shared shape and stacked."""
    members = []
    for cell in cells:
        own = shape_of(cell.model, facts)
        members.append(train.start(network.initial(own, cell.training.seed, shape), recipe))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def records(cells: Sequence[Cell], moment: Moment, data: DeviceData, facts: Facts) -> list[Any]:
    """The completion record of each cell, plain data: everything that tables are made from."""
    result, largest = [], round(largest_entropy(np.asarray(data.probe.labels)), 6)
    for cell, history in zip(cells, moment.history, strict=True):
        shape = shape_of(cell.model, facts)
        result.append(
            {
                "cell": cell.id,
                "config": cell.asdict(),
                "num_classes": facts.num_classes,
                "largest_entropy": largest,
                "parameters": shape.parameters,
                "bytes": shape.bytes,
                "flops": shape.flops,
                "history": history,
                "seconds": [round(s / len(cells), 4) for s in moment.seconds],
                "probe_seconds": [round(s / len(cells), 4) for s in moment.probe_seconds],
                "compile_seconds": round(moment.compile_seconds / len(cells), 2),
                "population": len(cells),
            }
        )
    return result


def latency(cell: Cell, moment: Moment, data: DeviceData, facts: Facts) -> float:
    """Seconds that the trained network, alone in its population, takes for a batch of its size."""
    alone = jax.tree.map(lambda a: a[0], moment.state.network())
    images = data.test.images[: cell.training.batch_size]
    return measure.latency(
        shape_of(cell.model, facts), alone, images, entries.measurement_of(cell).augmentation
    )


def networks(
    cells: Sequence[Cell], moment: Moment, facts: Facts
) -> list[tuple[Shape, network.Network]]:
    """Each member's shape and, without padding, its weights as NumPy arrays."""
    padded, state = shared_shape(cells, facts), moment.state
    result = []
    for i, cell in enumerate(cells):
        shape, one = shape_of(cell.model, facts), jax.tree.map(lambda a, i=i: a[i], state.network())
        result.append((shape, network.own(shape, padded, one)))
    return result


def freeze(moment: Moment) -> bytes:
    """A Moment as bytes (MessagePack): plain arrays and numbers, nothing that executes."""
    from flax import serialization

    content = {
        "state": serialization.to_state_dict(jax.tree.map(np.asarray, moment.state)),
        "history": moment.history,
        "seconds": moment.seconds,
        "probe_seconds": moment.probe_seconds,
        "compile_seconds": moment.compile_seconds,
    }
    return serialization.msgpack_serialize(content)


def _thaw(frozen: bytes, like: train.TrainState, cells: Sequence[Cell], facts: Facts) -> Moment:
    from flax import serialization

    try:
        content = serialization.msgpack_restore(frozen)
        state = serialization.from_state_dict(like, content["state"])
        if jax.tree.map(_shape_and_dtype, state) != jax.tree.map(_shape_and_dtype, like):
            raise ValueError("it holds networks of another shape")
        state = jax.tree.map(jnp.asarray, state)
        times = {key: content[key] for key in ("seconds", "probe_seconds", "compile_seconds")}
        entries.require_numbers(
            [*times["seconds"], *times["probe_seconds"], times["compile_seconds"]]
        )
        _check_history(content["history"], len(times["seconds"]), cells, facts)
        return Moment(state, content["history"], **times)
    except Exception as error:  # whatever a damaged file makes the decoder raise
        raise DamagedCheckpoint(str(error)) from error


def _check_history(history: Any, count: int, cells: Sequence[Cell], facts: Facts) -> None:
    """ValueError unless it is one of these cells with so many measurements, as `_entry` makes them:
    whatever stands in it ends in a record."""
    for past, cell in zip(history, cells, strict=True):
        for entry in past:
            entries.check(entry, cell, shape_of(cell.model, facts))
        if len(past) != count or not count:
            raise ValueError(f"it holds {len(past)} measurements of a network, {count} times")


def _shape_and_dtype(array: Any) -> tuple[tuple[int, ...], Any]:
    return np.shape(array), np.asarray(array).dtype
