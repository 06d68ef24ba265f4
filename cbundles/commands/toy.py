"""`cbundles toy`: train with and without a fully conflicting bundle, and judge what happened."""

from __future__ import annotations

import datetime

from rich.console import Console

from cbundles import provenance
from cbundles.commands.running import Options
from cbundles.errors import InputError
from cbundles.report import claims, views
from cbundles.report.runs import Run
from cbundles.store import Store

SEEDS = 5
CASES = ("separate", "conflicting", "conflicting-imbalanced", "plain", "standardised")


def run(options: Options, console: Console) -> int:
    """Train what has no record yet, then verdicts and figures. Returns the exit code."""
    store = Store(options.out)
    names = cells()
    with store.locked():
        if options.fresh:
            store.forget(names)
        if not all(store.record_path(name).is_file() for name in names):
            _train(store, names, options.device, console)
        description = {"name": "toy", "cells": names, "versions": provenance.versions(),
                       "commit": provenance.commit(), "written": _now()}  # fmt: skip
        store.write_run(description)
        done = Run(store, description, [store.record(name) for name in names])
        figures = views.write(done)
    for claim in claims.judge([done]):
        for finding in claim.findings:
            text = f"{claim.id} {finding.verdict}: {claim.claim}\n   {finding.text}"
            console.print(text, highlight=False, soft_wrap=True)
    for path in figures:
        console.print(f"figure   {path}", highlight=False, soft_wrap=True)
    return 0


def cells() -> list[str]:
    """Identities of the toy's records."""
    return [f"{case}-{seed}" for case in CASES for seed in range(SEEDS)]


def _train(store: Store, names: list[str], device: str, console: Console) -> None:
    import jax

    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() == "cpu":
        raise InputError("no GPU that JAX can use; name the CPU with --device cpu")
    jax.config.update("jax_default_matmul_precision", "highest")
    from cbundles.experiments import toy

    origin = {
        "platform": jax.devices()[0].platform, "device": jax.devices()[0].device_kind,
        "processor": provenance.processor(), "versions": provenance.versions(),
        "commit": provenance.commit(),
    }  # fmt: skip
    for name in names:
        if store.record_path(name).is_file():
            continue
        case, _, seed = name.rpartition("-")
        if case in toy.CASES:
            record = toy.train(case, int(seed))
        else:
            record = toy.plain(int(seed), standardised=case == "standardised")
        store.finish({**record, **origin})
        console.print(f"trained  {name}", highlight=False)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
