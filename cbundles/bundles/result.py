"""The metric for your own activations: `bundle_entropy`, and what it found."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Int64, Integer, UInt32

from cbundles.arrays import Numbers, off_explicit_mesh
from cbundles.bundles.entropy import Layer, largest_entropy, partition
from cbundles.bundles.equality import GAMMA, Equality, Scale, draw_keys, signature
from cbundles.wording import counted

MAX_SALTS = 8
MIN_NORMAL = float(np.finfo(np.float32).tiny)
MOST_CLASSES = 2**24  # of each one the samples are counted: 134 MB

# Bundle, class and number of samples of each combination of the first two.
Occurring = tuple[
    Int64[np.ndarray, " combinations"],
    Int64[np.ndarray, " combinations"],
    Int64[np.ndarray, " combinations"],
]


@dataclass(frozen=True, eq=False, repr=False)
class Bundles:
    """The bundles that a layer makes of N labelled samples (paper, sec. 2.3, eq. 1-3).

    Attributes:
        entropy: H^l in nats, in [0, `largest_entropy`]; None when `diverged`.
        diverged: some activation is NaN or infinite, so that an entropy would mean nothing.
        bundle_ids: int32 (N,), 0-based in order of first occurrence; a row with a NaN is a bundle
            of its own.
        labels: int32 (N,), as given.
        num_classes: how many classes there could be.
        equality: when two rows counted as equal.
    """

    entropy: float | None
    diverged: bool
    bundle_ids: Int32[np.ndarray, " samples"]
    labels: Int32[np.ndarray, " samples"]
    num_classes: int
    equality: Equality

    @functools.cached_property
    def num_bundles(self) -> int:
        """N when all samples are told apart."""
        return int(self.bundle_ids.max()) + 1

    @functools.cached_property
    def largest_entropy(self) -> float:
        """The most that H^l can be on these samples, nats: the entropy of their class shares, which
        is ln(num_classes) only where all classes have equally many samples."""
        return largest_entropy(self.labels)

    @functools.cached_property
    def conflict_rate(self) -> float | None:
        """The probability that two of the samples that are of different classes share a bundle, in
        [0, 1]; unlike the entropy it does not grow with the number of samples. 0 for samples of one
        class. None: diverged."""
        if self.diverged:
            return None
        if self.num_bundles == len(self.labels):
            return 0.0  # at once, since most layers of a network that can be trained are such
        _, _, count = self._occurring
        in_class = np.bincount(self.labels).astype(np.int64)
        possible = len(self.labels) ** 2 - int((in_class**2).sum())
        found = int((self.sizes.astype(np.int64) ** 2).sum() - (count.astype(np.int64) ** 2).sum())
        return found / possible if possible else 0.0

    @property
    def sizes(self) -> Int64[np.ndarray, " bundles"]:
        """Samples in each bundle."""
        return np.bincount(self.bundle_ids)

    @functools.cached_property
    def class_histogram(self) -> Int64[np.ndarray, "bundles classes"]:
        """Samples of each class in each bundle."""
        table = np.zeros((self.num_bundles, self.num_classes), np.int64)
        bundle, label, count = self._occurring
        table[bundle, label] = count
        return table

    @functools.cached_property
    def conflicting_pairs(self) -> list[tuple[int, int]]:
        """Pairs of classes (a < b) that some bundle mixes, sorted."""
        bundle, label, _ = self._occurring
        names, label = np.unique(label, return_inverse=True)
        mixed = np.bincount(bundle)[bundle] > 1
        bundle = np.unique(bundle[mixed], return_inverse=True)[1]
        present = np.zeros((bundle.max(initial=-1) + 1, len(names)), np.float32)
        present[bundle, label[mixed]] = 1
        first, second = np.nonzero(np.triu(present.T @ present, k=1))
        return list(zip(names[first].tolist(), names[second].tolist(), strict=True))

    @property
    def conflicting(self) -> bool | None:
        """Whether some bundle mixes classes: the layer is a conflicting layer. None: diverged."""
        return None if self.diverged else len(self._occurring[0]) > self.num_bundles

    @property
    def fully_conflicting(self) -> bool | None:
        """Whether one bundle holds all samples, of several classes. None: diverged."""
        return None if self.diverged else bool(self.conflicting) and self.num_bundles == 1

    @property
    def _occurring(self) -> Occurring:
        """Bundle, class and number of samples of each combination that occurs, sorted. Counted each
        time: kept, it would take six times as much memory as the rest, in every layer."""
        combination = self.bundle_ids.astype(np.int64) * self.num_classes + self.labels
        combination, count = np.unique(combination, return_counts=True)
        return *np.divmod(combination, self.num_classes), count

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, lists and None, ready for JSON; of each of the "bundles" its
        size, and how many samples it has of each class that occurs in it."""
        bundles = [{"size": int(size), "classes": {}} for size in self.sizes]
        for bundle, label, count in zip(*self._occurring, strict=True):
            bundles[bundle]["classes"][int(label)] = int(count)
        return {
            "num_samples": len(self.labels),
            "num_classes": self.num_classes,
            "num_bundles": self.num_bundles,
            "entropy": self.entropy,
            "largest_entropy": self.largest_entropy,
            "conflict_rate": self.conflict_rate,
            "diverged": self.diverged,
            "conflicting": self.conflicting,
            "fully_conflicting": self.fully_conflicting,
            "conflicting_pairs": [list(pair) for pair in self.conflicting_pairs],
            "equality": dataclasses.asdict(self.equality),
            "bundles": bundles,
            "bundle_ids": self.bundle_ids.tolist(),
        }

    def __repr__(self) -> str:
        return f"<Bundles: {self}>"

    def __str__(self) -> str:
        counts = f"{counted(len(self.labels), 'sample')} in {counted(self.num_bundles, 'bundle')}"
        if self.entropy is None:
            return f"{counts}; diverged: an activation or its update is NaN or infinite"
        kind = "not conflicting"
        if self.conflicting:
            kind = "fully conflicting" if self.fully_conflicting else "conflicting"
            kind += f" ({counted(len(self.conflicting_pairs), 'pair')} of classes)"
        return (
            f"{counts}; H = {self.entropy:.4f} of at most {self.largest_entropy:.4f} nats; {kind}"
        )


