"""Records of the toy: networks without settings, on a thousand points of a line."""

from __future__ import annotations

import msgspec

from cbundles.config import FLOAT32, TOY
from cbundles.records.columns import Columns, Number
from cbundles.records.origin import Record

TRAINED_CASES = ("separate", "conflicting", "conflicting-imbalanced")
PLAIN_CASES = ("plain", "standardised")


class ToyHistory(Columns, kw_only=True, frozen=True):
    """What was measured of a toy that is trained, a value for the initial weights and each epoch.

    gradient_norm: mean over the batches of the epoch before; None at initialisation
    accuracy: share of the points
    num_bundles: of the first layer
    entropy: likewise, nats
    deviation: the largest difference of an output from the classes' shares
    outputs: of both neurons for some of the points, see `ToyTraining.inputs`
    """

    gradient_norm: list[Number]
    accuracy: list[float]
    num_bundles: list[int]
    entropy: list[Number]
    deviation: list[float]
    outputs: list[list[tuple[float, float]]]


class ToyTraining(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True,
                  forbid_unknown_fields=True):  # fmt: skip
    """How a toy was trained, and what became of it.

    share: of the points that are of class one
    inputs: the points whose outputs are in the history
    precision: in which it was trained; measured is always in float32
    """

    share: float
    learning_rate: float
    batch_size: int
    inputs: list[float]
    history: ToyHistory
    precision: str = FLOAT32

    def __post_init__(self) -> None:
        for number, outputs in enumerate(self.history.outputs):
            if len(outputs) != len(self.inputs):
                raise ValueError(
                    f"history.outputs[{number}] has {len(outputs)} points, "
                    f"inputs has {len(self.inputs)}"
                )


class PlainNetwork(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The size of a network that is only looked at untrained.

    width: neurons in each layer
    """

    layers: int
    width: int


class InputGradients(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Gradients by the input, of an untrained network, over the points.

    inputs: the points, sorted
    values: the gradient by each of them, scaled to a largest value of 1
    autocorrelation: of the gradients, at lags 0 to 15 points
    """

    inputs: list[float]
    values: list[float]
    autocorrelation: list[float]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.inputs):
            raise ValueError(f"values has {len(self.values)} values, inputs has {len(self.inputs)}")


class ToyRecord(Record, tag=TOY, kw_only=True, frozen=True):
    """One case with one seed: trained, or a plain network whose gradients are compared with it.

    case: one of `TRAINED_CASES` or `PLAIN_CASES`
    seed: of points, weights and order
    points: how many
    gradients: of the untrained network
    trained: of the toy itself
    plain: of a network that it is compared with
    """

    case: str
    seed: int
    points: int
    gradients: InputGradients
    trained: ToyTraining | None = None
    plain: PlainNetwork | None = None

    def __post_init__(self) -> None:
        made = [name for name in ("trained", "plain") if getattr(self, name) is not None]
        belongs = "trained" if self.case in TRAINED_CASES else "plain"
        if made != [belongs]:
            raise ValueError(
                f"the case {self.case} has {belongs}, not {' and '.join(made) or 'nothing'}"
            )

    @property
    def training(self) -> ToyTraining:
        """Of a case that is trained."""
        assert self.trained is not None
        return self.trained
