"""What is left of a model on JAX, as a user gets it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Bool, PyTree

from cbundles.auditing.anew import statistics_anew
from cbundles.auditing.jax_subject import JaxSubject
from cbundles.observe import Observed, ResidualSum
from cbundles.removing.choosing import Blocks, chosen_sums
from cbundles.removing.given import Given
from cbundles.removing.on_jax.costs import compare
from cbundles.removing.on_jax.exporting import write_stablehlo
from cbundles.removing.on_jax.smaller import SmallerModel, parameters_of
from cbundles.removing.removed import Exported
from cbundles.removing.report import Report
from cbundles.wording import counted


@dataclass(frozen=True, eq=False, repr=False)
class JaxRemoved:
    """A `Removed` on JAX. inputs: shapes and dtypes of the inputs that it was made with."""

    model: SmallerModel
    params: dict[str, Array]
    trainable: tuple[str, ...]
    report: Report
    inputs: PyTree

    @property
    def blocks(self) -> tuple[str, ...]:
        return self.report.blocks

    def __call__(self, inputs: PyTree) -> PyTree:
        return self._program(self.params, inputs)

    @functools.cached_property
    def _program(self) -> Callable[[PyTree, PyTree], PyTree]:
        return jax.jit(self.model)

    def export(self, path: str | Path) -> Exported:
        """Write StableHLO, with the parameters in it: ``jax.export.deserialize(content)`` is a
        model whose ``call(inputs)`` gives the same up to rounding."""
        return write_stablehlo(self.model, self.params, self.inputs, path)

    def __repr__(self) -> str:
        return f"<Removed: {counted(len(self.blocks), 'block')}, {len(self.params)} arrays left>"

    def __str__(self) -> str:
        return str(self.report)


def remove_on_jax(subject: JaxSubject, blocks: Blocks, given: Given) -> JaxRemoved:
    """A model without some branches; see `cbundles.remove`."""
    whole, batch = subject.model, given.inputs.first
    observed = subject.observed(batch)
    sums = chosen_sums(observed, blocks)
    smaller = SmallerModel(whole, sums, batch, observed)
    kept = parameters_of(whole, smaller.parts)
    renewed = None
    if given.for_statistics is not None:
        anew = statistics_anew(subject, given.for_statistics, _kept_without(sums, observed))
        variables = subject.variables_with(anew)
        renewed = parameters_of(replace(whole, variables=variables), smaller.parts)
    return JaxRemoved(
        model=smaller,
        params=kept if renewed is None else renewed,
        trainable=smaller.trainable,
        report=compare(whole, observed, smaller, kept, renewed, given),
        inputs=jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch),
    )


def _kept_without(
    sums: Collection[ResidualSum], observed: Observed
) -> dict[str, Bool[np.ndarray, "*repeats"]]:
    """Which branches are left, by the names of their sites."""
    repeats = {site.name: site.repeats for site in observed.sites}
    kept = {name: np.ones(repeats[name], bool) for name in observed.branches.values()}
    for one in sums:
        kept[one.branch_site][one.place] = False
    return kept
