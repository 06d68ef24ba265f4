"""`cbundles autotune`: follow each network from conflict to conflict until none is left."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from cbundles import config, data
from cbundles.commands.running import (
    Options,
    check_against_data,
    costs,
    description,
    devices,
    train,
    wall_seconds,
)
from cbundles.config import Cell, Experiment
from cbundles.console import Display, duration
from cbundles.errors import InputError, did_you_mean
from cbundles.executor import planner
from cbundles.executor.planner import Job, Population
from cbundles.experiments import autotune
from cbundles.networks.shape import shape_of
from cbundles.report import table1
from cbundles.report.runs import Run
from cbundles.store import Store

BLOCKS, SEEDS, RULE = "3,12,41,3", 3, "stage"
EPOCHS = 120  # sec. 3.6
EPOCHS_MINI = 20  # the embedded images are a sixth of MNIST, for a first look
CHECKS = 10


@dataclass(frozen=True)
class Tuning:
    """experiment: the networks to start from, one a seed; baseline: cells of the ResNet to compare
    with; rule: see `autotune.prune`."""

    experiment: Experiment
    baseline: tuple[Cell, ...]
    rule: str


def describe(
    dataset: str, blocks: str, seeds: int, baseline: str | None, rule: str, overrides: list[str]
) -> Tuning:
    """Flags as an experiment; InputError for what cannot be."""
    if rule not in autotune.RULES:
        raise InputError(f"--rule {rule}: {did_you_mean(rule, autotune.RULES)}")
    name = dataset.removeprefix(config.FOLDER_PREFIX).rstrip("/").rsplit("/", 1)[-1]
    content: dict[str, Any] = {
        "data": {"name": dataset},
        "model": {"family": "vgg", "blocks": blocks},
        "training": {
            "epochs": EPOCHS_MINI if dataset == "mnist_mini" else EPOCHS,
            "seed": list(range(seeds)),
            "conflict_checks": CHECKS,
        },
    }
    experiment = config.override(
        content, overrides, default_name=f"autotune_{name}", file="autotune"
    )
    families = {cell.model.family for cell in experiment.cells}
    if families != {"vgg"}:
        raise InputError(
            f"model.family = {', '.join(sorted(families))}: auto-tuning starts from vgg"
        )
    return Tuning(experiment, _baseline(baseline, experiment), rule)


def _baseline(baseline: str | None, experiment: Experiment) -> tuple[Cell, ...]:
    if baseline is None:
        return ()
    family, _, depth = baseline.partition("-")
    known = {f"resnet-{d}": d for d in config.PAPER_BLOCKS}
    if family != "resnet" or baseline not in known:
        raise InputError(f"--baseline {baseline}: {did_you_mean(baseline, known)}")
    blocks = ",".join(map(str, config.PAPER_BLOCKS[int(depth)]))

    def like(cell: Cell) -> Cell:
        model = dataclasses.replace(cell.model, family="resnet", blocks=blocks, depth=int(depth))
        return dataclasses.replace(
            cell, model=model, training=dataclasses.replace(cell.training, conflict_checks=0)
        )

    return tuple(dict.fromkeys(map(like, experiment.cells)))


class Chain:
    """The attempts of one seed, each following from the record of the one before."""

    def __init__(self, first: Cell, rule: str) -> None:
        self.attempts = [first]
        self.rule = rule
        self.ended = self.given_up = False

    def advance(self, store: Store, fingerprint: str | None) -> list[str]:
        """Read the records that exist, of data with this fingerprint; returns what they say, a line
        each."""
        said = []
        while not self.ended and store.is_finished(self.attempts[-1].id, fingerprint):
            cell = self.attempts[-1]
            decision = autotune.decide(cell, store.record(cell.id), self.rule)
            said.append(f"seed {cell.training.seed}, {decision}")
            following = autotune.following(cell, decision)
            if following is None:
                self.ended = True
                self.given_up = decision.conflict is not None
                if self.given_up:
                    said.append(f"seed {cell.training.seed}, nothing would be left; given up")
            else:
                self.attempts.append(following)
        return said


def seconds_left(tuning: Tuning, options: Options) -> float:
    """Predicted time of what has no record: for each seed the network it is at, one that follows
    and is restarted as well, and a last one of a quarter of the layers."""
    store = Store(options.out)
    facts = {cell.data.name: data.describe(cell.data.name) for cell in tuning.experiment.cells}
    times = []
    for first in tuning.experiment.cells:
        chain = Chain(first, tuning.rule)
        chain.advance(store, None)
        if not chain.ended:
            whole = planner.seconds(chain.attempts[-1], facts[first.data.name])
            restart = planner.compile_seconds(first) + whole / first.training.epochs
            times.append(2 * restart + planner.compile_seconds(first) + whole / 4)
    left = [Population((c,)) for c in tuning.baseline if not store.is_finished(c.id, None)]
    times += costs(left, facts).values()
    return wall_seconds(times, options.workers)


def plan(tuning: Tuning, options: Options, console: Console) -> None:
    """Print what tuning starts from and what it may cost; run nothing."""
    cells = (*tuning.experiment.cells, *tuning.baseline)
    facts = {cell.data.name: data.describe(cell.data.name) for cell in cells}
    for cell in cells:
        check_against_data(cell, facts[cell.data.name])
        known = facts[cell.data.name]
        shape, training = shape_of(cell.model, known), cell.training
        whole = planner.seconds(cell, known)
        console.print(
            f"{cell.label}: blocks {cell.model.blocks}, {shape.parameters:,} parameters, "
            f"{shape.bytes / 1e6:.1f} MB, {shape.flops / 1e9:.3f} GFLOP an image; one epoch about "
            f"{duration(whole / training.epochs)}, all {training.epochs} about {duration(whole)}",
            highlight=False,
            soft_wrap=True,
        )
    first = tuning.experiment.cells[0]
    memory = options.workers * max(
        planner.memory(Population((cell,)), facts[cell.data.name]) for cell in cells
    )
    checkpoint = planner.checkpoint(first, facts[first.data.name])
    console.print(
        f"\nA network whose last layer conflicts after one of its first "
        f"{first.training.conflict_checks} epochs is pruned and trained from scratch: a new "
        f"program each time, about {planner.compile_seconds(first):.0f} s to compile. The last "
        f"network is smaller than the first, so the times above are upper bounds for each."
        f"\nOn {devices(options)}: {memory / 1e9:.1f} GB of memory, checkpoints of "
        f"{checkpoint / 1e6:.0f} MB, results in {options.out}."
        "\nNothing was run; leave out --plan to start.",
        highlight=False,
        soft_wrap=True,
    )
    if options.device == "gpu":
        console.print("The times are those of a CPU; none has been measured on this GPU yet.")


def run(tuning: Tuning, options: Options, console: Console) -> int:
    """Tune every seed, train the baseline, write the table. Returns the exit code."""
    cells = (*tuning.experiment.cells, *tuning.baseline)
    datasets = {
        name: data.load(name, data_dir=options.data_dir, manual_dir=options.manual_dir)
        for name in dict.fromkeys(cell.data.name for cell in cells)
    }
    facts = {name: dataset.facts for name, dataset in datasets.items()}
    for cell in cells:
        check_against_data(cell, facts[cell.data.name])
    prints = {name: dataset.fingerprint for name, dataset in datasets.items()}
    store = Store(options.out)
    with store.locked():
        chains = [Chain(cell, tuning.rule) for cell in tuning.experiment.cells]
        if options.fresh:
            _forget(chains, tuning, store, prints)
            chains = [Chain(cell, tuning.rule) for cell in tuning.experiment.cells]
        run_of = {**description(tuning.experiment, prints), "rule": tuning.rule}
        for chain in chains:
            for line in chain.advance(store, prints[chain.attempts[0].data.name]):
                console.print(f"recorded: {line}", highlight=False, markup=False, soft_wrap=True)
        store.write_run({**run_of, **_state(tuning, chains, store, prints)})
        todo = [Population((chain.attempts[-1],)) for chain in chains if not chain.ended]
        todo += [
            Population((cell,))
            for cell in tuning.baseline
            if not store.is_finished(cell.id, prints[cell.data.name])
        ]

        def then(finished: Job, display: Display) -> list[Job]:
            for chain in chains:
                if chain.attempts[-1] == finished.cells[0]:
                    for line in chain.advance(store, prints[chain.attempts[0].data.name]):
                        display.line(line)
                    return [] if chain.ended else [Population((chain.attempts[-1],))]
            return []

        failed = train(todo, 0, facts, store, options, console, then) if todo else 0
        state = _state(tuning, chains, store, prints)
        store.write_run({**run_of, **state})
        _show(chains, Run(store, state, [store.record(cell) for cell in _cells(state)]), console)
    return 1 if failed else 0


def _forget(chains: list[Chain], tuning: Tuning, store: Store, prints: dict[str, str]) -> None:
    """Remove every record that these chains and the baseline would read."""
    for chain in chains:
        chain.advance(store, prints[chain.attempts[0].data.name])
    attempts = [cell.id for chain in chains for cell in chain.attempts]
    store.forget([*attempts, *(cell.id for cell in tuning.baseline)])


def _state(
    tuning: Tuning, chains: list[Chain], store: Store, prints: dict[str, str]
) -> dict[str, Any]:
    """Which cells belong to which seed, and which of them are ends, as `run.json` keeps it."""
    ended = [chain for chain in chains if chain.ended]
    baseline = [c for c in tuning.baseline if store.is_finished(c.id, prints[c.data.name])]
    return {
        "attempts": [[cell.id for cell in chain.attempts] for chain in chains],
        "tuned": [chain.attempts[-1].id for chain in ended if not chain.given_up],
        "given_up": [chain.attempts[-1].id for chain in ended if chain.given_up],
        "baseline": [cell.id for cell in baseline],
    }


def _cells(state: dict[str, Any]) -> list[str]:
    return [*state["baseline"], *state["tuned"]]


def _show(chains: list[Chain], run: Run, console: Console) -> None:
    groups = table1.of_run(run)
    for chain in chains:
        seed, restarts = chain.attempts[0].training.seed, len(chain.attempts) - 1
        depths = " -> ".join(str(cell.model.depth) for cell in chain.attempts)
        text = f"seed {seed}: {depths} layers, {restarts} restarts"
        console.print(text + ", given up" * chain.given_up, highlight=False)
    for group in groups:
        line = table1.our_row(group)
        text = ", ".join(f"{key} {line[key]}" for key in table1.MEASURED)
        console.print(f"{line['network']}: {text}", highlight=False, soft_wrap=True)
    if groups:
        for path in table1.write_table1(groups, run.store.folder):
            console.print(f"table    {path}", highlight=False, soft_wrap=True)
