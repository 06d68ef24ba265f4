"""`cbundles lesion`: remove blocks of trained ResNets, and see what it costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cbundles import config, data
from cbundles.commands import sweep
from cbundles.commands.running import Options, devices, train, wall_seconds
from cbundles.config import Cell, Experiment
from cbundles.console import duration
from cbundles.data.dataset import Facts
from cbundles.errors import InputError
from cbundles.executor import planner
from cbundles.executor.planner import LESION, Study
from cbundles.experiments.removal import Settings
from cbundles.report import lesions, runs, views
from cbundles.store import LESIONS, Store

COMPUTED = 0.55  # of a forward pass, what remains of it when every count of blocks is removed
EPOCHS_MINI, EPOCHS = 20, 120
DRAWS, EVERY, DEPTH = 15, 1, 120
HOW_TO_KEEP = (
    "train them with cbundles sweep CONFIG.yaml --keep-weights, or with cbundles lesion --config "
    "CONFIG.yaml"
)


def of_run(folder: Path) -> Experiment:
    """The trained ResNets of a run. Raises InputError where there are none."""
    run = runs.read(folder)
    cells = tuple(Cell.fromdict(r["config"]) for r in run.records if "config" in r)
    cells = tuple(cell for cell in cells if cell.model.family == "resnet")
    store = run.store
    kept = [cell for cell in cells if store.weights_path(cell.id).is_file()]
    known = [cell for cell in cells if store.record_path(cell.id, LESIONS).is_file()]
    if not cells:
        raise InputError(f"{folder}: no trained ResNet here; lesions need one (model.family)")
    if len({c.id for c in (*kept, *known)}) < len(cells):
        raise InputError(f"{folder}: its networks were not kept; {HOW_TO_KEEP}")
    return Experiment(run.description["name"], cells, run.description["config"])


def of_flags(dataset: str, depth: int, overrides: list[str]) -> Experiment:
    """Three ResNets of a depth, to be trained first."""
    name = dataset.removeprefix(config.FOLDER_PREFIX).rstrip("/").rsplit("/", 1)[-1]
    content: dict[str, Any] = {
        "data": {"name": dataset},
        "model": {"family": "resnet", "depth": depth},
        "training": {
            "epochs": EPOCHS_MINI if dataset == "mnist_mini" else EPOCHS,
            "seed": [0, 1, 2],
        },
    }
    default_name = f"lesion_{name}_{depth}"
    return _checked(config.override(content, overrides, default_name=default_name, file="lesion"))


def of_file(path: Path, overrides: list[str]) -> Experiment:
    """The ResNets of a configuration file, to be trained first."""
    return _checked(config.load(path, overrides))


def _checked(experiment: Experiment) -> Experiment:
    for cell in experiment.cells:
        if cell.model.family != "resnet":
            raise InputError(
                f"model.family = {cell.model.family}: only blocks with a skip can be removed from "
                "a trained network; nearest valid: resnet"
            )
    return experiment


def _facts(experiment: Experiment) -> dict[str, Facts]:
    return {cell.data.name: data.describe(cell.data.name) for cell in experiment.cells}


def _is_finished(store: Store, cell: Cell, settings: Settings, fingerprint: str | None) -> bool:
    """Whether there is a study with these settings, of the network that is there, if one is."""
    if not store.record_path(cell.id, LESIONS).is_file():
        return False
    record = store.record(cell.id, LESIONS)
    same_data = fingerprint in (None, record["data_fingerprint"])
    network = store.network_digest(cell.id)
    same_network = network in (None, record["network"])
    return same_data and same_network and Settings(**record["settings"]).cover(settings)


def _studies(cells: list[Cell], settings: Settings, facts: dict[str, Facts]) -> list[Study]:
    studies = []
    for cell in cells:
        known = facts[cell.data.name]
        networks = settings.most(sum(cell.blocks)) * COMPUTED
        seconds = 2 * planner.CONV_COMPILE_SECONDS + networks * planner.forward_seconds(
            cell, known, known.test
        )
        given = (("settings", dataclasses.asdict(settings)),)
        studies.append(Study(cell, LESION, given, seconds))
    return studies


def _todo(experiment: Experiment, settings: Settings, options: Options,
          prints: dict[str, str] | None) -> list[Cell]:  # fmt: skip
    store = Store(options.out)
    return [
        cell for cell in experiment.cells
        if not _is_finished(store, cell, settings, prints[cell.data.name] if prints else None)
    ]  # fmt: skip


def seconds_left(experiment: Experiment, settings: Settings, options: Options) -> float:
    """Predicted time of what has no record, training included."""
    todo = _todo(experiment, settings, options, None)
    if not todo:
        return 0.0
    keep = dataclasses.replace(options, keep_weights=True)
    times = [study.seconds for study in _studies(todo, settings, _facts(experiment))]
    return sweep.seconds_left(experiment, keep) + wall_seconds(times, options.workers)


def plan(experiment: Experiment, settings: Settings, options: Options, console: Console) -> None:
    """Print what would be trained and evaluated, and its cost; run nothing."""
    todo, facts = _todo(experiment, settings, options, None), _facts(experiment)
    if todo:
        sweep.plan_sweep(experiment, dataclasses.replace(options, keep_weights=True), console)
    for study in _studies(todo, settings, facts):
        cell = study.cell
        console.print(
            f"{cell.label}: up to {settings.most(sum(cell.blocks))} networks with some of its "
            f"{sum(cell.blocks)} blocks removed, on {facts[cell.data.name].test} test images, "
            f"about {duration(study.seconds)}",
            highlight=False,
            soft_wrap=True,
        )
    left = duration(seconds_left(experiment, settings, options))
    console.print(
        f"\nOn {devices(options)}: about {left} in all, results in {options.out}."
        "\nNothing was run; leave out --plan to start.",
        highlight=False,
        soft_wrap=True,
    )


def run(
    experiment: Experiment, settings: Settings, trains: bool, options: Options, console: Console
) -> int:
    """Study what is not studied, write tables and figures. trains: whether networks that are not
    there are trained, or are an error. Returns the exit code."""
    datasets = {
        name: data.load(name, data_dir=options.data_dir, manual_dir=options.manual_dir)
        for name in dict.fromkeys(cell.data.name for cell in experiment.cells)
    }
    facts = {name: dataset.facts for name, dataset in datasets.items()}
    prints = {name: dataset.fingerprint for name, dataset in datasets.items()}
    store, failed = Store(options.out), 0

    def left() -> list[Cell]:
        return _todo(experiment, settings, options, prints)

    if trains and (options.fresh or any(_is_untrained(store, cell) for cell in left())):
        keep = dataclasses.replace(options, keep_weights=True)
        failed = sweep.run_sweep(experiment, keep, console)
    with store.locked():
        todo = list(experiment.cells) if options.fresh else left()
        untrained = [cell for cell in todo if _is_untrained(store, cell)]
        if untrained and not trains:
            raise InputError(f"{store.weights_path(untrained[0].id)}: missing; {HOW_TO_KEEP}")
        todo = [cell for cell in todo if cell not in untrained]
        if todo:
            jobs = _studies(todo, settings, facts)
            done = len(experiment.cells) - len(todo)
            failed += train(jobs, done, facts, store, options, console, what="to study")
        found = runs.read(store.folder)
        figures = views.write(found)
    _show(found, figures, console)
    return 1 if failed else 0


def _is_untrained(store: Store, cell: Cell) -> bool:
    return not store.weights_path(cell.id).is_file()


def _show(run: runs.Run, figures: list[Path], console: Console) -> None:
    for text in lesions.group_lines(run.lesions):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    if run.lesions:
        for title, lines in (
            ("mean change of the test accuracy in points, by the share of blocks removed",
             lesions.course_table(run.lesions)),
            ("what can go",
             [list(lesions.COLUMNS.values()), *map(lesions.shown, lesions.rows(run.lesions))]),
        ):  # fmt: skip
            table = Table(box=None, header_style="bold", pad_edge=False, title=title)
            for column in lines[0]:
                table.add_column(column, justify="right")
            for line in lines[1:]:
                table.add_row(*line)
            console.print(table)
        console.print(lesions.ABOUT, highlight=False, style="dim")
        console.print(f"\ntable    {run.store.folder / 'lesion.csv'}", soft_wrap=True)
    for figure in figures:
        console.print(f"figure   {figure}", highlight=False, soft_wrap=True)
