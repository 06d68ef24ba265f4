"""Is a model from which blocks were removed faster in proportion to the FLOPs that went?

    python scripts/bench_remove.py [--rounds N] [--json FILE]

A share of the blocks of three networks goes. The whole network and the smaller one take turns,
compiled, one batch at a time, and medians are compared. The last column is the share of the time
that is left divided by the share of the FLOPs that is left: 1.00 is exact proportion.
"""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array

import cbundles
from cbundles.removing.comparing import Program, median_seconds
from cbundles.removing.on_jax.costs import until_done

CLASSES, BATCH = 10, 16
SECONDS = 120.0  # of timing, at most, for each comparison


class ConvBlock(nn.Module):
    filters: int
    strides: int = 1

    @nn.compact
    def __call__(self, x: Array, _: None = None) -> tuple[Array, None]:
        def normalised(size: int, strides: int, x: Array) -> Array:
            x = nn.Conv(self.filters, (size, size), strides, use_bias=False)(x)
            return nn.BatchNorm(use_running_average=True)(x)

        h = normalised(3, 1, nn.relu(normalised(3, self.strides, x)))
        skip = x if self.strides == 1 else normalised(1, self.strides, x)
        return nn.relu(skip + h), None


class ResNet(nn.Module):
    """blocks: of each stage; scanned: all blocks are one scan, of a single stage."""

    blocks: tuple[int, ...]
    filters: int
    scanned: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.relu(nn.Conv(self.filters, (3, 3))(x))
        if self.scanned:
            axes: dict[Any, Any] = {"params": 0, "batch_stats": 0}
            stack = nn.scan(ConvBlock, axes, split_rngs={"params": True}, length=self.blocks[0])
            x, _ = stack(self.filters)(x, None)
        else:
            for stage, count in enumerate(self.blocks):
                for number in range(count):
                    strides = 2 if stage > 0 and number == 0 else 1
                    x, _ = ConvBlock(self.filters * 2**stage, strides)(x)
        return nn.Dense(CLASSES)(x.mean((1, 2)))


class Transformer(nn.Module):
    """Attention and a perceptron in turn, on 64 patches."""

    blocks: int
    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.Conv(self.width, (4, 4), 4)(x).reshape(len(x), -1, self.width)
        for _ in range(self.blocks):
            x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
            h = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
            x = x + nn.Dense(self.width)(h)
        return nn.Dense(CLASSES)(x.mean(1))


# The network, and the residual sums that go, from 1.
NETWORKS: dict[str, tuple[nn.Module, list[int]]] = {
    "ResNet, 12 blocks of 32 filters": (ResNet((12,), 32), [3, 4, 6, 8, 9, 11]),
    "the same in a scan": (ResNet((12,), 32, scanned=True), [3, 4, 6, 8, 9, 11]),
    "ResNet, 3 stages from 32 filters": (ResNet((4, 4, 4), 32), [2, 4, 5, 7, 10, 11]),
    "transformer, 6 blocks of width 128": (Transformer(6, 128), [3, 4, 5, 6, 9, 10]),
}


def bench_network(model: nn.Module, gone: list[int], rounds: int) -> dict[str, Any]:
    """What goes of one network, and what that saves."""
    images = np.random.default_rng(0).standard_normal((BATCH, 32, 32, 3), np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])
    removed = cbundles.remove(model, gone, params=variables, inputs=images)
    programs: list[Program] = [functools.partial(jax.jit(model.apply), variables), removed]
    before, after = median_seconds(
        [until_done(program) for program in programs], jax.numpy.asarray(images), rounds, SECONDS
    )
    report = removed.report
    flops_left = report.after.flops / report.before.flops
    return {
        "gflops": [report.before.flops / 1e9, report.after.flops / 1e9],
        "megabytes": [report.before.bytes / 1e6, report.after.bytes / 1e6],
        "seconds": [before, after],
        "flops_left": flops_left,
        "time_left": after / before,
        "time_for_flops": after / before / flops_left,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    print(f"batches of {BATCH} images, medians of {options.rounds}")
    print(
        f"{'network':<35} {'MB':>11} {'ms':>15} {'FLOPs left':>11} {'time left':>10} {'ratio':>6}"
    )
    lines = {}
    for name, (model, gone) in NETWORKS.items():
        line = lines[name] = bench_network(model, gone, options.rounds)
        megabytes = " to ".join(f"{size:.2f}" for size in line["megabytes"])
        times = " to ".join(f"{1000 * seconds:.1f}" for seconds in line["seconds"])
        print(
            f"{name:<35} {megabytes:>11} {times:>15} {line['flops_left']:>11.1%} "
            f"{line['time_left']:>10.1%} {line['time_for_flops']:>6.2f}",
            flush=True,
        )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(lines) + "\n")


if __name__ == "__main__":
    main()
