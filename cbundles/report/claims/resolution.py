"""Claim C19: do coarser floating-point formats bundle more?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import fmean, median

from cbundles.records import SweepRecord
from cbundles.report import evidence, select
from cbundles.report.claims.finding import SECOND_READING, Finding, finding_on, trial_of
from cbundles.report.evidence import Evidence
from cbundles.report.runs import Run

# From fine to coarse, by the bits of their significand: 24, 11, 8, 4.
RESOLUTIONS = ("float32", "float16", "bfloat16", "float8_e4m3fn")
NEVER_RISES, STRICTLY = 0.95, 0.2
ABOUT_DIRECTION = (
    f"{SECOND_READING}a coarser format rounds differences away and adds none, so the direction was "
    "all but certain; what is measured is how much"
)
Bundles = tuple[int, ...]  # of a layer, their number from the finest format to the coarsest


def at_several_resolutions(runs: Sequence[Run]) -> list[Evidence[SweepRecord]]:
    """All networks, those measured at another resolution in one group with the same at float32."""
    return evidence.collect(runs, free=("probe.resolution",))


def coarser_bundles_more(group: Evidence[SweepRecord]) -> Finding | None:
    networks = _measured_at_all(group)
    if len(networks) < 3:
        return None
    layers = [row for network in networks for row in _bundles_by_layer(network)]
    falls, strictly = _shares_that_fall(layers)
    medians = ", ".join(
        f"{name} {median(numbers):g}"
        for name, numbers in zip(RESOLUTIONS, zip(*layers, strict=True), strict=True)
    )
    ours = (
        f"falls or stays equal in {100 * falls:.1f} % of {len(layers)} (network, "
        f"layer) pairs, strictly falls in {100 * strictly:.1f} %; medians: {medians}"
    )
    lacking = ""
    several = fmean(finest > 1 for finest, *_ in layers)
    if several < STRICTLY:
        lacking = f"there are several in {100 * several:.0f} % of them"
    trial = trial_of([_bundle_more(_bundles_by_layer(net)) for net in networks], "network", lacking)
    records = [record for network in networks for record in network.values()]
    return finding_on(group, ours, _bundle_more(layers), trial, records, [ABOUT_DIRECTION])


def _shares_that_fall(layers: Sequence[Bundles]) -> tuple[float, float]:
    """Of the layers, in how many the number of bundles never rises, and in how many it falls."""
    steps = [list(itertools.pairwise(row)) for row in layers]
    falls = fmean(all(fine >= coarse for fine, coarse in row) for row in steps)
    strictly = fmean(any(fine > coarse for fine, coarse in row) for row in steps)
    return falls, strictly


def _bundle_more(layers: Sequence[Bundles]) -> bool:
    """The criterion of C19."""
    falls, strictly = _shares_that_fall(layers)
    return falls >= NEVER_RISES and strictly >= STRICTLY


def _measured_at_all(group: Evidence[SweepRecord]) -> list[dict[str, SweepRecord]]:
    """The networks that were measured at every resolution: their records by resolution."""
    networks = []
    for same in select.groups(group.records, across=("probe.resolution",)):
        network = {record.cell.probe.resolution: record for record in same.records}
        if set(RESOLUTIONS) <= network.keys() and _is_one_network(same.records):
            networks.append(network)
    return networks


def _is_one_network(records: Sequence[SweepRecord]) -> bool:
    """Whether these are one and the same network, down to the last digit of its losses."""
    losses = [record.history.train_loss for record in records]
    return all(some == losses[0] for some in losses)


def _bundles_by_layer(network: dict[str, SweepRecord]) -> list[Bundles]:
    """For each layer the number of bundles at each resolution."""
    columns = [network[name].history.num_bundles[-1] for name in RESOLUTIONS]
    return list(zip(*columns, strict=True))
