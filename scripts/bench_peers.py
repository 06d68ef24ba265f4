"""Ours beside what a person would use instead, both measured in the same run.

    python scripts/bench_peers.py [--quick] [--rounds N] [--only SECTION,...] [--out DIR]

- Training, on the CPU: the product's (all steps of an epoch in one program, in populations where
  the product makes them) beside the loop that one writes with Flax and optax, beside Keras `fit` on
  TensorFlow, and, for fully connected networks, beside the loop with one `GradientTape` a batch, as
  the original implementation trains, once also with its augmentation. Same network, first weights,
  images, batch size, optimizer and float32; before anything is timed, the losses of the first steps
  must agree. Convolutions also have a limit: as many FLOPs in products of two large matrices.
- The metric beside one row sum (reading the activations once), `np.unique(axis=0)` and a jitted
  comparison of all pairs; all must find the same number of bundles.
- A loop of 200 steps with a monitor at its defaults beside the same loop without one, of Flax (and
  of PyTorch by `bench_monitor.py` in `.venv-torch`).
- An audit beside one forward pass over the same samples, and, where `.venv-torch` has them
  (`make torch-env`, then pip), beside WeightWatcher and delve on the same PyTorch modules.

Sides take turns, a turn each in every round, and medians and quartiles are of rounds. Trainings are
compared in two deals: each as it is run (ours a process a core, as its commands do; the others one
process on all cores), and all with a process a core, each training a network of its own. Seconds
are those of one network at the throughput of all cores together. Writes peers.json and peers.md,
where sections that are not measured again stay as they are.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import bench_audit
import bench_monitor
import jax
import jax.numpy as jnp
import numpy as np
from bench_metric import rows_of
from jax import lax
from jaxtyping import Array
from training_peers import worker
from training_peers.task import FC, VGG, Task

from cbundles import bundles, provenance
from cbundles.bundles.result import layer_bundles
from cbundles.executor.local import usable_cores
from cbundles.report.table import Column, Table

ROOT = Path(__file__).resolve().parent.parent
WORKER = Path(worker.__file__)
TORCH_PYTHON = ROOT / ".venv-torch/bin/python"
TORCH_AUDITS = Path(__file__).with_name("peer_audits_torch.py")
PEERS = ("tensorflow-cpu", "keras")  # distributions that ours is measured beside
SECTIONS = TRAINING, METRIC, AUDIT, MONITOR = "training", "metric", "audit", "monitor"

FC_SIDES = (worker.OURS, worker.FLAX, worker.FIT, worker.FIT_WITH_XLA, worker.TAPE)
AUGMENTED_SIDES = (worker.OURS, worker.TAPE)
VGG_SIDES = (worker.OURS, worker.LIMIT, worker.FLAX, worker.FIT)
TRAININGS = [
    (Task(FC, 25, 25, 937), FC_SIDES),
    (Task(FC, 25, 25, 937, augmented=True), AUGMENTED_SIDES),
    (Task(FC, 150, 10, 300), FC_SIDES),
    (Task(FC, 150, 10, 300, augmented=True), AUGMENTED_SIDES),
    (Task(VGG, 50, 8, 40), VGG_SIDES),
    (Task(VGG, 50, 64, 6), VGG_SIDES),
]
QUICK_TRAININGS = [
    (Task(FC, 4, 16, 12, augmented=True), AUGMENTED_SIDES),
    (Task(VGG, 4, 2, 2), VGG_SIDES),
]
STEPS_CHECKED = 8
# Of losses, relative. A VGG of 50 layers multiplies the rounding of its convolutions until nothing
# agrees after a step; so its first loss is compared, and the later ones of a shallow one.
LOSSES_AGREE, FIRST_LOSSES_AGREE, SHALLOW = 1e-2, 1e-3, 10

ACTIVATIONS = [(2048, 16384), (8192, 1024), (60_000, 100), (2048, 25)]
QUICK_ACTIVATIONS = [(256, 64)]
COMPARISONS_AT_MOST = 1.5e11  # numbers; more take minutes
LEARNING_RATE, BATCH_SIZE, AMPLITUDE, CLASSES = 1e-3, 64, 0.5, 10
SECONDS_OF_A_SIDE, TURNS_AT_LEAST = 60.0, 3  # sides that take long take fewer turns
SAMPLES, QUICK_SAMPLES = 2048, 64


@dataclass(frozen=True)
class Line:
    """What was measured of one side.

    subject: what was computed
    how: by which processes
    seconds: in each round; empty where there is none, and `note` says why
    times_ours: the median over that of the first side of the same comparison
    flops: of what was computed, where that is known
    """

    subject: str
    side: str
    how: str
    seconds: list[float]
    times_ours: float | None = None
    flops: float | None = None
    note: str = ""

    @property
    def row(self) -> dict[str, Any]:
        """As it is read in a table."""
        known = {"subject": self.subject, "side": self.side, "how": self.how}
        if not self.seconds:
            return {**known, "median": self.note}
        median = statistics.median(self.seconds)
        rate = None if self.flops is None else f"{self.flops / median / 1e9:.0f}"
        return {
            **known,
            "median": milliseconds(median),
            "quartiles": " to ".join(map(milliseconds, quartiles(self.seconds))),
            "ratio": None if self.times_ours is None else f"{self.times_ours:.2f}",
            "rate": rate,
        }


COLUMNS = [
    Column("subject", "what"),
    Column("side", "by whom"),
    Column("how", "how"),
    Column("median", "median [ms]", to_the_right=True),
    Column("quartiles", "quartiles [ms]", to_the_right=True),
    Column("ratio", "times ours", to_the_right=True),
    Column("rate", "GFLOP/s", to_the_right=True),
]


def milliseconds(seconds: float) -> str:
    """Three digits that tell."""
    number = 1000 * seconds
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third."""
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def compared(lines: Sequence[Line]) -> list[Line]:
    """The lines of one comparison with their ratios to the first of them, which is ours."""
    ours = statistics.median(lines[0].seconds)
    return [
        dataclasses.replace(line, times_ours=statistics.median(line.seconds) / ours)
        for line in lines
    ]