def bundle_entropy(
    activations: Float[Numbers, "samples *features"],
    labels: Integer[Numbers, " samples"] | Sequence[int],
    *,
    num_classes: int,
    amplitude: float | None = None,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    equality: str = "weight_amplitude",
    gamma: float = GAMMA,
    resolution: str = "float32",
) -> Bundles:
    """Bundle entropy of one layer (paper, section 2.3, eq. 1-3).

    Args:
        activations: (N, ...) of any float type, one row for each sample; computed with in float32.
        labels: (N,) of any integer type, in [0, num_classes).
        num_classes: at most 2^24.
        amplitude: the largest absolute trainable weight of the whole model; the equality "gamma"
            does without.
        learning_rate, batch_size: those the network is *trained* with; they set what a weight
            update can see (eq. 1).
        equality, gamma, resolution: when two rows are equal, see `Equality`.

    Returns:
        The bundles, their entropy in nats and their conflict rate.

    Raises:
        ValueError: shapes, labels or numbers make no sense.

    >>> import numpy as np
    >>> same = np.ones((4, 3), np.float32)
    >>> result = bundle_entropy(same, [0, 1, 0, 1], num_classes=2, amplitude=0.5)
    >>> print(result)
    4 samples in 1 bundle; H = 0.6931 of at most 0.6931 nats; fully conflicting (1 pair of classes)
    >>> result.conflicting_pairs
    [(0, 1)]
    """
    chosen = Equality(equality, checked_number("gamma", gamma, at_least=0), resolution)
    num_classes = checked_classes(num_classes)
    batch_size = checked_whole("batch_size", batch_size)
    rows, classes = checked_rows(activations, labels, num_classes)
    if equality == "weight_amplitude":
        amplitude = checked_amplitude(amplitude, resolution)
    learning_rate = checked_number("learning_rate", learning_rate, at_least=MIN_NORMAL)
    scale = Scale.of(amplitude or 0.0, learning_rate, batch_size)
    layer = without_collision(
        rows, lambda keys: layer_bundles(rows, classes, scale, keys, chosen, num_classes)
    )
    finite = bool(layer.finite)
    return Bundles(
        entropy=float(layer.entropy) if finite else None,
        diverged=not finite,
        bundle_ids=np.asarray(layer.bundle_ids),
        labels=classes,
        num_classes=num_classes,
        equality=chosen,
    )


