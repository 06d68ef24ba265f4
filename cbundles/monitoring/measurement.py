"""What a monitor has measured in one step."""

from __future__ import annotations

import collections
from dataclasses import dataclass
from typing import Any

from cbundles.auditing import Audit
from cbundles.auditing.findings import BRANCH
from cbundles.dashboards import known, scalar_name

# Of what an audit says of itself, the parts that each line of events has.
KEPT = (
    "samples",
    "learning_rate",
    "batch_size",
    "amplitude",
    "resolution",
    "first_conflict",
    "input",
    "layers",
)
KEYS = ("step", "time", "seconds", *KEPT)  # of a line


@dataclass(frozen=True, eq=False)
class Measurement:
    """All layers of a network in one step of its training.

    step: of the training, as the monitor was told.
    time: when, in seconds since 1970.
    seconds: how long the measurement took.
    audit: what was found; ``print(measurement.audit)`` shows it as a table and in words.
    """

    step: int
    time: float
    seconds: float
    audit: Audit

    def to_dict(self) -> dict[str, Any]:
        """A line of the file of events: plain numbers, text, lists and None."""
        found = self.audit.to_dict()
        return {
            "step": self.step,
            "time": self.time,
            "seconds": self.seconds,
            **{key: found[key] for key in KEPT},
        }

    @property
    def scalars(self) -> dict[str, float]:
        """Numbers for a dashboard, by names such as ``bundle_entropy/Model/relu``; what a layer
        that diverged does not have is left out."""
        layers = self.audit.layers
        counted = [layer for layer in layers if layer.kind != BRANCH]
        scalars: dict[str, float | None] = {
            "conflicting_layers": sum(bool(layer.conflicting) for layer in counted),
            "diverged_layers": sum(layer.diverged for layer in counted),
        }
        times: collections.Counter[str] = collections.Counter()
        for layer in layers:
            # Names that differ in letters which no dashboard takes are told apart by numbers.
            name = scalar_name("", layer.name)
            times[name] += 1
            name = layer.name if times[name] == 1 else f"{layer.name}.{times[name]}"
            scalars[scalar_name("bundle_entropy", name)] = layer.entropy
            scalars[scalar_name("conflict_rate", name)] = layer.conflict_rate
            # A layer that diverged has one for each sample, which says nothing of bundles.
            bundles = None if layer.diverged else layer.num_bundles
            scalars[scalar_name("bundles", name)] = bundles
            if layer.headroom is not None:
                scalars[scalar_name("headroom", name)] = layer.headroom.bits
        return known(scalars)
