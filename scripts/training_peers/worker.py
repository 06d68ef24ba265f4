"""One side in a process of its own: ``worker.py {"side": ..., "task": ..., "cores": [...],
"checked": [{"task": ..., "steps": ...}]}``.

It says that it is ready, and the first losses of what is checked. For every line that it is sent it
then does the steps of a turn and says how many seconds they took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if TYPE_CHECKING:
    from training_peers.task import Task, Trainer

OURS, FLAX, LIMIT = "ours", "Flax and optax, a step a batch", "limit: products of matrices"
FIT, FIT_WITH_XLA = "Keras fit", "Keras fit, jit_compile"
TAPE = "TensorFlow, the original's loop"


def trainer_of(side: str, task: Task) -> Trainer:
    """Imports only the libraries of its side."""
    if side in (OURS, LIMIT):
        from training_peers.ours import MatrixProducts, WholeTurn

        return WholeTurn(task) if side == OURS else MatrixProducts(task)
    if side == FLAX:
        from training_peers.flax_loop import FlaxLoop

        return FlaxLoop(task)
    from training_peers import keras_loops

    kinds: dict[str, type[Trainer]] = {
        FIT: keras_loops.KerasFit,
        FIT_WITH_XLA: keras_loops.KerasFitWithXla,
        TAPE: keras_loops.GradientTapeLoop,
    }
    return kinds[side](task)  # type: ignore[call-arg]  # a protocol has no constructor


def main() -> None:
    given = json.loads(sys.argv[1])
    # Before any library counts the cores.
    os.sched_setaffinity(0, given["cores"])
    os.environ |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"}
    from training_peers.task import Task

    started = time.perf_counter()
    task = Task(**given["task"])
    trainer = trainer_of(given["side"], task)
    losses = []
    for check in given["checked"]:
        checked = Task(**check["task"])
        of_checked = trainer if checked == task else trainer_of(given["side"], checked)
        losses.append(of_checked.first_losses(check["steps"]))
    trainer.train_for_a_turn()  # the first one may compile
    starting = time.perf_counter() - started
    ready = {"losses": losses, "networks": trainer.networks, "starting_seconds": starting}
    print(json.dumps(ready), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        trainer.train_for_a_turn()
        print(json.dumps(time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main()
