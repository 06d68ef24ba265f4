"""How fast lesions are, against as many forward passes of the whole network; and pruned networks.

    python scripts/bench_lesion.py [--draws N] [--every N] [--json FILE]

A ResNet-120 (59 blocks, 8 filters; its weights do not matter for time), 2,000 test images, and the
variants of a study: three groups of blocks, of which 30 are called conflicting, x k x draws. One
program evaluates all; the bound is 1.2 x (number of variants x time of a forward pass). Then blocks
are removed for real, and latency is compared with FLOPs. Measured on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WANTED, BLOCKS = 1.2, "3,12,41,3"


def seconds(function: Callable[[], Any], times: int = 3) -> float:
    """The shortest of a few calls."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        found.append(time.perf_counter() - started)
    return min(found)


def measure(draws: int, every: int) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from cbundles import config, data, provenance
    from cbundles import measure as measuring
    from cbundles.data import device, pipelines
    from cbundles.decisions import removal
    from cbundles.experiments import lesion
    from cbundles.networks import network, pruning
    from cbundles.networks.network import Network
    from cbundles.networks.shape import shape_of

    jax.config.update("jax_default_matmul_precision", "highest")
    content = {"model": {"family": "resnet", "blocks": BLOCKS, "base_filters": 8}}
    cell = config.build(content, default_name="bench").cells[0]
    stored = data.load("mnist_mini")
    placed = device.place(stored, cell.data, cell.probe)
    shape: Any = shape_of(cell.model, stored.facts)
    start = network.initial(shape, 0, shape)
    subject = Network(jnp.asarray(start.params), jnp.asarray(start.statistics))
    pipeline = pipelines.pipeline_for(cell.data).without_chance
    known: dict[str, Any] = {name: [float(i) for i in range(59)] for name in removal.RANKINGS}
    known["entropy"] = [1.0 if i % 2 else 0.0 for i in range(59)]
    settings = removal.Settings(draws=draws, every=every)
    variants = [v for v in removal.variants(known, settings) if v.of in removal.GROUPS]
    masks = np.ones((len(variants), shape.layers), bool)
    for mask, variant in zip(masks, variants, strict=True):
        mask[list(variant.removed)] = False

    def classify(subject: Network, images: jax.Array) -> jax.Array:
        def one(x: jax.Array) -> jax.Array:
            return jnp.argmax(network.logits(shape, subject, x), axis=1)

        return measuring.in_batches(images, one, pipeline, measuring.batch_of(shape))

    images = placed.test.images
    forward = jax.jit(classify)
    forward(subject, images).block_until_ready()
    program = lesion.predictions_program(shape, pipeline)
    started = time.perf_counter()
    program(subject, images, masks[: lesion.AT_ONCE]).block_until_ready()
    compiling = time.perf_counter() - started
    alone = [seconds(lambda: forward(subject, images).block_until_ready())]
    started = time.perf_counter()
    for first in range(0, len(masks), lesion.AT_ONCE):
        some = np.zeros((lesion.AT_ONCE, shape.layers), bool)
        chosen = masks[first : first + lesion.AT_ONCE]
        some[: len(chosen)] = chosen
        program(subject, images, some).block_until_ready()
    together = time.perf_counter() - started
    alone.append(seconds(lambda: forward(subject, images).block_until_ready()))
    pass_seconds = sum(alone) / len(alone)
    result: dict[str, Any] = {
        "processor": provenance.processor(),
        "jax": jax.__version__,
        "images": len(images),
        "variants": len(variants),
        "draws": draws,
        "every": every,
        "programs": program._cache_size(),
        "first_call_seconds": round(compiling, 2),
        "forward_seconds": round(pass_seconds, 4),
        "all_variants_seconds": round(together, 2),
        "ratio_to_forward_passes": round(together / (len(variants) * pass_seconds), 3),
        "wanted": WANTED,
        "pruned": [],
    }
    batch = images[: cell.training.batch_size]
    whole = measuring.latency(shape, subject, batch, pipeline)
    for share in (0.25, 0.5, 0.75):
        gone = removal.ranking(known["norm"], False)[-round(share * 59) :]
        smaller, small = pruning.without(shape, subject, gone)
        small = Network(jnp.asarray(small.params), jnp.asarray(small.statistics))
        ratio = measuring.latency(smaller, small, batch, pipeline) / whole
        work = smaller.flops / shape.flops
        line = {"removed": len(gone), "latency_ratio": ratio, "flops_ratio": work}
        result["pruned"].append(
            {key: round(value, 3) for key, value in {**line, "off": ratio / work - 1}.items()}
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the result here, too")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    result = measure(options.draws, options.every)
    text = json.dumps(result, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
