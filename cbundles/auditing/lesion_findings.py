"""What lesions found, as data: the cost of each branch alone, and of several at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cbundles.decisions import paired
from cbundles.errors import did_you_mean

# Scores by which branches are ranked, and whether high ones go first.
RANKINGS = {
    "entropy": True,
    "conflict_rate": True,
    "headroom": False,
    "norm": False,
    "first_order": False,
    "cost": False,
}
WORDS = {
    "entropy": "highest H first",
    "conflict_rate": "most conflicts first",
    "headroom": "least headroom first",
    "norm": "smallest branch / skip first",
    "first_order": "least gradient x activation first",
    "cost": "cheapest alone first",
    "greedy": "greedy",
}
GREEDY = "greedy"
FITTED = ("cost", GREEDY)  # chosen by the answers on the very samples that judge them


@dataclass(frozen=True)
class Difference:
    """The answers of a lesioned model beside those of the whole one.

    lost: samples that only the whole model classifies correctly.
    gained: samples that only the lesioned one does.
    samples: all of them.
    """

    lost: int
    gained: int
    samples: int

    @property
    def points(self) -> float:
        """By how many percentage points the accuracy falls."""
        return 100 * (self.lost - self.gained) / self.samples

    @property
    def p(self) -> float:
        """Of McNemar's exact test, two-sided."""
        return paired.mcnemar(self.lost, self.gained)

    @property
    def rises(self) -> bool:
        """Whether the error rises significantly, p < 0.05, not corrected for other tests."""
        return paired.rises(self.lost, self.gained)

    @property
    def smallest_rise(self) -> float:
        """The smallest rise of the error, in points, that the test could have seen with as many
        changed answers; where so few change that it sees nothing, the smallest it ever sees."""
        surplus = paired.smallest_rise(self.lost + self.gained)
        return 100 * (surplus or paired.fewest_lost()) / self.samples

    def to_dict(self) -> dict[str, Any]:
        return {
            "points": self.points,
            "lost": self.lost,
            "gained": self.gained,
            "p": self.p,
            "rises": self.rises,
            "smallest_rise": self.smallest_rise,
        }


@dataclass(frozen=True)
class Lesion:
    """A residual branch that is switched off, alone.

    name: of its site; of a site in a scan with the number of the repetition, ``stack/branch[3]``.
    difference: from the whole model.
    anew: the same after the statistics of batch normalisation were taken anew; None where they
        could not be, see `Lesions.no_anew`.
    p_corrected: of `difference`, corrected after Holm for the number of branches.
    scores: what is known of the branch without switching it off, by the names in `RANKINGS`; None
        where it is not finite.
    """

    name: str
    difference: Difference
    anew: Difference | None
    p_corrected: float
    scores: Mapping[str, float | None]

    @property
    def cost(self) -> float:
        """By how many percentage points the accuracy falls."""
        return self.difference.points


@dataclass(frozen=True)
class RemovalCurve:
    """What switching off the first k branches of a ranking at once costs, k = 1 ... n.

    by: what they are ranked by: a name in `RANKINGS`, "greedy", or that of a given order.
    order: the names of the branches.
    differences: of each k.
    accuracies: of each k, between 0 and 1.
    """

    by: str
    order: tuple[str, ...]
    differences: tuple[Difference, ...]
    accuracies: tuple[float, ...]

    @property
    def removable(self) -> int:
        """How many can go until the error rises significantly for the first time."""
        for k, difference in enumerate(self.differences):
            if difference.rises:
                return k
        return len(self.differences)


@dataclass(frozen=True, repr=False)
class Lesions:
    """All branches of a model, each switched off alone, and many together.

    samples: on which all is judged.
    accuracy: of the whole model, between 0 and 1.
    branches: in the order in which their values are made.
    curves: by what they are ranked by.
    no_curve: why there is none by another score.
    accuracy_anew: of the whole model with statistics taken anew.
    no_anew: why they were not, in words.
    """

    samples: int
    accuracy: float
    branches: tuple[Lesion, ...]
    curves: Mapping[str, RemovalCurve]
    no_curve: Mapping[str, str] = field(default_factory=dict)
    accuracy_anew: float | None = None
    no_anew: str | None = None

    @property
    def smallest_rise(self) -> float:
        """The smallest rise of the error, in points, that the test sees at best: when no sample is
        gained."""
        return 100 * paired.fewest_lost() / self.samples

    @property
    def harmless(self) -> tuple[str, ...]:
        """The branches that can go, each alone, without a significant rise of the error."""
        return tuple(one.name for one in self.branches if not one.difference.rises)

    def branch(self, name: str) -> Lesion:
        """The branch of this name. Raises ValueError for any other name."""
        names = {one.name: one for one in self.branches}
        if name not in names:
            raise ValueError(f"no branch {name!r} was switched off: {did_you_mean(name, names)}")
        return names[name]

    def __repr__(self) -> str:
        return f"<Lesions of {len(self.branches)} branches on {self.samples:,} samples>"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, text, lists and None, ready for JSON."""
        return {
            "samples": self.samples,
            "accuracy": self.accuracy,
            "accuracy_anew": self.accuracy_anew,
            "no_anew": self.no_anew,
            "smallest_rise": self.smallest_rise,
            "branches": [_branch_row(one) for one in self.branches],
            "curves": {name: _curve_row(curve) for name, curve in self.curves.items()},
            "no_curve": dict(self.no_curve),
        }


def corrected(differences: Sequence[Difference]) -> list[float]:
    """Their p values, corrected after Holm."""
    return paired.holm([difference.p for difference in differences])


def _branch_row(one: Lesion) -> dict[str, Any]:
    return {
        "name": one.name,
        **one.difference.to_dict(),
        "p_corrected": one.p_corrected,
        "anew": None if one.anew is None else one.anew.to_dict(),
        "scores": dict(one.scores),
    }


def _curve_row(curve: RemovalCurve) -> dict[str, Any]:
    return {
        "order": list(curve.order),
        "accuracies": list(curve.accuracies),
        "lost": [difference.lost for difference in curve.differences],
        "gained": [difference.gained for difference in curve.differences],
        "removable": curve.removable,
    }
