"""Speed of convolutional networks on this machine: every lowering of a 3x3 convolution at the sizes
of the paper's networks, and of their first, which is 7x7 with stride 2; then compile time and
training step of VGG-50 and VGG-120, with the equal blocks of a stage as one loop (as the product
has them) and unrolled.

    python scripts/bench_conv.py [--json FILE] [--filters 64]

The limit is what a plain product of matrices reaches in the same run. Best times of several.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from cbundles import train
from cbundles.config import PAPER_BLOCKS
from cbundles.data import augment, pipelines
from cbundles.networks import lowering, network
from cbundles.networks.shape import ConvShape
from cbundles.provenance import processor

BATCH, REPEATS, STEPS = 64, 7, 6
SECONDS = 3  # longer calls are repeated less often
SIZES = ((16, 1), (8, 2), (4, 4), (2, 8))  # pixels, and filters as a multiple of the first stage's
STEMS = ((128, 8), (128, 16), (128, 64), (32, 8), (32, 16))  # pixels of images, and filters
NETWORKS = ((50, "loop"), (50, "unrolled"), (120, "loop"), (120, "unrolled"))
# Recorded on two cores when a product of matrices reached 212 GFLOP/s.
ORIGINAL = "VGG-50 step 0.89 s, tracing 23 s; VGG-120 tracing 58 s"


def best(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    jax.block_until_ready(call())  # compiles
    times: list[float] = []
    while len(times) < repeats and (not times or sum(times) < SECONDS):
        started = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - started)
    return min(times)


def matrix_product() -> float:
    """FLOP a second of a product of 2048 x 2048 matrices."""
    a = jnp.ones((2048, 2048))
    product = jax.jit(lambda a: a @ a)
    return 2 * 2048**3 / best(lambda: product(a))


def forms(size: int) -> dict[str, Callable[[jax.Array, jax.Array], jax.Array]]:
    found: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
        "patches": functools.partial(lowering.patches, stride=1),
        "rows": lowering.rows,
    }
    if size > 2:
        found["winograd"] = lowering.winograd
        found["winograd F(4x4)"] = functools.partial(lowering.winograd, filtering=lowering.F4)
    if jax.default_backend() != "cpu" or size == SIZES[0][0]:  # seconds a call on a CPU
        found["XLA"] = functools.partial(lowering.xla, stride=1)
    return found


def bench_forms(size: int, filters: int) -> list[dict[str, Any]]:
    """All forms of a 3x3 convolution, with the gradients of images and kernel."""
    chance = np.random.default_rng(0)
    x = jnp.asarray(chance.standard_normal((BATCH, size, size, filters), np.float32))
    w = jnp.asarray(chance.standard_normal((3, 3, filters, filters), np.float32))
    return [bench_form(name, form, x, w, both=True) for name, form in forms(size).items()]


def bench_stems(size: int, filters: int) -> list[dict[str, Any]]:
    """Both forms of the first convolution, 7x7 with stride 2, with the gradient of the kernel."""
    chance = np.random.default_rng(0)
    x = jnp.asarray(chance.standard_normal((BATCH, size, size, 3), np.float32))
    w = jnp.asarray(chance.standard_normal((7, 7, 3, filters), np.float32))
    patches = functools.partial(lowering.patches, stride=2)
    return [
        bench_form("patches", patches, x, w, both=False),
        bench_form("folded", lowering.folded, x, w, both=False),
    ]


def bench_form(
    name: str,
    form: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    w: jax.Array,
    *,
    both: bool,
) -> dict[str, Any]:
    """Milliseconds forward and with gradients, inside a loop as in training. both: those of images
    and kernel, else of the kernel alone."""

    def slopes(w: jax.Array) -> jax.Array:
        y, back = jax.vjp(form, x, w)
        dx, dw = back(y)
        return w + 1e-9 * dw + 1e-9 * dx.mean() if both else w + 1e-9 * dw

    looped = jax.jit(lambda w: lax.fori_loop(0, STEPS, lambda i, w: slopes(w), w))
    forward = jax.jit(
        lambda w: lax.fori_loop(0, STEPS, lambda i, w: w + 1e-9 * form(x, w).mean(), w)
    )
    one = 1000 * best(functools.partial(forward, w)) / STEPS
    through = 1000 * best(functools.partial(looped, w)) / STEPS
    size, filters = x.shape[1], w.shape[-1]
    print(f"{w.shape[0]}x{w.shape[0]} on {size:3}x{size:<3} x {filters:3}  {name:15} "
          f"forward {one:6.1f} ms, with gradients {through:6.1f} ms", flush=True)  # fmt: skip
    return {
        "kernel": w.shape[0],
        "pixels": size,
        "filters": filters,
        "form": name,
        "forward_ms": one,
        "with_gradients_ms": through,
    }


def bench_network(depth: int, filters: int, blocks: str) -> dict[str, Any]:
    """Compile time of the training program, and seconds a training step in it."""
    shape = ConvShape((32, 32, 3), PAPER_BLOCKS[depth], filters, False, 10)
    recipe = train.Recipe(BATCH, 1e-3, 1e-2, pipelines.ORIGINAL["cifar10"])
    examples = BATCH * STEPS
    chance = np.random.default_rng(0)
    images = chance.integers(0, 256, (examples, *shape.image)).astype(np.uint8)
    canvas = augment.canvas(jnp.asarray(images), recipe.augmentation)
    labels = jnp.asarray(chance.integers(0, 10, examples), jnp.int32)
    state = train.start(network.initial(shape, 0, shape), recipe)
    state = jax.tree.map(lambda a: jnp.asarray(a)[None], state)
    plan = jax.tree.map(lambda a: a[None], train.plan(recipe, 0, 1, examples))
    jax.clear_caches()  # the other way of writing the blocks would be found there
    started = time.perf_counter()
    # Only the loop over the blocks of a stage; those over steps and epochs stay loops.
    unroll = sum(shape.blocks) if blocks == "unrolled" else 1
    with mock.patch.object(nn, "scan", functools.partial(nn.scan, unroll=unroll)):
        advance = train.advance_program(shape, recipe)
        program = advance.lower(*train.whole_epoch(state, plan, canvas, labels)).compile()
    line: dict[str, Any] = {
        "network": f"VGG-{depth}", "filters": filters, "blocks": blocks,
        "compile_seconds": time.perf_counter() - started,
        "step_flop": 3 * BATCH * shape.flops,
    }  # fmt: skip
    times = []
    for _ in range(4 if depth == 50 else 2):
        started = time.perf_counter()
        state, losses = program(*train.whole_epoch(state, plan, canvas, labels))
        jax.block_until_ready(losses)
        times.append((time.perf_counter() - started) / STEPS)
    line["step_seconds"] = min(times)
    return line


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--filters", type=int, default=64, help="of the first stage [64]")
    options = parser.parse_args()
    device = jax.devices()[0]
    rate = matrix_product()
    print(f"{device.device_kind}, {processor()}, jax {jax.__version__}: "
          f"matrix product {rate / 1e9:.0f} GFLOP/s", flush=True)  # fmt: skip
    lowerings = [
        line for size, times in SIZES for line in bench_forms(size, options.filters * times)
    ]
    lowerings += [line for stem in STEMS for line in bench_stems(*stem)]
    networks = []
    for depth, blocks in NETWORKS:
        line = bench_network(depth, options.filters, blocks)
        rate = max(rate, matrix_product())
        line["of_limit"] = line["step_seconds"] * rate / line["step_flop"]
        print(f"{line['network']} {blocks}: compiled in {line['compile_seconds']:.1f} s, "
              f"step {line['step_seconds']:.2f} s, {line['of_limit']:.2f} times its "
              f"{line['step_flop'] / 1e9:.0f} GFLOP at {rate / 1e9:.0f} GFLOP/s "
              f"(original: {ORIGINAL})", flush=True)  # fmt: skip
        networks.append(line)
    if options.json:
        content = {"platform": device.platform, "device": device.device_kind,
                   "processor": processor(), "jax": jax.__version__, "matrix_product": rate,
                   "lowerings": lowerings, "networks": networks}  # fmt: skip
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
