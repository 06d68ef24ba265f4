"""What a removal is given besides the model: inputs in batches, labels, and what is taken anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Int32, Integer, PyTree

from cbundles.arrays import Numbers
from cbundles.auditing import batches
from cbundles.auditing.batches import CutArrays, checked_labels, length_of
from cbundles.auditing.output import scores_in
from cbundles.auditing.subject import Scores
from cbundles.auditing.tensors import as_array


@dataclass(frozen=True)
class Labels:
    """The classes of all inputs.

    scores: from an output of the model to class scores.
    """

    classes: Int32[np.ndarray, "samples ..."]
    scores: Scores


@dataclass(frozen=True)
class Given:
    """inputs: on which a model is traced, timed and judged.

    labels: None where it is not judged.
    for_statistics: inputs on which the statistics of batch normalisations are taken anew; None
        where they stay as they are.
    """

    inputs: CutArrays
    labels: Labels | None
    for_statistics: CutArrays | None

    @property
    def judged(self) -> int:
        """How many answers of a model are judged."""
        return 0 if self.labels is None else self.labels.classes.size


def checked(
    inputs: PyTree,
    labels: Integer[Numbers, "samples ..."] | Sequence[int] | None,
    output: str | int | None,
    recalibrate: bool | PyTree,
) -> Given:
    """See `cbundles.remove`. Raises ValueError for what does not fit together."""
    cut = _in_batches("inputs", inputs)
    for_statistics = None
    if recalibrate is True:
        for_statistics = cut
    elif recalibrate is not False:
        for_statistics = _in_batches("recalibrate", recalibrate)
    if labels is None:
        return Given(cut, None, for_statistics)
    classes, number = checked_labels(as_array(labels), None)
    if len(classes) != cut.samples:
        raise ValueError(f"inputs have {cut.samples} samples, but there are {len(classes)} labels")
    return Given(cut, Labels(classes, scores_in(output, number, classes.shape)), for_statistics)


def _in_batches(name: str, inputs: PyTree) -> CutArrays:
    arrays = jax.tree.map(as_array, inputs)
    leaves: list[Any] = jax.tree.leaves(arrays)
    if not leaves or not all(getattr(leaf, "ndim", 0) for leaf in leaves):
        raise ValueError(f"{name} must be arrays whose first axis is that of the samples")
    lengths = set(map(len, leaves))
    if len(lengths) > 1 or lengths == {0}:
        raise ValueError(f"{name} must share their first axis, that of the samples, and have some")
    samples = length_of(arrays)
    return CutArrays(arrays, samples, batches.AT_ONCE)
