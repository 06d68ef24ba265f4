"""Real processes of the product, small experiments for them, and what they leave behind."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cbundles.store import Store

ROOT = Path(__file__).parents[2]
AT_ONCE = 2
LONGEST = 600  # seconds that a process may take
SAVING = {"CBUNDLES_CHECKPOINT_SECONDS": "0", "CBUNDLES_PAUSE_SECONDS": "0"}


class Scenario(NamedTuple):
    """An experiment of seconds.

    text: its configuration file, if it has one
    writes: files of the results folder, and how often each is written at least
    killed_as: what is added to the command while it is killed, and not when it is run to its end
    """

    name: str
    arguments: str
    text: str
    writes: dict[str, int]
    killed_as: str = ""


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "sweep",
        "sweep attack.yaml --keep-weights 1,last",
        "data: {name: spirals}\nmodel: {width: [6, 24], depth: 3}\n"
        "training: {epochs: 3}\nprobe: {samples: 300}\n",
        {
            "checkpoints/*": 7,
            "cells/*": 2,
            "weights/*": 4,
            "run.json": 2,
            "records.jsonl": 1,
            "table.csv": 1,
        },
    ),
    Scenario(
        "grow",
        "grow attack.yaml",
        "data: {name: spirals}\nmodel: {width: 5, depth: 2}\ntraining: {epochs: 12}\n"
        "probe: {samples: 300}\n"
        "growth: {arm: [max, random, small], first_epoch: 4, every: 4, insertions: 2}\n",
        {"checkpoints/*": 12, "cells/*": 3, "run.json": 2, "records.jsonl": 1, "growth.csv": 1},
    ),
    Scenario(
        "tune",
        "tune attack.yaml",
        "data: {name: spirals}\nmodel: {width: 5, depth: 4}\ntraining: {epochs: 12}\n"
        "probe: {samples: 200}\n"
        "tuning: {arm: [both, fixed], budget_depth: 4, every: 2, trial: 2, cooldown: 1}\n",
        {"checkpoints/*": 8, "cells/*": 2, "run.json": 2, "records.jsonl": 1, "tuning.csv": 1},
    ),
    Scenario(
        "autotune",
        "autotune --dataset spirals --blocks 1,1,0,0 --seeds 1 --set training.epochs=2 "
        "--set training.conflict_checks=2 --set model.base_filters=2 --set probe.samples=100",
        "",
        {"checkpoints/*": 3, "cells/*": 2, "run.json": 2, "records.jsonl": 1},
    ),
    Scenario(
        "lesion",
        "lesion --config attack.yaml --draws 2",
        "data: {name: spirals}\nmodel: {family: resnet, blocks: '1,1,0,0', base_filters: 2}\n"
        "training: {epochs: 2}\nprobe: {samples: 100}\n",
        {
            "checkpoints/*": 4,
            "cells/*": 1,
            "weights/*": 1,
            "records.jsonl": 1,
            "lesions/*": 1,
            "lesions.jsonl": 1,
            "lesion.csv": 1,
        },
    ),
)


SCENARIOS = (
    *SCENARIOS,
    SCENARIOS[0]._replace(
        name="images",
        text="data: {name: mnist_mini}\nmodel: {width: [4, 8], depth: 3}\n"
        "training: {epochs: 2, batch_size: 1000}\nprobe: {samples: 200, steps: [3]}\n",
    ),
)


def _as_part(name: str, how: str, killed_as: str, *not_written: str) -> Scenario:
    """A scenario above whose command is killed in another form, which leaves some files to the
    command in its own form."""
    (scenario,) = (one for one in SCENARIOS if one.name == name)
    left_out = {"records.jsonl", "table.csv", "lesions.jsonl", "lesion.csv", *not_written}
    writes = {file: times for file, times in scenario.writes.items() if file not in left_out}
    writes["run.json"] = 1
    return scenario._replace(name=f"{name} {how}", writes=writes, killed_as=killed_as)


SCENARIOS = (
    *SCENARIOS,
    _as_part("sweep", "as a shard", "--shard 1/1"),
    _as_part("autotune", "as a shard", "--shard 1/1"),
    _as_part("lesion", "as a shard", "--shard 1/1"),
)
if importlib.util.find_spec("ray") is not None:
    # Checkpoints are handed over once a minute: none of runs this short.
    SCENARIOS = (*SCENARIOS, _as_part("sweep", "on Ray", "--executor ray", "checkpoints/*"))


class Ended(NamedTuple):
    code: int
    said: str  # on standard output and error


class Whole(NamedTuple):
    """What a run ends with that nothing disturbs, and how long that takes."""

    found: dict[str, list[Any]]
    seconds: float


class FailedError(Exception):
    """A run failed that nothing disturbed."""


def start(
    scenario: Scenario,
    folder: Path,
    environment: dict[str, str],
    before: str = "",
    *,
    to_the_end: bool = False,
) -> subprocess.Popen[str]:
    """Start the command of a scenario, with results in a folder, from a place beside that, or
    beside its disk. before: see `command`. to_the_end: not as it is killed."""
    of_disk = folder.parent if folder.parent.is_mount() else folder
    place = of_disk.with_name("place")
    place.mkdir(parents=True, exist_ok=True)
    (place / "attack.yaml").write_text(scenario.text)
    part = [] if to_the_end else scenario.killed_as.split()
    arguments = [*scenario.arguments.split(), *part, "--workers", "1", "--out", str(folder)]
    return subprocess.Popen(
        command(arguments, before),
        cwd=place,
        env={**product_environment(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_to_the_end(
    scenario: Scenario, folder: Path, environment: dict[str, str] | None = None, before: str = ""
) -> Ended:
    with start(scenario, folder, environment or {}, before, to_the_end=True) as process:
        said, _ = process.communicate(timeout=LONGEST)
    return Ended(process.returncode, said)


class Undisturbed:
    """What scenarios end with when nothing disturbs them: done when first asked for."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self._known: dict[tuple[str, str], Whole] = {}

    def of(self, scenario: Scenario) -> Whole:
        """Run it twice: the time is that of the second, which finds images and compiled programs in
        the cache. A shard is a part of the same whole."""
        key = (scenario.arguments, scenario.text)
        if key not in self._known:
            for name in ("first", "second"):
                place = self.folder / f"{len(self._known)}-{name}" / "run"
                started = time.monotonic()
                ended = run_to_the_end(scenario, place, self.environment)
                if ended.code != 0:
                    raise FailedError(f"exit code {ended.code}: {ended.said[-500:]}")
            self._known[key] = Whole(what_was_found(place), time.monotonic() - started)
        return self._known[key]


