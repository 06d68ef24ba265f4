"""Models that JAX traces, observed: of each batch one compiled program leaves the reductions."""

from __future__ import annotations

import collections
import contextlib
import functools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float32, Int, Int32, PyTree

from cbundles.arrays import Numbers
from cbundles.auditing import loss
from cbundles.auditing.output import NoScores, UnknownOutput
from cbundles.auditing.subject import (
    NOTHING_BESIDE,
    Kept,
    MadeWith,
    Reducer,
    Scores,
    SlopeReducer,
    cannot_be_called,
    cannot_be_normalised,
    not_differentiable,
)
from cbundles.observe import Observed, Selector, observe
from cbundles.observe.layers import Sites, batch_axes, sites_of_model

NO_NORMALISATION = "the model has no batch normalisation"
UNKNOWN_STATISTICS = "a function does not say which numbers are statistics"


class RunningStatistics(NamedTuple):
    """The statistics of a model that normalises by running ones.

    of_batch: (variables, batch) -> the statistics of the batch.
    put: (variables, statistics) -> variables with these.
    """

    of_batch: Callable[[PyTree, PyTree], PyTree]
    put: Callable[[PyTree, PyTree], PyTree]


@dataclass(frozen=True)
class ModelFunction:
    """A model of any library as a function of arrays.

    function: (variables, batch) -> output.
    variables: all numbers of the model that are arguments.
    names: of all leaves of the variables.
    trainable: which leaves of the variables are trainable parameters: their names by their numbers.
    constants: trainable parameters that are inside the function instead, by their names.
    statistics: how those of batch normalisation are taken anew; or why they cannot be.
    static: what else the function was made of: only compared, since it is part of what is traced.
    """

    function: Callable[[PyTree, PyTree], PyTree]
    variables: PyTree
    names: Sequence[str]
    trainable: Mapping[int, str]
    constants: Mapping[str, Numbers] = field(default_factory=dict)
    statistics: RunningStatistics | str = UNKNOWN_STATISTICS
    static: Any = None


class JaxTraces(NamedTuple):
    """What was traced and compiled of a model. The numbers of the model are arguments of it.

    form: of the model's numbers, and what else it was made of.
    """

    form: Hashable
    observed: dict[Hashable, Observed]
    axes: dict[Hashable, dict[str, int]]
    programs: dict[Hashable, Callable[..., Any]]


