"""Which cells share a program, in which order they run, and what that will cost.

The constants are measurements; `scripts/bench_sweep.py` prints them anew for any machine.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cbundles import bits, keeping
from cbundles.config import FLOAT64, GROW, INSERTING, SWEEP, TUNE, Cell, Images, Training
from cbundles.data.dataset import Facts
from cbundles.data.pipelines import pipeline_for
from cbundles.decisions import edits
from cbundles.errors import InputError
from cbundles.networks.shape import CONV_BATCH, ConvShape, OwnShape, Shape, shape_of
from cbundles.readings import BATCH

# One CPU core runs one network's step in a + L (b + flops / rate) seconds. Measured on one core
# of a 2.4 GHz server processor, batches of 64 (see docs/measurements.md).
STEP_OVERHEAD = 1.0e-4
LAYER_OVERHEAD = 1.1e-5
FLOPS_PER_SECOND = 2.8e10
MEASURE_FLOPS_PER_SECOND = 6.0e10
# How many times as long a step takes in float64, and where layers are normalised.
FLOAT64_FACTOR = 1.8
NORMALISED_FACTOR = 1.6
SECONDS_PER_LAYER_MEASURED = 2.0e-4  # of 2048 samples; scripts/bench_metric.py
SECONDS_PER_PAIR_COMPARED = 1.2e-8  # gamma rule, all samples distinct
# Looking for headroom: sorting one layer at all learning rates, and signing a number of it at each.
SECONDS_PER_LAYER_SCANNED = 1.2e-3
SECONDS_PER_NUMBER_SCANNED = 6.0e-10
COMPILE_SECONDS = 3.0
# Convolutions on one core: a layer costs a + flops / rate, too.
CONV_LAYER_OVERHEAD = 1.2e-3
CONV_FORWARD_OVERHEAD = 1.0e-4  # of a layer, classifying 64 images
CONV_FLOPS_PER_SECOND = 5.0e10
CONV_COMPILE_SECONDS = 20.0
# Of each number that a convolution yields where a batch of them is more than a core's cache holds:
# few filters on large images wait for memory, not for products.
CONV_SECONDS_PER_NUMBER = 6.5e-8
CACHED_NUMBERS = 2**18
# A user's architecture, whose products are as its author wrote them, roughly: on one core small
# convolutions of XLA reach about 6e9 FLOP/s inside a loop, matrix products 3e10. Where nothing says
# how many layers it has, it is taken for one of OWN_LAYERS.
OWN_LAYER_OVERHEAD = 4.0e-5
OWN_FLOPS_PER_SECOND = 1.0e10
OWN_COMPILE_SECONDS, OWN_COMPILE_SECONDS_PER_LAYER = 4.0, 0.3
OWN_LAYERS = 16
# Of a sample in a layer, in populations whose depth changes, by their command.
EDITING_LAYER_OVERHEAD = {GROW: 1.9e-7, TUNE: 0.8e-7}

# Of a sample in a layer while it waits to be sorted, and of a sample while 16 layers are sorted.
SIGNATURE_BYTES = 16
PARTITION_BYTES = 1600
# Arrays of a convolutional network that are in memory at the same time, by what XLA reserves for
# VGGs and ResNets of 8 to 64 filters on 32 and 128 pixels (tests/test_planned_memory.py). While
# images are measured: of the stem's output and of the largest that is measured, of which a branch
# needs those of its whole block. While a network is trained: of each convolution's output. And the
# copies of its surroundings that a convolution multiplies, numbers for each pixel of the stem, for
# each filter up to so many.
STEM_ARRAYS, MEASURED_ARRAYS, BRANCH_ARRAYS, TRAINED_ARRAYS = 2, 3, 10, 6
COPIES, COPYING_FILTERS = 12, 16


# A population pays on a CPU only while a product of two layers is smaller than the cost of calling
# it. On a GPU it always pays, until memory or the padding eats the gain.
CPU_POPULATION = 4
CPU_POPULATION_MAX_WIDTH = 16
GPU_POPULATION = 64
GPU_PADDING_LIMIT = 2.0


@dataclass(frozen=True)
class PopulationJob:
    """Cells that one program trains together."""

    cells: tuple[Cell, ...]

    @property
    def key(self) -> str:
        if len(self.cells) == 1:
            return self.cells[0].id
        return hashlib.sha256("".join(c.id for c in self.cells).encode()).hexdigest()[:12]

    @property
    def task(self) -> dict[str, Any]:
        """What a worker is told."""
        return {"task": self.cells[0].kind, "cells": [cell.asdict() for cell in self.cells]}


@dataclass(frozen=True)
class Study:
    """Something done to the trained network of a cell."""

    cell: Cell
    kind: str  # LESION, PRUNE or MEASURE
    settings: tuple[tuple[str, Any], ...]  # plain data that says how
    seconds: float  # predicted, on one worker

    @property
    def cells(self) -> tuple[Cell, ...]:
        return (self.cell,)

    @property
    def key(self) -> str:
        return f"{self.cell.id}-{self.kind}"

    @property
    def task(self) -> dict[str, Any]:
        """What a worker is told."""
        return {"task": self.kind, "cell": self.cell.asdict(), **dict(self.settings)}


Job = PopulationJob | Study


def checkpoint_of(job: Job, fingerprint: str) -> str:
    """The key of the checkpoint while networks are trained on images with this fingerprint: on
    others they are other networks."""
    return f"{job.key}-{fingerprint}"


def require_even(job: Job, devices: int) -> None:
    """InputError for a population that cannot be divided evenly among so many devices: each has as
    many of its networks, or a part of every batch (`spread`)."""
    members = len(job.cells)
    parts = devices // math.gcd(members, devices)
    size = job.cells[0].training.batch_size
    if size % parts:
        nearest = max(
            fewer for fewer in range(1, devices) if size % (fewer // math.gcd(members, fewer)) == 0
        )
        networks = "one network" if members == 1 else f"{members} networks"
        raise InputError(
            f"--devices {devices}: training.batch_size = {size} cannot be divided among {parts} "
            f"devices ({networks} in a program); nearest valid: --devices {nearest}, or "
            f"training.batch_size = {-(-size // parts) * parts}"
        )


def populations(cells: Sequence[Cell], device: str) -> list[PopulationJob]:
    """Group cells, the most expensive group first: long ones last would leave cores idle.

    The grouping depends on the whole grid and not on what is finished already, so that a resumed
    run repeats exactly the arithmetic of an uninterrupted one.
    """
    alike: dict[object, list[Cell]] = {}
    for cell in cells:
        alike.setdefault(_family(cell, device), []).append(cell)
    groups: list[list[Cell]] = []
    for family in alike.values():
        family.sort(key=lambda c: (-_work(c), c.training.seed, c.id))
        group: list[Cell] = []
        for cell in family:
            if group and not _may_join(group, cell, device):
                groups.append(group)
                group = []
            group.append(cell)
        groups.append(group)
    groups.sort(key=lambda g: (-sum(_work(c) * c.training.epochs for c in g), g[0].id))
    return [PopulationJob(tuple(group)) for group in groups]


def _family(cell: Cell, device: str) -> object:
    """Cells may share a program only when this agrees. Seeds always may differ; on a GPU, where
    padding is cheap beside an idle processor, depths and widths may differ too."""
    if cell.kind != SWEEP:  # arms and seeds of a setting are compared with one another
        alike = dataclasses.replace(cell.training, seed=0)
        edits = (dataclasses.replace(cell.growth, arm=""), dataclasses.replace(cell.tuning, arm=""))
        return cell.data, cell.model, alike, cell.probe, edits
    must_match = (
        cell.data,
        cell.probe,
        cell.training.epochs,
        cell.training.batch_size,
        cell.training.learning_rate,
        cell.training.weight_decay,
        cell.training.stop_conflicting,
        cell.training.checks,
        cell.training.precision,
        cell.training.storage,
    )
    if device == "gpu" and cell.model.family == "fc":
        return must_match, cell.model.block, cell.model.normalisation
    return must_match, cell.model


def _may_join(group: list[Cell], cell: Cell, device: str) -> bool:
    if cell.kind != SWEEP:
        return cell.model.family == "fc"
    if cell.model.family != "fc":
        return False  # a population's convolutions have not been measured to gain anything
    if cell.training.checks:
        return False  # one that conflicts would stop the others, or go on with them
    if device == "cpu":
        # Fixed blocks of seeds: another seed in the grid leaves the other populations as they are.
        blocks = {c.training.seed // CPU_POPULATION for c in [*group, cell]}
        return cell.model.width <= CPU_POPULATION_MAX_WIDTH and len(blocks) == 1
    members = [*group, cell]
    depth, width = max(c.model.depth for c in members), max(c.model.width for c in members)
    padded = len(members) * depth * width**2
    real = sum(c.model.depth * c.model.width**2 for c in members)
    return len(members) <= GPU_POPULATION and padded <= GPU_PADDING_LIMIT * real


def _work(cell: Cell) -> float:
    """Relative cost, for ordering: about the time of a step."""
    if cell.model.family == "fc":
        seconds = LAYER_OVERHEAD + 384 * cell.model.width**2 / FLOPS_PER_SECOND
        return cell.model.depth * seconds
    if cell.model.is_convolutional:
        widest = 9 * 64 * (16 * cell.model.base_filters) ** 2  # every stage costs the same
        return cell.model.depth * (CONV_LAYER_OVERHEAD + 6 * 64 * widest / CONV_FLOPS_PER_SECOND)
    # What a user's function makes of sizes is not known here.
    return (cell.model.depth or OWN_LAYERS) * (1 + (cell.model.width or 0) ** 2)


def compile_seconds(cell: Cell) -> float:
    """Predicted seconds for compiling a cell's programs."""
    if cell.model.family == "fc":
        return COMPILE_SECONDS
    if cell.model.is_own:
        layers = cell.model.depth or OWN_LAYERS
        return OWN_COMPILE_SECONDS + layers * OWN_COMPILE_SECONDS_PER_LAYER
    shapes = 1 + (cell.growth.insertions if cell.growth.arm in INSERTING else 0)
    return shapes * CONV_COMPILE_SECONDS