def command(arguments: Sequence[str], before: str = "") -> list[str]:
    """before: what a shell does to the process first, such as ``exec >&-``. (Python would have to
    fork for that, which JAX in this process does not survive.)"""
    return ["sh", "-c", f'{before}\nexec "$0" -m cbundles.cli "$@"', sys.executable, *arguments]


def product_environment() -> dict[str, str]:
    """Training pauses after every step, and checkpoints are written whenever they can be."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": paths, **SAVING}


def what_was_found(folder: Path) -> dict[str, list[Any]]:
    """Every record of a complete run, but for times and where it was made, and which networks were
    kept."""
    files = sorted(folder.glob("*.jsonl"))
    found = {path.name: [_timeless(json.loads(line)) for line in _lines(path)] for path in files}
    networks = sorted(path.stem for path in folder.glob("weights/*"))
    found["weights"] = [(name, Store(folder).network_digest(name)) for name in networks]
    return found


def seconds_of(folder: Path) -> dict[str, Any]:
    """What the records of cells say about their times: a record that is kept keeps them."""
    loose = [json.loads(path.read_text()) for path in folder.glob("cells/*.json")]
    sealed = [json.loads(line) for path in folder.glob("records.jsonl") for line in _lines(path)]
    return {record["cell"]: record["seconds"] for record in [*sealed, *loose]}


def left_over(folder: Path) -> Sequence[str]:
    """What a complete run must not leave: checkpoints, loose records, half-written files."""
    patterns = ("checkpoints/*", "cells/*", "lesions/*", ".*.????????", "*/.*.????????")
    return [str(path) for pattern in patterns for path in folder.glob(pattern)]


def _lines(path: Path) -> list[str]:
    """Without the header."""
    return path.read_text().splitlines()[1:]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        # Where it was made is the commit, too, which may change while tests run.
        kept = {key: each for key, each in value.items() if not re.search("seconds|origin", key)}
        return {key: _timeless(each) for key, each in kept.items()}
    return [_timeless(each) for each in value] if isinstance(value, list) else value
