"""What an audit needs of a model: its parameters, its sites, and ways to run it.

For models that JAX traces this is `jax_subject`. A model of another library takes part if something
offers the same; it may run as it pleases, and hand over its activations as arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, PyTree

from cbundles.arrays import Numbers
from cbundles.observe.layers import Sites

# reducer(name of the site, value (batch, ...), arguments) -> arrays. A pure function of JAX, which
# may be traced and compiled, or called as it is with an array that JAX can read. Where values are
# seen beside others (see `Subject.reduce`), the other one is a fourth argument.
Reducer = Callable[..., PyTree]
# slope_reducer(values, gradients) -> arrays: the same of the values (*repeats, batch,
# ...) of several sites, by their names, and of the gradients of the loss by them.
SlopeReducer = Callable[[Mapping[str, Numbers], Mapping[str, Numbers]], PyTree]
# scores(output of the model) -> class scores (batch, ..., classes), an array of the model's own
# library. Raises ValueError.
Scores = Callable[[PyTree], Any]
# Which branches are kept, by the names of their sites; of one that repeats, each repetition.
Kept = Mapping[str, Bool[np.ndarray, "*repeats"]]


NOTHING_BESIDE: Mapping[str, str] = MappingProxyType({})


class MadeWith(NamedTuple):
    """A parameter of the layer that makes the value of a site.

    scans: see `cbundles.observe.consumers.Maker`.
    """

    parameter: str
    scans: tuple[int, ...] = ()


class NoGradient(ValueError):
    """Why there is no gradient of a loss, in a few words."""


class Subject(Protocol):
    """A model that is audited. Nothing here changes it, its state or its mode."""

    @property
    def traces(self) -> Any:
        """What was traced, compiled or recorded of the model so far, without any of its numbers."""

    def take_traces(self, traces: Any) -> bool:
        """Spare the work that an earlier subject of the same model has done: take its `traces`.
        Returns whether they fit; the model may have got another form since."""

    @property
    def sees_64_bits(self) -> bool:
        """Whether inputs of 64 bits reach the model as they are."""

    @property
    def parameters(self) -> Mapping[str, Numbers]:
        """The trainable parameters by their names, ``layer/weight``; empty if they are unknown."""

    def sites(self, batch: PyTree) -> Sites:
        """The sites for batches of this form. Raises ValueError, in a sentence, where the model
        cannot be called with it."""

    def makers(self, batch: PyTree, sites: Sequence[str]) -> Mapping[str, tuple[MadeWith, ...]]:
        """For each of these sites the parameters with which its value is made from those of the
        others before it."""

    def reduce(
        self,
        batch: PyTree,
        sites: Sequence[str],
        reducer: Reducer,
        arguments: PyTree,
        beside: Mapping[str, str] = NOTHING_BESIDE,
    ) -> dict[str, PyTree]:
        """Run the model on a batch and return what the reducer makes of the values of these sites,
        by name; where a site repeats, with leading axes `Site.repeats`. No value outlives this.
        beside: for some of them another site, made before in the same repetition, whose value the
        reducer is given too."""

    def answers(
        self, batch: PyTree, kept: Kept, scores: Scores, statistics: PyTree | None = None
    ) -> Int32[np.ndarray, "batch ..."]:
        """The classes with the largest scores when some branches are left out: their values are
        zero. statistics: of `statistics`, instead of the model's own."""

    @property
    def no_statistics(self) -> str | None:
        """Why statistics of batch normalisation cannot be taken anew; None: they can."""

    def statistics(self, batch: PyTree, kept: Kept) -> PyTree:
        """The statistics of this batch where the model normalises by running ones, while some
        branches are left out, as arrays of which means can be taken."""

    def slopes(
        self,
        batch: PyTree,
        labels: Int[np.ndarray, "batch ..."],
        weights: Float32[np.ndarray, " batch"],
        scores: Scores,
        sites: Sequence[str] = (),
        reducer: SlopeReducer | None = None,
    ) -> tuple[PyTree, dict[str, Numbers]]:
        """What the reducer makes of the values of these sites and the gradients by them, and the
        gradients by the trainable parameters that are known. The loss is the sum of the
        cross-entropies, each sample's times its weight; a gradient that does not exist is zero.
        Raises NoGradient where the model has no such loss, or it cannot be differentiated."""


def cannot_be_called(batch: PyTree, error: Exception) -> ValueError:
    """What to raise where a model raises this for a batch."""
    given = ", ".join(f"{leaf.dtype.name}{list(leaf.shape)}" for leaf in jax.tree.leaves(batch))
    return ValueError(f"the model cannot be called with a batch of {given}: {_in_words(error)}")


def cannot_be_normalised(error: Exception) -> ValueError:
    """What to raise where a model raises this when statistics are taken anew."""
    return ValueError(
        f"the model cannot be normalised by the statistics of a batch: {_in_words(error)}"
    )


def not_differentiable(error: Exception) -> NoGradient:
    """What to raise where a library raises this for a gradient."""
    return NoGradient(f"the loss has no gradient: {_in_words(error)}")


def _in_words(error: Exception) -> str:
    reason = " ".join(str(error).split("\n\n")[0].split())
    return f"{type(error).__name__}: {reason}"
