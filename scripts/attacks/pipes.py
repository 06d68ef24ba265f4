"""Output that is closed, full, broken off or narrow, and an environment that is odd.

Every command and every oddity meet in real processes; the order is drawn. A command whose output
goes nowhere still does its work, or says on the other stream why not.
"""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import NamedTuple

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
    (*SCENARIOS[0].arguments.split(), "--workers", "1", "--out", "a[red]b"),
)
TRAINING = COMMANDS[-1]


class Oddity(NamedTuple):
    """environment: variables, None to unset; before: what a shell does first; reader: whether
    somebody reads standard output; codes: with which it may end, besides the one that the command
    ends with otherwise."""

    environment: dict[str, str | None] = {}  # noqa: RUF012
    before: str = ""
    reader: bool = True
    codes: tuple[int, ...] = ()


ODDITIES = {
    "closed output": Oddity(before="exec >&-"),
    "closed error": Oddity(before="exec 2>&-"),
    "closed input": Oddity(before="exec <&-"),
    "all three closed": Oddity(before="exec <&- >&- 2>&-"),
    "a full device": Oddity(before="exec >/dev/full", codes=(1,)),
    "a reader that is gone": Oddity(reader=False, codes=(1,)),
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
    "a narrow umask": Oddity(before="umask 077"),
    "a wide umask": Oddity(before="umask 000"),
}  # fmt: skip


def attempts(chance: Random, count: int, folder: Path) -> Iterator[Attempt]:
    """The first `count` pairs of a command and an oddity, in an order that is drawn."""
    (folder / "attack.yaml").write_text(SCENARIOS[0].text)
    os.environ["CBUNDLES_CACHE"] = str(folder / "cache")
    made = processes.run_to_the_end(SCENARIOS[0], folder / "results/run")
    if made.code != 0:
        yield Attempt("a run to report", made.said[-500:])
        return
    pairs: list[tuple[Sequence[str], str]] = list(itertools.product(COMMANDS, ODDITIES))
    chance.shuffle(pairs)

    def tried(pair: tuple[Sequence[str], str]) -> Attempt:
        arguments, name = pair
        place = folder / str(pairs.index(pair))
        place.mkdir()
        (place / "attack.yaml").symlink_to(folder / "attack.yaml")
        (place / "results").symlink_to(folder / "results")
        ended = _run(arguments, ODDITIES[name], place)
        problem = _wrong_end(arguments, ODDITIES[name], ended)
        if problem is None and arguments == TRAINING:
            problem = _wrong_results(place / "a[red]b", folder / "results/run", ended, name)
        return Attempt(f"{' '.join(arguments)}: {name}", problem)

    with ThreadPoolExecutor(processes.AT_ONCE) as pool:
        yield from pool.map(tried, pairs[:count])


def _run(arguments: Sequence[str], oddity: Oddity, place: Path) -> Ended:
    environment = processes.product_environment()
    for name, value in oddity.environment.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    output = subprocess.PIPE
    if not oddity.reader:
        reader, output = os.pipe()
        os.close(reader)
    done = subprocess.run(
        processes.command(arguments, oddity.before),
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
        timeout=processes.LONGEST,
        check=False,
    )
    if not oddity.reader:
        os.close(output)
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
