"""Where one more layer would help, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cbundles.observe import Skipped


@dataclass(frozen=True)
class Insertion:
    """A layer that does not exist: the identity, behind an activation.

    name: of the activation; of one in a scan with the number of the repetition.
    kind: what the layer would be, in words.
    shape: of its weights.
    sensitivity: squared norm of the gradient of the mean cross-entropy by these weights.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    sensitivity: float

    @property
    def per_weight(self) -> float:
        """The sensitivity for each weight: larger layers have larger ones."""
        return self.sensitivity / int(np.prod(self.shape))


@dataclass(frozen=True)
class Existing:
    """A layer that exists: a kernel or matrix.

    name, shape: of its weights; a stack of layers in a scan is one.
    sensitivity: as that of an `Insertion`; of a stack that of all together. None: not finite.
    """

    name: str
    shape: tuple[int, ...]
    sensitivity: float | None

    @property
    def per_weight(self) -> float | None:
        """The sensitivity for each weight."""
        if self.sensitivity is None:
            return None
        return self.sensitivity / int(np.prod(self.shape))


@dataclass(frozen=True, repr=False)
class Insertions:
    """How much one more layer would help at each place, as far as the gradient tells.

    samples: over which gradients are averaged, before they are squared.
    places: the largest sensitivity first.
    existing: those of the layers that exist, in the order of the parameters.
    skipped: activations behind which no layer was considered, each with its reason.
    """

    samples: int
    places: tuple[Insertion, ...]
    existing: tuple[Existing, ...]
    skipped: tuple[Skipped, ...]

    def __repr__(self) -> str:
        return f"<Insertions behind {len(self.places)} activations>"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, text, lists and None, ready for JSON."""
        return {
            "samples": self.samples,
            "places": [{"kind": one.kind, **_row(one)} for one in self.places],
            "existing": [_row(one) for one in self.existing],
            "skipped": [{"name": one.name, "reason": one.reason} for one in self.skipped],
        }


def ranked(places: Sequence[Insertion]) -> tuple[Insertion, ...]:
    """The largest sensitivity first."""
    return tuple(sorted(places, key=lambda one: -one.sensitivity))


def _row(one: Insertion | Existing) -> dict[str, Any]:
    return {
        "name": one.name,
        "shape": list(one.shape),
        "sensitivity": one.sensitivity,
        "per_weight": one.per_weight,
    }
