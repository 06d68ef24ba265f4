"""Labelled inputs, a batch at a time: arrays that are cut into batches, or batches as they come.

Of batches that come only once those samples are kept on the way that are looked at twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Int32, Int64, Integer, PyTree

from cbundles.arrays import Numbers, off_explicit_mesh
from cbundles.auditing.tensors import as_array
from cbundles.bundles.result import checked_classes

AT_ONCE = 256  # samples: their activations are many times the inputs

Picked = Int64[np.ndarray, " picked"]  # numbers of samples, ascending
NOTHING = np.zeros(0, np.int64)


class Batches(Protocol):
    """Inputs of an audit."""

    @property
    def first(self) -> PyTree:
        """The first batch."""

    def __iter__(self) -> Iterator[tuple[int, PyTree]]:
        """All batches, each with the number of its first sample. Batches may overlap."""

    def keep(self, picked: Picked) -> None:
        """Say, before the batches come, which samples are looked at twice."""

    def kept(self) -> PyTree:
        """The inputs of these samples, once all batches have come."""


class CutArrays:
    """Arrays, cut into batches of one size; the last may overlap the one before it."""

    def __init__(self, inputs: PyTree, samples: int, at_once: int) -> None:
        self.inputs = inputs
        self.samples = samples
        number = -(-samples // at_once)
        self.size = -(-samples // number)
        self._picked = NOTHING

    @property
    def first(self) -> PyTree:
        return self._from(0)

    def __iter__(self) -> Iterator[tuple[int, PyTree]]:
        for start in range(0, self.samples, self.size):
            start = min(start, self.samples - self.size)
            yield start, self._from(start)

    def keep(self, picked: Picked) -> None:
        self._picked = picked

    def kept(self) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[self._picked], self.inputs)

    def _from(self, start: int) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[start : start + self.size], self.inputs)


class ComingBatches:
    """Batches as they come, once."""

    def __init__(self, batches: Iterable[PyTree], samples: int) -> None:
        self._coming = iter(batches)
        self._samples = samples
        self._picked = NOTHING
        self._kept: list[PyTree] = []
        try:
            self._first = _as_arrays(next(self._coming))
        except StopIteration:
            raise ValueError("inputs: an iterable of batches without any batch") from None

    @property
    def first(self) -> PyTree:
        return self._first

    def __iter__(self) -> Iterator[tuple[int, PyTree]]:
        start = 0
        for batch in self._all():
            size = length_of(batch)
            if not size:
                continue
            self._check_form(batch)
            if start + size > self._samples:
                raise ValueError(f"inputs: more samples come than the {self._samples} labels")
            inside = self._picked[(self._picked >= start) & (self._picked < start + size)] - start
            self._kept.append(jax.tree.map(lambda leaf, inside=inside: leaf[inside], batch))
            yield start, batch
            start += size
        if start != self._samples:
            raise ValueError(f"inputs: {start} samples came, but there are {self._samples} labels")

    def _check_form(self, batch: PyTree) -> None:
        """ValueError unless samples have the shape of those that came first."""
        first, now = (
            [leaf.shape[1:] for leaf in jax.tree.leaves(one)] for one in (self._first, batch)
        )
        if first != now:
            told = " after ".join(", ".join(map(str, shapes)) for shapes in (now, first))
            raise ValueError(f"inputs: samples of {told}; all must have one shape: pad them alike")

    def _all(self) -> Iterator[PyTree]:
        yield self._first
        for batch in self._coming:
            yield _as_arrays(batch)

    def keep(self, picked: Picked) -> None:
        self._picked = picked

    def kept(self) -> PyTree:
        return jax.tree.map(lambda *parts: np.concatenate(parts), *self._kept)


def batches_of(inputs: Any, samples: int, *, whole: bool) -> Batches:
    """The batches of inputs with so many labels. whole: all samples are one batch. Raises
    ValueError where inputs and labels do not fit."""
    inputs = jax.tree.map(
        lambda leaf: off_explicit_mesh(as_array(leaf)), inputs, is_leaf=_is_iterator
    )
    leaves = jax.tree.leaves(inputs, is_leaf=_is_iterator)
    if not leaves:
        raise ValueError("inputs are empty")
    _refuse_unknown_mappings(leaves, "inputs are", "dict(inputs)")
    if any(hasattr(leaf, "shape") and not hasattr(leaf, "dtype") for leaf in leaves):
        raise ValueError(f"inputs are a {type(inputs).__name__}; pass arrays, such as x.to_numpy()")
    if all(hasattr(leaf, "shape") for leaf in leaves):
        lengths = [leaf.shape[0] if leaf.shape else 0 for leaf in leaves]
        if set(lengths) == {samples}:
            return CutArrays(inputs, samples, samples if whole else AT_ONCE)
        is_list_of_batches = isinstance(inputs, (list, tuple)) and (
            len(inputs) > 1 and sum(map(length_of, inputs)) == samples
        )
        if not is_list_of_batches:
            found = ", ".join(map(str, dict.fromkeys(lengths)))
            raise ValueError(f"inputs have {found} samples, but there are {samples} labels")
    elif isinstance(inputs, dict):
        (odd, *_) = (leaf for leaf in leaves if not hasattr(leaf, "shape"))
        raise ValueError(f"inputs hold {odd!r:.100}, a {type(odd).__name__}; all must be arrays")
    elif not isinstance(inputs, Iterable) or isinstance(inputs, (str, bytes, dict, list, tuple)):
        raise ValueError(f"inputs must be arrays, or batches of arrays, not {type(inputs)}")
    if whole:
        raise ValueError(
            'batch_norm="batch": all samples are one batch, so inputs must be arrays, not batches'
        )
    return ComingBatches(inputs, samples)


def at_hand(batches: Batches) -> CutArrays:
    """All batches as arrays, which can be gone through again and again."""
    if isinstance(batches, CutArrays):
        return batches
    samples = 0
    parts = []
    for start, batch in batches:
        parts.append(batch)
        samples = start + length_of(batch)
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    return CutArrays(joined, samples, AT_ONCE)


def checked_labels(
    labels: Integer[Numbers, "samples ..."] | Sequence[int], num_classes: int | None
) -> tuple[Int32[np.ndarray, "samples ..."], int]:
    """Labels as an array, and the number of classes. Raises ValueError for what are no labels."""
    array = np.asarray(labels)
    if array.ndim < 1 or array.size == 0:
        raise ValueError(f"labels must be (samples,) and not empty; they are {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"labels must be integers, not {array.dtype}{nearest_labels(array)}")
    occurring = max(0, int(array.max())) + 1
    classes = checked_classes(occurring if num_classes is None else num_classes)
    if array.min() < 0 or array.max() >= classes:
        bad = array[(array < 0) | (array >= classes)].flat[0]
        given = "" if num_classes is None else f" (num_classes={num_classes})"
        raise ValueError(f"label {bad} is outside 0..{classes - 1}{given}")
    return array.astype(np.int32), classes


def nearest_labels(array: np.ndarray) -> str:
    """What to give instead of labels that have another form, to be appended; empty where that is
    not known."""
    if not np.issubdtype(array.dtype, np.number):
        return ""
    if array.ndim == 1:
        integers = _as_integers(array)
        return f"; give labels{integers}" if integers else ""
    if array.ndim > 2:
        return ""
    if array.shape[1] == 1:
        return "; give labels[:, 0]" + _as_integers(array)
    is_one_hot = np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()
    return "; they are one-hot, so give labels.argmax(1)" if is_one_hot else ""


def _as_integers(array: np.ndarray) -> str:
    """How numbers that happen to be whole become integers, to be appended."""
    is_whole = not np.issubdtype(array.dtype, np.integer) and (array == np.round(array)).all()
    return ".astype(int)" if is_whole else ""


def length_of(batch: PyTree) -> int:
    """How many samples are in a batch."""
    leaves = jax.tree.leaves(batch)
    lengths = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in leaves}
    if len(lengths) != 1:
        raise ValueError("inputs: the arrays of a batch must share their first axis")
    return int(lengths.pop())


def _is_iterator(leaf: Any) -> bool:
    return isinstance(leaf, Iterator)


def _as_arrays(batch: PyTree) -> PyTree:
    """A batch that came. Raises ValueError where it holds something that JAX does not look into."""
    _refuse_unknown_mappings(jax.tree.leaves(batch), "inputs: a batch is", "dict(batch) of each")
    return jax.tree.map(_as_numpy, batch)


def _refuse_unknown_mappings(leaves: Sequence[Any], what: str, instead: str) -> None:
    """ValueError for one that JAX takes for a single value."""
    for leaf in leaves:
        if isinstance(leaf, Mapping):
            raise ValueError(f"{what} a {type(leaf).__name__}; pass {instead}")


def _as_numpy(leaf: Any) -> np.ndarray:
    return np.asarray(as_array(leaf))
