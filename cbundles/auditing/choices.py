"""What the verdict hangs on: which other choices would have led to another first conflict.

The learning rate, the training batch size and the weight that sets the scale are choices of whoever
asks; which samples were taken is chance. Each sentence that is returned names one that matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cbundles.auditing.counting import pairs_in_conflict, rate_of_equal_inputs, some_of
from cbundles.auditing.findings import Layer, conflicts, first_conflict
from cbundles.bundles import Bundles
from cbundles.bundles.headroom import BITS

A_FACTOR_OF_TEN = 3.5  # bits: the half bit next to 3.3


@dataclass(frozen=True, eq=False)
class Scan:
    """The conflict rates of a layer at other learning rates, on a part of the samples.

    at_scales: at all `BITS`, and behind them beside another weight, if there is one.
    of_equal_at_scales: what equal inputs are of each.
    """

    at_scales: Float[np.ndarray, " scales"]
    of_equal_at_scales: Float[np.ndarray, " scales"]

    @property
    def rates(self) -> Float[np.ndarray, " bits"]:
        return self.at_scales[: len(BITS)]

    @property
    def of_equal_inputs(self) -> Float[np.ndarray, " bits"]:
        return self.of_equal_at_scales[: len(BITS)]

    def conflicts_at(self, bits: float) -> bool:
        """Whether the layer conflicts when the learning rate falls by so many bits."""
        return self._conflicts(int(np.searchsorted(BITS, bits)))

    def conflicts_beside_other_weight(self) -> bool:
        return len(self.at_scales) > len(BITS) and self._conflicts(len(BITS))

    def _conflicts(self, place: int) -> bool:
        return conflicts(float(self.at_scales[place]), float(self.of_equal_at_scales[place]))


def sentences(
    input_layer: Layer, layers: Sequence[Layer], scans: Sequence[Scan], other_weight: str | None
) -> tuple[str, ...]:
    """Which choices change the verdict on layers.

    Args:
        input_layer: the inputs.
        layers: all that were measured.
        scans: of each layer; none where they were not wanted.
        other_weight: what the rates beside another weight were measured with, in words.
    """
    if any(layer.diverged for layer in (input_layer, *layers)):
        return ()
    found = [
        *(_other_scales(layers, scans, other_weight) if scans else []),
        _other_samples(input_layer, layers),
        _a_single_pair(input_layer, layers),
    ]
    return tuple(sentence for sentence in found if sentence is not None)


def _other_scales(
    layers: Sequence[Layer], scans: Sequence[Scan], other_weight: str | None
) -> list[str | None]:
    """Another learning rate, batch size or weight, on the part of the samples that was scanned."""
    now = first_conflict(layers, [scan.conflicts_at(0) for scan in scans])
    lower = first_conflict(layers, [scan.conflicts_at(A_FACTOR_OF_TEN) for scan in scans])
    higher = first_conflict(layers, [scan.conflicts_at(-A_FACTOR_OF_TEN) for scan in scans])
    found = [
        _changed("with a tenth of the learning rate, or ten times the batch size", now, lower),
        _changed("with ten times the learning rate, or a tenth of the batch size", now, higher),
    ]
    if other_weight is not None:
        beside = [scan.conflicts_beside_other_weight() for scan in scans]
        found.append(
            _changed(f"measured beside {other_weight}", now, first_conflict(layers, beside))
        )
    return found


def _other_samples(input_layer: Layer, layers: Sequence[Layer]) -> str | None:
    """Of the samples every other one, beginning with the first or with the second."""
    now = first_conflict(layers, [bool(layer.conflicting) for layer in layers])
    for half in (slice(0, None, 2), slice(1, None, 2)):
        if not len(input_layer.bundles.labels[half]):
            continue
        inputs = some_of(input_layer.bundles, half)
        then = first_conflict(layers, [_conflicts_in(layer, half, inputs) for layer in layers])
        if then != now:
            return _changed("with half of the samples", now, then)
    return None


def _conflicts_in(layer: Layer, part: slice, inputs: Bundles) -> bool:
    """Whether a layer conflicts on a part of the rows. inputs: of that part."""
    found = some_of(layer.bundles, part)
    rate = found.conflict_rate
    assert rate is not None
    return conflicts(rate, rate_of_equal_inputs(found.bundle_ids, inputs))


def _a_single_pair(input_layer: Layer, layers: Sequence[Layer]) -> str | None:
    labels = input_layer.bundles.labels
    for layer in layers:
        rates = (layer.conflict_rate or 0.0, layer.rate_of_equal_inputs or 0.0)
        pairs, of_equal_inputs = [pairs_in_conflict(rate, labels) for rate in rates]
        if pairs - of_equal_inputs == 1:
            counted = "counts as a conflict" if layer.conflicting else "is not called a conflict"
            return f"in {layer.name} a single pair of samples meets, which {counted}"
    return None


def _changed(choice: str, now: str | None, then: str | None) -> str | None:
    """A sentence, if another choice leads to another first conflict."""
    if now == then:
        return None
    if then is None:
        return f"{choice}, no layer would conflict"
    if now is None:
        return f"{choice}, layers would conflict, from {then} on"
    return f"{choice}, conflicts would begin in {then}, not in {now}"
