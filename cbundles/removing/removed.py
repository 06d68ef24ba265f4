"""What a user gets of a removal, whichever library the model is of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from cbundles.removing.report import Report


class Exported(NamedTuple):
    """A file, and the one batch size that it takes; None: it takes any."""

    path: Path
    batch: int | None


class Removed(Protocol):
    """A model without some of its residual blocks: each sum in `blocks` is its skip.

    ``removed(inputs)`` runs it, for any number of samples: arrays or tensors, in any pytree, whose
    first axis is that of the samples; the result is shaped as the model's. What it cannot take
    raises what the model itself would raise.
    """

    @property
    def model(self) -> Callable[..., Any]:
        """The smaller model: on JAX ``f(params, inputs)``, in PyTorch a module."""

    @property
    def params(self) -> Mapping[str, Any]:
        """The numbers that it needs, by their names."""

    @property
    def trainable(self) -> tuple[str, ...]:
        """Those of them that can be trained further; empty where none can. Statistics of batch
        normalisation are frozen."""

    @property
    def blocks(self) -> tuple[str, ...]:
        """The residual sums that lost their branches."""

    @property
    def report(self) -> Report:
        """What went, and what that changed."""

    def __call__(self, inputs: Any) -> Any:
        """The outputs of the smaller model."""

    def export(self, path: str | Path) -> Exported:
        """Write the smaller model to a file."""
