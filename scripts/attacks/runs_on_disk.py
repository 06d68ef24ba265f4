"""Folders of runs whose records or run.json were changed: read back by commands that trust them."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from random import Random
from typing import Any

from matplotlib.figure import Figure

from attacks.attempt import Attempt, answer_to, problem_of
from attacks.damage import damaged_bytes, damaged_json
from cbundles.commands import report
from cbundles.report import drawing

RESULTS = Path(__file__).parents[2] / "results"
# Small ones, of every kind.
RUNS = ("mnist_fc25", "autotune_mnist_mini", "cpu_mnist_vgg_grow", "cpu_mnist_resnet_lesion",
        "tune_spirals", "toy")  # fmt: skip
LINES_KEPT = 4


def attempts(chance: Random, count: int, folder: Path) -> Iterator[Attempt]:
    """Most are only read; every fifth one goes through tables and claims as well."""
    _report_in_this_process()
    runs = {name: _small_copy(RESULTS / name, folder / "kept" / name) for name in RUNS}
    for number in range(count):
        name = chance.choice(RUNS)
        root = folder / "results"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(runs[name], root / name)
        what = _damage(chance, root / name)
        if number % 5 == 0:
            arguments = ["report", str(root)]
        else:
            command = chance.choice((["measure", "--readings", "paper"], ["lesion"]))
            arguments = [*command, str(root / name), "--plan"]
        answer = answer_to(arguments)
        places = [str(root), "run.json", ".jsonl", name]
        yield Attempt(f"{arguments[0]}: {name}, {what}", problem_of(answer, (0, 2), places))


def _small_copy(run: Path, to: Path) -> Path:
    """What there is to damage, with a few networks only."""
    to.mkdir(parents=True)
    shutil.copy(run / "run.json", to)
    for path in run.glob("*.jsonl.gz"):
        lines = gzip.decompress(path.read_bytes()).splitlines()[: LINES_KEPT + 1]
        (to / path.name).write_bytes(gzip.compress(b"\n".join([*lines, b""])))
    return to


def _unpack(run: Path) -> None:
    """As a user's own runs are."""
    for path in run.glob("*.jsonl.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


def _damage(chance: Random, run: Path) -> str:
    """Change one file; returns which, and how."""
    if chance.random() < 0.5:
        _unpack(run)
    path = chance.choice(sorted(run.iterdir()))
    kind = chance.random()
    if kind < 0.04:
        path.unlink()
        path.mkdir()
        return f"{path.name} is a folder"
    if kind < 0.08:
        path.unlink()
        path.symlink_to("nowhere")
        return f"{path.name} is a link to nothing"
    if kind < 0.2:
        path.write_bytes(damaged_bytes(chance, path.read_bytes()))
        return f"bytes of {path.name}"
    if path.name == "run.json":
        content = damaged_json(chance, path.read_text())
        path.write_bytes(content)
        return f"run.json: {content[:300]!r}"
    is_packed = path.suffix == ".gz"
    content = path.read_bytes()
    lines = (gzip.decompress(content) if is_packed else content).splitlines()
    number = chance.randrange(len(lines))
    lines[number] = damaged_json(chance, lines[number].decode())
    content = b"\n".join([*lines, b""])
    path.write_bytes(gzip.compress(content) if is_packed else content)
    return f"{path.name}, line {number + 1}"


class _ThisProcess:
    """In place of processes that draw."""

    def __enter__(self) -> _ThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: Callable[[Any], Any], value: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(value))  # what it raises comes at once
        return done


def _report_in_this_process() -> None:
    """And with figures that are empty: drawing them takes most of the time."""
    vars(report)["_helpers"] = _ThisProcess
    setattr(Figure, "draw_without_rendering", lambda figure: None)  # noqa: B010
    setattr(Figure, "savefig", lambda figure, file, **_: None)  # noqa: B010
    setattr(drawing, "_pixels_of", drawing.blank_pixels)  # noqa: B010
