"""Records of what was done with trained networks: lesions, pruned networks, further readings."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cbundles.config import LESION, MEASURE, PRUNE
from cbundles.decisions.removal import RANKINGS, Curve, Settings
from cbundles.records.columns import Columns, Layers, Number
from cbundles.records.fair import FairStudy
from cbundles.records.origin import NetworkRecord
from cbundles.records.trained import SweepHistory

# A network is identified by a hash of its numbers; after this mark by that of its file.
HASH_OF_FILE = "file:"


class Blocks(Columns, kw_only=True, frozen=True):
    """What is known of every block of a ResNet, a value for each.

    entropy: H of the scaled branch, nats
    conflict_rate: likewise; None also where it was not measured yet
    num_bundles: likewise
    norm: ||branch|| / ||skip||
    scaled_norm: root mean square of the scaled branch
    first_order: |gradient x activation|
    lost: test images that only the whole network classifies correctly, not the one without it
    gained: those that only the network without it does
    """

    entropy: list[Number]
    conflict_rate: list[Number]
    num_bundles: list[int]
    norm: list[Number]
    scaled_norm: list[Number]
    first_order: list[Number]
    lost: list[int]
    gained: list[int]

    @property
    def by_ranking(self) -> dict[str, list[Number]]:
        """The scores that rankings of `removal` are named after."""
        return {name: getattr(self, name) for name in RANKINGS}


class LesionRecord(NetworkRecord, tag=LESION, kw_only=True, frozen=True):
    """What became of a trained network without some of its blocks.

    settings: which blocks were removed, how often
    images: of the test set
    correct: of these, classified so by the whole network
    blocks: each block, and what its removal alone costs
    curves: what removing several at once costs
    network: what identifies it
    fair: the same with statistics taken anew, and beside what else a fair comparison needs; None
        where it was not asked for
    """

    settings: Settings
    images: int
    correct: int
    blocks: Blocks
    curves: list[Curve]
    network: str
    fair: FairStudy | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("curves", self.curves)
        if self.fair is not None:
            require_whole("fair.curves", self.fair.curves)
            require_whole("fair.curves_anew", self.fair.curves_anew)
            if len(self.fair.blocks) != len(self.blocks):
                raise ValueError(
                    f"fair.blocks has {len(self.fair.blocks)} blocks, blocks {len(self.blocks)}"
                )


def require_whole(name: str, curves: Sequence[Curve]) -> None:
    """ValueError for a curve without draws, or with other numbers of lost and of gained."""
    for number, curve in enumerate(curves):
        if not len(curve.lost) == len(curve.gained) > 0:
            raise ValueError(
                f"{name}[{number}] has {len(curve.lost)} draws in lost "
                f"and {len(curve.gained)} in gained"
            )


class Comparison(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A network before and after it was pruned.

    Of four numbers the first is of the whole network, then come those of the pruned one: as it is,
    with its own statistics of batch normalisation, and after the fine-tune. Of two numbers one is
    of the whole and one of the pruned network.

    removed: blocks, counted from 0
    epochs: of the fine-tune
    images: of the test set
    correct: of these
    lost: images that only the whole network classifies correctly
    gained: images that only the pruned one does
    difference: of the logits from those of the masked network, relative to the largest
    layers, parameters: how many
    bytes: of parameters and running statistics in float32
    flops: of a forward pass of one image
    latency_seconds: for one batch
    """

    removed: list[int]
    epochs: int
    images: int
    correct: tuple[int, int, int, int]
    lost: tuple[int, int, int, int]
    gained: tuple[int, int, int, int]
    difference: Number
    layers: tuple[int, int]
    parameters: tuple[int, int]
    bytes: tuple[int, int]
    flops: tuple[int, int]
    latency_seconds: tuple[float, float]


class PrunedRecord(NetworkRecord, tag=PRUNE, kw_only=True, frozen=True):
    """What became of a trained network that was pruned for real.

    of: the cell that it is made from
    blocks: which ones, as typed
    network: what identifies the whole network
    compared: what it was and is
    """

    of: str
    blocks: str
    network: str
    compared: Comparison


class MeasuredRecord(NetworkRecord, tag=MEASURE, kw_only=True, frozen=True):
    """What further readings, and probe sets of other sizes, say of the networks of a cell that were
    kept, a value for each.

    readings: their names, in the form of `readings.canonical`
    kept_after: the epochs after which each was kept, see `keeping`; on disk it is ``epochs``
    epochs_trained: as a number
    networks: what identifies each, by its epoch
    largest_entropy: see `trained.SweepRecord`
    history: what was measured, in the own reading and in the others
    by_samples: what was measured in the own reading with so many samples, see `probe_sizes`
    """

    readings: str
    kept_after: list[str] = msgspec.field(name="epochs")
    epochs_trained: list[int]
    networks: dict[str, str]
    largest_entropy: float
    history: SweepHistory
    by_samples: dict[str, Layers] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = {"epochs": len(self.kept_after), "epochs_trained": len(self.epochs_trained)}
        counts |= {f"by_samples {size}": len(layers) for size, layers in self.by_samples.items()}
        for name, count in counts.items():
            if count != len(self.history):
                raise ValueError(f"{name} has {count} values, history has {len(self.history)}")

    @property
    def _measured_layers(self) -> int:
        return len(self.history.entropy[0])
