"""How fast is bundle entropy, beside the least that any method needs and beside other methods?

    python scripts/bench_metric.py [--json FILE] [--quick] [--layers]
    python scripts/bench_metric.py --headroom [--json FILE]
    python scripts/bench_metric.py --fingerprints [--json FILE]

For activations of several shapes (N samples of d numbers), all rows distinct, every row twice, and
all rows equal, in one run:

- ours: `bundle_entropy`'s compiled program, from activations to bundles, counts and entropy;
- row sum: one jitted ``a.sum(-1)`` over the same array, the time of reading it once: the limit;
- np.unique: NumPy's ``unique(axis=0)`` of q, which sorts whole rows;
- leader loop: the straightforward O(N^2 d) comparison of each row with one row of each bundle so
  far, in NumPy; where it would take more than a few seconds it is stopped and extrapolated by the
  number of comparisons left, and marked ~;
- original: what the original TensorFlow implementation was recorded to need on two cores of a
  server (not run here).

Then all hidden layers of fully connected networks, forward pass included, and how much that adds to
an epoch of training; and the activations of VGG-50. GB/s and "of copy" are the bandwidth that was
reached and its share of what copying the array reaches, which says something on a GPU (on a CPU,
copying mostly waits for new memory).

With --layers: the first table alone.

With --headroom instead: what `probe.headroom` costs in a sweep of fully connected networks, VGGs
and ResNets. Training steps, measuring all layers and looking for their headroom take turns, on one
core, and medians are compared: of what the processor did for this process, which other work on the
machine hardly changes.

With --fingerprints: the fingerprint alone, beside what it was and what else it could be, in turns
on one core; medians and quartiles of the processor's time:

- ours: as it is;
- row by row: one row after the other instead of four at the same time (the same below 128 numbers);
- NH: the universal hash of UMAC (Black et al. 1999), two lanes of 64 bits, each of which collides
  with a probability of at most 2^-32 over its keys, whatever two rows are given. Each lane sums
  (x_c + k_c mod 2^32) (y_c + k'_c mod 2^32) mod 2^64 over the halves x and y of a row's bits;
- NH-512: the same program compiled for vectors of 512 bits, which the product cannot ask for, since
  it would change how the network itself is computed.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cbundles import bundles, data, measure, provenance, train
from cbundles.bundles import equality
from cbundles.bundles.result import layer_bundles
from cbundles.config import Cell, Data, Model, Probe, Training
from cbundles.data import augment, device, pipelines
from cbundles.executor.local import usable_cores
from cbundles.networks import network
from cbundles.networks.shape import FcShape
from cbundles.population import Population
from cbundles.readings import ALL, BATCH, BLOCK, own_reading

SHAPES = [(2048, 16384), (8192, 1024), (512, 16384), (60_000, 100), (2048, 25)]
LARGE_SHAPE = (16384, 16384)  # far beyond the cache of any GPU
KINDS = ("distinct", "twice", "equal")
CLASSES, LEARNING_RATE, BATCH_SIZE, AMPLITUDE = 10, 1e-3, 64, 0.5
LOOP_SECONDS = 3.0

# Seconds of the original, recorded on two cores of this kind of machine.
ORIGINAL = {
    (2048, 16384, "distinct"): 40.0,
    (2048, 16384, "twice"): 19.4,
    (2048, 16384, "equal"): 0.25,
    (8192, 1024, "distinct"): 54.0,
    (512, 16384, "distinct"): 3.75,
}
ORIGINAL_NETWORKS = {(25, 25): 127.0, (150, 10): 134.0}
NETWORKS = [(25, 25), (150, 10), (80, 50), (80, 100)]
STEPS_PER_EPOCH, STEPS_TIMED = 937, 60
SWEPT = [
    Model(width=25, depth=25),
    Model(width=100, depth=50),
    Model(family="vgg", depth=20, blocks="2,2,3,2", base_filters=8),
    Model(family="resnet", depth=20, blocks="2,2,3,2", base_filters=8),
]
HEADROOM_ROUNDS, HEADROOM_STEPS, SWEPT_EPOCHS = 9, 20, 10
FINGERPRINT_SHAPES = [(2048, 16384), (4096, 4096), (8192, 1024), (8192, 784), (60_000, 100)]
FINGERPRINT_ROUNDS = 31
VGG50_BLOCKS = [(3, 16384), (6, 8192), (12, 4096), (3, 2048)]  # blocks, numbers in an activation

SCALE = bundles.Scale.of(AMPLITUDE, LEARNING_RATE, BATCH_SIZE)
EQUALITY = bundles.Equality()


def best(*runs: Callable[[], Any], rounds: int = 25) -> list[float]:
    """The shortest time of each, in seconds, of so many rounds in which they take turns."""
    for run in runs:
        jax.block_until_ready(run())
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, seconds in zip(runs, times, strict=True):
            started = time.perf_counter()
            jax.block_until_ready(run())
            seconds.append(time.perf_counter() - started)
    return [min(seconds) for seconds in times]


def rows_of(kind: str, n: int, d: int) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)
    if kind == "twice":
        rows[n // 2 :] = rows[: n // 2]
    elif kind == "equal":
        rows[:] = rows[0]
    return rows


def leader_loop(q: np.ndarray) -> tuple[float, bool]:
    """Seconds of comparing each row with one row of every bundle so far, and whether the loop came
    to its end."""
    leaders, number = np.empty_like(q), 0
    started, compared = time.perf_counter(), []
    for row in q:
        compared.append(number)
        if not (leaders[:number] == row).all(axis=1).any():
            leaders[number] = row
            number += 1
        if time.perf_counter() - started > LOOP_SECONDS:
            break
    seconds = time.perf_counter() - started
    if len(compared) == len(q):
        return seconds, True
    # Until it was stopped each row was a new bundle: all are distinct, or the first half is.
    bundles_in_all = len({row.tobytes() for row in q})
    all_comparisons = np.minimum(np.arange(len(q)), bundles_in_all).sum()
    return seconds * float(all_comparisons) / sum(compared), False


def bench_activations(n: int, d: int, kind: str, *, others: bool) -> dict[str, Any]:
    """One line of the first table."""
    rows = rows_of(kind, n, d)
    labels = jnp.asarray(np.random.default_rng(1).integers(0, CLASSES, n), jnp.int32)
    activations, keys = jnp.asarray(rows), jnp.asarray(bundles.draw_keys(d, 0))
    row_sum = jax.jit(lambda a: a.sum(axis=-1))
    copy = jax.jit(lambda a: -a)
    ours, limit, copied = best(
        lambda: layer_bundles(activations, labels, SCALE, keys, EQUALITY, CLASSES),
        lambda: row_sum(activations),
        lambda: copy(activations),
    )
    found = layer_bundles(activations, labels, SCALE, keys, EQUALITY, CLASSES)
    if int(found.num_bundles) != {"distinct": n, "twice": n // 2, "equal": 1}[kind]:
        raise SystemExit(f"wrong number of bundles at {n} x {d}, {kind}")
    line = {
        "samples": n,
        "width": d,
        "rows": kind,
        "ours_seconds": ours,
        "row_sum_seconds": limit,
        "ratio_to_row_sum": ours / limit,
        "bytes_per_second": rows.nbytes / ours,
        "copy_bytes_per_second": 2 * rows.nbytes / copied,
        "share_of_copy_bandwidth": copied / (2 * ours),
    }
    if others:
        q = AMPLITUDE - rows * np.float32(LEARNING_RATE) * np.float32(1 / BATCH_SIZE)
        started = time.perf_counter()
        np.unique(q, axis=0)
        line["unique_seconds"] = time.perf_counter() - started
        line["loop_seconds"], line["loop_finished"] = leader_loop(q)
    original = ORIGINAL.get((n, d, kind))
    if original:
        line |= {"original_seconds": original, "speedup": original / ours}
    return line


def bench_network(depth: int, width: int) -> dict[str, Any]:
    """All layers at 2048 samples, beside the forward pass and an epoch of training."""
    stored = data.load("mnist_mini")
    placed = device.place(stored, Data(), Probe())
    shape, augmentation = FcShape(784, depth, width, CLASSES), pipelines.ORIGINAL["mnist"]
    recipe = train.Recipe(BATCH_SIZE, LEARNING_RATE, 1e-2, augmentation)
    state = train.start(network.initial(shape, 0, shape), recipe)
    networks = jax.tree.map(lambda a: a[None], state.network())
    images = augment.to_float(placed.probe.images)

    measurement = measure.Measurement(EQUALITY, own_reading(BLOCK, ALL, BATCH), (), augmentation)
    program = measure.signatures_program(shape, measurement)
    forward = jax.jit(lambda subject: network.logits(shape, subject, images))
    plan = jax.tree.map(lambda a: a[None, :STEPS_TIMED], train.plan(recipe, 0, 1, 10_000))
    epoch = train.advance_program(shape, recipe)

    def train_steps() -> Any:
        copied = jax.tree.map(lambda a: jnp.array(a)[None], state)  # the program consumes it
        return epoch(*train.whole_epoch(copied, plan, placed.canvas, placed.labels))

    layers, passing, steps = best(
        lambda: measure.layers(program, shape, networks, placed.probe, SCALE, measurement),
        lambda: forward(state.network()),
        train_steps,
        rounds=8,
    )
    trained = steps * STEPS_PER_EPOCH / STEPS_TIMED
    line = {
        "depth": depth,
        "width": width,
        "layers_seconds": layers,
        "forward_seconds": passing,
        "epoch_seconds": trained,
        "share_of_epoch": layers / trained,
    }
    original = ORIGINAL_NETWORKS.get((depth, width))
    if original:
        line |= {"original_seconds": original, "speedup": original / layers}
    return line


def bench_headroom(model: Model) -> dict[str, Any]:
    """Seconds of the processor in a sweep of mnist_mini, whose epochs have 156 steps."""
    stored = data.load("mnist_mini")
    cell = Cell(Data(), model, Training(), Probe())
    placed = device.place(stored, cell.data, cell.probe)
    population = Population([cell], placed, stored.facts)

    def train_steps() -> Any:
        population.advance(HEADROOM_STEPS)
        return population.losses

    takes_turns = (train_steps, population.measured, population.headroom)
    compiling = []
    for call in takes_turns:
        before = population.compile_seconds
        jax.block_until_ready(call())
        compiling.append(population.compile_seconds - before)
    times: list[list[float]] = [[] for _ in takes_turns]
    for _ in range(HEADROOM_ROUNDS):
        # All turns must do the same work, so none may end with an epoch.
        if population.steps - population.step <= HEADROOM_STEPS:
            population.advance(population.steps)
        for call, seconds in zip(takes_turns, times, strict=True):
            started = time.process_time()
            jax.block_until_ready(call())
            seconds.append(time.process_time() - started)
    steps, measuring, headroom = map(statistics.median, times)
    epoch = steps * population.steps / HEADROOM_STEPS
    all_measured = (SWEPT_EPOCHS + 1) * measuring
    return {
        "family": model.family,
        "depth": model.depth,
        "width": model.width or model.base_filters,
        "epoch_seconds": epoch,
        "measuring_seconds": measuring,
        "headroom_seconds": headroom,
        "compiling_headroom_seconds": compiling[-1],
        "last_over_off": 1 + headroom / all_measured,
        "all_over_off": 1 + headroom / measuring,
        "share_of_sweep": headroom / (SWEPT_EPOCHS * epoch + all_measured),
    }


def print_headroom() -> list[dict[str, Any]]:
    """One line for each network."""
    print("Headroom of all layers, beside measuring them; milliseconds of one core, medians")
    print(
        f"{'network':>22} {'epoch':>9} {'measuring':>10} {'headroom':>9} {'last/off':>9} "
        f"{'all/off':>8} {'of sweep':>9} {'compiling':>10}"
    )
    lines = []
    for model in SWEPT:
        line = bench_headroom(model)
        lines.append(line)
        name = f"{line['family']} {line['depth']} x {line['width']}"
        print(
            f"{name:>22} {milliseconds(line, 'epoch_seconds'):>9} "
            f"{milliseconds(line, 'measuring_seconds'):>10} "
            f"{milliseconds(line, 'headroom_seconds'):>9} {line['last_over_off']:9.2f} "
            f"{line['all_over_off']:8.2f} {line['share_of_sweep']:9.1%} "
            f"{milliseconds(line, 'compiling_headroom_seconds'):>10}",
            flush=True,
        )
    print(f"last: once in {SWEPT_EPOCHS} epochs, of which {SWEPT_EPOCHS + 1} times are measured")
    return lines


def nh(rows: jax.Array, scale: bundles.Scale, keys: jax.Array) -> Any:
    """Two lanes of NH of each row, and its largest ``|q|`` as bits; keys: two for every column, of
    which there is an even number."""
    half = rows.shape[1] // 2
    bits = equality._bits(equality.weight_update(rows, scale))
    x, y = bits[:, :half], bits[:, half:]
    largest = jnp.maximum(x & equality.ABSOLUTE, y & equality.ABSOLUTE)
    with jax.enable_x64(True):

        def wide(sums: jax.Array) -> jax.Array:
            return lax.convert_element_type(sums, jnp.uint64)

        lanes = [wide(x + one) * wide(y + other) for one, other in keys.reshape(2, 2, half)]
        nothing = (np.uint64(0), np.uint64(0), np.uint32(0))
        return lax.reduce((*lanes, largest), nothing, equality._combined, (1,))


def fingerprints_of(n: int, d: int) -> dict[str, Callable[[], Any]]:
    """Calls that fingerprint n rows of d numbers, compiled; and the row sum."""
    activations = jnp.asarray(rows_of("distinct", n, d))
    scale = jax.tree.map(jnp.asarray, SCALE)
    odd = jnp.asarray(bundles.draw_keys(d, 0))
    keys = jnp.asarray(np.random.default_rng(0).integers(2**32, size=2 * d, dtype=np.uint32))
    sign = functools.partial(bundles.signature, equality=EQUALITY)
    as_it_is = jax.jit(sign).lower(activations, scale, odd).compile()
    with mock.patch.object(equality, "GROUPED_FROM", d + 1):
        row_by_row = jax.jit(lambda a, s, k: sign(a, s, k)).lower(activations, scale, odd).compile()
    row_sum = jax.jit(lambda a: a.sum(axis=-1))
    calls: dict[str, Callable[[], Any]] = {
        "row sum": lambda: row_sum(activations),
        "ours": lambda: as_it_is(activations, scale, odd),
        "row by row": lambda: row_by_row(activations, scale, odd),
    }
    lowered = jax.jit(nh).lower(activations, scale, keys)
    calls["NH"] = functools.partial(lowered.compile(), activations, scale, keys)
    if jax.default_backend() == "cpu":
        options: dict[str, bool | str] = {"xla_cpu_prefer_vector_width": "512"}
        wider = lowered.compile(compiler_options=options)
        calls["NH-512"] = functools.partial(wider, activations, scale, keys)
    return calls


def print_fingerprints() -> list[dict[str, Any]]:
    """One line for each shape and way."""
    print("Fingerprints of distinct rows, milliseconds of one core; ratio: to the row sum")
    lines: list[dict[str, Any]] = []
    for n, d in FINGERPRINT_SHAPES:
        calls = fingerprints_of(n, d)
        times: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            jax.block_until_ready(call())
        for _ in range(FINGERPRINT_ROUNDS):
            for name, call in calls.items():
                started = time.process_time()
                jax.block_until_ready(call())
                times[name].append(time.process_time() - started)
        row_sum = statistics.median(times["row sum"])
        for name, seconds in times.items():
            low, median, high = statistics.quantiles(seconds, n=4)
            line: dict[str, Any] = {
                "samples": n, "width": d, "way": name, "median_seconds": median,
                "quartiles_seconds": [low, high], "ratio_to_row_sum": median / row_sum,
            }  # fmt: skip
            lines.append(line)
            print(
                f"{f'{n} x {d}':>16} {name:>11} {1000 * median:8.2f} "
                f"({1000 * low:.2f} to {1000 * high:.2f}) {line['ratio_to_row_sum']:6.2f}",
                flush=True,
            )
    return lines


def bench_vgg50(samples: int) -> float:
    """Seconds for the activations of all 24 blocks of VGG-50 on 32x32 images."""
    total = 0.0
    labels = jnp.asarray(np.arange(samples) % CLASSES, jnp.int32)
    for blocks, d in VGG50_BLOCKS:
        activations = jnp.asarray(rows_of("distinct", samples, d))
        run = functools.partial(
            layer_bundles, activations, labels, SCALE, jnp.asarray(bundles.draw_keys(d, 0)),
            EQUALITY, CLASSES,
        )  # fmt: skip
        (ours,) = best(run)
        total += blocks * ours
    return total


def bench_networks() -> list[dict[str, Any]]:
    """On a CPU in a process that is bound to one core, as the workers of a sweep are: training does
    not gain from a second one, so that its share there is what counts."""
    if jax.default_backend() != "cpu":
        return [bench_network(depth, width) for depth, width in NETWORKS]
    command = [sys.executable, __file__, "--networks-on-core", str(usable_cores()[0])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: list[dict[str, Any]] = json.loads(done.stdout)
    return result


def milliseconds(line: dict[str, Any], key: str, mark: str = "") -> str:
    return f"{mark}{1000 * line[key]:,.1f}" if key in line else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--quick", action="store_true", help="leave out the slow other methods")
    parser.add_argument("--layers", action="store_true", help="only one layer, without networks")
    parser.add_argument("--networks-on-core", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--headroom", action="store_true", help="measure what that costs, alone")
    parser.add_argument(
        "--fingerprints", action="store_true", help="compare ways of hashing rows, alone"
    )
    options = parser.parse_args()
    if options.networks_on_core is not None:
        os.sched_setaffinity(0, [options.networks_on_core])  # before XLA counts the cores
        print(json.dumps([bench_network(depth, width) for depth, width in NETWORKS]))
        return
    if options.headroom or options.fingerprints:
        os.sched_setaffinity(0, [usable_cores()[0]])
    where = jax.devices()[0]
    hardware = f"{where.platform}, {where.device_kind}, {provenance.processor()}"
    print(f"{hardware}; jax {jax.__version__}")
    origin = {
        "platform": where.platform,
        "device": where.device_kind,
        "processor": provenance.processor(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }
    if options.headroom:
        write_record(options.json, {**origin, "headroom": print_headroom()})
        return
    if options.fingerprints:
        load = os.getloadavg()[0]
        print(f"load {load:.1f}")
        write_record(options.json, {**origin, "load": load, "fingerprints": print_fingerprints()})
        return
    print("\nOne layer, milliseconds (best of 25)")
    print(
        f"{'samples x width':>16} {'rows':>9} {'ours':>9} {'row sum':>9} {'ratio':>7} "
        f"{'GB/s':>6} {'of copy':>8} {'np.unique':>10} {'leader loop':>12} {'original':>10} "
        f"{'speedup':>9}"
    )
    lines = []
    shapes = SHAPES if where.platform == "cpu" else [*SHAPES, LARGE_SHAPE]
    for n, d in shapes:
        for kind in KINDS:
            line = bench_activations(n, d, kind, others=not options.quick)
            lines.append(line)
            mark = "" if line.get("loop_finished") else "~"
            speedup = f"{line['speedup']:,.0f}" if "speedup" in line else "-"
            print(
                f"{f'{n} x {d}':>16} {kind:>9} {milliseconds(line, 'ours_seconds'):>9} "
                f"{milliseconds(line, 'row_sum_seconds'):>9} {line['ratio_to_row_sum']:7.2f} "
                f"{line['bytes_per_second'] / 1e9:6.1f} {line['share_of_copy_bandwidth']:8.0%} "
                f"{milliseconds(line, 'unique_seconds'):>10} "
                f"{milliseconds(line, 'loop_seconds', mark):>12} "
                f"{milliseconds(line, 'original_seconds'):>10} {speedup:>9}",
                flush=True,
            )
    if options.layers:
        write_record(options.json, {**origin, "layers": lines})
        return
    print("\nAll layers of a network at 2048 samples, forward pass included, milliseconds")
    print(f"{'depth x width':>16} {'layers':>9} {'forward':>9} {'epoch':>9} {'share':>7} "
          f"{'original':>10} {'speedup':>9}")  # fmt: skip
    networks = bench_networks()
    for line in networks:
        name = f"{line['depth']} x {line['width']}"
        speedup = f"{line['speedup']:,.0f}" if "speedup" in line else "-"
        print(
            f"{name:>16} {milliseconds(line, 'layers_seconds'):>9} "
            f"{milliseconds(line, 'forward_seconds'):>9} {milliseconds(line, 'epoch_seconds'):>9} "
            f"{line['share_of_epoch']:7.1%} {milliseconds(line, 'original_seconds'):>10} "
            f"{speedup:>9}"
        )
    print("epoch: 937 steps of 64, scaled from 60; share: layers / epoch; on a CPU: one core")
    vgg = bench_vgg50(2048)
    print(
        f"\nThe activations of all 24 blocks of VGG-50, 2048 images of 32x32: {1000 * vgg:,.0f} ms"
    )
    found = {"layers": lines, "networks": networks, "vgg50_seconds": vgg}
    write_record(options.json, {**origin, **found})


def write_record(path: Path | None, record: dict[str, Any]) -> None:
    """The numbers, if somebody wants them in a file."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
