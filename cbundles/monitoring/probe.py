"""The samples that a monitor looks at, and the model that is asked about them.

This is an audit whose model is traced and compiled once: later measurements only bring its numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32, PyTree

from cbundles.auditing import signing, weights
from cbundles.auditing.asked import labels_of_rows
from cbundles.auditing.batches import CutArrays
from cbundles.auditing.findings import Findings, Layer
from cbundles.auditing.measuring import Measuring, Setting, samples_to_scan
from cbundles.auditing.models import Call, is_changed_in_place, subject_of
from cbundles.auditing.report import Audit
from cbundles.auditing.signing import TOKENS
from cbundles.auditing.subject import Subject
from cbundles.auditing.verdict import nothing_measured
from cbundles.observe import Site, Skipped
from cbundles.observe.layers import Sites
from cbundles.observe.selection import chosen_sites

STALE = (
    "params is missing: this model does not change while it is trained, so pass its numbers as "
    "they are now, monitor(step, params)"
)
INSIDE_JIT = (
    "a monitor is called outside of jit, vmap and grad: pass it what the compiled step returns"
)


@dataclass(frozen=True)
class HowToCall:
    """What is said of a model besides its numbers; see `cbundles.audit`."""

    call: Call | None
    trainable: str | Sequence[str] | None
    layers: str | Sequence[str] | None


class Samples(NamedTuple):
    """What is passed through the model in each measurement."""

    batches: CutArrays
    labels: Int32[np.ndarray, "samples ..."]  # with an axis of tokens where each has its own
    classes: int


class _Traced(NamedTuple):
    """What a measurement leaves to the next one; no number of the model is in it."""

    traces: Any
    sites: Sites
    chosen: Sequence[Site]
    skipped: Sequence[Skipped]


class Probe:
    """Samples, and a model to which they are shown again and again."""

    def __init__(
        self, model: Any, how: HowToCall, samples: Samples, setting: Setting, headroom: bool
    ) -> None:
        self.model = model
        self.how = how
        self.samples = samples
        self.setting = setting
        self.headroom = headroom
        tokens = signing.tokens_of(samples.batches.first) if setting.rows == TOKENS else None
        self.tokens = tokens
        self.labels = labels_of_rows(samples.labels, tokens)
        self._traced: _Traced | None = None
        self._input_layer: Layer | None = None  # the samples are always the same

    def measure(self, params: PyTree | None) -> Audit:
        """An audit of the model with these numbers. Raises ValueError where that cannot be."""
        try:
            return self._audit(params)
        except ValueError:
            if self._traced is None:
                raise
            self._traced = None  # the model may do something else by now
            return self._audit(params)

    def _audit(self, params: PyTree | None) -> Audit:
        subject, traced = self._subject(params)
        largest = weights.largest_weights(subject.parameters)
        amplitude = weights.amplitude_of_model(self.setting.amplitude, largest)
        measuring = Measuring(
            subject, traced.sites, traced.chosen, largest, self.setting, self.tokens
        )
        batches = self.samples.batches
        input_layer, layers = measuring.measure_layers(
            batches, self.labels, self.samples.classes, input_layer=self._input_layer
        )
        self._input_layer = input_layer
        if self.headroom:
            part = samples_to_scan(batches.samples, self.tokens)
            batches.keep(part)
            layers, _ = measuring.with_headroom(batches, part, input_layer, layers)
        self._traced = traced._replace(traces=subject.traces)
        findings = Findings(
            input=input_layer,
            layers=tuple(layers),
            skipped=tuple(traced.skipped),
            amplitude=amplitude,
            choice=self.setting.amplitude,
            learning_rate=self.setting.learning_rate,
            batch_size=self.setting.batch_size,
            rows=self.setting.rows,
            hangs_on=(),
        )
        return Audit(findings, batches.inputs)

    def _subject(self, params: PyTree | None) -> tuple[Subject, _Traced]:
        """The model as it is now, and where its layers are."""
        _refuse_tracers(jax.tree.leaves(params))
        model, numbers = self.model, params
        if isinstance(params, type(self.model)):
            model, numbers = params, None
        elif params is None and not is_changed_in_place(self.model):
            raise ValueError(STALE)
        subject = subject_of(
            model,
            params=numbers,
            call=self.how.call,
            trainable=self.how.trainable,
            batch_norm="batch" if self.setting.whole else "running",
        )
        _refuse_tracers(subject.parameters.values())
        if self._traced is not None and subject.take_traces(self._traced.traces):
            return subject, self._traced
        first = self.samples.batches.first
        sites = subject.sites(first)
        chosen, skipped = chosen_sites(
            sites,
            self.how.layers,
            self.samples.batches.size,
            self.tokens,
            self.samples.classes,
        )
        if not chosen:
            raise ValueError(nothing_measured(skipped))
        return subject, _Traced(subject.traces, sites, chosen, skipped)


def refuse_tracing() -> None:
    """Raise ValueError where a program is being traced, whatever the model is made of."""
    # JAX has no public question for this: what is added inside of jit or scan is not known yet.
    _refuse_tracers([jnp.add(0, 0)])


def _refuse_tracers(leaves: Iterable[Any]) -> None:
    """Raise ValueError where numbers are not known yet, since a program is being traced."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        raise ValueError(INSIDE_JIT)
