"""`cbundles toy`: train with and without a fully conflicting bundle, and judge what happened."""

from __future__ import annotations

import json
from dataclasses import dataclass

import msgspec
from rich.console import Console

from cbundles import provenance
from cbundles.commands import running
from cbundles.commands.fresh import start_over
from cbundles.commands.output import (
    NOTHING_WAS_RUN,
    list_files,
    say,
    say_beside_results,
)
from cbundles.commands.report import print_claims
from cbundles.commands.running import Options, published_mark, use_device
from cbundles.config import FLOAT32, FLOAT64, TOY
from cbundles.console import duration
from cbundles.errors import InputError, did_you_mean
from cbundles.records import PLAIN_CASES, TRAINED_CASES, Origin
from cbundles.report import claims, views
from cbundles.report.runs import Run
from cbundles.store import Store

PRECISIONS = (FLOAT32, FLOAT64)
SEEDS = 5
CASES = (*TRAINED_CASES, *PLAIN_CASES)
SECONDS = 20.0  # that all of it takes
DISK_BYTES = 2e6


@dataclass(frozen=True)
class Toy:
    """Every case with every seed. precision: in which it is trained."""

    precision: str = FLOAT32

    @classmethod
    def in_precision(cls, precision: str, place: str) -> Toy:
        """InputError, which names the place where it was written, for none that there is."""
        if precision not in PRECISIONS:
            raise InputError(f"{place} {precision}: {did_you_mean(precision, PRECISIONS)}")
        return cls(precision)

    @property
    def name(self) -> str:
        return TOY if self.precision == FLOAT32 else f"{TOY}_{self.precision}"

    @property
    def record_names(self) -> list[str]:
        """Identities of the toy's records: case and seed, and an unusual precision."""
        ending = "" if self.precision == FLOAT32 else f"-{self.precision}"
        return [f"{case}-{seed}{ending}" for case in CASES for seed in range(SEEDS)]

    def seconds_left(self, options: Options) -> float:
        store = Store(options.out)
        finished = not options.fresh and all(store.has(name) for name in self.record_names)
        return 0.0 if finished else SECONDS

    def show_plan(self, options: Options, console: Console) -> None:
        """Print what would be trained, and its cost; run nothing."""
        store, names = Store(options.out), self.record_names
        todo = [name for name in names if options.fresh or not store.has(name)]
        seconds = SECONDS * len(todo) / len(names)
        if options.as_json:
            print(json.dumps({"to_train": todo, "seconds": seconds}))
            return
        say(
            console,
            f"{len(todo)} of {len(names)} toys to train, about {duration(seconds)}, results in "
            f"{options.out}.\n{NOTHING_WAS_RUN}",
        )

    def execute(self, options: Options, console: Console) -> int:
        """Train what has no record yet, then verdicts and figures. Returns the exit code."""
        store = Store(options.out)
        names = self.record_names
        with store.locked():
            store.require_kind(TOY)
            if options.fresh:
                start_over(names, (), store, options, DISK_BYTES, console)
            todo = [name for name in names if not store.has(name)]
            if todo:
                _train(store, todo, self.precision, options, console)
            description = {
                "name": self.name,
                "kind": TOY,
                **published_mark(options),
                "cells": names,
                **running.origin(),
            }
            store.write_run(description)
            store.seal()
            run = Run(store, description, [store.record(name) for name in names])
            figures = [drawn.path for drawn in views.write(run)]
        judged = claims.judge([run])
        if options.as_json:
            print_claims(judged)
            return 0
        for claim in judged:
            for finding in claim.findings:
                say(console, f"{claim.id} {finding.verdict}: {claim.claim}\n   {finding.text}")
        list_files(console, "figure", figures)
        return 0


def _train(
    store: Store, names: list[str], precision: str, options: Options, console: Console
) -> None:
    use_device(options.device)
    import jax

    jax.config.update("jax_default_matmul_precision", "highest")
    from cbundles.experiments import toy

    origin = Origin(
        platform=jax.devices()[0].platform,
        device=jax.devices()[0].device_kind,
        processor=provenance.processor(),
        versions=provenance.versions(),
        commit=provenance.commit(),
        data_fingerprint=None,
    )
    for name in names:
        case, _, seed = name.removesuffix(f"-{precision}").rpartition("-")
        if case in TRAINED_CASES:
            record = toy.train_toy(case, int(seed), origin, precision)
        else:
            record = toy.plain(int(seed), origin, standardised=case == "standardised")
        store.finish(msgspec.structs.replace(record, id=name))
        store.settle()  # there is a record now: what it replaces may go
        say_beside_results(f"trained  {name}", options, console)