class JaxSubject:
    """A `subject.Subject`: a model that JAX traces."""

    def __init__(self, model: ModelFunction) -> None:
        self.model = model
        self._observed: dict[Hashable, Observed] = {}
        self._axes: dict[Hashable, dict[str, int]] = {}
        self._programs: dict[Hashable, Callable[..., Any]] = {}

    @property
    def traces(self) -> JaxTraces:
        return JaxTraces(self._form_of_model, self._observed, self._axes, self._programs)

    def take_traces(self, traces: Any) -> bool:
        if not isinstance(traces, JaxTraces) or traces.form != self._form_of_model:
            return False
        _, self._observed, self._axes, self._programs = traces
        return True

    @property
    def sees_64_bits(self) -> bool:
        return bool(jax.config.read("jax_enable_x64"))

    @functools.cached_property
    def _form_of_model(self) -> Hashable:
        leaves, tree = jax.tree.flatten(self.model.variables)
        types = [jax.typeof(leaf) for leaf in leaves]
        shapes = tuple((one.shape, one.dtype) for one in types)
        return tree, shapes, tuple(self.model.trainable.items()), self.model.static

    @property
    def parameters(self) -> Mapping[str, Numbers]:
        leaves = jax.tree.leaves(self.model.variables)
        named = {name: leaves[number] for number, name in self.model.trainable.items()}
        return named | dict(self.model.constants)

    def sites(self, batch: PyTree) -> Sites:
        first = len(jax.tree.leaves(self.model.variables))
        data = range(first, first + len(jax.tree.leaves(batch)))
        axes = self._batch_axes(batch)
        return sites_of_model(self.observed(batch), axes, self.model.trainable, data)

    def reduce(
        self,
        batch: PyTree,
        sites: Sequence[str],
        reducer: Reducer,
        arguments: PyTree,
        beside: Mapping[str, str] = NOTHING_BESIDE,
    ) -> dict[str, PyTree]:
        key = form_of_batch(batch), tuple(sites), reducer, tuple(beside.items())
        if key not in self._programs:
            observed, axes = self.observed(batch), self._batch_axes(batch)

            def program(variables: PyTree, batch: PyTree, arguments: PyTree) -> dict[str, PyTree]:
                def reader(*group: str) -> Callable[..., PyTree]:
                    def read(*values: Numbers) -> PyTree:
                        *others, own = (
                            jnp.moveaxis(value, axes[site], 0)
                            for site, value in zip(group, values, strict=True)
                        )
                        return reducer(group[-1], own, arguments, *others)

                    return read

                read: dict[Selector | Sequence[Selector], Callable[..., PyTree]] = {}
                for site in sites:
                    if site in beside:
                        read[beside[site], site] = reader(beside[site], site)
                    else:
                        read[site] = reader(site)
                # The output is not returned, so what only it needs is not computed.
                return observed.run(variables, batch, read=read)[1]

            self._programs[key] = jax.jit(program)
        return self._programs[key](self.model.variables, batch, arguments)

    def makers(self, batch: PyTree, sites: Sequence[str]) -> Mapping[str, tuple[MadeWith, ...]]:
        found = self.observed(batch).makers(sites, self.model.trainable.keys())
        return {
            site: tuple(MadeWith(self.model.trainable[one.number], one.scans) for one in sorted(by))
            for site, by in found.items()
        }

    @property
    def no_statistics(self) -> str | None:
        known = self.model.statistics
        return known if isinstance(known, str) else None

    def answers(
        self, batch: PyTree, kept: Kept, scores: Scores, statistics: PyTree | None = None
    ) -> Int32[np.ndarray, "batch ..."]:
        key = "answers", form_of_batch(batch), scores
        if key not in self._programs:
            observed = self.observed(batch)

            def program(
                variables: PyTree, batch: PyTree, kept: Mapping[str, Bool[Array, "*repeats"]]
            ) -> Int32[Array, "batch ..."]:
                output, _ = observed.run(variables, batch, keep=_by_selector(kept))
                return jnp.argmax(scores(output), axis=-1)

            self._programs[key] = jax.jit(program)
        variables = self.model.variables
        if statistics is not None:
            variables = self.variables_with(statistics)
        return np.asarray(self._programs[key](variables, batch, dict(kept)), np.int32)

    def statistics(self, batch: PyTree, kept: Kept) -> PyTree:
        key = "statistics", form_of_batch(batch)
        if key not in self._programs:
            of_batch = self._running_statistics.of_batch
            try:
                observed = observe(of_batch, self.model.variables, batch)
            except ValueError:
                raise
            except Exception as error:  # whatever a model raises
                raise cannot_be_normalised(error) from error

            def program(
                variables: PyTree, batch: PyTree, kept: Mapping[str, Bool[Array, "*repeats"]]
            ) -> PyTree:
                return observed.run(variables, batch, keep=_by_selector(kept))[0]

            self._programs[key] = jax.jit(program)
        return self._programs[key](self.model.variables, batch, dict(kept))

    def variables_with(self, statistics: PyTree) -> PyTree:
        """The variables of the model, with other statistics."""
        return self._running_statistics.put(self.model.variables, statistics)

    @property
    def _running_statistics(self) -> RunningStatistics:
        known = self.model.statistics
        assert not isinstance(known, str)  # see `no_statistics`
        return known

    def slopes(
        self,
        batch: PyTree,
        labels: Int[np.ndarray, "batch ..."],
        weights: Float32[np.ndarray, " batch"],
        scores: Scores,
        sites: Sequence[str] = (),
        reducer: SlopeReducer | None = None,
    ) -> tuple[PyTree, dict[str, Numbers]]:
        key = "slopes", form_of_batch(batch), tuple(sites), scores, reducer
        if key not in self._programs:
            self._programs[key] = jax.jit(self._slopes_program(batch, sites, scores, reducer))
        try:
            trained, reduced = self._programs[key](self.model.variables, batch, labels, weights)
        except (NoScores, UnknownOutput):
            raise
        except Exception as error:  # whatever JAX or a model raises
            raise not_differentiable(error) from error
        return reduced, dict(zip(self.model.trainable.values(), trained, strict=True))

    def _slopes_program(
        self, batch: PyTree, sites: Sequence[str], scores: Scores, reducer: SlopeReducer | None
    ) -> Callable[..., tuple[list[Array], PyTree]]:
        observed, axes = self.observed(batch), self._batch_axes(batch)
        repeats = {site.name: len(site.repeats) for site in observed.sites}
        numbers = list(self.model.trainable)

        def batch_first(of_sites: Mapping[str, Array]) -> dict[str, Array]:
            return {
                site: jnp.moveaxis(value, repeats[site] + axes[site], repeats[site])
                for site, value in of_sites.items()
            }

        def program(
            variables: PyTree,
            batch: PyTree,
            labels: Int[Array, "batch ..."],
            weights: Float32[Array, " batch"],
        ) -> tuple[list[Array], PyTree]:
            leaves, tree = jax.tree.flatten(variables)
            zeros: dict[Selector, Array] = {}
            read: dict[Selector | Sequence[Selector], Callable[..., PyTree]] = {}
            for site in sites:
                zeros.update(observed.zeros(site).items())
                read[site] = lambda value: value

            def summed_loss(
                trained: list[Array], zeros: dict[Selector, Array]
            ) -> tuple[Float32[Array, ""], dict[str, Array]]:
                filled = list(leaves)
                for number, leaf in zip(numbers, trained, strict=True):
                    filled[number] = leaf
                output, values = observed.run(
                    jax.tree.unflatten(tree, filled), batch, perturb=zeros, read=read
                )
                logits = _logits(scores(output).astype(jnp.float32))
                each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
                return (each.reshape(len(labels), -1).sum(1) * weights).sum(), values

            trained = [leaves[number] for number in numbers]
            slopes, values = jax.grad(summed_loss, (0, 1), has_aux=True)(trained, zeros)
            if reducer is None:
                return slopes[0], None
            return slopes[0], reducer(batch_first(values), batch_first(slopes[1]))

        return program

    def _batch_axes(self, batch: PyTree) -> dict[str, int]:
        """Of each site, see `batch_axes`."""
        form = form_of_batch(batch)
        if form not in self._axes:
            larger = None
            # A model may be made for batches of one size.
            with contextlib.suppress(ValueError):
                larger = self.observed(jax.tree.map(_one_sample_more, batch))
            self._axes[form] = batch_axes(self.observed(batch), larger)
        return self._axes[form]

    def observed(self, batch: PyTree) -> Observed:
        """The model, traced for batches of this form. Raises ValueError where that fails."""
        form = form_of_batch(batch)
        if form not in self._observed:
            try:
                self._observed[form] = observe(self.model.function, self.model.variables, batch)
            except Exception as error:  # whatever a model raises
                raise cannot_be_called(batch, error) from error
        return self._observed[form]


