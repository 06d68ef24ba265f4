"""One measurement of a trained network as plain data: an *entry* of its history.

test_accuracy     share of the test set
train_loss        mean over the batches of the epoch before, or of the first one so far; None at
                  initialisation
entropy           H of every layer or block, nats; None where an activation is not finite
conflict_rate     likewise
num_bundles       likewise, always a number
scaled_branch_*   of a ResNet H and conflict rate of the branches before the skip is added,
                  scaled, see `watched.branch_scale`
step              of an entry within the first epoch: after which step
readings          what further readings say, by their names: entropy, conflict_rate, num_bundles
headroom          where the cell asks for it, of an entry after an epoch: of every layer or block,
                  bits, None where an activation is not finite; None after an epoch in which it was
                  not measured
peers             where the cell asks for them: see `peers.Peers`
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float

from cbundles import bits, measure
from cbundles.arrays import Numbers
from cbundles.config import Cell
from cbundles.networks.shape import FcShape, Shape
from cbundles.peers import Peers
from cbundles.readings import POOLED, Reading


def entry_of_member(
    accuracy: Any, measured: measure.Measured, member: int, shape: Shape, loss: Any
) -> dict[str, Any]:
    """What was measured of one member of a population. shape: its own, without padding."""
    padded = shape.layers if isinstance(shape, FcShape) else None
    entry: dict[str, Any] = {
        "test_accuracy": short(accuracy),
        "train_loss": None if loss is None or not np.isfinite(loss) else short(loss),
        **numbers_of_member(measured.own, member, padded),
    }
    if measured.branches is not None:
        branches = numbers_of_member(measured.branches, member)
        entry["scaled_branch_entropy"] = branches["entropy"]
        entry["scaled_branch_conflict_rate"] = branches["conflict_rate"]
    if measured.further:
        entry["readings"] = {
            name: numbers_of_member(layers, member, padded)
            for name, layers in measured.further.items()
        }
    return entry


def numbers_of_member(
    layers: measure.Layers, member: int, count: int | None = None
) -> dict[str, list[Any]]:
    """H, conflict rate and number of bundles of the first `count` layers of a member, or of all; H
    and the rate are None where an activation is not finite."""
    of_member = [values[member, :count] for values in layers]
    entropy, rate, num_bundles, finite = of_member

    def or_none(values: Numbers) -> list[float | None]:
        return [short(v) if sound else None for v, sound in zip(values, finite, strict=True)]

    return {
        "entropy": or_none(entropy),
        "conflict_rate": or_none(rate),
        "num_bundles": [int(n) for n in num_bundles],
    }


def headroom_of_member(
    found: Float[np.ndarray, " layers"], entry: dict[str, Any]
) -> list[float | None]:
    """The headroom of a member's layers, perhaps padded, of which this is the entry."""
    sound = [entropy is not None for entropy in entry["entropy"]]
    own = found[: len(sound)].tolist()
    return [number if finite else None for number, finite in zip(own, sound, strict=True)]


def peers_of_entry(found: Peers) -> dict[str, float | None]:
    """Peers as plain data."""
    return {name: None if one is None else short(one) for name, one in found._asdict().items()}


def check(entry: dict[str, Any], cell: Cell, shape: Shape) -> None:
    """ValueError unless it is one of this cell, as `entry_of_member` makes it: whatever stands in
    it ends in a record."""
    require_numbers([entry["test_accuracy"]])
    require_numbers([entry["train_loss"]], or_none=True)
    # The first checkpoints that have a number were written before there were rates.
    own_layers = _layers_in(cell.own_reading, shape)
    _check_numbers({"conflict_rate": entry["entropy"], **entry}, own_layers)
    by_reading = entry.get("readings", {})
    asked = {reading.name: reading for reading in cell.further_readings}
    if by_reading.keys() != asked.keys():
        raise ValueError(f"it holds the readings {', '.join(by_reading) or 'none'}")
    for name, numbers in by_reading.items():
        _check_numbers(numbers, _layers_in(asked[name], shape))
    _check_headroom(entry, cell, own_layers)
    _check_peers(entry, cell)


def _layers_in(reading: Reading, shape: Shape) -> int:
    """How many activations are measured."""
    return shape.layers + (1 if reading.last == POOLED else 0)


def _check_numbers(numbers: Any, count: int) -> None:
    """ValueError unless they are of so many layers, as `numbers_of_member` makes them."""
    require_numbers(numbers["num_bundles"])
    for name in ("entropy", "conflict_rate"):
        require_numbers(numbers[name], or_none=True)
    for name in ("entropy", "conflict_rate", "num_bundles"):
        if len(numbers[name]) != count:
            raise ValueError(f"it holds {len(numbers[name])} numbers of {count} layers")


def _check_headroom(entry: dict[str, Any], cell: Cell, layers: int) -> None:
    asked = cell.probe.headroom != bits.OFF and "step" not in entry
    if asked != ("headroom" in entry):
        raise ValueError(f"headroom is {'missing' if asked else 'not asked for'}")
    found = entry.get("headroom")
    if found is None:
        return
    require_numbers(found, or_none=True)
    if len(found) != layers or not all(one is None or bits.can_be(one) for one in found):
        raise ValueError(f"it holds {found} where the headroom of {layers} layers belongs")


def _check_peers(entry: dict[str, Any], cell: Cell) -> None:
    asked, found = cell.probe.peers == "on", entry.get("peers")
    if asked != (found is not None):
        raise ValueError(f"peers are {'missing' if asked else 'not asked for'}")
    if found is not None:
        require_numbers((found[name] for name in Peers._fields), or_none=True)
        if len(found) != len(Peers._fields):
            raise ValueError(f"it holds the peers {', '.join(found)}")


def require_numbers(values: Iterable[Any], *, or_none: bool = False, finite: bool = True) -> None:
    """ValueError unless all are numbers; or_none, and not finite: where a network may have diverged
    it may be None, or NaN."""
    for value in values:
        is_number = isinstance(value, int | float) and (math.isfinite(value) or not finite)
        if not (is_number or (or_none and value is None)):
            raise ValueError(f"it holds {value!r} where a number belongs")


def six_digits(value: Any) -> float:
    """All that a float32 is good for."""
    return float(f"{float(value):.6g}")


def six_digits_or_none(value: Any) -> float | None:
    """The same; None for None, NaN and infinity."""
    return None if value is None or not np.isfinite(value) else six_digits(value)


def short(value: Any) -> float:
    """A float32 in the fewest digits that still identify it."""
    return float(str(np.float32(value)))