def training_seconds(cell: Cell, facts: Facts) -> float:
    """Predicted seconds of one CPU core for a cell: training and measuring, without compiling."""
    if cell.kind != SWEEP and cell.model.family == "fc":
        return _editing_seconds(cell, facts)
    depth, shape = _layers(cell, facts), shape_of(cell.model, facts)
    forward = shape.flops
    batch = cell.training.batch_size
    step = STEP_OVERHEAD + depth * LAYER_OVERHEAD + 3 * batch * forward / FLOPS_PER_SECOND
    if isinstance(shape, ConvShape):
        sizes = [batch * numbers for numbers in shape.outputs_of_convolutions]
        from_memory = sum(size for size in sizes if size > CACHED_NUMBERS) * CONV_SECONDS_PER_NUMBER
        products = 3 * batch * forward / CONV_FLOPS_PER_SECOND
        step = depth * CONV_LAYER_OVERHEAD + max(products, from_memory)
    elif isinstance(shape, OwnShape):
        step = STEP_OVERHEAD + depth * OWN_LAYER_OVERHEAD
        step += 3 * batch * forward / OWN_FLOPS_PER_SECOND
    elif shape.is_normalised:
        step *= NORMALISED_FACTOR
    if cell.training.precision == FLOAT64:
        step *= FLOAT64_FACTOR
    training = cell.training.epochs * (facts.train // batch * step)
    measuring = _measurements(cell) * measuring_seconds(cell, facts)
    if cell.probe.headroom != bits.OFF:
        measuring += _scans(cell) * headroom_seconds(cell, facts)
    if cell.probe.peers == "on":
        measuring += _measurements(cell) * _peers_seconds(cell, facts)
    return training + measuring


def _layers(cell: Cell, facts: Facts) -> int:
    """Layers as the papers count them; of a user's architecture those that are measured."""
    if cell.model.is_own:
        return shape_of(cell.model, facts).layers
    return cell.model.depth


def _measurements(cell: Cell) -> int:
    """How often a network of a sweep is measured."""
    return 1 + len(cell.early_steps) + cell.training.epochs


def _scans(cell: Cell) -> int:
    """After how many of its epochs, the one of the initial weights included, a network of a sweep
    is looked at for headroom."""
    return {bits.OFF: 0, bits.LAST: 1, bits.ALL: 1 + cell.training.epochs}[cell.probe.headroom]


def headroom_seconds(cell: Cell, facts: Facts) -> float:
    """Predicted seconds of one CPU core for finding the headroom of all layers once: all of the
    probe set where it is normalised by its own statistics, and a part of it otherwise."""
    shape, samples = shape_of(cell.model, facts), cell.probe.count(facts.train)
    scanned = min(samples, bits.SCANNED_ROWS)
    if isinstance(shape, ConvShape):
        numbers = sum(math.prod(place) for place in shape.places)
        passing = samples if cell.own_reading.batch_norm == BATCH else scanned
    elif isinstance(shape, OwnShape):
        numbers, passing = shape.layers * shape.columns, samples
    else:
        numbers, passing = shape.depth * shape.width, scanned
    seconds = passing * shape.flops / MEASURE_FLOPS_PER_SECOND
    seconds += shape.layers * SECONDS_PER_LAYER_SCANNED * scanned / bits.SCANNED_ROWS
    seconds += bits.SCALES * scanned * numbers * SECONDS_PER_NUMBER_SCANNED
    if cell.probe.equality == "gamma":
        seconds += bits.SCALES * shape.layers * SECONDS_PER_PAIR_COMPARED * scanned**2
    return seconds


def _peers_seconds(cell: Cell, facts: Facts) -> float:
    """Predicted seconds of one CPU core for what else one can look at, once: the probe set forward,
    a part of it forward and backward."""
    samples = cell.probe.count(facts.train)
    images = samples + 3 * min(samples, bits.SCANNED_ROWS)
    return images * shape_of(cell.model, facts).flops / MEASURE_FLOPS_PER_SECOND


def measuring_seconds(cell: Cell, facts: Facts) -> float:
    """Predicted seconds of one CPU core for one measurement: the test set, and the probe set once
    for each normalisation that its readings need."""
    depth, flops = _layers(cell, facts), shape_of(cell.model, facts).flops
    samples = cell.probe.count(facts.train)
    passes = len({one.batch_norm for one in (cell.own_reading, *cell.further_readings)})
    measuring = (facts.test + passes * samples) * flops / MEASURE_FLOPS_PER_SECOND
    measuring += passes * depth * SECONDS_PER_LAYER_MEASURED * samples / 2048
    if cell.probe.equality == "gamma":
        measuring += passes * depth * SECONDS_PER_PAIR_COMPARED * samples**2
    return measuring


def _editing_seconds(cell: Cell, facts: Facts) -> float:
    """Predicted seconds of a network that changes its depth, in a population that is padded to the
    deepest and trained until the compute of the shallowest is spent."""
    tuning, epochs = cell.tuning, float(cell.training.epochs)

    def flops(depth: int) -> int:
        return shape_of(dataclasses.replace(cell.model, depth=depth), facts).flops

    if cell.kind == GROW:
        depth = edits.room(cell)
    else:
        depth = max(edits.ROOM, cell.model.depth)
        epochs *= flops(tuning.budget_depth) / flops(tuning.min_depth)
    samples = facts.train + (facts.test + cell.probe.count(facts.train)) / 3
    layers = samples * depth * EDITING_LAYER_OVERHEAD[cell.kind]
    return epochs * (layers + 3 * samples * flops(depth) / FLOPS_PER_SECOND)


def forward_seconds(cell: Cell, facts: Facts, images: int) -> float:
    """Predicted seconds of one CPU core for classifying images with a VGG or ResNet."""
    flops = images * shape_of(cell.model, facts).flops / CONV_FLOPS_PER_SECOND
    return images / 64 * cell.model.depth * CONV_FORWARD_OVERHEAD + flops


def job_seconds(job: Job, facts: Mapping[Images, Facts]) -> float:
    """Predicted seconds of a job on one worker, compiling included."""
    if isinstance(job, Study):
        return job.seconds
    return population_seconds(job, needs_of(job.cells, facts))


def population_seconds(population: PopulationJob, needs: Mapping[str, Needs]) -> float:
    """Predicted seconds of a population on one worker, compiling included. needs: of its cells."""
    training = sum(needs[cell.id].seconds for cell in population.cells)
    return compile_seconds(population.cells[0]) + training


def wall_seconds(costs: Sequence[float], workers: int) -> float:
    """Predicted seconds of all of them, shared by the workers: at least those of the longest."""
    return max(sum(costs) / workers, max(costs, default=0.0))


class Needs(NamedTuple):
    """What one cell is going to need, as far as its seed does not matter."""

    seconds: float  # of one CPU core: see `training_seconds`
    parameters: int  # before any layer is inserted
    record_bytes: int
    checkpoint_bytes: int


def needs_of(cells: Iterable[Cell], facts: Mapping[Images, Facts]) -> dict[str, Needs]:
    """What each of many cells is going to need, by its id. Cells that differ in their seeds alone
    are looked at once: there may be 100,000 of few kinds."""
    of_alike: dict[object, Needs] = {}
    needs = {}
    for cell in cells:
        unseeded = _unseeded(cell.training)
        alike = (cell.data, cell.model, unseeded, cell.probe, cell.growth, cell.tuning)
        known = of_alike.get(alike)
        if known is None:
            known = of_alike[alike] = _needs_of_cell(cell, facts[cell.data.images])
        needs[cell.id] = known
    return needs


def _needs_of_cell(cell: Cell, facts: Facts) -> Needs:
    return Needs(
        seconds=training_seconds(cell, facts),
        parameters=shape_at_the_start(cell, facts).parameters,
        record_bytes=record_bytes(cell),
        checkpoint_bytes=checkpoint_bytes(cell, facts),
    )


def shape_at_the_start(cell: Cell, facts: Facts) -> Shape:
    """Before any layer is inserted."""
    model = cell.model
    if cell.kind == GROW and model.family == "fc":
        model = dataclasses.replace(model, depth=edits.start_depth(cell))
    return shape_of(model, facts)


@functools.cache
def _unseeded(training: Training) -> Training:
    return dataclasses.replace(training, seed=0)


def largest_worker_bytes(
    populations: Iterable[PopulationJob], facts: Mapping[Images, Facts]
) -> int:
    """Predicted bytes of the worker that needs the most, 0 for none; populations that differ in
    their seeds alone are looked at once."""
    distinct: dict[object, PopulationJob] = {}
    for population in populations:
        first = population.cells[0]
        models = tuple(cell.model for cell in population.cells)
        alike = (first.data, first.probe, first.training.precision, models)
        distinct.setdefault(alike, population)
    workers = [worker_bytes(one, facts[one.cells[0].data.images]) for one in distinct.values()]
    return max(workers, default=0)


def worker_bytes(population: PopulationJob, facts: Facts) -> int:
    """Predicted bytes of a worker: the interpreter with XLA, the images, the networks, and what
    training and measuring them needs."""
    cell = population.cells[0]
    height, width, channels = facts.image_shape
    enlarge = pipeline_for(cell.data).enlarge
    canvas = (height + enlarge) * (width + enlarge) * channels
    samples = cell.probe.count(facts.train)
    probe = samples * facts.inputs * (1 if cell.probe.images == "plain" else 4)
    images = 4 * facts.train * canvas + (facts.train + facts.test) * facts.inputs + probe
    readings = 1 + len(cell.further_readings)
    depths = [_layers(c, facts) for c in population.cells]
    layers = readings * sum(depths)
    measuring = 2 * SIGNATURE_BYTES * samples * layers + PARTITION_BYTES * samples
    if cell.probe.headroom != bits.OFF:  # which takes one network after the other
        scanned = bits.SCALES * min(samples, bits.SCANNED_ROWS)
        measuring = max(measuring, 2 * SIGNATURE_BYTES * scanned * max(depths))
    networks = sum(2 * checkpoint_bytes(c, facts) for c in population.cells)
    return 400_000_000 + images + measuring + networks + passing_bytes(cell, facts)


def passing_bytes(cell: Cell, facts: Facts) -> int:
    """Predicted bytes of what there is at the same time of the images that pass through a VGG or
    ResNet, measured or trained on; 0 for others, which are small or not known here."""
    shape = shape_of(cell.model, facts)
    if not isinstance(shape, ConvShape):
        return 0
    norms = {reading.batch_norm for reading in (cell.own_reading, *cell.further_readings)}
    whole = shape.residual or BATCH in norms or cell.probe.equality == "gamma"
    measured = cell.probe.count(facts.train) if whole else CONV_BATCH
    copies = COPIES * min(shape.filters, COPYING_FILTERS) * shape.stem_pixels
    outputs = STEM_ARRAYS * shape.filters * shape.stem_pixels
    outputs += (BRANCH_ARRAYS if shape.residual else MEASURED_ARRAYS) * shape.columns
    measuring = measured * (facts.inputs + outputs) + CONV_BATCH * copies
    training = cell.training.batch_size * (
        TRAINED_ARRAYS * sum(shape.outputs_of_convolutions) + copies
    )
    wider = 2 if cell.training.precision == FLOAT64 else 1
    return 4 * wider * max(measuring, training)


def record_bytes(cell: Cell) -> int:
    """Predicted bytes of a cell's record and of its rows in the tables."""
    readings, depth = 1 + len(cell.further_readings), cell.model.depth or OWN_LAYERS
    layers = _measurements(cell) * readings * depth * (18 + 33)
    return layers + _scans(cell) * depth * 9 + 2000


def kept_bytes(cell: Cell, kept: Sequence[str], facts: Facts) -> int:
    """Bytes of the networks of a cell that are kept. kept: after which epochs, see `keeping`."""
    networks = len(keeping.epochs_of(kept, cell.training.epochs))
    return networks * shape_of(cell.model, facts).bytes if networks else 0


def checkpoint_bytes(cell: Cell, facts: Facts) -> int:
    """Bytes of a checkpoint while the cell is trained: weights, slow weights, two moments."""
    wider = 2 if cell.training.precision == FLOAT64 else 1
    return 4 * wider * shape_of(cell.model, facts).bytes
