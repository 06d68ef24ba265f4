"""Audits of PyTorch modules beside a forward pass and beside other libraries that look at modules.

    .venv-torch/bin/python scripts/peer_audits_torch.py SAMPLES ROUNDS

A part of `bench_peers.py`, which has no PyTorch. Prints a line of JSON: for each module the seconds
of every side in every round, fewer rounds of what takes a minute, none where a library is not
installed. WeightWatcher looks at weights alone; delve follows a forward pass over the same samples,
in training mode as it wants it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import bench_audit
import numpy as np
import torch

BATCH = 512
SECONDS_OF_A_SIDE = 60.0
WEIGHTWATCHER, DELVE = "WeightWatcher", "delve"


def other_libraries(model: torch.nn.Module, images: np.ndarray) -> dict[str, Callable[[], None]]:
    """What each of them does with a module, by its name; only those that are installed."""
    batches = torch.from_numpy(images).split(BATCH)
    sides: dict[str, Callable[[], None]] = {}
    if importlib.util.find_spec("weightwatcher") is not None:
        import weightwatcher

        def watch_weights() -> None:
            weightwatcher.WeightWatcher(model=model).analyze()

        sides[WEIGHTWATCHER] = watch_weights
    if importlib.util.find_spec("delve") is not None:
        from delve import SaturationTracker

        def track_saturation() -> None:
            with tempfile.TemporaryDirectory() as folder:
                tracker = SaturationTracker(
                    f"{folder}/saturation", save_to="csv", modules=model, device="cpu"
                )
                model.train()
                with torch.no_grad():
                    for batch in batches:
                        model(batch)
                tracker.add_saturations()
                tracker.close()
                model.eval()

        sides[DELVE] = track_saturation
    return sides


def sides_of(name: str, model: Any, samples: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each side; ours first."""
    times = bench_audit.beside_forward(bench_audit.bench_torch_network(model, samples, rounds))
    others = other_libraries(model, bench_audit.images_of(samples))
    for library in (WEIGHTWATCHER, DELVE):
        times[library] = seconds_of(others[library], rounds) if library in others else []
    print(f"{name}: measured", file=sys.stderr, flush=True)
    return times


def seconds_of(program: Callable[[], None], rounds: int) -> list[float]:
    """Of so many calls, or of fewer where they take long."""
    seconds: list[float] = []
    while len(seconds) < rounds and sum(seconds) < SECONDS_OF_A_SIDE:
        started = time.perf_counter()
        program()
        seconds.append(time.perf_counter() - started)
    return seconds


def main() -> None:
    samples, rounds = map(int, sys.argv[1:3])
    logging.disable(logging.WARNING)
    with contextlib.redirect_stdout(sys.stderr):  # libraries greet
        found = {
            name: sides_of(name, model, samples, rounds)
            for name, model in bench_audit.torch_networks().items()
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
