"""Models that JAX traces, observed: of each batch one compiled program leaves the reductions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from jaxtyping import PyTree

from cbundles.arrays import Numbers
from cbundles.auditing.subject import Reducer, Sites
from cbundles.observe import Observed, Selector, observe


@dataclass(frozen=True)
class ModelFunction:
    """A model of any library as a function of arrays.

    function: (variables, batch) -> output.
    variables: all numbers of the model that are arguments.
    trainable: which leaves of the variables are trainable parameters: their names by their numbers.
    constants: trainable parameters that are inside the function instead, by their names.
    """

    function: Callable[[PyTree, PyTree], PyTree]
    variables: PyTree
    trainable: Mapping[int, str]
    constants: Mapping[str, Numbers] = field(default_factory=dict)


class JaxSubject:
    """A `subject.Subject`: a model that JAX traces."""

    def __init__(self, model: ModelFunction) -> None:
        self.model = model
        self._observed: dict[Hashable, Observed] = {}
        self._programs: dict[Hashable, Callable[..., Any]] = {}

    @property
    def parameters(self) -> Mapping[str, Numbers]:
        leaves = jax.tree.leaves(self.model.variables)
        named = {name: leaves[number] for number, name in self.model.trainable.items()}
        return named | dict(self.model.constants)

    def sites(self, batch: PyTree) -> Sites:
        observed = self._observe(batch)
        readers = None
        if self.model.trainable:
            first = len(jax.tree.leaves(self.model.variables))
            data = range(first, first + len(jax.tree.leaves(batch)))
            found = observed.consumers(self.model.trainable.keys(), data)
            readers = {
                site: tuple(self.model.trainable[leaf] for leaf in sorted(leaves))
                for site, leaves in found.items()
            }
        return Sites(observed.sites, observed.skipped, readers)

    def reduce(
        self, batch: PyTree, sites: Sequence[str], reducer: Reducer, arguments: PyTree
    ) -> dict[str, PyTree]:
        key = _form(batch), tuple(sites), reducer
        if key not in self._programs:
            observed = self._observe(batch)

            def program(variables: PyTree, batch: PyTree, arguments: PyTree) -> dict[str, PyTree]:
                def reader(site: str) -> Callable[[Numbers], PyTree]:
                    return lambda value: reducer(site, value, arguments)

                read: dict[Selector | Sequence[Selector], Callable[..., PyTree]]
                read = {site: reader(site) for site in sites}
                # The output is not returned, so what only it needs is not computed.
                return observed.run(variables, batch, read=read)[1]

            self._programs[key] = jax.jit(program)
        return self._programs[key](self.model.variables, batch, arguments)

    def _observe(self, batch: PyTree) -> Observed:
        form = _form(batch)
        if form not in self._observed:
            try:
                self._observed[form] = observe(self.model.function, self.model.variables, batch)
            except Exception as error:  # whatever a model raises
                given = ", ".join(map(str, jax.tree.leaves(jax.tree.map(_described, batch))))
                reason = " ".join(str(error).split("\n\n")[0].split())
                raise ValueError(
                    f"the model cannot be called with a batch of {given}: "
                    f"{type(error).__name__}: {reason}"
                ) from error
        return self._observed[form]


def _form(batch: PyTree) -> Hashable:
    """What a program is compiled for."""
    leaves, tree = jax.tree.flatten(batch)
    return tree, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)


def _described(leaf: Numbers) -> str:
    """``float32[256, 28, 28, 1]``."""
    return f"{leaf.dtype.name}{list(leaf.shape)}"


def named_leaves(tree: PyTree, **how: Any) -> list[tuple[str, Any]]:
    """The leaves of a tree, and their names: the path, joined by "/"."""
    name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    leaves = jax.tree_util.tree_leaves_with_path(tree, **how)
    return [(name(path), leaf) for path, leaf in leaves]
