"""How long does an audit take, beside one forward pass over the same samples?

    python scripts/bench_audit.py [--samples N] [--repeats N] [--json FILE]

Networks of at least a million parameters. The forward pass, the audit without headroom and the one
with it take turns, compiled, and medians are compared: of the clock, and of what the processor did
for this process alone, which other work on the machine hardly changes. The last line is a whole
audit of a network of 20 layers, compiling included.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, PyTree

import cbundles
from cbundles import bundles
from cbundles.auditing import selection
from cbundles.auditing.batches import batches_of
from cbundles.auditing.measuring import Measuring, Setting
from cbundles.auditing.models import subject_of
from cbundles.auditing.weights import GLOBAL, largest_weights
from cbundles.bits import SCANNED_ROWS

CLASSES = 10


class Perceptron(nn.Module):
    """Hidden layers of one width."""

    depth: int
    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.reshape(len(x), -1)
        for _ in range(self.depth):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(CLASSES)(x)


class ResNet(nn.Module):
    """Residual blocks of one size behind a stem."""

    blocks: int
    filters: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def convolved(x: Array) -> Array:
            x = nn.Conv(self.filters, (3, 3), use_bias=False)(x)
            return nn.BatchNorm(use_running_average=True)(x)

        x = nn.relu(nn.Conv(self.filters, (3, 3), 4)(x))  # 7 x 7 pixels are left
        for _ in range(self.blocks):
            x = nn.relu(x + convolved(nn.relu(convolved(x))))
        return nn.Dense(CLASSES)(x.mean((1, 2)))


NETWORKS = {
    "perceptron, 8 x 512": Perceptron(8, 512),
    "perceptron, 4 x 1024": Perceptron(4, 1024),
    "ResNet, 4 blocks of 128 filters": ResNet(4, 128),
    "ResNet, 16 blocks of 64 filters": ResNet(16, 64),
}


def bench_network(model: nn.Module, samples: int, repeats: int) -> dict[str, Any]:
    """Medians of one network, in seconds."""
    random = np.random.default_rng(0)
    images = random.standard_normal((samples, 28, 28, 1), np.float32)
    labels = (np.arange(samples) % CLASSES).astype(np.int32)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])
    part = bundles.evenly_spread(samples, SCANNED_ROWS)
    batches = batches_of(images, samples, whole=False)
    batches.keep(part)
    subject = subject_of(model, params=variables, call=None, trainable=None, batch_norm="running")
    sites = subject.sites(batches.first)
    chosen, _ = selection.chosen_sites(sites, None, len(batches.first), None)
    setting = Setting(1e-3, 64, False, "samples", GLOBAL)
    largest = largest_weights(subject.parameters)
    measuring = Measuring(subject, sites, chosen, largest, setting, None)
    forward_program = jax.jit(model.apply)

    def forward() -> None:
        for _, batch in batches:
            np.asarray(forward_program(variables, batch))

    def without_headroom() -> None:
        measuring.measure_layers(batches, labels, CLASSES)

    def with_headroom() -> None:
        input_layer, _ = measuring.measure_layers(batches, labels, CLASSES)
        measuring.scan_learning_rates(batches, part, input_layer)

    clock, processor = take_turns([forward, without_headroom, with_headroom], repeats)
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        "layers": len(chosen),
        "seconds": clock,
        "ratios": [seconds / clock[0] for seconds in clock[1:]],
        "processor_seconds": processor,
        "processor_ratios": [seconds / processor[0] for seconds in processor[1:]],
    }


def take_turns(runs: list[Callable[[], None]], repeats: int) -> tuple[list[float], list[float]]:
    """The median seconds of each by the clock, and those of the processor."""
    clock: list[list[float]] = [[] for _ in runs]
    processor: list[list[float]] = [[] for _ in runs]
    for number in range(repeats + 1):
        for place, run in enumerate(runs):
            started, worked = time.perf_counter(), time.process_time()
            run()
            if number:  # the first compiles
                clock[place].append(time.perf_counter() - started)
                processor[place].append(time.process_time() - worked)
    return list(map(statistics.median, clock)), list(map(statistics.median, processor))


def bench_whole(samples: int) -> float:
    """Seconds of a whole audit of 20 layers, table included, with all that is compiled for it."""
    model: nn.Module = Perceptron(20, 100)
    images = np.random.default_rng(0).standard_normal((samples, 28, 28, 1), np.float32)
    variables: PyTree = jax.jit(model.init)(jax.random.key(0), images[:1])
    jax.clear_caches()
    started = time.perf_counter()
    str(cbundles.audit(model, images, np.arange(samples) % CLASSES, params=variables))
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    print(f"{options.samples} samples, medians of {options.repeats}; ratios to the forward pass, ")
    print("by the clock and by the time of the processor")
    print(f"{'network':<33} {'params':>10} {'layers':>7} {'forward ms':>11} {'audit':>12} "
          f"{'with headroom':>14}")  # fmt: skip
    lines = {}
    for name, model in NETWORKS.items():
        line = lines[name] = bench_network(model, options.samples, options.repeats)
        pairs = zip(line["ratios"], line["processor_ratios"], strict=True)
        audit, headroom = (f"{clock:.2f}, {processor:.2f}" for clock, processor in pairs)
        print(
            f"{name:<33} {line['parameters']:>10,} {line['layers']:>7} "
            f"{1000 * line['seconds'][0]:>11.0f} {audit:>12} {headroom:>14}",
            flush=True,
        )
    whole = bench_whole(options.samples)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"a whole audit of 20 layers, compiling included: {whole:.1f} s; peak memory {peak:.0f} MB"
    )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"networks": lines, "whole_seconds": whole}) + "\n")


if __name__ == "__main__":
    main()
