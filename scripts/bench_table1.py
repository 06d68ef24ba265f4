"""Table 1 of the paper at its own size, as far as it needs no training: layers, bytes, FLOPs, and
how long networks take to classify 64 images.

    python scripts/bench_table1.py [--json FILE] [--only mnist,cifar10]

The paper tells how many layers and megabytes its auto-tuned networks have, but not their blocks.
Taken here: blocks that auto-tuning can leave (3 in the first stage, up to 12, 41 and 3 in the
others), with a number of layers next to the paper's mean, whose bytes are nearest to the paper's;
other blocks with as many layers take other times. Weights are initial ones, which time does not
depend on. Both networks of a data set take turns on one core, or on the accelerator where there is
one; medians and quartiles are printed, and the ratio of auto-tuned to ResNet beside the paper's
ratio, whose times are those of its own GPU.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cbundles import data, provenance
from cbundles.config import PAPER_BLOCKS, layers_with
from cbundles.data import augment, pipelines
from cbundles.executor.local import usable_cores
from cbundles.networks import network
from cbundles.networks.shape import ConvShape
from cbundles.report.table1 import PAPER, PAPER_FILTERS, Published, resnet_of

BATCH, ROUNDS = 64, 9
DATASETS = tuple(dict.fromkeys(row.dataset for row in PAPER))


def shape_of_row(row: Published) -> ConvShape:
    """The paper's ResNet, or the VGG that is most like the paper's auto-tuned one."""
    facts = data.describe(row.dataset)

    def shape(blocks: tuple[int, int, int, int], residual: bool) -> ConvShape:
        return ConvShape(facts.image_shape, blocks, PAPER_FILTERS, residual, facts.num_classes)

    layers = row.layers[0]
    if row.network == "resnet":
        return shape(PAPER_BLOCKS[int(layers)], residual=True)
    whole = PAPER_BLOCKS[max(PAPER_BLOCKS)]
    second, third, last = (range(count + 1) for count in whole[1:])
    left = itertools.product(whole[:1], second, third, last)
    near = [blocks for blocks in left if abs(layers_with(blocks) - layers) <= 1]
    shapes = [shape(blocks, residual=False) for blocks in near]
    return min(shapes, key=lambda one: abs(one.bytes / 1e6 - row.megabytes[0]))


def classifier(shape: ConvShape, dataset: str) -> Callable[[], Any]:
    """A call that classifies a batch, compiled at the first time."""
    subject = jax.tree.map(jnp.asarray, network.initial(shape, 0, shape))
    chance = np.random.default_rng(0)
    images = jnp.asarray(chance.integers(256, size=(BATCH, *shape.image), dtype=np.uint8))
    pipeline = pipelines.ORIGINAL[dataset]

    def classify(subject: network.Network, images: jax.Array) -> jax.Array:
        return network.logits(shape, subject, augment.plain(images, pipeline))

    return functools.partial(jax.jit(classify), subject, images)


def seconds_in_turns(calls: list[Callable[[], Any]]) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        jax.block_until_ready(call())
    for _ in range(ROUNDS):
        for call, seconds in zip(calls, times, strict=True):
            started = time.perf_counter()
            jax.block_until_ready(call())
            seconds.append(time.perf_counter() - started)
    return times


def bench(dataset: str) -> list[dict[str, Any]]:
    """The two lines of a data set: the ResNet, and the VGG."""
    rows = [row for row in PAPER if row.dataset == dataset]
    shapes = [shape_of_row(row) for row in rows]
    times = seconds_in_turns([classifier(shape, dataset) for shape in shapes])
    lines = []
    for row, shape, seconds in zip(rows, shapes, times, strict=True):
        low, median, high = statistics.quantiles(seconds, n=4)
        lines.append(
            {
                "dataset": dataset,
                "network": row.network,
                "blocks": list(shape.blocks),
                "layers": layers_with(shape.blocks),
                "papers_layers": row.layers[0],
                "megabytes": shape.bytes / 1e6,
                "papers_megabytes": row.megabytes[0],
                "gflop_an_image": shape.flops / 1e9,
                "median_seconds": median,
                "quartiles_seconds": [low, high],
                "ratio_to_resnet": median / statistics.median(times[0]),
                "papers_ratio": row.milliseconds[0] / resnet_of(row).milliseconds[0],
            }
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--only", default=",".join(DATASETS), help="data sets, with commas")
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - set(DATASETS)
    if unknown:
        parser.error(f"--only: unknown {sorted(unknown)}; valid: {', '.join(DATASETS)}")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [usable_cores()[0]])  # before XLA counts the cores
    device = jax.devices()[0]
    if device.platform == "cpu":
        where = f"{provenance.processor()}, one core"
    else:
        where = device.device_kind
        os.sched_setaffinity(0, cores)  # they compile
    load = os.getloadavg()[0]
    print(f"{where}, load {load:.1f}; jax {jax.__version__}")
    print(
        f"{'data set':>13} {'network':>7} {'blocks':>10} {'layers':>6} {'paper':>5} {'MB':>6} "
        f"{'paper':>5} {'GFLOP':>6} {'ms':>7} {'quartiles':>16} {'ratio':>5} {'paper':>5}"
    )
    lines = []
    for dataset in options.only.split(","):
        for line in bench(dataset):
            lines.append(line)
            low, high = line["quartiles_seconds"]
            print(
                f"{dataset:>13} {line['network']:>7} {','.join(map(str, line['blocks'])):>10} "
                f"{line['layers']:6} {line['papers_layers']:5g} {line['megabytes']:6.1f} "
                f"{line['papers_megabytes']:5g} {line['gflop_an_image']:6.3f} "
                f"{1e3 * line['median_seconds']:7.4g} {f'{1e3 * low:.4g} to {1e3 * high:.4g}':>16} "
                f"{line['ratio_to_resnet']:5.2f} {line['papers_ratio']:5.2f}",
                flush=True,
            )
    if options.json:
        origin = {
            "processor": provenance.processor(),
            "device": device.device_kind,
            "load": load,
            "versions": provenance.versions(),
            "commit": provenance.commit(),
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**origin, "rows": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()
