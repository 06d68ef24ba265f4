"""Configurations and flags that make no sense, typed into this process.

Each is a valid command with one to three settings, flags or bytes changed. It must be refused with
one message and exit code 2, or planned as it was typed: what a plan says of a setting is compared
with a reading of its text that shares nothing with the product's.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import yaml

from attacks import texts
from attacks.attempt import Attempt, answer_to, problem_of
from cbundles.config import SECTIONS

KEPT = Path(__file__).parents[2] / "tests/data/attacks/configurations.yaml"
BASES = {
    "sweep": (
        "data: {name: spirals}\nmodel: {width: [5, 6], depth: 3}\nprobe: {samples: 300}\n",
        "model: {family: vgg, depth: [10, 20], base_filters: 8}\ntraining: {seed: [0, 1]}\n",
        "model: {family: resnet, blocks: '1,1,1,1'}\nprobe: {readings: [paper]}\n",
        "model: {width: 4, depth: 2}\nprobe: {samples: 64, equality: gamma, gamma: 1e-7}\n",
    ),
    "grow": (
        "data: {name: spirals}\nmodel: {width: 5, depth: 2}\nprobe: {samples: 300}\n"
        "training: {epochs: 30}\n"
        "growth: {arm: [max, small], first_epoch: 10, every: 10, insertions: 1}\n",
    ),
    "tune": (
        "data: {name: spirals}\nmodel: {width: 5, depth: [2, 6]}\nprobe: {samples: 300}\n"
        "training: {epochs: 30}\ntuning: {arm: both, budget_depth: 4}\n",
    ),
}
SETTINGS = [
    f"{name}.{field.name}" for name in SECTIONS for field in dataclasses.fields(SECTIONS[name])
]
KEYS = [
    *SETTINGS,
    *SECTIONS,
    *("name", "model.widht", "modle.width", "model", "model.width.x", "", ".", "=", "a.b.c.d"),
]
PROFILE = {
    "results": "results",
    "toy": "{}",
    "autotune.dataset": "spirals",
    "autotune.seeds": "1",
    "autotune.blocks": "1,0,0,0",
    "autotune.rule": "stage",
    "lesion.dataset": "mnist_mini",
    "lesion.depth": "20",
    "lesion.draws": "2",
    "lesion.every": "1",
    "lesion.set": "[training.epochs=3]",
}
Choices = dict[str, list[str]]  # of what may stand behind a flag
FLAGS: Choices = {
    "--workers": texts.FLAG_NUMBERS,
    "--device": ["cpu", "tpu", "", "auto ", "[red]"],
    "--out": texts.FOLDERS,
    "--keep-weights": texts.EPOCHS,
    "--data-dir": ["nowhere", "/dev/null"],
    "--nonsense": [""],
}
# Commands that only look, or are refused before they do anything.
COMMANDS: list[tuple[list[str], Choices]] = [
    (
        ["autotune", "--plan", "--dataset", "spirals"],
        {
            "--blocks": [*texts.WORDS, *texts.NUMBERS],
            "--seeds": texts.FLAG_NUMBERS,
            "--rule": ["stage", "x", ""],
            "--baseline": ["resnet-50", "resnet-", "resnet-51", "x"],
            "--dataset": texts.WORDS,
        },
    ),
    (
        ["lesion", "--plan", "--dataset", "mnist_mini", "--depth", "20"],
        {
            "--draws": texts.FLAG_NUMBERS,
            "--every": texts.FLAG_NUMBERS,
            "--seed": texts.FLAG_NUMBERS,
            "--depth": texts.FLAG_NUMBERS,
            "--dataset": texts.WORDS,
            "--config": ["nowhere.yaml", "/dev/null"],
        },
    ),
    (["lesion", "nowhere", "--plan"], {"--draws": texts.FLAG_NUMBERS}),
    (["prune", "nowhere"], {"--blocks": texts.WORDS, "--epochs": texts.FLAG_NUMBERS}),
    (["measure", "nowhere", "--plan", "--readings", "paper"], {"--readings": texts.WORDS}),
    (["report", "nowhere"], {}),
    (["report"], {"--x": ["1"]}),
    (["reproduce", "nowhere.yaml", "--plan"], {"--workers": texts.FLAG_NUMBERS}),
    (["toy", "--device", "tpu"], {}),
    (["nonsense"], {}),
]
# Settings that stand in a cell as they were typed, whatever the rest of it says.
PLAIN = ("training.epochs", "training.batch_size", "training.learning_rate", "training.seed")


def attempts(chance: Random, count: int, folder: Path) -> Iterator[Attempt]:
    """First what once failed, then new ones."""
    for case in yaml.safe_load(KEPT.read_text(encoding="utf-8")):
        yield _kept(case, folder)
    for number in range(count):
        kind = chance.random()
        if kind < 0.7:
            yield _changed_settings(chance, folder)
        elif kind < 0.82:
            yield _changed_text(chance, folder)
        elif kind < 0.88:
            yield _changed_profile(chance, folder)
        else:
            yield _changed_flags(chance, folder, number)


def _kept(case: dict[str, str], folder: Path) -> Attempt:
    command = case.get("command", "sweep")
    text = case.get("text", BASES[command][0])
    changed = {"--set": case["set"]} if "set" in case else {}
    flags = [part for pair in changed.items() for part in pair]
    return _planned(command, text, [*flags, *case.get("flags", "").split()], folder, {})


def _changed_settings(chance: Random, folder: Path) -> Attempt:
    """Typed behind --set, or into the file."""
    command = chance.choice(list(BASES))
    text, flags = chance.choice(BASES[command]), []
    typed: dict[str, str] = {}
    for _ in range(chance.choice((1, 1, 2, 3))):
        key, value = chance.choice(KEYS), chance.choice(texts.ALL)
        if key in PLAIN or chance.random() < 0.6:
            flags += ["--set", f"{key}={value}"]
            typed[key] = value
        else:
            section, _, name = key.partition(".")
            text += f"{section}: {{{name}: {value}}}\n" if name else f"{section}: {value}\n"
    return _planned(command, text, flags, folder, typed)


def _changed_text(chance: Random, folder: Path) -> Attempt:
    """Bytes of a file are lost, doubled, swapped or replaced."""
    command = chance.choice(list(BASES))
    content = bytearray(chance.choice(BASES[command]).encode())
    for _ in range(chance.choice((1, 2, 5))):
        place, length = chance.randrange(len(content) + 1), chance.randrange(1, 6)
        some = bytes(chance.choice(b":{}[],-&*!|>'\"%@`#\n\t \x00\xff\x80") for _ in range(length))
        match chance.randrange(4):
            case 0:
                del content[place : place + length]
            case 1:
                content[place:place] = content[place : place + length]
            case 2:
                content[place:place] = some
            case _:
                content[place : place + length] = some
    return _planned(command, bytes(content), [], folder, {})


def _changed_profile(chance: Random, folder: Path) -> Attempt:
    """The steps of a reproduction."""
    settings = dict(PROFILE)
    settings[chance.choice(list(settings))] = chance.choice(texts.ALL)
    lines = [f"results: {settings.pop('results')}", "steps:", f"  - toy: {settings.pop('toy')}"]
    lines += [f"  - {step}" for step in ("autotune:", "lesion:")]
    for key, value in settings.items():
        step, _, name = key.partition(".")
        lines.insert(lines.index(f"  - {step}:") + 1, f"      {name}: {value}")
    path = folder / "attack.yaml"
    path.write_bytes("\n".join(lines).encode(errors="surrogatepass"))
    answer = answer_to(["reproduce", str(path), "--plan"])
    return Attempt(
        f"reproduce {lines!r}"[:500], problem_of(answer, (0, 2), [path.name, "--", *KEYS])
    )


def _changed_flags(chance: Random, folder: Path, number: int) -> Attempt:
    if chance.random() < 0.5:
        flag = chance.choice(list(FLAGS))
        flags = [flag, chance.choice(FLAGS[flag])]
        if flag == "--out":  # which must not meet what another attempt left
            flags[1] = flags[1] and str(folder / f"out{number}" / flags[1].lstrip("/"))
        return _planned("sweep", BASES["sweep"][0], flags, folder, {})
    arguments, choices = chance.choice(COMMANDS)
    for flag in chance.sample(list(choices), min(len(choices), chance.randrange(1, 3))):
        arguments = [*arguments, flag, chance.choice(choices[flag])]
    answer = answer_to(arguments)
    return Attempt(f"cbundles {arguments!r}", problem_of(answer, (0, 2), [*arguments, "--", "run"]))


def _planned(
    command: str, text: str | bytes, flags: list[str], folder: Path, typed: dict[str, str]
) -> Attempt:
    """Plan a configuration, and read the plan."""
    path = folder / "attack.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    answer = answer_to([command, str(path), "--plan", "--json", *flags])
    # A setting is a place too; a folder is named as it is, without the links that lead there.
    places = [path.name, "attack", "--", *SETTINGS, *typed, "/proc/"]
    problem = problem_of(answer, (0, 2), places)
    if problem is None and answer.code == 0:
        problem = _misread(answer.out, typed)
    shortened = [flag if len(flag) < 100 else f"{flag[:60]}...({len(flag)})" for flag in flags]
    return Attempt(f"{command} {text!r} {shortened}", problem)


def _misread(plan: str, typed: dict[str, str]) -> str | None:
    """What a plan says otherwise than what was typed."""
    content = json.loads(plan)
    cells = content["cells"]
    if len({cell["cell"] for cell in cells}) != len(cells) or not cells:
        return "two networks of one identity, or none"
    if not all(0 < content["total"][key] < math.inf for key in content["total"]):
        return f"impossible costs: {content['total']}"
    for path in PLAIN:
        if path not in typed:
            continue
        section, key = path.split(".")
        found = {cell["config"][section][key] for cell in cells}
        try:
            expected = _plainly_read(typed[path])
        except ValueError:
            return f"{path}={typed[path][:60]} was taken for {sorted(found)[:5]}"
        if found != expected:
            return f"{path}={typed[path][:60]} was read as {sorted(found)[:5]}"
    return None


def _plainly_read(text: str) -> set[float]:
    """The numbers that people see in a text."""
    numbers = text.strip("[]").removeprefix("- ").split(",")
    return {_number(number.strip().replace("_", "")) for number in numbers}


def _number(text: str) -> float:
    based = re.fullmatch(r"0[xb][0-9a-f]+", text)
    return int(text, 0) if based else float(text)
