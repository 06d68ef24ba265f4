"""Runs that are dealt to shards or given to other machines: planned, printed as a job, or refused.

A grid is drawn, and a number of shards. Each network of the grid must be in one share and in no
other, whatever the order in which the grid is written down; a job script must be one that a shell
can read; and flags of clusters that make no sense are refused before anything is done.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

from attacks import texts
from attacks.attempt import Answer, Attempt, answer_to, problem_of

FAMILIES = ("fc", "vgg", "resnet")
NONSENSE = {
    "--shard": ["0/3", "4/3", "3", "3/", "/3", "1/0", "-1/2", "1e1/3", "1/1/1", "٣/٣", " 1/2", ""],
    "--executor": ["rya", "", "RAY", "local ", "[red]"],
    "--address": ["auto", "nonsense", "localhost:1", "[red]", ""],
    "--devices": ["0", "-1", "x", "", "1e3", "100001", "2"],
    "--coordinator": ["x", "localhost:1", "slurm", ":", "[red]:1"],
    "--processes": ["0", "2", "x", "-1"],
    "--process": ["0", "2", "x", "-1"],
    "--workers": texts.FLAG_NUMBERS,
}


def attempts(chance: Random, count: int, folder: Path) -> Iterator[Attempt]:
    for number in range(count):
        kind = chance.random()
        if kind < 0.4:
            yield _dealt_grid(chance, folder)
        elif kind < 0.5:
            yield _dealt_lesion(chance, folder)
        elif kind < 0.6:
            yield _job_script(chance, folder, number)
        else:
            yield _senseless_flags(chance, folder)


def _write_grid(chance: Random, folder: Path, *, only: str | None = None) -> str:
    """A grid of one family, some of its axes in any order; its text."""
    family = only or chance.choice(FAMILIES)
    depths = chance.sample(
        [4, 10, 20, 30] if family != "fc" else range(1, 40), chance.randint(1, 3)
    )
    width = {
        "key": "width" if family == "fc" else "base_filters",
        "values": chance.sample(range(1, 30), chance.randint(1, 2)),
    }
    seeds = chance.sample(range(100), chance.randint(1, 3))
    text = (
        f"data: {{name: {chance.choice(('spirals', 'mnist_mini'))}}}\n"
        f"model: {{family: {family}, depth: {depths}, {width['key']}: {width['values']}}}\n"
        f"training: {{seed: {seeds}, epochs: {chance.randint(1, 50)}}}\n"
        "probe: {samples: 100}\n"
    )
    (folder / "attack.yaml").write_text(text)
    return text


def _drawn_count(chance: Random) -> int:
    return chance.choice((1, 2, 3, 5, 8, 64, 1000, 10**8))


def _dealt_grid(chance: Random, folder: Path) -> Attempt:
    text = _write_grid(chance, folder)
    count = _drawn_count(chance)
    device = ["--device", "cpu"]
    problem = _wrong_deal(["sweep", "attack.yaml", *device, "--plan", "--json"], count, "cells")
    return Attempt(f"sweep {text!r} in {count} shards", problem)


def _dealt_lesion(chance: Random, folder: Path) -> Attempt:
    text = _write_grid(chance, folder, only="resnet")
    count = _drawn_count(chance)
    command = ["lesion", "--config", "attack.yaml", "--plan", "--json"]
    return Attempt(f"lesion {text!r} in {count} shards", _wrong_deal(command, count, "studies"))


def _wrong_deal(command: list[str], count: int, key: str) -> str | None:
    """What is wrong about the shares that a command plans. The share of a shard beyond the last
    network is empty: of very many shards some are looked at."""
    whole = answer_to(command)
    if whole.code != 0:
        return problem_of(whole, (0,), [])
    networks = _planned(whole, key)
    dealt: list[str] = []
    for number in range(1, min(count, len(networks) + 2) + 1):
        answer = answer_to([*command, "--shard", f"{number}/{count}"])
        if answer.code != 0:
            return f"shard {number}: {problem_of(answer, (0,), []) or answer.err[-200:]}"
        dealt += _planned(answer, key)
    return None if sorted(dealt) == sorted(networks) else f"dealt {dealt} of {networks}"


def _planned(answer: Answer, key: str) -> list[str]:
    return [each["cell"] for each in json.loads(answer.out)[key]]


def _job_script(chance: Random, folder: Path, number: int) -> Attempt:
    """Folders with odd names must reach the command as they are."""
    text = _write_grid(chance, folder)
    out = chance.choice(["a b", "a'b", 'a"b', "$HOME", "a;b", "a\\b", "-x", "ä", "a#b"])
    flags = ["--out", f"{number}/{out}", "--shard", f"1/{_drawn_count(chance)}"]
    answer = answer_to(["sweep", "attack.yaml", "--print-sbatch", *flags])
    problem = problem_of(answer, (0, 2), ["--shard", "--print-sbatch", "--out"])
    if problem is None and answer.code == 0:
        script = folder / "job.sh"
        script.write_text(answer.out)
        read = subprocess.run(
            [
                "bash",
                "-c",
                'exec() { printf "%s\\n" "$@"; }; SLURM_ARRAY_TASK_ID=1; . "$0"',
                script,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if read.returncode != 0 or f"{number}/{out}" not in read.stdout.splitlines():
            problem = f"a shell reads {read.stdout[-200:]}{read.stderr[-200:]}"
    return Attempt(f"job of {text!r} {flags}", problem)


def _senseless_flags(chance: Random, folder: Path) -> Attempt:
    """Planned, so that what makes sense after all does nothing."""
    command = chance.choice(
        (["sweep", "attack.yaml"], ["lesion", "--config", "attack.yaml"], ["autotune"])
    )
    if command == ["autotune"]:
        command = [*command, "--dataset", "spirals", "--blocks", "1,1,0,0"]
    _write_grid(chance, folder, only="resnet" if command[0] == "lesion" else None)
    names = chance.sample(list(NONSENSE), chance.choice((1, 1, 2, 3)))
    flags = [word for name in names for word in (name, chance.choice(NONSENSE[name]))]
    if chance.random() < 0.3:
        flags += ["--executor", "ray"]
    if chance.random() < 0.2:
        flags.append("--print-sbatch")
    answer = answer_to([*command, "--plan", *flags])
    return Attempt(f"{command} {flags}", problem_of(answer, (0, 2), ["--", "attack.yaml"]))
