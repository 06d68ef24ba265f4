"""How fast does this machine train the networks of figure 1, and which way of doing it wins?

    python scripts/bench_sweep.py [--steps 150] [--json FILE]

Measures the program of `cbundles.train` on MNIST-sized data (60,000 images with augmentation,
937 steps of 64 an epoch) and prints, per network and epoch at full throughput of the machine:

- one process a core, one network at a time, which is what sweeps do on a CPU;
- the same work in one process that may use all cores, and in populations, to show which wins;
- the constants of the cost model in `cbundles/executor/planner.py`, fitted to these measurements.

On a GPU there is one process, and populations of several sizes are compared. How much faster that
is than what others do, in the same run, says `scripts/bench_peers.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize

from cbundles.executor.local import detect_device, usable_cores

STEPS_PER_EPOCH = 937
DEPTHS = [5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150]


class Task(NamedTuple):
    depth: int
    width: int
    members: int


class Timing(NamedTuple):
    """seconds: of one step of one network, in this process. compiling: of the whole program."""

    seconds: float
    compiling: float


def measure(task: Task, steps: int) -> Timing:
    """Time the real training program, shortened to `steps`; the best of two epochs."""
    import jax
    import jax.numpy as jnp

    from cbundles import data, train
    from cbundles.data import augment, pipelines
    from cbundles.networks import network
    from cbundles.networks.shape import FcShape

    stored, augmentation = data.load("mnist_mini"), pipelines.ORIGINAL["mnist"]
    images = jnp.tile(jnp.asarray(stored.train_images), (6, 1, 1, 1))
    canvas = jax.jit(augment.canvas, static_argnums=1)(images, augmentation)
    labels = jnp.tile(jnp.asarray(stored.train_labels), 6)
    shape = FcShape(784, task.depth, task.width, 10)
    recipe = train.Recipe(64, 1e-3, 1e-2, augmentation)

    def stack(trees: list[Any]) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    seeds = range(task.members)
    state = stack([train.start(network.initial(shape, seed, shape), recipe) for seed in seeds])
    plan = stack([train.plan(recipe, seed, 1, len(labels)) for seed in seeds])
    plan = jax.tree.map(lambda leaf: leaf[:, :steps], plan)
    started = time.perf_counter()
    advance = train.advance_program(shape, recipe)
    program = advance.lower(*train.whole_epoch(state, plan, canvas, labels)).compile()
    compiling = time.perf_counter() - started
    times = []
    for _ in range(2):
        started = time.perf_counter()
        state, losses = program(*train.whole_epoch(state, plan, canvas, labels))
        jax.block_until_ready(losses)
        times.append(time.perf_counter() - started)
    return Timing(min(times) / steps / task.members, compiling)


def child(tasks: list[Task], steps: int, cores: list[int]) -> None:
    if cores:
        os.sched_setaffinity(0, cores)
    for task in tasks:
        print(json.dumps(measure(task, steps)), flush=True)


def in_processes(
    tasks: list[Task], steps: int, device: str, affinities: list[list[int]]
) -> list[Timing]:
    """Run the tasks in one process for each affinity, at once; the mean over the processes."""
    environment = {**os.environ, **({"JAX_PLATFORMS": "cpu"} if device == "cpu" else {})}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--child", json.dumps([tasks, steps, cores])],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for cores in affinities
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("a measuring process failed; see above")
    timings = [[Timing(*json.loads(line)) for line in output.splitlines()] for output in outputs]
    return [
        Timing(
            statistics.fmean(t.seconds for t in same), statistics.fmean(t.compiling for t in same)
        )
        for same in zip(*timings, strict=True)
    ]


def fit(tasks: list[Task], timings: list[Timing]) -> dict[str, float]:
    """Least squares over relative errors, no term below zero: step = overhead + depth * layer +
    flops / rate."""
    rows, targets = [], []
    for task, timing in zip(tasks, timings, strict=True):
        flops = 3 * 64 * 2 * (784 * task.width + (task.depth - 1) * task.width**2 + 10 * task.width)
        rows.append(np.array([1.0, task.depth, flops]) / timing.seconds)
        targets.append(1.0)
    step, layer, flop = optimize.nnls(np.array(rows), np.array(targets))[0]
    return {"STEP_OVERHEAD": step, "LAYER_OVERHEAD": layer, "FLOPS_PER_SECOND": 1 / flop}


def bench_cpu(steps: int) -> dict[str, Any]:
    cores = usable_cores()
    per_core = [[core] for core in cores]
    single = [Task(25, 25, 1), Task(25, 10, 1), Task(50, 10, 1), Task(150, 10, 1)]
    grids = [Task(depth, width, 1) for width in (50, 100) for depth in DEPTHS]
    tasks = single + grids
    timings = in_processes(tasks, steps, "cpu", per_core)
    epoch = {
        task: STEPS_PER_EPOCH * timing.seconds / len(cores)
        for task, timing in zip(tasks, timings, strict=True)
    }

    print(f"seconds per network and epoch of MNIST at full throughput, {len(cores)} cores")
    print(f"{'network':>22} {'seconds':>8}")
    report = []
    for task in single:
        print(f"{f'width {task.width} depth {task.depth}':>22} {epoch[task]:8.2f}")
        report.append({**task._asdict(), "epoch": epoch[task]})
    for width in (50, 100):
        mean = statistics.fmean(epoch[task] for task in grids if task.width == width)
        print(f"{f'width {width}, 16 depths':>22} {mean:8.2f}   (mean)")
        report.append({"width": width, "depth": "mean of 16", "epoch": mean})
    compiling = statistics.fmean(t.compiling for t in timings)
    print(f"compiling a training program: {compiling:.1f} s on one core (mean)\n")

    print("the same, done otherwise (ratio above 1: slower than one process a core)")
    print(f"{'network':>22} {'a core each':>12} {'one process':>12} {'population of 4':>16}")
    contest = [
        Task(25, 25, 1),
        Task(50, 10, 1),
        Task(150, 10, 1),
        Task(80, 50, 1),
        Task(80, 100, 1),
    ]
    one = in_processes(contest, steps, "cpu", [cores])
    four = in_processes([t._replace(members=4) for t in contest], steps, "cpu", per_core)
    choices = []
    for task, alone, together in zip(contest, one, four, strict=True):
        process = STEPS_PER_EPOCH * alone.seconds / epoch[task]
        population = STEPS_PER_EPOCH * together.seconds / len(cores) / epoch[task]
        name = f"width {task.width} depth {task.depth}"
        print(f"{name:>22} {epoch[task]:10.2f} s {process:11.2f}x {population:15.2f}x")
        choices.append({**task._asdict(), "one_process": process, "population_of_4": population})

    constants = fit(tasks, timings)
    print("\ncost model: " + ", ".join(f"{k} = {v:.2e}" for k, v in constants.items()))
    return {"device": "cpu", "cores": len(cores), "steps": steps, "epochs": report,
            "alternatives": choices, "compiling": compiling, "constants": constants}  # fmt: skip


def bench_gpu(steps: int) -> dict[str, Any]:
    shapes = [(25, 25), (150, 10), (80, 50), (80, 100)]
    tasks = [Task(d, w, members) for d, w in shapes for members in (1, 4, 16, 64)]
    timings = in_processes(tasks, steps, "gpu", [[]])
    print("seconds per network and epoch of MNIST, one GPU, by size of the population")
    report = []
    for task, timing in zip(tasks, timings, strict=True):
        epoch = STEPS_PER_EPOCH * timing.seconds
        name = f"width {task.width} depth {task.depth}"
        print(f"{name:>22} {task.members:4d} members {epoch:8.3f} s")
        report.append({**task._asdict(), "epoch": epoch, "compiling": timing.compiling})
    for depth, width in shapes:
        same = [entry for entry in report if (entry["depth"], entry["width"]) == (depth, width)]
        best = min(same, key=lambda entry: entry["epoch"])["members"]
        print(f"width {width} depth {depth}: populations of {best} are fastest")
    return {"device": "gpu", "steps": steps, "epochs": report}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="steps per measurement")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        tasks, steps, cores = json.loads(arguments.child)
        child([Task(*task) for task in tasks], steps, cores)
        return
    result = bench_cpu(arguments.steps) if detect_device() == "cpu" else bench_gpu(arguments.steps)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
