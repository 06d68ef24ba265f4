"""Modules of PyTorch, observed: they run as they are, and each value is reduced as it is made."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from jaxtyping import Float32, Int, Int32, PyTree
from torch.nn.parameter import is_lazy

from cbundles.arrays import Numbers
from cbundles.auditing import loss
from cbundles.auditing.batches import length_of
from cbundles.auditing.models.functions import Call
from cbundles.auditing.models.pytorch import calls, words
from cbundles.auditing.models.pytorch.calls import (
    Following,
    OtherCalls,
    Place,
    Recording,
    TorchProgram,
)
from cbundles.auditing.models.pytorch.statistics import (
    collecting,
    normalisations,
    with_statistics,
)
from cbundles.auditing.models.pytorch.undisturbed import differentiable, undisturbed
from cbundles.auditing.subject import (
    NOTHING_BESIDE,
    Kept,
    MadeWith,
    Reducer,
    Scores,
    SlopeReducer,
    cannot_be_called,
    not_differentiable,
)
from cbundles.auditing.tensors import as_array, as_tensor
from cbundles.observe import Skipped, consumers
from cbundles.observe.layers import Sites, first_difference
from cbundles.observe.outputs import sites_of_output
from cbundles.observe.sites import find

FEW, ONE_MORE = 2, 3  # samples: what differs between them is the axis of the samples
SCRIPTED = "inside a scripted module, which runs outside of Python"


class _Home(NamedTuple):
    """Where to see the value of a site, and which of its axes is that of the samples."""

    place: Place
    axis: int


class TorchTraces(NamedTuple):
    """What was recorded of a module, and where its sites are.

    trained: the names and shapes of its trainable parameters.
    """

    trained: Mapping[str, tuple[int, ...]]
    program: TorchProgram | None
    numbers: dict[str, int]
    homes: dict[str, _Home]


class TorchSubject:
    """A `subject.Subject`: a module of PyTorch.

    trained: the names of its trainable parameters, as `named_parameters` has them.
    """

    def __init__(
        self, model: torch.nn.Module, call: Call | None, trained: Collection[str], by_batch: bool
    ) -> None:
        named = named_parameters(model)
        self.model = model
        self.call = call
        self.by_batch = by_batch
        self.trained = {name: named[name] for name in named if name in trained}
        self.device = next(iter(named.values())).device if named else torch.device("cpu")
        self._program: TorchProgram | None = None
        self._numbers: dict[str, int] = {}  # of the values of sites in that program
        self._homes: dict[str, _Home] = {}

    @property
    def traces(self) -> TorchTraces:
        return TorchTraces(self._shapes, self._program, self._numbers, self._homes)

    def take_traces(self, traces: Any) -> bool:
        if not isinstance(traces, TorchTraces) or traces.trained != self._shapes:
            return False
        _, self._program, self._numbers, self._homes = traces
        return True

    @property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(parameter.shape) for name, parameter in self.trained.items()}

    @property
    def sees_64_bits(self) -> bool:
        return True

    @property
    def parameters(self) -> Mapping[str, Numbers]:
        return {name: as_array(parameter) for name, parameter in self.trained.items()}

    def program(self, batch: PyTree) -> TorchProgram:
        """What the model calls for a batch; `sites` names what is in it."""
        return self._recorded_twice(batch)[0]

    def sites(self, batch: PyTree) -> Sites:
        program, larger = self._recorded_twice(batch)
        found = find(program)
        seen, constant = [], set()
        for site in found.sites:
            place = program.places[found.numbers[site.name]]
            if larger is not program and larger.shape_at(place) == site.shape:
                constant.add(site.name)
            shape, axis = _of_a_batch(site.shape, larger.shape_at(place), length_of(batch))
            seen.append(dataclasses.replace(site, shape=shape))
            self._homes[site.name] = _Home(place, axis)
        self._program, self._numbers = program, found.numbers
        readers = None
        if self.trained:
            parameters = range(len(self.trained))
            data = range(len(self.trained), len(program.inputs))
            reading = consumers.consumers(program, found.numbers, parameters, data)
            names = list(self.trained)
            readers = {
                site: tuple(names[number] for number in sorted(numbers))
                for site, numbers in reading.items()
            }
        skipped = (*_scripted(self.model), *_composite(program))
        return Sites(
            tuple(seen),
            skipped,
            readers,
            found.branch_names(),
            channels_first=True,
            constant=frozenset(constant),
            of_output=sites_of_output(program, found.numbers),
        )

    def reduce(
        self,
        batch: PyTree,
        sites: Sequence[str],
        reducer: Reducer,
        arguments: PyTree,
        beside: Mapping[str, str] = NOTHING_BESIDE,
    ) -> dict[str, PyTree]:
        reduced: dict[str, PyTree] = {}
        kept: dict[str, np.ndarray] = {}  # values that are seen beside later ones

        def array_of(site: str, value: torch.Tensor) -> np.ndarray:
            return as_array(value.movedim(self._homes[site].axis, 0).float())

        def reader(site: str) -> Callable[[torch.Tensor], None]:
            def read(value: torch.Tensor) -> None:
                others = [kept.pop(site)] if site in beside else []
                made = reducer(site, array_of(site, value), arguments, *others)
                # As arrays of NumPy, which are there only once all is computed: what the model
                # calls next may overwrite the value.
                reduced[site] = jax.tree.map(np.asarray, made)

            return read

        def keeper(site: str) -> Callable[[torch.Tensor], None]:
            def keep(value: torch.Tensor) -> None:
                kept[site] = array_of(beside[site], value).copy()

            return keep

        readers = defaultdict(list)
        for site in sites:
            readers[self._homes[site].place].append(reader(site))
            if site in beside:
                readers[self._homes[beside[site]].place].append(keeper(site))
        assert self._program is not None
        following = Following(self._program.steps, readers)
        self._call(batch, lambda _: following)
        following.end()
        return reduced

    def makers(self, batch: PyTree, sites: Sequence[str]) -> Mapping[str, tuple[MadeWith, ...]]:
        assert self._program is not None
        names = list(self.trained)
        numbers = {site: self._numbers[site] for site in sites}
        found = consumers.makers(self._program, numbers, range(len(names)))
        relatives = _with_relatives(self._program, names)
        made_with = {}
        for site, by in found.items():
            shown = (relatives[names[one.number]] for one in by)
            made_with[site] = tuple(map(MadeWith, sorted(set().union(*shown))))
        return made_with

    @property
    def no_statistics(self) -> str | None:
        return None if normalisations(self.model) else "the model has no batch normalisation"

    def answers(
        self, batch: PyTree, kept: Kept, scores: Scores, statistics: PyTree | None = None
    ) -> Int32[np.ndarray, "batch ..."]:
        inside: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if statistics is not None:
            inside = with_statistics(self.model, statistics)
        found = scores(self._call_without(batch, kept, inside))
        return np.asarray(as_array(found.float()).argmax(-1), np.int32)

    def statistics(self, batch: PyTree, kept: Kept) -> PyTree:
        collected: dict[str, np.ndarray] = {}
        self._call_without(batch, kept, collecting(self.model, collected))
        return collected

    def _call_without(
        self, batch: PyTree, kept: Kept, inside: contextlib.AbstractContextManager[None]
    ) -> PyTree:
        """What the model makes of a batch while some branches are left out."""
        gone = [self._homes[site].place for site, keep in kept.items() if not keep]
        assert self._program is not None
        following = Following(self._program.steps, {place: [torch.zeros_like] for place in gone})
        output = self._call(batch, lambda _: following, inside)
        following.end()
        return output

    def slopes(
        self,
        batch: PyTree,
        labels: Int[np.ndarray, "batch ..."],
        weights: Float32[np.ndarray, " batch"],
        scores: Scores,
        sites: Sequence[str] = (),
        reducer: SlopeReducer | None = None,
    ) -> tuple[PyTree, dict[str, Numbers]]:
        values: dict[str, Numbers] = {}
        gradients: dict[str, Numbers] = {}

        def watcher(site: str) -> Callable[[torch.Tensor], None]:
            axis = self._homes[site].axis

            def keep_gradient(gradient: torch.Tensor) -> None:
                gradients[site] = as_array(gradient.movedim(axis, 0).float()).copy()

            def watch(value: torch.Tensor) -> None:
                # A copy, since the model may write to it. The gradient is told by a hook, which
                # belongs to the value as it is now, whatever is written to it later.
                values[site] = as_array(value.movedim(axis, 0).float()).copy()
                gradients[site] = np.zeros_like(values[site])
                if value.requires_grad:
                    value.register_hook(keep_gradient)

            return watch

        watchers = defaultdict(list)
        for site in sites:
            watchers[self._homes[site].place].append(watcher(site))
        assert self._program is not None
        following = Following(self._program.steps, watchers)
        # Whoever checkpoints runs the model again on the way back.
        with undisturbed(self.model, by_batch=self.by_batch), differentiable(self.model):
            output = self._call(batch, lambda _: following, torch.enable_grad())
            following.end()
            slopes = self._parameter_slopes(scores(output), labels, weights)
        return None if reducer is None else reducer(values, gradients), slopes

    def _parameter_slopes(
        self,
        scores: torch.Tensor,
        labels: Int[np.ndarray, "batch ..."],
        weights: Float32[np.ndarray, " batch"],
    ) -> dict[str, Numbers]:
        """The gradients by the trained parameters; on the way hooks are told those by values."""
        named = {n: p for n, p in named_parameters(self.model).items() if p.requires_grad}
        if not named:
            return {}
        try:
            with torch.enable_grad():
                summed = self._summed_loss(scores.float(), labels, weights)
            found = torch.autograd.grad(summed, list(named.values()), allow_unused=True)
        except RuntimeError as error:  # such as where the model stops gradients
            raise not_differentiable(error) from error
        return {
            name: np.zeros(named[name].shape, np.float32) if one is None else as_array(one).copy()
            for name, one in zip(named, found, strict=True)
            if name in self.trained
        }

    def _summed_loss(
        self,
        scores: torch.Tensor,
        labels: Int[np.ndarray, "batch ..."],
        weights: Float32[np.ndarray, " batch"],
    ) -> torch.Tensor:
        if loss.are_probabilities(scores.detach()):
            scores = scores.clamp(min=loss.SMALLEST).log()
        classes = as_tensor(labels.astype(np.int64), self.device).reshape(-1)
        each = torch.nn.functional.cross_entropy(
            scores.reshape(len(classes), -1), classes, reduction="none"
        )
        return (each.reshape(len(labels), -1).sum(1) * as_tensor(weights, self.device)).sum()

    def _recorded_twice(self, batch: PyTree) -> tuple[TorchProgram, TorchProgram]:
        """What the model calls for two batches that differ in how many samples they have; twice
        the same for the whole batch, where it is not made for other ones."""
        if length_of(batch) > ONE_MORE:
            with contextlib.suppress(ValueError):
                few, more = (
                    self._recorded(jax.tree.map(lambda leaf, size=size: leaf[:size], batch))
                    for size in (FEW, ONE_MORE)
                )
                if few.calls_the_same(more):
                    return few, more
        whole = self._recorded(batch)
        return whole, whole

    def _recorded(self, batch: PyTree) -> TorchProgram:
        recordings = []

        def start(tensors: PyTree) -> Recording:
            recordings.append(Recording([*self.trained.values(), *calls.tensors_in(tensors)]))
            return recordings[0]

        result = self._call(batch, start)
        return recordings[0].program(result)

    def _call(
        self,
        batch: PyTree,
        see: Callable[[PyTree], calls.Watcher],
        inside: contextlib.AbstractContextManager[Any] | None = None,
    ) -> PyTree:
        """Call the model with a batch. see: what is to watch it, given the batch as tensors;
        inside: in which context."""
        with undisturbed(self.model, by_batch=self.by_batch):
            tensors = jax.tree.map(lambda leaf: as_tensor(leaf, self.device), batch)
            with inside or contextlib.nullcontext(), calls.watched(self.model, see(tensors)):
                try:
                    if self.call is not None:
                        return self.call(self.model, tensors)
                    return self.model(tensors)
                except OtherCalls:
                    raise
                except Exception as error:  # whatever a model raises
                    raise cannot_be_called(batch, error) from error


def named_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """All parameters: ``layer/weight``."""
    return {calls.path_of(name): parameter for name, parameter in model.named_parameters()}


def trained_parameters(model: torch.nn.Module) -> list[str]:
    """The names of those that are trained: all, unless some want no gradient and others do. Raises
    ValueError for a module that has no weights yet."""
    named = named_parameters(model)
    lazy = [name for name, parameter in named.items() if is_lazy(parameter)]
    if lazy:
        raise ValueError(
            f"this PyTorch module has no weights yet, such as {lazy[0]}; call it once first"
        )
    return [name for name, parameter in named.items() if parameter.requires_grad] or list(named)


def _with_relatives(program: TorchProgram, names: Sequence[str]) -> dict[str, set[str]]:
    """For each parameter that a program shows itself and those that it does not show, such as
    biases (see `words.OPERANDS`), of its module or of modules inside that show none."""
    operands = {operand for step in program.steps for operand in step.inputs}
    shown = {name for number, name in enumerate(names) if number in operands}
    relatives = {name: {name} for name in shown}
    for hidden in set(names) - shown:
        module = hidden
        while module:
            module = module.rpartition("/")[0]
            of_module = [name for name in shown if name.rpartition("/")[0] == module]
            for name in of_module:
                relatives[name].add(hidden)
            if of_module:
                break
    return relatives


def _of_a_batch(
    shape: tuple[int, ...], larger: tuple[int, ...], samples: int
) -> tuple[tuple[int, ...], int]:
    """The shape of a value for so many samples, whose axis comes first, and which axis that is.

    shape, larger: for `FEW` samples and for `ONE_MORE`; the same where no axis grows with them.
    """
    pairs = list(zip(shape, larger, strict=False))
    whole = [few + (more - few) * (samples - FEW) for few, more in pairs]
    axis = first_difference(shape, larger) or 0
    return (*whole[axis : axis + 1], *whole[:axis], *whole[axis + 1 :]), axis


def _scripted(model: torch.nn.Module) -> list[Skipped]:
    """The outermost of the modules that PyTorch runs outside of Python."""
    scripted = [
        name for name, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)
    ]
    if "" in scripted:
        return [Skipped("model", "activation", SCRIPTED)]
    outermost = [name for name in scripted if name.rpartition(".")[0] not in scripted]
    return [Skipped(calls.path_of(name), "activation", SCRIPTED) for name in outermost]


def _composite(program: TorchProgram) -> list[Skipped]:
    """Layers inside functions that are seen from outside only."""
    return [
        Skipped(
            f"{step.path}/{step.called_name}".lstrip("/"),
            words.LAYERS_INSIDE[step.called_name],
            f"inside {step.called_name}, which PyTorch computes as a whole",
        )
        for step in program.steps
        if step.called_name in words.LAYERS_INSIDE
    ]
