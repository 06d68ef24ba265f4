"""`cbundles prune`: write networks without some of their blocks, and measure them."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from typing import Any

from rich.console import Console

from cbundles import data
from cbundles.commands.running import Options, require_trained, train
from cbundles.config import Cell, Experiment
from cbundles.errors import InputError
from cbundles.executor import planner
from cbundles.executor.planner import PRUNE, Study
from cbundles.experiments import removal
from cbundles.report import lesions, runs, views
from cbundles.store import LESIONS, PRUNED, Store


def run(
    experiment: Experiment, blocks: str, epochs: int, options: Options, console: Console
) -> int:
    """Prune every network of a run; write the table. Returns the exit code."""
    datasets = {
        name: data.load(name, data_dir=options.data_dir, manual_dir=options.manual_dir)
        for name in dict.fromkeys(cell.data.name for cell in experiment.cells)
    }
    facts = {name: dataset.facts for name, dataset in datasets.items()}
    store = Store(options.out)
    with store.locked():
        chosen = {cell: _chosen(store, cell, blocks) for cell in experiment.cells}
        names = {cell: name(cell, removed, epochs, blocks) for cell, removed in chosen.items()}
        for cell, removed in chosen.items():
            if not removed:
                console.print(_nothing(store, cell), highlight=False, soft_wrap=True)
        wanted = [cell for cell, removed in chosen.items() if removed]
        todo = [c for c in wanted if options.fresh or not _is_finished(store, c, names[c])]
        require_trained(store, todo, {n: d.fingerprint for n, d in datasets.items()})
        failed = 0
        if todo:
            jobs = []
            for cell in todo:
                known = facts[cell.data.name]
                whole = planner.seconds(cell, known) / cell.training.epochs
                settings = {"removed": list(chosen[cell]), "epochs": epochs, "blocks": blocks,
                            "name": names[cell]}  # fmt: skip
                seconds = 3 * planner.CONV_COMPILE_SECONDS + epochs * whole
                jobs.append(Study(cell, PRUNE, tuple(settings.items()), seconds))
            alone = dataclasses.replace(options, workers=1)  # or latencies would be of two at once
            finished = len(wanted) - len(todo)
            failed = train(jobs, finished, facts, store, alone, console, what="to prune")
        made = [names[cell] for cell in wanted]
        records = [store.record(n, PRUNED) for n in made if store.record_path(n, PRUNED).is_file()]
        views.write_pruned(store)
    if missing := runs.read(store.folder).unfinished:
        text = f"{missing} networks of {store.folder} are not trained; left out"
        console.print(text, highlight=False, soft_wrap=True)
    _show(records, store, console)
    return 1 if failed else 0


def name(cell: Cell, removed: tuple[int, ...], epochs: int, blocks: str) -> str:
    """Under which a pruned network is kept: who, how, and what exactly."""
    how = re.sub(r"[^a-z0-9]+", "-", blocks.lower()) if not blocks[:1].isdigit() else "blocks"
    exact = hashlib.sha256(repr((removed, epochs)).encode()).hexdigest()[:6]
    return f"{cell.id}-{how}-{exact}"


def _chosen(store: Store, cell: Cell, blocks: str) -> tuple[int, ...]:
    if not store.record_path(cell.id, LESIONS).is_file():
        raise InputError(f"{store.folder}: nothing is known of its blocks yet; run "
                         f"cbundles lesion {store.folder} first")  # fmt: skip
    try:
        return removal.choose(blocks, store.record(cell.id, LESIONS)["blocks"])
    except ValueError as error:
        raise InputError(f"--blocks {blocks}: {error}") from None


def _nothing(store: Store, cell: Cell) -> str:
    """What to tell of a network of which no block conflicts."""
    record = store.record(cell.id, LESIONS)
    best = max(
        ((lesions.removable(course), of) for of in removal.RANKINGS
         if (course := lesions.curve(record, of))),
        default=(0, "norm"),
    )  # fmt: skip
    text = f"{cell.label}: no block conflicts, so none is removed"
    if best[0]:
        how = f"{best[1]}:{best[0]}".replace("_", "-")
        text += f"; without a significant rise of its error {best[0]} can go: --blocks {how}"
    return text


def _is_finished(store: Store, cell: Cell, made: str) -> bool:
    """Whether the network that is there was pruned so; where none is, whether one has been."""
    if not store.record_path(made, PRUNED).is_file():
        return False
    if not store.weights_path(cell.id).is_file():
        return True
    files = all(path.is_file() for path in store.pruned_paths(made))
    return files and store.is_network_of(store.record(made, PRUNED), cell.id)


def _show(records: list[dict[str, Any]], store: Store, console: Console) -> None:
    if not records:
        return
    for record in records:
        one = lesions.pruned_row(record)
        time = one["latency_seconds_pruned"] / one["latency_seconds"]
        lines = [
            f"{Cell.fromdict(record['config']).label}: {one['removed']} blocks removed, "
            f"{one['layers']} -> {one['layers_pruned']} layers",
            f"  accuracy {100 * one['accuracy']:.1f} -> {100 * one['accuracy_pruned']:.1f} % "
            f"(p = {one['p_pruned']:.2g}); with its own statistics of batch normalisation "
            f"{100 * one['accuracy_recalibrated']:.1f} % (p = {one['p_recalibrated']:.2g}); "
            f"trained for {one['epochs_tuned']} more: {100 * one['accuracy_tuned']:.1f} % "
            f"(p = {one['p_tuned']:.2g})",
            f"  {one['bytes'] / 1e6:.2f} -> {one['bytes_pruned'] / 1e6:.2f} MB, "
            f"{one['flops'] / 1e6:.1f} -> {one['flops_pruned'] / 1e6:.1f} MFLOP an image, "
            f"{1e3 * one['latency_seconds']:.1f} -> {1e3 * one['latency_seconds_pruned']:.1f} ms a "
            f"batch: {time:.2f} of the time at {one['flops_pruned'] / one['flops']:.2f} of the "
            "FLOPs",
        ]
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    for record in records:
        for path in store.pruned_paths(record["cell"]):
            if path.is_file():
                console.print(f"network  {path}", highlight=False, soft_wrap=True)
    console.print(f"table    {store.folder / 'pruned.csv'}", highlight=False, soft_wrap=True)
