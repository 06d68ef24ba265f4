"""What an audit needs of a model: its parameters, its sites, and a way to reduce their values.

For models that JAX traces this is `jax_subject`. A model of another library takes part if something
offers these three; it may run as it pleases, and hand over its activations as arrays. Lesions and
insertions ask for more (`Operable`), which a library may or may not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, PyTree

from cbundles.arrays import Numbers
from cbundles.observe import Site, Skipped

# reducer(name of the site, value (batch, ...), arguments) -> arrays. A pure function of JAX, which
# may be traced and compiled, or called as it is with an array that JAX can read.
Reducer = Callable[[str, Numbers, PyTree], PyTree]
# slope_reducer(values, gradients, arguments) -> arrays: the same of the values (*repeats, batch,
# ...) of several sites, by their names, and of the gradients of the loss by them.
SlopeReducer = Callable[[Mapping[str, Numbers], Mapping[str, Numbers], PyTree], PyTree]
# scores(output of the model) -> class scores (batch, ..., classes), an array of the model's own
# library. Raises ValueError.
Scores = Callable[[PyTree], Any]
# Which branches are kept, by the names of their sites; of one that repeats, each repetition.
Kept = Mapping[str, Bool[np.ndarray, "*repeats"]]


class Sites(NamedTuple):
    """What there is to see in a model that is given batches of one form.

    found: in the order in which their values are made.
    skipped: what is not seen, each with its reason.
    readers: for each site the names of the parameters of the layers that read its value; None where
        that cannot be known.
    sums: of each branch the sum that it goes into, by the names of their sites.
    channels_first: whether the features of an image come before its pixels.
    """

    found: tuple[Site, ...]
    skipped: tuple[Skipped, ...]
    readers: Mapping[str, tuple[str, ...]] | None
    sums: Mapping[str, str]
    channels_first: bool


class Subject(Protocol):
    """A model that is audited. Nothing here changes it, its state or its mode."""

    @property
    def parameters(self) -> Mapping[str, Numbers]:
        """The trainable parameters by their names, ``layer/weight``; empty if they are unknown."""

    def sites(self, batch: PyTree) -> Sites:
        """The sites for batches of this form. Raises ValueError, in a sentence, where the model
        cannot be called with it."""

    def reduce(
        self, batch: PyTree, sites: Sequence[str], reducer: Reducer, arguments: PyTree
    ) -> dict[str, PyTree]:
        """Run the model on a batch and return what the reducer makes of the values of these sites,
        by name; where a site repeats, with leading axes `Site.repeats`. No value outlives this."""


@runtime_checkable
class Operable(Protocol):
    """What else a `Subject` can do that may be operated on. Nothing here changes it, either."""

    @property
    def no_statistics(self) -> str | None:
        """Why statistics of batch normalisation cannot be taken anew; None: they can."""

    def answers(
        self, batch: PyTree, kept: Kept, scores: Scores, statistics: PyTree | None = None
    ) -> Int32[np.ndarray, "batch ..."]:
        """The classes with the largest scores when some branches are left out: their values are
        zero. statistics: of `statistics`, instead of the model's own."""

    def statistics(self, batch: PyTree, kept: Kept) -> PyTree:
        """The statistics of this batch where the model normalises by running ones, while some
        branches are left out, as arrays of which means can be taken."""

    def slopes(
        self,
        batch: PyTree,
        labels: Int[np.ndarray, "batch ..."],
        weights: Float32[np.ndarray, " batch"],
        sites: Sequence[str],
        scores: Scores,
        reducer: SlopeReducer,
        arguments: PyTree,
    ) -> tuple[PyTree, dict[str, Numbers]]:
        """What the reducer makes of values and gradients, and the gradients by the trainable
        parameters that are known. The loss is the sum of the cross-entropies, each sample's times
        its weight; a gradient that does not exist is zero."""


def cannot_be_called(batch: PyTree, error: Exception) -> ValueError:
    """What to raise where a model raises this for a batch."""
    given = ", ".join(f"{leaf.dtype.name}{list(leaf.shape)}" for leaf in jax.tree.leaves(batch))
    reason = " ".join(str(error).split("\n\n")[0].split())
    return ValueError(
        f"the model cannot be called with a batch of {given}: {type(error).__name__}: {reason}"
    )
