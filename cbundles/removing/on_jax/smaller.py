"""The smaller model as a function of the parameters that are left.

What is left of a program holds for inputs of one shape. For others, another batch size say, the
model is traced again, and loses the same sums.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from cbundles.arrays import Numbers
from cbundles.auditing.jax_subject import ModelFunction, distinct, form_of_batch
from cbundles.observe import Observed, Part, Remainder, ResidualSum, observe
from cbundles.observe.removal import around, row_of


class SmallerModel:
    """``f(params, inputs)``. params: only those that are needed, by their names; of a parameter
    that a scan walked along, and that is not needed as a whole, rows: ``stack/kernel[3]``."""

    def __init__(
        self,
        model: ModelFunction,
        sums: Collection[ResidualSum],
        inputs: PyTree,
        observed: Observed,
    ) -> None:
        leaves, self._tree = jax.tree.flatten(model.variables)
        self._forms = [_form_of(leaf) for leaf in leaves]
        self._names = list(distinct(model.names))
        self._function = model.function
        self._trained = model.trainable.keys()  # leaves; gradients do not reach the others
        self._gone = {one.name for one in sums}
        self._all = [one.name for one in observed.residual_sums]
        self._remainders = {(form_of_batch(inputs), False): observed.without(sums)}
        self.parts = {
            self.name_of(part): part
            for part in self.remainder(inputs).needed
            if part.leaf < len(leaves)
        }
        self.trainable = tuple(n for n, part in self.parts.items() if part.leaf in model.trainable)
        self.sums = tuple(one.name for one in sums)

    def __call__(self, params: Mapping[str, Numbers], inputs: PyTree) -> PyTree:
        missing = self.parts.keys() - params.keys()
        if missing:
            raise ValueError(f"params: {min(missing)} is missing")
        of_inputs = jax.tree.leaves(inputs)

        def value_of(part: Part) -> Numbers:
            if part.leaf < len(self._forms):
                value = params[self.name_of(part)]
                return value if part.leaf in self._trained else jax.lax.stop_gradient(value)
            return row_of(of_inputs[part.leaf - len(self._forms)], part.place)

        return self.remainder(inputs).run(value_of)

    def remainder(self, inputs: PyTree, *, unrolled: bool = False) -> Remainder:
        """What is left of the model for inputs of this form; see `Observed.without`."""
        key = form_of_batch(inputs), unrolled
        if key not in self._remainders:
            forms = jax.tree.map(_form_of, inputs)
            variables = jax.tree.unflatten(self._tree, self._forms)
            observed = observe(self._function, variables, forms)
            if [one.name for one in observed.residual_sums] != self._all:
                raise ValueError("inputs: the model has other residual sums for this shape")
            gone = [one for one in observed.residual_sums if one.name in self._gone]
            self._remainders[key] = observed.without(gone, unrolled=unrolled)
        return self._remainders[key]

    def gone(self, whole: Remainder) -> list[str]:
        """The parameters, or rows of them, of the whole model that are not needed any more. whole:
        the program of it, unrolled, so that every row is one by itself."""
        kept = set(self.parts.values())
        return [
            self.name_of(part)
            for part in whole.needed
            if part.leaf < len(self._names) and kept.isdisjoint([part, *around(part)])
        ]

    def name_of(self, part: Part) -> str:
        """The name of a parameter, or of a row of it."""
        row = f"[{', '.join(map(str, part.place))}]" if part.place else ""
        return self._names[part.leaf] + row


def parameters_of(model: ModelFunction, parts: Mapping[str, Part]) -> dict[str, Array]:
    """The values of these parts of a model's variables."""
    leaves = jax.tree.leaves(model.variables)
    return {name: row_of(jnp.asarray(leaves[p.leaf]), p.place) for name, p in parts.items()}


def _form_of(leaf: Numbers) -> jax.ShapeDtypeStruct:
    aval = jax.typeof(leaf)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)
