"""What an audit needs of a model: its parameters, its sites, and a way to reduce their values.

For models that JAX traces this is `jax_subject`. A model of another library takes part if something
offers these three; it may run as it pleases, and hand over its activations as arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import jax
from jaxtyping import PyTree

from cbundles.arrays import Numbers
from cbundles.observe import Site, Skipped

# reducer(name of the site, value (batch, ...), arguments) -> arrays. A pure function of JAX, which
# may be traced and compiled, or called as it is with an array that JAX can read.
Reducer = Callable[[str, Numbers, PyTree], PyTree]


class Sites(NamedTuple):
    """What there is to see in a model that is given batches of one form.

    found: in the order in which their values are made.
    skipped: what is not seen, each with its reason.
    readers: for each site the names of the parameters of the layers that read its value; None where
        that cannot be known.
    """

    found: tuple[Site, ...]
    skipped: tuple[Skipped, ...]
    readers: Mapping[str, tuple[str, ...]] | None


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


def cannot_be_called(batch: PyTree, error: Exception) -> ValueError:
    """What to raise where a model raises this for a batch."""
    given = ", ".join(f"{leaf.dtype.name}{list(leaf.shape)}" for leaf in jax.tree.leaves(batch))
    reason = " ".join(str(error).split("\n\n")[0].split())
    return ValueError(
        f"the model cannot be called with a batch of {given}: {type(error).__name__}: {reason}"
    )
