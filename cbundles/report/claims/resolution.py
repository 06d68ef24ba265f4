"""Claim C19: do coarser floating-point formats bundle more?"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from cbundles.report import evidence, summary
from cbundles.report.claims.finding import Finding, of_group
from cbundles.report.evidence import Record, depth, seed
from cbundles.report.runs import Run

# From fine to coarse, by the bits of their significand: 24, 11, 8, 4.
RESOLUTIONS = ("float32", "float16", "bfloat16", "float8_e4m3fn")


def _same(measured: dict[str, Record]) -> bool:
    """Whether these are one and the same network, down to the last digit of its losses."""
    courses = [[e["train_loss"] for e in record["history"]] for record in measured.values()]
    return all(course == courses[0] for course in courses)


def coarser(runs: Sequence[Run]) -> list[Finding]:
    found = []
    for group in evidence.groups(runs, resolutions=True):
        networks: dict[Any, dict[str, Record]] = {}
        for record in group.records:
            key = (summary.width_of(record), depth(record), seed(record))
            resolution = record["config"]["probe"].get("resolution", RESOLUTIONS[0])
            networks.setdefault(key, {})[resolution] = record
        whole = {k: v for k, v in networks.items() if set(RESOLUTIONS) <= v.keys() and _same(v)}
        if len(whole) < 3:
            continue
        falls, strictly = [], []
        counts: dict[str, list[int]] = {name: [] for name in RESOLUTIONS}
        for same in whole.values():
            layers = [same[name]["history"][-1]["num_bundles"] for name in RESOLUTIONS]
            for bundles in zip(*layers, strict=True):
                steps = list(itertools.pairwise(bundles))
                falls.append(all(fine >= coarse for fine, coarse in steps))
                strictly.append(any(fine > coarse for fine, coarse in steps))
                for name, number in zip(RESOLUTIONS, bundles, strict=True):
                    counts[name].append(number)
        medians = ", ".join(f"{n} {statistics.median(c):g}" for n, c in counts.items())
        ours = (
            f"falls or stays equal in {100 * np.mean(falls):.1f} % of {len(falls)} (network, "
            f"layer) pairs, strictly falls in {100 * np.mean(strictly):.1f} %; medians: {medians}"
        )
        records = [record for same in whole.values() for record in same.values()]
        reached = np.mean(falls) >= 0.95 and np.mean(strictly) >= 0.2
        found.append(of_group(group, ours, bool(reached), records))
    return found
