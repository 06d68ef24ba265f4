"""Output that is closed, full, broken off or narrow, and an environment that is odd.

Every command and every oddity meet in real processes; the order is drawn. A command whose output
goes nowhere still does its work, or says on the other stream why not.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from attacks import processes
from attacks.attempt import Attempt
from attacks.processes import SCENARIOS, Ended

# Quick ones, which do not import JAX, and one that trains.
COMMANDS = (
    ("--help",),
    ("sweep", "attack.yaml", "--plan"),
    ("sweep", "attack.yaml", "--plan", "--json"),
    ("sweep", "attack.yaml", "--set", "model.widht=3"),
    ("report", "results"),
    ("sweep", "attack.yaml", "--workers", "1", "--out", "a[red]b"),
)
TRAINING = COMMANDS[-1]


class Oddity(NamedTuple):
    """environment: variables, None to unset; prepare: what the process does before it starts;
    output: where standard output goes, where that is not a pipe that is read; codes: with which it
    may end, besides the one that the command ends with otherwise."""

    environment: dict[str, str | None] = {}  # noqa: RUF012
    prepare: Callable[[], Any] | None = None
    output: str = ""
    codes: tuple[int, ...] = ()


def _closing(*descriptors: int) -> Callable[[], None]:
    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return close


ODDITIES = {
    "closed output": Oddity(prepare=_closing(1)),
    "closed error": Oddity(prepare=_closing(2)),
    "closed input": Oddity(prepare=_closing(0)),
    "all three closed": Oddity(prepare=_closing(0, 1, 2)),
    "a full device": Oddity(output="/dev/full", codes=(1,)),
    "a reader that is gone": Oddity(output="gone", codes=(1,)),
    "ASCII": Oddity({"PYTHONIOENCODING": "ascii"}),
    "Latin-1": Oddity({"PYTHONIOENCODING": "latin-1:strict"}),
    "locale C": Oddity(
        {"LC_ALL": "C", "LANG": None, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ),
    "another backend": Oddity({"MPLBACKEND": "foo"}),
    "no home": Oddity({"HOME": None}),
    "a home that is a file": Oddity({"HOME": "/dev/null"}),
    "one column": Oddity({"COLUMNS": "1"}),
    "no columns": Oddity({"COLUMNS": "x"}),
    "64 bits": Oddity({"JAX_ENABLE_X64": "1"}, codes=(2,)),
    "checkpoints at no time": Oddity({"CBUNDLES_CHECKPOINT_SECONDS": "nan"}, codes=(2,)),
    "no such platform": Oddity({"JAX_PLATFORMS": "foo"}, codes=(2,)),
    "a narrow umask": Oddity(prepare=lambda: os.umask(0o077)),
    "a wide umask": Oddity(prepare=lambda: os.umask(0o000)),
}  # fmt: skip


def attempts(chance: Random, count: int, folder: Path) -> Iterator[Attempt]:
    """The first `count` pairs of a command and an oddity, in an order that is drawn."""
    (folder / "attack.yaml").write_text(SCENARIOS[0].text)
    os.environ["CBUNDLES_CACHE"] = str(folder / "cache")
    made = processes.run_to_the_end(SCENARIOS[0], folder / "results/run")
    if made.code != 0:
        yield Attempt("a run to report", made.said[-500:])
        return
    pairs = list(itertools.product(COMMANDS, ODDITIES))
    chance.shuffle(pairs)
    for number, (arguments, name) in enumerate(pairs[:count]):
        place = folder / str(number)
        place.mkdir()
        (place / "attack.yaml").symlink_to(folder / "attack.yaml")
        (place / "results").symlink_to(folder / "results")
        oddity = ODDITIES[name]
        ended = _run(arguments, oddity, place)
        problem = _wrong_end(arguments, oddity, ended)
        if problem is None and arguments == TRAINING:
            problem = _wrong_results(place / "a[red]b", folder / "results/run", ended, name)
        yield Attempt(f"{' '.join(arguments)}: {name}", problem)


def _run(arguments: Sequence[str], oddity: Oddity, place: Path) -> Ended:
    environment = processes.product_environment()
    for name, value in oddity.environment.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    with contextlib.ExitStack() as open_files:
        output: Any = subprocess.PIPE
        if oddity.output == "gone":
            reader, output = os.pipe()
            os.close(reader)
            open_files.callback(os.close, output)
        elif oddity.output:
            output = open_files.enter_context(Path(oddity.output).open("w"))
        done = subprocess.run(
            processes.command(*arguments),
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            preexec_fn=oddity.prepare,
            timeout=processes.LONGEST,
            check=False,
        )
    said = (done.stdout or b"") + done.stderr
    return Ended(done.returncode, said.decode(errors="replace"))


def _wrong_end(arguments: Sequence[str], oddity: Oddity, ended: Ended) -> str | None:
    if "Traceback" in ended.said or "Exception ignored" in ended.said:
        return f"traceback: {ended.said[-500:]}"
    usual = 2 if "--set" in arguments else 0
    if ended.code not in (usual, *oddity.codes):
        return f"exit code {ended.code}: {ended.said[-300:]}"
    return None


def _wrong_results(folder: Path, whole: Path, ended: Ended, name: str) -> str | None:
    """The records of a run that ended well are the usual ones; files heed the umask."""
    if ended.code != 0:
        return None
    if processes.what_was_found(folder) != processes.what_was_found(whole):
        return "other records"
    mode = stat.S_IMODE((folder / "run.json").stat().st_mode)
    expected = {"a narrow umask": 0o600, "a wide umask": 0o666}.get(name)
    return None if expected in (None, mode) else f"run.json has mode {mode:o}"
