"""How much longer does training take with a monitor?

    python scripts/bench_monitor.py [--repeats N] [--json FILE]

Ordinary training loops with Adam and batches of 64 images of 28 x 28 pixels; with PyTorch installed
also loops of PyTorch. 200 steps without a monitor and 200 with one at its defaults (all layers, 512
samples, once in these steps) take turns, compiled, so that other work on the machine meets both.
What is told is the time of a step, that of a measurement, and the share that it adds to 200 steps:
of the clock, and of what the processor did for this process alone. The first measurement traces and
compiles, and is told apart.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from bench_audit import images_of
from flax_networks import CLASSES, Perceptron, ResNet
from jaxtyping import Array, PyTree

import cbundles

EVERY = 200  # steps: the default of a monitor
BATCH_SIZE = 64
NETWORKS = {
    "perceptron, 25 x 25": Perceptron(25, 25),
    "perceptron, 20 x 100": Perceptron(20, 100),
    "perceptron, 50 x 100": Perceptron(50, 100),
    "perceptron, 8 x 512": Perceptron(8, 512),
    "ResNet, 8 blocks of 16 filters": ResNet(8, 16),
    "ResNet, 4 blocks of 64 filters": ResNet(4, 64),
}
Steps = Callable[[], None]  # trains `EVERY` steps, and waits for them


def flax_loop(
    model: nn.Module, images: np.ndarray, labels: np.ndarray, folder: Path
) -> tuple[Steps, Steps]:
    """`EVERY` steps of a network of Flax, and one measurement of it."""
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])
    optimizer = optax.adam(1e-3)
    params, rest = variables["params"], {k: v for k, v in variables.items() if k != "params"}
    now = {"params": params, "state": optimizer.init(params)}

    @jax.jit
    def train_step(params: PyTree, state: PyTree, x: Array, y: Array) -> tuple[PyTree, PyTree]:
        def loss(params: PyTree) -> Array:
            logits = model.apply({"params": params, **rest}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    def train() -> None:
        for step in range(EVERY):
            x, y = _batch(step, images, labels)
            now["params"], now["state"] = train_step(now["params"], now["state"], x, y)
        jax.block_until_ready(now)

    monitor = cbundles.Monitor(model, images, labels, folder=folder)
    return train, _measuring(monitor, lambda: {"params": now["params"], **rest})


def torch_loop(
    model: Any, images: np.ndarray, labels: np.ndarray, folder: Path
) -> tuple[Steps, Steps]:
    """The same of a module of PyTorch."""
    import torch

    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    tensors, classes = torch.from_numpy(images), torch.from_numpy(labels).long()

    def train() -> None:
        for step in range(EVERY):
            x, y = _batch(step, tensors, classes)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    monitor = cbundles.Monitor(model, images, labels, folder=folder)
    return train, _measuring(monitor, lambda: None)


def _batch(step: int, images: Any, labels: Any) -> tuple[Any, Any]:
    start = step * BATCH_SIZE % (len(images) - BATCH_SIZE)
    return images[start : start + BATCH_SIZE], labels[start : start + BATCH_SIZE]


def _measuring(monitor: cbundles.Monitor, params: Callable[[], PyTree]) -> Steps:
    """What the calls of a monitor cost in `EVERY` steps, one of which is measured."""
    passed = 0

    def measure() -> None:
        nonlocal passed
        for step in range(EVERY):
            monitor(passed + step, params())
        passed += EVERY

    return measure


@dataclass(frozen=True)
class Turns:
    """Seconds of each turn of both, by the clock and of the processor, and of the first
    measurement, which compiles."""

    train: list[float]
    measure: list[float]
    worked_in_training: list[float]
    worked_in_measuring: list[float]
    first_measurement: float

    def medians(self) -> dict[str, float]:
        """Of a step, of a measurement, and the share that it adds."""
        train, measure = statistics.median(self.train), statistics.median(self.measure)
        worked = statistics.median(self.worked_in_measuring)
        return {
            "first_measurement": self.first_measurement,
            "step": train / EVERY,
            "measurement": measure,
            "share": measure / train,
            "processor_share": worked / statistics.median(self.worked_in_training),
        }


def bench(train: Steps, measure: Steps, repeats: int) -> Turns:
    """Turns of both."""
    train()  # compiles
    turns = Turns([], [], [], [], _seconds_of(measure)[0])
    for _ in range(repeats):
        for turn, clock, processor in (
            (train, turns.train, turns.worked_in_training),
            (measure, turns.measure, turns.worked_in_measuring),
        ):
            by_clock, by_processor = _seconds_of(turn)
            clock.append(by_clock)
            processor.append(by_processor)
    return turns


def bench_network(name: str, repeats: int) -> Turns:
    """Turns of a network of Flax or PyTorch."""
    images = images_of(2048)
    labels = (np.arange(len(images)) % CLASSES).astype(np.int32)
    with tempfile.TemporaryDirectory() as folder:
        if name in NETWORKS:
            train, measure = flax_loop(NETWORKS[name], images, labels, Path(folder))
        else:
            train, measure = torch_loop(torch_networks()[name], images, labels, Path(folder))
        return bench(train, measure, repeats)


def _seconds_of(turn: Steps) -> tuple[float, float]:
    """By the clock, and of the processor."""
    started, worked = time.perf_counter(), time.process_time()
    turn()
    return time.perf_counter() - started, time.process_time() - worked


def torch_networks() -> dict[str, Any]:
    """Some of these networks as modules of PyTorch; none where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch_networks as networks

    return {
        "PyTorch perceptron, 25 x 25": networks.perceptron(25, 25, CLASSES),
        "PyTorch perceptron, 20 x 100": networks.perceptron(20, 100, CLASSES),
        "PyTorch perceptron, 8 x 512": networks.perceptron(8, 512, CLASSES),
        "PyTorch ResNet, 8 x 16 filters": networks.ResNet(8, 16, CLASSES),
        "PyTorch ResNet, 4 x 64 filters": networks.ResNet(4, 64, CLASSES),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"{EVERY} steps and one measurement in turns, medians of {options.repeats}; {load}")
    heads = ("step ms", "measurement ms", "share", "of processor", "first s")
    print("{:<32} {:>8} {:>15} {:>7} {:>13} {:>8}".format("network", *heads))
    lines = {}
    for name in NETWORKS | torch_networks():
        line = bench_network(name, options.repeats).medians()
        lines[name] = line
        print(
            f"{name:<32} {1000 * line['step']:>8.2f} {1000 * line['measurement']:>15.1f} "
            f"{line['share']:>7.1%} {line['processor_share']:>13.1%} "
            f"{line['first_measurement']:>8.1f}",
            flush=True,
        )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"load": load, "networks": lines}) + "\n")


if __name__ == "__main__":
    main()