@dataclass
class Workers:
    """The processes of one side of a training.

    affinities: the cores of each
    checked: of which trainings they tell the first losses
    """

    side: str
    task: Task
    affinities: list[list[int]]
    checked: list[dict[str, Any]]
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    networks: int = 0

    def start(self) -> None:
        """Have all processes start; `wait` for them."""
        for cores in self.affinities:
            given = {
                "side": self.side,
                "task": dataclasses.asdict(self.task),
                "checked": self.checked,
                "cores": cores,
            }
            process = subprocess.Popen(
                [sys.executable, WORKER, json.dumps(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                text=True,
            )
            self.processes.append(process)

    def wait(self) -> list[list[float]]:
        """The first losses: of each task that is checked."""
        ready = [self._answer_of(process) for process in self.processes]
        self.networks = sum(answer["networks"] for answer in ready)
        losses: list[list[float]] = ready[0]["losses"]
        return losses

    def turn(self) -> float:
        """Seconds of one step of one network, at the throughput of all processes."""
        for process in self.processes:
            stream_of(process.stdin).write("go\n")
            stream_of(process.stdin).flush()
        seconds = statistics.fmean(map(self._answer_of, self.processes))
        return seconds / (self.task.steps * self.networks)

    def stop(self) -> None:
        """End all of them."""
        for process in self.processes:
            process.kill()
            process.communicate()

    @property
    def how(self) -> str:
        """By which processes, in words."""
        if len(self.affinities) > 1:
            return f"{len(self.affinities)} processes, a core each"
        cores = len(self.affinities[0])
        return "1 process, 1 core" if cores == 1 else f"1 process, {cores} cores"

    def _answer_of(self, process: subprocess.Popen[str]) -> Any:
        line = stream_of(process.stdout).readline()
        if not line:
            raise SystemExit(f"{self.side}, {self.task.name}: its process ended; see above")
        return json.loads(line)


def stream_of(stream: IO[str] | None) -> IO[str]:
    assert stream is not None, "asked for by PIPE"
    return stream


def _checked(task: Task) -> list[dict[str, Any]]:
    """The trainings whose first losses are compared, and how many steps of each."""
    if task.family == FC:
        plain = dataclasses.replace(task, augmented=False)
        return [{"task": dataclasses.asdict(plain), "steps": STEPS_CHECKED}]
    steps = max(task.steps, STEPS_CHECKED)
    shallow = dataclasses.replace(task, depth=SHALLOW, steps=steps)
    return [
        {"task": dataclasses.asdict(task), "steps": 1},
        {"task": dataclasses.asdict(shallow), "steps": STEPS_CHECKED},
    ]


def require_agreement(task: Task, losses: dict[str, list[list[float]]]) -> float:
    """The largest relative difference between our losses and those of other sides. SystemExit
    where it is too large, or where nothing was trained: then it is no comparison."""
    ours = losses[worker.OURS]
    losses = {side: found for side, found in losses.items() if side != worker.LIMIT}
    if any(len(of_task) > 1 and len(set(of_task)) == 1 for of_task in ours):
        raise SystemExit(f"{task.name}: the loss does not change")
    largest = 0.0
    for side, theirs in losses.items():
        for own, other in zip(ours, theirs, strict=True):
            allowed = FIRST_LOSSES_AGREE if len(own) == 1 else LOSSES_AGREE
            difference = float(np.max(np.abs(np.array(other) / np.array(own) - 1)))
            largest = max(largest, difference)
            if not difference <= allowed:
                raise SystemExit(f"{task.name}: losses differ: ours {own}, {side} {other}")
    return largest


def compare_trainings(task: Task, sides: Sequence[str], rounds: int) -> list[Line]:
    """All sides in both deals."""
    cores = usable_cores()
    a_core_each, together = [[core] for core in cores], [cores]
    as_run = {side: a_core_each if side == worker.OURS else together for side in sides}
    deals = [as_run]
    if len(cores) > 1:
        deals.append(dict.fromkeys(sides, a_core_each))
    lines = []
    for number, deal in enumerate(deals):
        checked = [] if number else _checked(task)  # the second deal runs the same programs
        started = [Workers(side, task, cores, checked) for side, cores in deal.items()]
        try:
            lines += compared(_take_turns(task, started, rounds))
        finally:
            for workers in started:
                workers.stop()
    return lines


def _take_turns(task: Task, sides: Sequence[Workers], rounds: int) -> list[Line]:
    for workers in sides:
        workers.start()
    losses = {workers.side: workers.wait() for workers in sides}
    if losses[worker.OURS]:
        largest = require_agreement(task, losses)
        print(f"{task.name}: first losses agree to {largest:.0e}", file=sys.stderr, flush=True)
    times: list[list[float]] = [[] for _ in sides]
    waited: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for workers, seconds, spent in zip(sides, times, waited, strict=True):
            if takes_another_turn(spent):
                started = time.perf_counter()
                seconds.append(workers.turn())
                spent.append(time.perf_counter() - started)
    flops = task.flops_of_step if task.family == VGG else None
    subject = f"{task.name}: a step"
    return [
        Line(subject, workers.side, workers.how, seconds, flops=flops)
        for workers, seconds in zip(sides, times, strict=True)
    ]


def takes_another_turn(spent: Sequence[float]) -> bool:
    """spent: the seconds that a side took in its turns so far."""
    return len(spent) < TURNS_AT_LEAST or sum(spent) < SECONDS_OF_A_SIDE


def in_turns(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round."""
    times: dict[str, list[float]] = {side: [] for side in sides}
    for side in sides.values():
        jax.block_until_ready(side())  # compiles
    for _ in range(rounds):
        for name, side in sides.items():
            if takes_another_turn(times[name]):
                started = time.perf_counter()
                jax.block_until_ready(side())
                times[name].append(time.perf_counter() - started)
    return times


def compare_metric(samples: int, width: int, kind: str, rounds: int) -> list[Line]:
    """The bundles of one layer. kind: of rows, as in `bench_metric`."""
    rows = rows_of(kind, samples, width)
    activations = jnp.asarray(rows)
    labels = jnp.asarray(np.arange(samples) % CLASSES, jnp.int32)
    keys = jnp.asarray(bundles.draw_keys(width, 0))
    scale = bundles.Scale.of(AMPLITUDE, LEARNING_RATE, BATCH_SIZE)
    factors = np.float32(LEARNING_RATE), np.float32(1 / BATCH_SIZE)

    def ours() -> Any:
        return layer_bundles(activations, labels, scale, keys, bundles.Equality(), CLASSES)

    def unique() -> int:
        return len(np.unique(np.float32(AMPLITUDE) - rows * factors[0] * factors[1], axis=0))

    @jax.jit
    def first_equal(a: Array) -> Array:
        """For each row the number of the first that equals it."""
        q = np.float32(AMPLITUDE) - a * factors[0] * factors[1]
        return lax.map(lambda row: jnp.argmax((q == row).all(-1)), q)

    row_sum = jax.jit(lambda a: a.sum(-1))
    sides: dict[str, Callable[[], Any]] = {
        worker.OURS: ours,
        "row sum, the limit": lambda: row_sum(activations),
        "np.unique": unique,
    }
    numbers = {worker.OURS: int(ours().num_bundles), "np.unique": unique()}
    affordable = float(samples) ** 2 * width <= COMPARISONS_AT_MOST
    if affordable:
        sides["all pairs, jitted"] = lambda: first_equal(activations)
        numbers["all pairs, jitted"] = len(np.unique(np.asarray(first_equal(activations))))
    if len(set(numbers.values())) > 1:
        raise SystemExit(f"{samples} x {width}, {kind}: numbers of bundles differ: {numbers}")
    subject = f"bundles of {samples:,} x {width:,}, {kind}"
    times = in_turns(sides, rounds)
    lines = compared([Line(subject, side, "1 process", times[side]) for side in sides])
    if not affordable:
        note = f"not run: {samples**2 * width:.0e} comparisons"
        lines.append(Line(subject, "all pairs, jitted", "1 process", [], note=note))
    return lines


def compare_audits(samples: int, rounds: int, names: Sequence[str]) -> list[Line]:
    """Audits of Flax networks beside a forward pass."""
    lines = []
    for name in names:
        found = bench_audit.bench_network(bench_audit.NETWORKS[name], samples, rounds)
        subject = f"{name}: {samples:,} samples"
        sides = bench_audit.beside_forward(found)
        measured = [Line(subject, side, "1 process", seconds) for side, seconds in sides.items()]
        lines += compared(measured)
    return lines


def compare_torch_audits(samples: int, rounds: int) -> list[Line]:
    """The same of PyTorch modules, beside libraries that look at them; by the Python of
    `.venv-torch`, which is the only one that has any."""
    subject = "PyTorch modules"
    if not TORCH_PYTHON.exists():
        return [Line(subject, "WeightWatcher, delve", "", [], note="not installed")]
    command = [str(TORCH_PYTHON), str(TORCH_AUDITS), str(samples), str(rounds)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    lines = []
    for name, sides in json.loads(done.stdout.splitlines()[-1]).items():
        subject = f"{name}: {samples:,} samples"
        measured = [
            Line(subject, side, "1 process", seconds) for side, seconds in sides.items() if seconds
        ]
        lines += compared(measured)
        lines += [
            Line(subject, side, "1 process", [], note="not installed")
            for side, seconds in sides.items()
            if not seconds
        ]
    return lines


def compare_monitors(rounds: int, names: Sequence[str]) -> list[Line]:
    """Loops with a monitor beside the same loops without one."""
    lines = []
    for name in names:
        turns = bench_monitor.bench_network(name, rounds)
        both = [sum(turn) for turn in zip(turns.train, turns.measure, strict=True)]
        subject = f"{name}: {bench_monitor.EVERY} steps of 64 images"
        sides = {"ours: with a monitor": both, "without": turns.train}
        lines += compared(
            [Line(subject, side, "1 process", seconds) for side, seconds in sides.items()]
        )
    return lines


def _is_installed(library: str) -> bool:
    try:
        importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def origin() -> dict[str, Any]:
    """On what, with what, and how busy the machine was before."""
    versions = {name: importlib.metadata.version(name) for name in PEERS}
    return {
        "processor": provenance.processor(),
        "cores": len(usable_cores()),
        "load": round(os.getloadavg()[0], 2),
        "versions": {**provenance.versions(), **versions},
        "commit": provenance.commit(),
    }


def page(record: dict[str, Any]) -> str:
    """In Markdown. record: of each section that was measured its origin, rounds and lines."""
    parts = [
        "# Ours beside others, in the same run\n\nBy `scripts/bench_peers.py`, which says what the "
        "sides are. Sides took turns, those that take long fewer, and medians and quartiles are of "
        "rounds. A step of training is that of one network and 64 images at the throughput of all "
        "cores. *Times ours* is the median over ours in the same rows.\n"
    ]
    for section in sorted(record, key=SECTIONS.index):
        found = record[section]
        versions = found["versions"]
        named = ", ".join(f"{name} {versions[name]}" for name in ("jax", "tensorflow-cpu", "keras"))
        rows = [Line(**line).row for line in found["lines"]]
        parts.append(
            f"## {section.capitalize()}\n\n{found['cores']} cores ({found['processor']}; load "
            f"before: {found['load']}), {named}, {found['rounds']} rounds.\n\n"
            f"{Table(rows, COLUMNS).markdown()}"
        )
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny, to see that all of it works")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side [7]")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas")
    parser.add_argument("--out", type=Path, default=ROOT / "results/bench", help="folder")
    options = parser.parse_args()
    wanted = set(options.only.split(","))
    if not wanted <= set(SECTIONS):
        parser.error(f"--only: valid: {', '.join(SECTIONS)}")
    missing = [name for name in PEERS if not _is_installed(name)]
    if missing:
        parser.error(f"not installed: {', '.join(missing)}; make setup-dev installs them")
    rounds = 2 if options.quick else options.rounds
    found = {**origin(), "rounds": rounds, "quick": options.quick}
    record_path = options.out / "peers.json"
    record = json.loads(record_path.read_text(encoding="utf-8")) if record_path.exists() else {}
    for section in sorted(wanted, key=SECTIONS.index):
        record[section] = {**found, "lines": []}
        for lines in comparisons(section, rounds, options.quick):
            record[section]["lines"] += map(dataclasses.asdict, lines)
            write(record, options.out)  # each takes minutes: one that fails costs none of them
    print(page(record))


def comparisons(section: str, rounds: int, quick: bool) -> Iterator[list[Line]]:
    """Those of a section, one after the other."""
    if section == TRAINING:
        for task, sides in QUICK_TRAININGS if quick else TRAININGS:
            yield compare_trainings(task, sides, rounds)
    elif section == METRIC:
        for samples, width in QUICK_ACTIVATIONS if quick else ACTIVATIONS:
            for kind in ("distinct", "twice"):
                yield compare_metric(samples, width, kind, rounds)
    elif section == AUDIT:
        samples = QUICK_SAMPLES if quick else SAMPLES
        names = list(bench_audit.NETWORKS)[: 1 if quick else None]
        yield compare_audits(samples, rounds, names)
        yield compare_torch_audits(samples, rounds)
    else:
        names = list(bench_monitor.NETWORKS)[: 1 if quick else None]
        yield compare_monitors(rounds, names)


def write(record: dict[str, Any], folder: Path) -> None:
    """peers.md and peers.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "peers.md").write_text(page(record), encoding="utf-8")
    (folder / "peers.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
