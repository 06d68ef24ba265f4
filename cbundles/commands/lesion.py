"""`cbundles lesion`: remove blocks of trained ResNets, and see what it costs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from cbundles import config, data
from cbundles.commands import sweep
from cbundles.commands.running import (
    Options,
    devices,
    require,
    require_trained,
    train,
    wall_seconds,
)
from cbundles.config import TRAIN, Cell, Experiment
from cbundles.console import duration
from cbundles.data.dataset import Facts
from cbundles.errors import InputError
from cbundles.executor import planner
from cbundles.executor.planner import LESION, Study
from cbundles.experiments.removal import Settings
from cbundles.report import lesions, runs, views
from cbundles.store import LESIONS, Store

COMPUTED = 0.8  # of a forward pass a lesioned network takes, over all counts (bench_lesion.py)
EPOCHS_MINI, EPOCHS = 20, 120
DEPTH = 120


def of_run(folder: Path) -> Experiment:
    """The trained ResNets of a run. Raises InputError where there are none."""
    run = runs.read(folder)
    cells = [Cell.fromdict(record["config"]) for record in run.records if "config" in record]
    cells = [cell for cell in cells if cell.model.family == "resnet"]
    if not cells or "attempts" in run.description:
        raise InputError(f"{folder}: no sweep with trained ResNets; lesions need one")
    return Experiment(run.description["name"], tuple(cells), run.description["config"])


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
    require(experiment, TRAIN)
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
    same_network = store.is_network_of(record, cell.id)
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


def plan(
    experiment: Experiment, settings: Settings, trains: bool, options: Options, console: Console
) -> None:
    """Print what would be trained and evaluated, and its cost; run nothing."""
    todo, facts = _todo(experiment, settings, options, None), _facts(experiment)
    store, keep = Store(options.out), dataclasses.replace(options, keep_weights=True)
    untrained = [cell for cell in todo if not keep.has(store, cell, None)]
    if untrained and not trains:
        raise InputError(f"{store.weights_path(untrained[0].id)}: missing; RUN trains nothing")
    studies = _studies(todo, settings, facts)
    seconds = seconds_left(experiment, settings, options)
    if options.as_json:
        listing = [{"cell": s.cell.id, "networks": settings.most(sum(s.cell.blocks)),
                    "core_seconds": round(s.seconds, 1)} for s in studies]  # fmt: skip
        train_too = [cell.id for cell in untrained]
        print(json.dumps({"studies": listing, "to_train": train_too, "seconds": seconds}))
        return
    for cell in untrained:
        whole = planner.seconds(cell, facts[cell.data.name])
        text = f"{cell.label}: to be trained, about {duration(whole)}"
        console.print(text, highlight=False, soft_wrap=True)
    for study in studies:
        cell = study.cell
        console.print(
            f"{cell.label}: up to {settings.most(sum(cell.blocks))} networks with some of its "
            f"{sum(cell.blocks)} blocks removed, on {facts[cell.data.name].test} test images, "
            f"about {duration(study.seconds)}",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"\nOn {devices(options)}: about {duration(seconds)} in all, results in {options.out}."
        "\nNothing was run; leave out --plan to start.",
        highlight=False,
        soft_wrap=True,
    )


def run(
    experiment: Experiment, settings: Settings, trains: bool, options: Options, console: Console
) -> int:
    """Study what is not studied, write tables and figures. trains: whether networks that are not
    there are trained first, or are an error. Returns the exit code."""
    datasets = {
        name: data.load(name, data_dir=options.data_dir, manual_dir=options.manual_dir)
        for name in dict.fromkeys(cell.data.name for cell in experiment.cells)
    }
    facts = {name: dataset.facts for name, dataset in datasets.items()}
    prints = {name: dataset.fingerprint for name, dataset in datasets.items()}
    store, failed = Store(options.out), 0
    keep = dataclasses.replace(options, keep_weights=True)

    def left() -> list[Cell]:
        return _todo(experiment, settings, options, prints)

    def is_trained(cell: Cell) -> bool:
        return keep.has(store, cell, prints[cell.data.name])

    if trains and (options.fresh or not all(map(is_trained, left()))):
        failed = sweep.run_sweep(experiment, keep, console)
    with store.locked():
        todo = list(experiment.cells) if options.fresh else left()
        if trains:  # what failed to train has been told
            todo = [cell for cell in todo if is_trained(cell)]
        require_trained(store, todo, prints)
        if options.fresh:
            for cell in todo:
                store.drop_checkpoints(f"{cell.id}-{LESION}")
        if todo:
            jobs = _studies(todo, settings, facts)
            done = len(experiment.cells) - len(todo)
            failed += train(jobs, done, facts, store, options, console, what="to study")
        found = runs.read(store.folder)
        figures = views.write(found) if found.records else []
    if options.as_json:
        done_ = {"event": "done", "studies": len(found.lesions), "failed": failed}
        rows = lesions.removal_rows(found.lesions)
        print(json.dumps({**done_, "folder": str(store.folder), "rows": rows}))
    else:
        _show(found, figures, console)
    return 1 if failed else 0


def _show(run: runs.Run, figures: list[Path], console: Console) -> None:
    if run.unfinished:
        text = f"{run.unfinished} networks of {run.store.folder} are not trained; left out"
        console.print(text, highlight=False, soft_wrap=True)
    for group in lesions.alike(run.lesions):
        for text in lesions.group_lines(group):
            console.print(text, highlight=False, markup=False, soft_wrap=True)
        course = "mean change of the test accuracy in points, by the share of blocks removed"
        console.print(lesions.course_table(group).terminal(course))
        console.print(lesions.removal_table(group).terminal("what can go"))
    if run.lesions:
        console.print(lesions.ABOUT, highlight=False, style="dim")
        console.print(f"\ntable    {run.store.folder / 'lesion.csv'}", soft_wrap=True)
    for figure in figures:
        console.print(f"figure   {figure}", highlight=False, soft_wrap=True)
