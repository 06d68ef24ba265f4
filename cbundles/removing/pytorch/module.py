"""The way from a module of PyTorch to a smaller one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from jaxtyping import PyTree
from torch.fx import GraphModule

from cbundles.auditing.anew import statistics_anew
from cbundles.auditing.models.pytorch.calls import path_of
from cbundles.auditing.models.pytorch.subject import TorchSubject
from cbundles.auditing.models.pytorch.undisturbed import undisturbed
from cbundles.auditing.tensors import as_tensor
from cbundles.removing.choosing import Blocks, chosen_sums
from cbundles.removing.given import Given
from cbundles.removing.pytorch import costs
from cbundles.removing.pytorch.branches import Calling, observed_sums
from cbundles.removing.pytorch.exporting import exported_module, name_in_the_model, write_program
from cbundles.removing.removed import Exported
from cbundles.removing.report import Report
from cbundles.wording import counted

EXPORTED_SAMPLES = 3  # of which the program is written down; one or two would be taken for sizes
TRAINING = (
    "Its parameters can be trained further; statistics of batch normalisations are frozen, and "
    "there is no dropout."
)
NO_TRAINING = "None of its parameters that are left wants a gradient."


@dataclass(frozen=True, eq=False, repr=False)
class TorchRemoved:
    """A `Removed` of PyTorch. few: samples that it is written down with."""

    model: GraphModule
    report: Report
    few: PyTree

    @property
    def params(self) -> Mapping[str, torch.Tensor]:
        """Parameters and statistics: copies, by the names that they have in the whole model."""
        return costs.numbers_in(self.model)

    @property
    def trainable(self) -> tuple[str, ...]:
        return tuple(name for name, tensor in self.params.items() if tensor.requires_grad)

    @property
    def blocks(self) -> tuple[str, ...]:
        return self.report.blocks

    def __call__(self, inputs: PyTree) -> PyTree:
        device = next((one.device for one in self.params.values()), torch.device("cpu"))
        with torch.no_grad():
            return self.model(jax.tree.map(lambda leaf: _as_tensor(leaf, device), inputs))

    def export(self, path: str | Path) -> Exported:
        """Write a ``.pt2``, with the parameters as they are now. ``torch.export.load(path)`` reads
        it; its ``module()`` gives the same bits."""
        path = Path(path)
        if path.suffix != ".pt2":
            raise ValueError(f"export {path}: the name must end with .pt2")
        write_program(self.model, self.few, path)
        return Exported(path, batch=None)

    def __repr__(self) -> str:
        return f"<Removed: {counted(len(self.blocks), 'block')}, {len(self.params)} tensors left>"

    def __str__(self) -> str:
        return str(self.report)


def remove_from_module(subject: TorchSubject, blocks: Blocks, given: Given) -> TorchRemoved:
    """A module without some branches; see `cbundles.remove`."""
    if given.inputs.size < EXPORTED_SAMPLES:
        raise ValueError(f"inputs: {given.inputs.size} samples; at least {EXPORTED_SAMPLES}")
    model, device = subject.model, subject.device
    observed = observed_sums(subject, given.inputs.first)
    sums = chosen_sums(observed, blocks)
    zeroed = Calling(model, subject.call, sums, observed.additions)
    first = costs.as_tensors(given.inputs.first, device)
    few = jax.tree.map(lambda leaf: leaf[:EXPORTED_SAMPLES].clone(), first)
    with undisturbed(model, by_batch=False):
        small = exported_module(zeroed, few)
        costs.check_difference(small, zeroed, first)
        before, after = costs.costs_of(subject, observed.additions, small, given)
    recalibrated = None
    if given.for_statistics is not None:
        kept = {one.branch: np.array(False) for one in sums}
        _put_statistics(small, statistics_anew(subject, given.for_statistics, kept))
        with torch.no_grad():
            recalibrated = costs.correct_of(small, given, device)

    for name, parameter in small.named_parameters():
        if path_of(name_in_the_model(name)) not in subject.trained:
            parameter.requires_grad_(False)
    left = costs.numbers_in(small)
    trains = any(tensor.requires_grad for tensor in left.values())
    report = Report(
        blocks=tuple(one.name for one in sums),
        gone=tuple(name for name in costs.numbers_in(model) if name not in left),
        before=before,
        after=after,
        batch=given.inputs.size,
        judged=given.judged,
        recalibrated=recalibrated,
        training=TRAINING if trains else NO_TRAINING,
    )
    return TorchRemoved(small, report, few)


def _put_statistics(small: GraphModule, statistics: Mapping[str, np.ndarray]) -> None:
    """Give a smaller module the statistics of what it still has."""
    buffers = dict(small.named_buffers())
    for name, values in statistics.items():
        own = name_in_the_model(name)
        if own in buffers:
            buffers[own].copy_(as_tensor(values, buffers[own].device))


def _as_tensor(leaf: Any, device: torch.device) -> torch.Tensor:
    return leaf if isinstance(leaf, torch.Tensor) else as_tensor(leaf, device)
