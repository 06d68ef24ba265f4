"""What an audit found, as data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cbundles.auditing.insertion_findings import Insertions
from cbundles.auditing.layer_peers import LayerPeers
from cbundles.auditing.lesion_findings import Lesions
from cbundles.auditing.weights import Amplitude
from cbundles.bundles import Bundles, Headroom
from cbundles.criterion import CLEAR_RATE
from cbundles.observe import Skipped

INPUT = "input"
BRANCH = "branch"  # what is in one may conflict without the sum that it goes into doing so


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer, or the inputs themselves.

    name: of its site; of a site in a scan with the number of the repetition, ``stack/relu[3]``.
    kind: one of `cbundles.observe.KINDS`, or "input".
    shape: of one row.
    bundles: which samples it bundles.
    rate_of_equal_inputs: what equal inputs are of its conflict rate; None: it diverged.
    amplitude: the weight beside which its activations were told apart; 0 for the inputs, of which
        only equal ones are bundled.
    resolution: activations that differ so far, in their own units, are told apart for sure; closer
        ones are where a rounded update lies between them.
    headroom: None where it was not wanted, and if the layer diverged.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    bundles: Bundles
    rate_of_equal_inputs: float | None
    amplitude: float
    resolution: float
    headroom: Headroom | None = None

    @property
    def num_bundles(self) -> int:
        """As many as there are rows when all are told apart."""
        return self.bundles.num_bundles

    @property
    def entropy(self) -> float | None:
        """Bundle entropy, in nats; None: it diverged."""
        return self.bundles.entropy

    @property
    def conflict_rate(self) -> float | None:
        """The probability that two rows of different classes share a bundle; None: it diverged."""
        return self.bundles.conflict_rate

    @property
    def conflicting(self) -> bool | None:
        """Whether its conflict rate is more than 1e-3 above what equal inputs are of it; None: it
        diverged."""
        rate, of_equal = self.conflict_rate, self.rate_of_equal_inputs
        return None if rate is None or of_equal is None else conflicts(rate, of_equal)

    @property
    def diverged(self) -> bool:
        """Whether some activation is NaN or infinite."""
        return self.bundles.diverged


@dataclass(frozen=True, eq=False)
class Findings:
    """All that an audit found; `report.Audit` shows it."""

    input: Layer
    layers: tuple[Layer, ...]
    skipped: tuple[Skipped, ...]
    amplitude: Amplitude
    choice: str | float  # of the amplitude
    learning_rate: float
    batch_size: int
    rows: str
    hangs_on: tuple[str, ...]  # what would change the verdict, in sentences
    lesions: Lesions | None = None
    insertions: Insertions | None = None
    peers: tuple[LayerPeers, ...] = ()  # of each layer; none where they were not wanted

    @property
    def first_conflict(self) -> str | None:
        """The name of the first layer that conflicts; branches do not count."""
        conflicts = [bool(layer.conflicting) for layer in self.layers]
        return first_conflict(self.layers, conflicts)


def conflicts(rate: float, of_equal_inputs: float) -> bool:
    """Whether a layer conflicts more than by what equal inputs are of its conflict rate."""
    return rate > of_equal_inputs + CLEAR_RATE


def first_conflict(layers: Sequence[Layer], conflicting: Iterable[bool]) -> str | None:
    """The name of the first of the layers, other than branches, that conflicts."""
    for layer, one in zip(layers, conflicting, strict=True):
        if one and layer.kind != BRANCH:
            return layer.name
    return None
