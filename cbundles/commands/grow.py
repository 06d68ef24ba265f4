"""`cbundles grow` and `cbundles tune`: networks that change their depth while they are trained."""

from __future__ import annotations

import json

from rich.console import Console

from cbundles.commands import sweep
from cbundles.commands.running import Options
from cbundles.config import Experiment
from cbundles.errors import InputError


def require(experiment: Experiment, kind: str) -> None:
    """InputError unless all networks of an experiment are for this command: TRAIN, GROW, TUNE."""
    for cell in experiment.cells:
        if cell.kind != kind:
            arm = {"grow": "growth.arm", "tune": "tuning.arm"}
            given = f"{arm[cell.kind]} is set" if cell.kind in arm else f"{arm[kind]} is missing"
            verb = cell.kind if cell.kind in arm else "sweep"
            raise InputError(
                f"{experiment.name}: {given} for {cell.label}; "
                f"cbundles {'sweep' if kind == 'train' else kind} cannot run it, "
                f"cbundles {verb} can"
            )


def plan(experiment: Experiment, options: Options, console: Console) -> None:
    """Print the networks and what they will cost; run nothing."""
    sweep.plan_sweep(experiment, options, console)


def run(experiment: Experiment, options: Options, console: Console) -> int:
    """Train what is not finished, then write tables and figures. Returns the exit code."""
    records, store, figures, failed = sweep.complete(experiment, options, console)
    print(len(records), store.folder, figures, failed)
    return 1 if failed else 0
