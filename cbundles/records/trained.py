"""Records of trained networks: those of sweeps, and those that change their depth while they train.

The first measurement is that of the initial weights. Sweeps measure after every epoch; networks
that change their depth are evaluated about a hundred times, and after every edit.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cbundles import bits
from cbundles.config import GROW, SWEEP, TUNE
from cbundles.records.columns import Columns, Layers, Number
from cbundles.records.origin import NetworkRecord

OWN_READING = "own"  # the one that a run judges by


class TrainedRecord(NetworkRecord, kw_only=True, frozen=True):
    """What every record of a network that was trained has; sizes are those at the end.

    num_classes: of the data set
    parameters: how many can be trained
    bytes: of parameters and running statistics in float32
    flops: of a forward pass of one image
    compile_seconds: of its programs, shared among the population
    population: networks that were trained in one program
    """

    num_classes: int
    parameters: int
    bytes: int
    flops: int
    compile_seconds: float
    population: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind != self.cell.kind:
            raise ValueError(f"kind is {self.kind}, but its settings are of {self.cell.kind}")


class PeerHistory(Columns, kw_only=True, frozen=True):
    """What else was measured of a fully connected network, see `peers.Peers`: a value for each
    measurement, None where one is undefined or was not finite.

    effective_rank: of the last hidden layer
    class_cosine: between activations of different classes there
    gradient_norm: of the loss by all parameters
    """

    effective_rank: list[Number]
    class_cosine: list[Number]
    gradient_norm: list[Number]


class SweepHistory(Layers, kw_only=True, frozen=True):
    """What was measured of a network of a sweep, a value for the initial weights and each epoch.

    test_accuracy: share of the test set
    train_loss: nats, mean over the batches of the epoch before; None at initialisation
    scaled_branch_entropy: of a ResNet H of the branches before the skip is added, scaled, nats
    scaled_branch_conflict_rate: likewise
    branch_entropy: H of the branches as they are, which the first version measured
    readings: what further readings say, by their names
    headroom: of every layer, bits, see `bits`: a list for each measurement with which it was looked
        for, None for the others; None in a list where a layer was not finite
    peers: what else was measured, where that was asked for
    """

    test_accuracy: list[float]
    train_loss: list[Number]
    scaled_branch_entropy: list[list[Number]] | None = None
    scaled_branch_conflict_rate: list[list[Number]] | None = None
    branch_entropy: list[list[Number]] | None = None
    readings: dict[str, Layers] = msgspec.field(default_factory=dict)
    headroom: list[list[Number] | None] | None = None
    peers: PeerHistory | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, layers in self.readings.items():
            if len(layers) != len(self):
                raise ValueError(f"the reading {name} has {len(layers)} values, not {len(self)}")
        if self.peers is not None and len(self.peers) != len(self):
            raise ValueError(f"peers have {len(self.peers)} values, not {len(self)}")
        for number, measurement in enumerate(self.headroom or ()):
            for place, found in enumerate(measurement or ()):
                if found is not None and not bits.can_be(found):
                    raise ValueError(
                        f"headroom[{number}][{place}] is {found:g}: half bits from "
                        f"{bits.LOWEST - bits.STEP:g} to {bits.HIGHEST:g}"
                    )

    def reading(self, name: str) -> Layers:
        """What one reading says of every layer; `OWN_READING`: the run's own."""
        return self if name == OWN_READING else self.readings[name]


class EarlyHistory(SweepHistory, kw_only=True, frozen=True):
    """What was measured within the first epoch.

    step: after so many steps of the optimizer
    """

    step: list[int]