def _logits(scores: Float32[Array, "batch ..."]) -> Float32[Array, "batch ..."]:
    logarithms = jnp.log(jnp.maximum(scores, loss.SMALLEST))
    return jnp.where(loss.are_probabilities(scores), logarithms, scores)


def _by_selector(kept: Mapping[str, Bool[Array, "*repeats"]]) -> dict[Selector, Array]:
    return dict(kept.items())


def _one_sample_more(leaf: Numbers) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((leaf.shape[0] + 1, *leaf.shape[1:]), leaf.dtype)


def form_of_batch(batch: PyTree) -> Hashable:
    """What a program is compiled for."""
    leaves, tree = jax.tree.flatten(batch)
    return tree, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)


def named_leaves(tree: PyTree, **how: Any) -> list[tuple[str, Any]]:
    """The leaves of a tree, and their names: the path, joined by "/"."""
    name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    leaves = jax.tree_util.tree_leaves_with_path(tree, **how)
    return [(name(path), leaf) for path, leaf in leaves]


def distinct(names: Iterable[str]) -> Iterable[str]:
    """Names with #2, #3, ... where several are the same."""
    used: collections.Counter[str] = collections.Counter()
    for name in names:
        used[name] += 1
        yield name if used[name] == 1 else f"{name}#{used[name]}"
