"""Modules of PyTorch, observed: they run as they are, and each value is reduced as it is made."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import torch
from jaxtyping import PyTree
from torch.nn.parameter import is_lazy

from cbundles.arrays import Numbers
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
from cbundles.auditing.models.pytorch.undisturbed import undisturbed
from cbundles.auditing.subject import Reducer, Sites, cannot_be_called
from cbundles.auditing.tensors import as_array, as_tensor
from cbundles.observe import Skipped, consumers
from cbundles.observe.sites import find

FEW, ONE_MORE = 2, 3  # samples: what differs between them is the axis of the samples
SCRIPTED = "inside a scripted module, which runs outside of Python"


class _Home(NamedTuple):
    """Where to see the value of a site, and which of its axes is that of the samples."""

    place: Place
    axis: int


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
        self._steps: tuple[calls.TorchStep, ...] = ()
        self._homes: dict[str, _Home] = {}

    @property
    def parameters(self) -> Mapping[str, Numbers]:
        return {name: as_array(parameter) for name, parameter in self.trained.items()}

    def sites(self, batch: PyTree) -> Sites:
        program, larger = self._recorded_twice(batch)
        found = find(program)
        seen = []
        for site in found.sites:
            place = program.places[found.numbers[site.name]]
            shape, axis = _of_a_batch(site.shape, larger.shape_at(place), length_of(batch))
            seen.append(dataclasses.replace(site, shape=shape))
            self._homes[site.name] = _Home(place, axis)
        self._steps = program.steps
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
        return Sites(tuple(seen), (*_scripted(self.model), *_composite(program)), readers)

    def reduce(
        self, batch: PyTree, sites: Sequence[str], reducer: Reducer, arguments: PyTree
    ) -> dict[str, PyTree]:
        reduced: dict[str, PyTree] = {}

        def reader(site: str) -> Callable[[torch.Tensor], None]:
            def read(value: torch.Tensor) -> None:
                array = as_array(value.movedim(self._homes[site].axis, 0).float())
                # As arrays of NumPy, which are there only once all is computed: what the model
                # calls next may overwrite the value.
                reduced[site] = jax.tree.map(np.asarray, reducer(site, array, arguments))

            return read

        readers = defaultdict(list)
        for site in sites:
            readers[self._homes[site].place].append(reader(site))
        following = Following(self._steps, readers)
        self._call(batch, lambda _: following)
        following.end()
        return reduced

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

    def _call(self, batch: PyTree, see: Callable[[PyTree], calls.Watcher]) -> PyTree:
        """Call the model with a batch. see: what is to watch it, given the batch as tensors."""
        with undisturbed(self.model, by_batch=self.by_batch):
            tensors = jax.tree.map(lambda leaf: as_tensor(leaf, self.device), batch)
            with calls.watched(self.model, see(tensors)):
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


def _of_a_batch(
    shape: tuple[int, ...], larger: tuple[int, ...], samples: int
) -> tuple[tuple[int, ...], int]:
    """The shape of a value for so many samples, whose axis comes first, and which axis that is.

    shape, larger: for `FEW` samples and for `ONE_MORE`; the same where no axis grows with them.
    """
    pairs = list(zip(shape, larger, strict=False))
    whole = [few + (more - few) * (samples - FEW) for few, more in pairs]
    axis = next((place for place, (few, more) in enumerate(pairs) if few != more), 0)
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