class SweepRecord(TrainedRecord, tag=SWEEP, kw_only=True, frozen=True):
    """What is left of a network of a sweep, or of an attempt of auto-tuning.

    largest_entropy: the most that H can be, nats: the entropy of the probe set's class shares
    history: what was measured
    first_epoch: what was measured within the first epoch; None where nothing was
    steps_per_epoch: of the optimizer; None where this was not written down
    seconds: until each measurement from the one before, shared among the population
    probe_seconds: of these, for measuring bundles and headroom; none where this was not told apart
    latency_seconds: for one batch, of a network that was trained alone and to the end, on a device
        that no other worker used, and is not one of our fully connected ones
    layers: of a user's architecture the names of the layers that were measured, in order
    """

    largest_entropy: float
    history: SweepHistory
    first_epoch: EarlyHistory | None = None
    steps_per_epoch: int | None = None
    seconds: list[float]
    probe_seconds: list[float]
    latency_seconds: float | None = None
    layers: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        measured = len(self.history)
        if measured < 2:
            raise ValueError("history ends with the initial weights, before any training")
        if self.layers is not None and len(self.layers) != len(self.history.entropy[0]):
            raise ValueError(
                f"layers has {len(self.layers)} names of {len(self.history.entropy[0])}"
            )
        if len(self.seconds) != measured:
            raise ValueError(f"seconds has {len(self.seconds)} values, history has {measured}")

    @property
    def _measured_layers(self) -> int:
        return len(self.history.entropy[0])

    @property
    def epochs_trained(self) -> int:
        """After so many epochs it was measured, besides at initialisation."""
        return len(self.history) - 1


class EditedHistory(Columns, kw_only=True, frozen=True):
    """What is known of a network that changes its depth, each time that it was evaluated.

    epoch: after which
    flops: spent until then on training, scoring and judging
    depth: layers
    train_loss: on the probe set, nats
    train_accuracy: share of the probe set
    test_loss: nats
    test_accuracy: share of the test set
    held_out_loss: of a tuned network, on images that edits are judged on, nats
    """

    epoch: list[int]
    flops: list[float]
    depth: list[int]
    train_loss: list[Number]
    train_accuracy: list[float]
    test_loss: list[Number]
    test_accuracy: list[float]
    held_out_loss: list[Number] | None = None


class Event(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """An edit, or the judgement on one.

    epoch: after which
    kind: what was done; an edit on trial is accepted or undone later
    position: after which layer one was inserted, or from which on layers were removed
    count: how many layers
    depth: layers afterwards
    loss_before: nats; None where it was not looked at, or was not finite
    """

    epoch: int
    kind: Literal["insert", "remove", "accept", "undo"]
    position: int
    count: int
    depth: int
    loss_before: Number


class Scoring(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True,
              forbid_unknown_fields=True):  # fmt: skip
    """Sensitivities of a network, when it was looked at for an edit.

    epoch: after which
    sensitivities: of a layer at each position
    existing: of each layer that is there
    entropy: H of each layer, nats; of tuned networks
    """

    epoch: int
    sensitivities: list[Number]
    existing: list[Number]
    entropy: list[Number] | None = None


class EditedRecord(TrainedRecord, kw_only=True, frozen=True):
    """What is left of a network that changes its depth.

    steps_per_epoch: of the optimizer
    history: how it did
    events: what was done to it, and what was judged of it, in order
    scores: each time that it was looked at for an edit
    seconds: of training and evaluating, shared among the population
    programs: that were compiled for the population
    """

    steps_per_epoch: int
    history: EditedHistory
    events: list[Event]
    scores: list[Scoring]
    seconds: float
    programs: int

    @property
    def arm(self) -> str:
        """How it changes its depth."""
        return self.cell.tuning.arm if self.kind == TUNE else self.cell.growth.arm

    def course(self, quantity: str) -> list[Number]:
        """A quantity at every evaluation, named as in `EditedHistory`."""
        values: list[Number] = getattr(self.history, quantity)
        return values


class GrowRecord(EditedRecord, tag=GROW, kw_only=True, frozen=True):
    """Of a network that grows, or is compared with one."""


class TuneRecord(EditedRecord, tag=TUNE, kw_only=True, frozen=True):
    """Of a network that is tuned, or is compared with one."""
