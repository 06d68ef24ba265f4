"""How long does an audit take, beside one forward pass over the same samples?

    python scripts/bench_audit.py [--samples N] [--repeats N] [--json FILE]

Networks of at least a million parameters, with PyTorch installed also modules of it. The forward
pass, the audit without headroom, the one with it, and the former with peers (`audit(peers=True)`:
gradients by all parameters among them) take turns, compiled, and medians are compared: of the
clock, and of what the processor did for this process alone, which other work on the machine
hardly changes.

Of ResNets also all lesions, every branch off alone, beside as many forward passes as there are
branches; no branch is off in one more pass, which is counted, and what is off is not computed.

Then, each in a process of its own: how much memory an audit of 50 layers takes beyond that of a
forward pass over the same 60,000 samples, and how long a network of 20 layers takes from the start
of Python to the table, with all that is imported, initialised and compiled for it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax_networks import CLASSES, Perceptron, ResNet
from jaxtyping import Array, PyTree

import cbundles
from cbundles import bundles
from cbundles.auditing.batches import batches_of
from cbundles.auditing.findings import BRANCH
from cbundles.auditing.measuring import Measuring, Setting
from cbundles.auditing.models import subject_of
from cbundles.auditing.output import scores_in
from cbundles.auditing.peers import Watch
from cbundles.auditing.subject import Subject
from cbundles.auditing.weights import GLOBAL, largest_weights
from cbundles.bits import SCANNED_ROWS
from cbundles.observe import selection

NETWORKS = {
    "perceptron, 8 x 512": Perceptron(8, 512),
    "perceptron, 4 x 1024": Perceptron(4, 1024),
    "ResNet, 4 blocks of 128 filters": ResNet(4, 128),
    "ResNet, 16 blocks of 64 filters": ResNet(16, 64),
}
DEEP, MANY_SAMPLES = Perceptron(50, 100), 60_000
OF_20_LAYERS = {
    "perceptron of 20 layers": Perceptron(20, 100),
    "ResNet of 20 layers": ResNet(9, 32),
}


def bench_network(model: nn.Module, samples: int, repeats: int) -> dict[str, Any]:
    """Medians of one network of Flax, in seconds."""
    images = images_of(samples)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])
    forward_program = jax.jit(model.apply)
    subject = subject_of(model, params=variables, call=None, trainable=None, batch_norm="running")

    def forward(batch: Array) -> None:
        np.asarray(forward_program(variables, batch))

    return bench_subject(subject, forward, images, repeats)


def bench_torch_network(model: Any, samples: int, repeats: int) -> dict[str, Any]:
    """Medians of one network of PyTorch, in seconds."""
    import torch

    subject = subject_of(model, params=None, call=None, trainable=None, batch_norm="running")
    model.eval()

    def forward(batch: Array) -> None:
        with torch.no_grad():
            model(torch.from_numpy(batch))

    return bench_subject(subject, forward, images_of(samples), repeats)


def bench_subject(
    subject: Subject,
    forward: Callable[[Array], None],
    images: np.ndarray,
    repeats: int,
) -> dict[str, Any]:
    """Medians of an audit, beside those of the forward pass of a batch."""
    samples = len(images)
    labels = (np.arange(samples) % CLASSES).astype(np.int32)
    part = bundles.evenly_spread(samples, SCANNED_ROWS)
    batches = batches_of(images, samples, whole=False)
    batches.keep(part)
    sites = subject.sites(batches.first)
    chosen, _ = selection.chosen_sites(sites, None, len(batches.first), None, None)
    setting = Setting(1e-3, 64, False, "samples", GLOBAL)
    largest = largest_weights(subject.parameters)
    measuring = Measuring(subject, sites, chosen, largest, setting, None)

    def forward_of_all() -> None:
        for _, batch in batches:
            forward(batch)

    def without_headroom() -> None:
        measuring.measure_layers(batches, labels, CLASSES)

    def with_headroom() -> None:
        input_layer, _ = measuring.measure_layers(batches, labels, CLASSES)
        measuring.scan_learning_rates(batches, part, input_layer)

    scores = scores_in(None, CLASSES, labels.shape)

    def with_peers() -> None:
        watch = Watch(subject, sites, chosen, batches.first, labels, scores, None)
        _, layers = measuring.measure_layers(batches, labels, CLASSES, watch)
        watch.measured(layers)

    branches = [site.name for site in sites.found if site.kind == BRANCH]

    def all_lesions() -> None:
        for _, batch in batches:
            for off in ("", *branches):
                kept = {name: np.array(name != off) for name in branches}
                subject.answers(batch, kept, scores)

    turns = [forward_of_all, without_headroom, with_headroom, with_peers]
    times = take_turns([*turns, all_lesions] if branches else turns, repeats)
    clock, processor = (list(map(statistics.median, rounds)) for rounds in times)
    lesions = None
    if branches:
        lesions = {
            "branches": len(branches),
            "ratio": clock.pop() / (len(branches) * clock[0]),
            "processor_ratio": processor.pop() / (len(branches) * processor[0]),
        }
    return {
        "lesions": lesions,
        "clock": times.clock,
        "parameters": sum(parameter.size for parameter in subject.parameters.values()),
        "layers": len(chosen),
        "seconds": clock,
        "ratios": [seconds / clock[0] for seconds in clock[1:]],
        "processor_seconds": processor,
        "processor_ratios": [seconds / processor[0] for seconds in processor[1:]],
    }


def beside_forward(found: dict[str, Any]) -> dict[str, list[float]]:
    """Of one network the seconds of every round, by what was done; the audit first."""
    forward, audit, with_headroom = found["clock"][:3]
    return {
        "our audit": audit,
        "our audit, with headroom": with_headroom,
        "one forward pass, the limit": forward,
    }


def images_of(samples: int) -> np.ndarray:
    """Noise in the form of images, (samples, 28, 28, 1)."""
    return np.random.default_rng(0).standard_normal((samples, 28, 28, 1), np.float32)


def torch_networks() -> dict[str, Any]:
    """The same networks as modules of PyTorch; none where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch_networks as networks

    return {
        "PyTorch perceptron, 8 x 512": networks.perceptron(8, 512, CLASSES),
        "PyTorch perceptron, 4 x 1024": networks.perceptron(4, 1024, CLASSES),
        "PyTorch ResNet, 4 x 128 filters": networks.ResNet(4, 128, CLASSES),
        "PyTorch ResNet, 16 x 64 filters": networks.ResNet(16, 64, CLASSES),
    }


