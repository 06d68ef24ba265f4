"""`cbundles grow` and `cbundles tune`: networks that change their depth while they are trained."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console

from cbundles.commands import sweep
from cbundles.commands.running import Options
from cbundles.config import Experiment
from cbundles.console import duration
from cbundles.report import arm_tables, arms


def plan(experiment: Experiment, options: Options, console: Console) -> None:
    """Print the networks and what they will cost; run nothing."""
    sweep.plan_sweep(experiment, options, console)


def run(experiment: Experiment, options: Options, console: Console) -> int:
    """Train what is not finished, then write tables and figures. Returns the exit code."""
    records, store, figures, failed = sweep.complete(experiment, options, console)
    if options.as_json:
        done = {"event": "done", "networks": len(records), "failed": failed}
        print(json.dumps({**done, "folder": str(store.folder), "figures": list(map(str, figures))}))
        return 1 if failed else 0
    study = arm_tables.study_of(experiment.cells[0].kind)
    for setting in arms.settings_of(records):
        console.print(arm_tables.arms_table(setting).terminal(setting.about), highlight=False)
        console.print()
    if records:
        console.print(study.about, style="dim", highlight=False)
        console.print(_compiled(records), highlight=False)
        for suffix in ("csv", "md"):
            path = store.folder / f"{study.stem}.{suffix}"
            console.print(f"table    {path}", highlight=False, soft_wrap=True)
    for path in figures:
        console.print(f"figure   {path}", highlight=False, soft_wrap=True)
    if failed:
        console.print(f"\n{failed} networks failed (tracebacks in {store.logs}); the same command "
                      "tries them again", style="red", highlight=False)  # fmt: skip
    return 1 if failed else 0


def _compiled(records: list[dict[str, Any]]) -> str:
    """What it took, training and compiling apart, on one core."""
    seconds, compiling = (sum(r[key] for r in records) for key in ("seconds", "compile_seconds"))
    programs = max(record["programs"] for record in records)
    return (
        f"{len(records)} networks took {duration(seconds)} of a core, and {duration(compiling)} to "
        f"compile, at most {programs} programs for a population"
    )
