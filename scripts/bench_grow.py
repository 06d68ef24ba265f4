"""What scoring all positions of an insertion costs, beside one ordinary backward pass.

Both see the same network, data and batches; ordinary: the gradient by all parameters, averaged over
the batches. Prints the ratio of the best of several runs of each, taken in turn, and writes them as
JSON. One core: python scripts/bench_grow.py --out results/bench/grow.json
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RUNS, AT_LEAST = 15, 0.2  # of each program, and seconds that a run lasts


def best_of(programs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Seconds of one call of each program, best of `RUNS`, in turn."""
    import jax

    repeats, found = {}, dict.fromkeys(programs, float("inf"))
    for name, call in programs.items():
        jax.block_until_ready(call())
        started = time.perf_counter()
        jax.block_until_ready(call())
        repeats[name] = max(1, round(AT_LEAST / (time.perf_counter() - started)))
    for _ in range(RUNS):
        for name, call in programs.items():
            started = time.perf_counter()
            for _ in range(repeats[name]):
                result = call()
            jax.block_until_ready(result)
            found[name] = min(found[name], (time.perf_counter() - started) / repeats[name])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])

    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax import lax

    from cbundles import data, provenance, train
    from cbundles.networks import conv_insertion, insertion, network
    from cbundles.networks.shape import ConvShape, FcShape

    def ordinary(shape: Any, subject: Any, x: Any, y: Any) -> Any:
        """The gradient by all parameters, averaged over batches."""
        slope = jax.grad(train.loss_of, has_aux=True)

        def add(total: Any, batch: Any) -> tuple[Any, None]:
            return total + slope(subject.params, subject, *batch, shape)[0] / len(x), None

        return lax.scan(add, jnp.zeros_like(subject.params), (x, y))[0]

    mini = data.load("mnist_mini")
    spirals = data.load("spirals")
    cases: list[tuple[str, Any, Any, int, int]] = [
        ("20 x plain-relu, width 5, depth 6, spirals", FcShape(2, 6, 5, 2), spirals, 450, 20),
        ("plain-relu, width 25, depth 25", FcShape(784, 25, 25, 10), mini, 2048, 1),
        ("plain-relu, width 100, depth 20", FcShape(784, 20, 100, 10), mini, 2048, 1),
        ("residual2-tanh, width 25, depth 25",
         FcShape(784, 25, 25, 10, "residual2-tanh"), mini, 2048, 1),
        ("VGG-20, 8 filters", ConvShape((28, 28, 1), (2, 2, 3, 2), 8, False, 10), mini, 512, 1),
        ("VGG-10, 64 filters", ConvShape((28, 28, 1), (1, 1, 1, 1), 64, False, 10), mini, 256, 1),
    ]  # fmt: skip
    rows = []
    for name, shape, images, samples, members in cases:
        batch = 50 if images is spirals else 64
        used = np.asarray(images.train_images[:samples])
        pixels = used if used.dtype == np.float32 else used.astype(np.float32) / np.float32(255)
        x = jnp.asarray(pixels.reshape(-1, batch, *pixels.shape[1:]))
        y = jnp.asarray(images.train_labels[:samples]).reshape(-1, batch)
        stack = [network.initial(shape, seed, shape) for seed in range(members)]
        subject = jax.tree.map(lambda *leaves: jnp.stack(leaves), *stack)
        if isinstance(shape, FcShape):
            scoring = functools.partial(insertion.scores, shape, zero="outer")
        else:
            scoring = functools.partial(conv_insertion.scores, shape)
        programs: dict[str, Callable[[], Any]] = {}
        for key, function in (
            ("scoring", scoring),
            ("ordinary", functools.partial(ordinary, shape)),
        ):
            mapped = jax.jit(jax.vmap(function, in_axes=(0, None, None)))
            compiled = mapped.lower(subject, x, y).compile()
            programs[key] = functools.partial(compiled, subject, x, y)
        found = best_of(programs)
        ratio = found["scoring"] / found["ordinary"]
        rows.append({"network": name, "samples": samples, "batch": batch, "ratio": round(ratio, 3),
                     **{f"{key}_seconds": value for key, value in found.items()}})  # fmt: skip
        print(f"{name:45s} scoring {1e3 * found['scoring']:9.2f} ms, ordinary backward pass "
              f"{1e3 * found['ordinary']:9.2f} ms, ratio {ratio:.2f}", flush=True)  # fmt: skip
    if out:
        origin = {"processor": provenance.processor(), "versions": provenance.versions(),
                  "commit": provenance.commit(), "platform": jax.default_backend()}  # fmt: skip
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({**origin, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
