"""What a completion record holds, asked for in one place.

The rest of the report never looks up how a record is laid out. It asks here for the settings of a
network, for a quantity after an epoch, or for its course over all evaluations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cbundles import identity
from cbundles.config import TUNE, Cell

Record = dict[str, Any]


def cell_of(record: Record) -> Cell:
    """The settings that a network was trained with."""
    return Cell.fromdict(record["config"])


def settings_by_path(record: Record) -> dict[str, Any]:
    """Every setting of a network by its key path, such as ``training.learning_rate``."""
    return {
        f"{section}.{key}": value
        for section, keys in identity.completed(record["config"]).items()
        for key, value in keys.items()
    }


def has_settings(record: Record) -> bool:
    """Whether a network has settings; those of the toy have none."""
    return "config" in record


def dataset_of(record: Record) -> str:
    """The name of the data set that a network was trained on."""
    return str(record["config"]["data"]["name"])


def family_of(record: Record) -> str:
    """``fc``, ``vgg`` or ``resnet``."""
    return str(record["config"]["model"]["family"])


def depth_of(record: Record) -> int:
    """Layers of a network, of one that changes its depth at the start."""
    return int(record["config"]["model"]["depth"])


def width_of(record: Record) -> int:
    """Neurons of a hidden layer, or filters of the first stage of a VGG or ResNet."""
    model = record["config"]["model"]
    return int(model["width"] if model["family"] == "fc" else model["base_filters"])


def seed_of(record: Record) -> int:
    """The seed of a network's initial weights and of the order of its images."""
    return int(record["config"]["training"]["seed"])


def epochs_of(record: Record) -> int:
    """How many epochs a network was to be trained for."""
    return int(record["config"]["training"]["epochs"])


def experiment_of(record: Record) -> str | None:
    """The command that a network was trained by, where that is none of ``sweep``'s kind."""
    experiment: str | None = record.get("experiment")
    return experiment


def arm_of(record: Record) -> str:
    """How a network that changes its depth does so."""
    section = "tuning" if experiment_of(record) == TUNE else "growth"
    return str(record["config"][section]["arm"])


def epochs_kept(record: Record) -> list[int]:
    """After how many epochs each network of a cell was kept that was measured again."""
    return [int(epochs) for epochs in record["epochs_trained"]]


def evaluations(record: Record) -> int:
    """How often a network was evaluated, its initial weights included."""
    return len(record["history"])


def epochs_trained(record: Record) -> int:
    """Epochs after each of which a network of a sweep was evaluated."""
    return evaluations(record) - 1


def course(record: Record, quantity: str) -> list[Any]:
    """A quantity at every evaluation, the first of which is that of the initial weights: numbers,
    None where one was not finite; of what is measured in every layer a list of such numbers."""
    return [evaluation[quantity] for evaluation in record["history"]]


def value_at(record: Record, quantity: str, evaluation: int) -> Any:
    """A quantity at one evaluation; see `course`. 0: the initial weights, -1: the last one."""
    return record["history"][evaluation][quantity]


def steps_measured(record: Record) -> list[int]:
    """After which steps of its first epoch a network was evaluated, too."""
    return [int(evaluation["step"]) for evaluation in record.get("first_epoch", [])]


def within_first_epoch(record: Record) -> Record:
    """The same network with other evaluations: those after the steps of `steps_measured`."""
    return {**record, "history": record.get("first_epoch", [])}


OWN_READING = "own"  # the one that a run judges by


def further_readings(record: Record) -> list[str]:
    """Names of the readings that were measured beside the run's own."""
    return list(record["history"][-1].get("readings", {}))


def layers_at(
    record: Record, quantity: str, evaluation: int, reading: str = OWN_READING
) -> list[Any]:
    """A quantity of every layer at one evaluation, in one reading. Of records that were written
    before there were conflict rates, these are None."""
    entry = record["history"][evaluation]
    numbers = entry if reading == OWN_READING else entry["readings"][reading]
    unknown = [None] * len(numbers["entropy"])
    layers: list[Any] = numbers.get(quantity, unknown)
    return layers


def last_layer_course(record: Record, quantity: str, reading: str = OWN_READING) -> list[Any]:
    """The course of a quantity that is measured in every layer, of the last one alone."""
    return [
        layers_at(record, quantity, evaluation, reading)[-1]
        for evaluation in range(evaluations(record))
    ]


def edits(record: Record) -> list[Record]:
    """What was done to a network that changes its depth, and what was judged of it, in order."""
    events: list[Record] = record["events"]
    return events


def scorings(record: Record) -> list[Record]:
    """The sensitivities of a network that changes its depth, each time they were computed."""
    scores: list[Record] = record["scores"]
    return scores


def devices(records: Sequence[Record]) -> str:
    """Where networks were trained, as captions name it."""
    return ", ".join(sorted({f"{r['device']} ({r['processor']})" for r in records}))
