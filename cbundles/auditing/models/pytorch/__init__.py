"""Modules of PyTorch. PyTorch is imported by whoever made the model, not here.

How the parts fit: `words` says what a function of PyTorch does, in the words that JAX has for it;
`calls` watches the functions that a model calls, and writes them down as a program in which
`cbundles.observe` finds the sites; `undisturbed` lets a model run and leaves it as it was;
`subject` joins them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from cbundles.auditing.models.functions import Call
from cbundles.auditing.models.patterns import matching
from cbundles.auditing.subject import Subject


def is_module(model: Any) -> bool:
    """Whether this is a module of PyTorch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def subject_of_module(
    model: Any, call: Call | None, trainable: Sequence[str] | None, batch_norm: str
) -> Subject:
    """A module in evaluation, whatever its mode; one that was compiled is observed as it was
    before. Only its batch normalisations are told of `batch_norm`. Raises ValueError where these
    have no running statistics, which it asks for."""
    from cbundles.auditing.models.pytorch import statistics, subject

    model = getattr(model, "_orig_mod", model)
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError("this module has no weights yet: they are on the device meta; load them")
    if batch_norm == "running":
        statistics.require_running(model)
    trained = set(subject.trained_parameters(model))
    if trainable is not None:
        trained = matching(subject.named_parameters(model), trainable)
    return subject.TorchSubject(model, call, trained, batch_norm == "batch")