@functools.partial(jax.jit, static_argnums=(4, 5))
def layer_bundles(
    activations: Float[Array, "samples *features"],
    labels: Int32[Array, " samples"],
    scale: Scale,
    keys: UInt32[Array, " keys"],
    equality: Equality,
    num_classes: int,
) -> Layer:
    """Bundles of one layer in one compiled program."""
    return partition(signature(activations, scale, keys, equality), labels, num_classes)


def without_collision(
    rows: Float[Numbers, "samples *features"], find: Callable[[UInt32[np.ndarray, " keys"]], Layer]
) -> Layer:
    """What is found of rows with the first keys by which no two different rows look the same.
    Raises CollisionError where there are none."""
    for salt in range(MAX_SALTS):
        found = find(draw_keys(math.prod(rows.shape[1:]), salt))
        if not np.any(found.collided):
            return found
    raise CollisionError()


class CollisionError(RuntimeError):
    """Every salt made two different rows collide. Chance alone hardly ever does that."""

    def __init__(self) -> None:
        super().__init__(f"{MAX_SALTS} independent fingerprints collided; please report this input")


def checked_rows(
    activations: Float[Numbers, "samples *features"],
    labels: Integer[Numbers, " samples"] | Sequence[int],
    num_classes: int,
) -> tuple[Float[Array, "samples *features"], Int32[np.ndarray, " samples"]]:
    if isinstance(activations, jax.core.Tracer) or isinstance(labels, jax.core.Tracer):
        raise ValueError("bundle_entropy is for arrays, outside of jit, vmap and grad")
    if isinstance(activations, (list, tuple)) and activations and np.ndim(activations[0]) > 1:
        raise ValueError("activations must be one array; measure the layers one by one")
    try:
        activations, classes = jnp.asarray(off_explicit_mesh(activations)), np.asarray(labels)
    except (TypeError, ValueError):
        raise ValueError("activations and labels must be arrays of numbers") from None
    if activations.ndim < 1 or activations.size == 0:
        raise ValueError(
            f"activations must be (N, ...) and not empty; they are {activations.shape}"
        )
    if not jnp.issubdtype(activations.dtype, jnp.floating):
        raise ValueError(f"activations must be floating point, not {activations.dtype}")
    if classes.shape != activations.shape[:1]:
        raise ValueError(f"labels must be ({activations.shape[0]},), not {classes.shape}")
    if not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"labels must be integers, not {classes.dtype}")
    if classes.min() < 0 or classes.max() >= num_classes:
        bad = classes[(classes < 0) | (classes >= num_classes)][0]
        raise ValueError(f"label {bad} is outside 0..{num_classes - 1} (num_classes={num_classes})")
    return activations, classes.astype(np.int32)


def checked_amplitude(amplitude: float | None, resolution: str) -> float:
    """The largest weight, which a number of this format can hold. Raises ValueError."""
    if amplitude is None:
        raise ValueError(
            "amplitude is missing: the largest absolute trainable weight of the whole model, "
            "max(abs(leaf).max() for leaf in jax.tree.leaves(params))"
        )
    most = float(jnp.finfo(resolution).max)
    return checked_number("amplitude", amplitude, at_least=0, at_most=most)


def checked_number(
    name: str,
    value: SupportsFloat,
    *,
    at_least: float,
    at_most: float = float(np.finfo(np.float32).max),
) -> float:
    try:
        number = math.nan if isinstance(value, (str, bool)) else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number, not {value!r}") from None
    if not at_least <= number <= at_most:
        raise ValueError(f"{name} must be a number from {at_least:g} to {at_most:g}, not {value!r}")
    return number


def checked_whole(name: str, value: SupportsIndex) -> int:
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, not {value!r}") from None
    if not 1 <= number < 2**31:
        raise ValueError(f"{name} must be at least 1 and below 2^31, not {value!r}")
    return number


def checked_classes(num_classes: SupportsIndex) -> int:
    """The number of classes. Raises ValueError for more than there can be."""
    number = checked_whole("num_classes", num_classes)
    if number > MOST_CLASSES:
        raise ValueError(
            f"num_classes must be at most {MOST_CLASSES:,}, not {number:,}: classes are numbered "
            "from 0 on; np.unique(labels, return_inverse=True)[1] numbers them without gaps"
        )
    return number
