"""What the peers of the bundle entropy say of a layer, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cbundles.auditing.peer_sums import WIDEST

MEASURES = (
    "effective_rank",
    "class_cosine",
    "relu_state_entropy",
    "block_change",
    "gradient_norm",
    "batch_entropy",
)


@dataclass(frozen=True)
class LayerPeers:
    """What `peer_measures` say of one layer; None where a measure is undefined.

    layer: its name.
    width: of a row. One of more than 256 numbers is folded into 251 for the first two measures,
        whose rank is then at most 251, see `peer_sums`.
    effective_rank: directions of which the activations make use.
    class_cosine: how alike activations of different classes are.
    relu_state_entropy: bits; how much ReLUs switch.
    block_change: 1 - cos(in, out) of a residual sum, whose input is what the branch is added to.
    gradient_norm: of the mean cross-entropy by the parameters that make this layer from those
        before it; in evaluation, without dropout.
    batch_entropy: nats; how much activations vary from sample to sample.
    undefined: why a measure is None, by its name.
    """

    layer: str
    width: int
    effective_rank: float | None
    class_cosine: float | None
    relu_state_entropy: float | None
    block_change: float | None
    gradient_norm: float | None
    batch_entropy: float | None
    undefined: Mapping[str, str]

    @property
    def is_folded(self) -> bool:
        """Whether rank and cosine are those of folded rows."""
        return self.width > WIDEST

    @property
    def row(self) -> dict[str, Any]:
        """The measures as plain data."""
        return {measure: getattr(self, measure) for measure in MEASURES} | {
            "folded": self.is_folded,
            "undefined": dict(self.undefined),
        }