class Times(NamedTuple):
    """Seconds of several programs, a list of rounds for each: by the clock, of the processor."""

    clock: list[list[float]]
    processor: list[list[float]]


def take_turns(runs: list[Callable[[], None]], repeats: int) -> Times:
    """How long each of them takes in rounds in which they take turns."""
    clock: list[list[float]] = [[] for _ in runs]
    processor: list[list[float]] = [[] for _ in runs]
    for number in range(repeats + 1):
        for place, run in enumerate(runs):
            started, worked = time.perf_counter(), time.process_time()
            run()
            if number:  # the first compiles
                clock[place].append(time.perf_counter() - started)
                processor[place].append(time.process_time() - worked)
    return Times(clock, processor)


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a process that has done nothing else."""
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawning) as pool:
        return pool.submit(function, *arguments).result()


def peak_memory() -> float:
    """The most memory, in MB, that this process has held. (What `resource` tells of a new process
    is at least what its parent held.)"""
    (line,) = [
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    ]
    return int(line.split()[1]) / 1024


def memory_beyond_forward(model: nn.Module, samples: int) -> float:
    """MB that an audit takes more than the forward pass before it."""
    images = images_of(samples)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])
    forward = jax.jit(model.apply)
    for _, batch in batches_of(images, samples, whole=False):
        np.asarray(forward(variables, batch))
    before = peak_memory()
    audit = cbundles.audit(model, images, np.arange(samples) % CLASSES, params=variables)
    str(audit)
    return peak_memory() - before


def first_table(model: nn.Module, samples: int) -> tuple[float, float]:
    """Seconds of an audit, table included, and what the processor did in this process so far."""
    images = images_of(samples)
    variables: PyTree = jax.jit(model.init)(jax.random.key(0), images[:1])
    started = time.perf_counter()
    str(cbundles.audit(model, images, np.arange(samples) % CLASSES, params=variables))
    return time.perf_counter() - started, time.process_time()


def bench_first_table(model: nn.Module, samples: int) -> dict[str, float]:
    """Seconds from the start of Python to the table of an audit, and of the audit in it."""
    started = time.perf_counter()
    audit, processor = in_own_process(first_table, model, samples)
    whole = time.perf_counter() - started
    return {"seconds": whole, "of_the_audit": audit, "processor_seconds": processor}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    print(f"{options.samples} samples, medians of {options.repeats}; ratios to the forward pass, ")
    print("by the clock and by the time of the processor")
    print(f"{'network':<33} {'params':>10} {'layers':>7} {'forward ms':>11} {'audit':>12} "
          f"{'with headroom':>14} {'with peers':>14}")  # fmt: skip
    lines = {}
    for name, model in (NETWORKS | torch_networks()).items():
        bench = bench_network if name in NETWORKS else bench_torch_network
        line = lines[name] = bench(model, options.samples, options.repeats)
        pairs = zip(line["ratios"], line["processor_ratios"], strict=True)
        audit, headroom, peers = (f"{clock:.2f}, {processor:.2f}" for clock, processor in pairs)
        print(
            f"{name:<33} {line['parameters']:>10,} {line['layers']:>7} "
            f"{1000 * line['seconds'][0]:>11.0f} {audit:>12} {headroom:>14} {peers:>14}",
            flush=True,
        )
        if line["lesions"] is not None:
            print("    all {branches} lesions beside {branches} forward passes: {ratio:.2f}, "
                  "{processor_ratio:.2f}".format(**line["lesions"]), flush=True)  # fmt: skip
    beyond = in_own_process(memory_beyond_forward, DEEP, MANY_SAMPLES)
    print(f"an audit of {DEEP.depth} layers takes {beyond:.0f} MB beyond a forward pass over "
          f"{MANY_SAMPLES:,} samples", flush=True)  # fmt: skip
    tables = {}
    for name, model in OF_20_LAYERS.items():
        table = tables[name] = bench_first_table(model, options.samples)
        print(
            f"{name}: {table['seconds']:.1f} s from the start of Python to the table, of which the "
            f"audit takes {table['of_the_audit']:.1f}; {table['processor_seconds']:.1f} s of the "
            "processor",
            flush=True,
        )
    if options.json:
        found = {"networks": lines, "megabytes_beyond_forward": beyond, "first_table": tables}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
