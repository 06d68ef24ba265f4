"""`Monitor`: what a user's own training loop calls."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer, PyTree

from cbundles import bundles, dashboards
from cbundles.arrays import Numbers
from cbundles.auditing.asked import check_names, checked_setting
from cbundles.auditing.batches import CutArrays, at_hand, batches_of, checked_labels
from cbundles.auditing.models import Call
from cbundles.auditing.signing import SAMPLES
from cbundles.auditing.tensors import as_array
from cbundles.auditing.weights import GLOBAL
from cbundles.bundles.result import checked_whole
from cbundles.dashboards import EventWriter
from cbundles.monitoring.arguments import check_function, folder_of_events
from cbundles.monitoring.events import EventsFile, WrittenByAnother
from cbundles.monitoring.measurement import Measurement
from cbundles.monitoring.news import News, Sentence, tell
from cbundles.monitoring.probe import INSIDE_JIT, HowToCall, Probe, Samples, refuse_tracing

# Samples in a batch, as many as are looked at by default: of a small network the calls take longer
# than what is computed in them.
AT_ONCE = 512
A_SCHEDULE = (
    "learning_rate is a schedule: give its largest rate, so that all steps are measured alike"
)


class Monitor:
    """Measures the layers of a network while it trains. `last` is the latest `Measurement`.

    >>> monitor = Monitor(model, images, labels)    # doctest: +SKIP
    >>> for step in range(steps):                   # doctest: +SKIP
    ...     params = train_step(params)
    ...     monitor(step, params)
    """

    def __init__(
        self,
        model: Any,
        inputs: Any,
        labels: Integer[Numbers, "samples ..."] | Sequence[int],
        *,
        every: int = 200,
        samples: int = 512,
        folder: str | Path | None = "runs/monitor",
        call: Call | None = None,
        trainable: str | Sequence[str] | None = None,
        learning_rate: float = 1e-3,
        batch_size: int = 64,
        num_classes: int | None = None,
        layers: str | Sequence[str] | None = None,
        batch_norm: str = "running",
        amplitude: str | float = GLOBAL,
        rows: str = SAMPLES,
        headroom: bool = False,
        tensorboard: bool = False,
        on_measure: Callable[[Measurement], object] | None = None,
    ) -> None:
        """Nothing is traced before the first call, and nothing written but that the folder is made.

        Args:
            model: a module of flax.linen, or a function ``f(params, batch)``, such as
                ``model.apply``; a module of flax.nnx or PyTorch; a Keras 3 model on JAX; a module
                that is a pytree, as those of Equinox are.
            inputs: probe samples of training, without augmentation: arrays or tensors, in any
                pytree, whose first axis is that of the samples; or an iterable of batches of them.
            labels: whole numbers, one for each sample; with rows="tokens" also one for each token.
            every: measure in each step that is a multiple of this.
            samples: how many of the inputs are looked at: evenly spread, always the same ones.
            folder: for ``events.jsonl``, a JSON object on each line. One that is there is
                continued; ``~`` is the user's home. None: nothing is written.
            learning_rate: with which the model is trained; of a schedule the largest one.
            headroom: whether to scan learning rates, too, which takes several times as long.
            tensorboard: whether to write event files for TensorBoard into the folder, too; needs
                ``cbundles[tensorboard]``.
            on_measure: is called with each `Measurement`, such as to send its `scalars` elsewhere.
            call, trainable, batch_size, num_classes, layers, batch_norm, amplitude, rows: as in
                `cbundles.audit`.

        Raises:
            ValueError: what was given cannot work, or tensorboardX is wanted and not installed;
                the message says why, in a sentence.
        """
        if callable(learning_rate):
            raise ValueError(A_SCHEDULE)
        setting = checked_setting(learning_rate, batch_size, batch_norm, rows, amplitude)
        self.every = checked_whole("every", every)
        if tensorboard:
            if folder is None:
                raise ValueError("tensorboard=True needs a folder=")
            dashboards.check_installed()
        check_names("layers", layers)
        check_names("trainable", trainable)
        check_function("call", call)
        check_function("on_measure", on_measure)
        how = HowToCall(call, trainable, layers)
        looked_at = _samples(inputs, labels, num_classes, samples, whole=setting.whole)
        self._probe = Probe(model, how, looked_at, setting, headroom)
        self._on_measure = on_measure
        self.last: Measurement | None = None
        self._began = False  # whether a first measurement was tried
        self._read = False  # whether what the folder has of earlier steps was taken
        self._folder = None if folder is None else folder_of_events(folder)
        self._file = None if self._folder is None else EventsFile(self._folder)
        self._tensorboard = tensorboard
        self._dashboard: EventWriter | None = None
        self._news = News()

    def __call__(self, step: SupportsIndex, params: PyTree | None = None) -> Measurement | None:
        """Measure, if the step is a multiple of `every` or this is the first call; otherwise return
        at once.

        Args:
            step: of the whole training, a whole number. Where it goes back, the events from there
                on are replaced.
            params: the numbers of a linen module (all its variables, its parameters alone, or a
                state of training that has ``params``) or of a function, as they are now. A module
                that is changed in place (nnx, PyTorch, Keras) needs none; one that is a pytree
                (Equinox) is given itself, as it is now.

        Returns:
            What was measured; None if nothing was.

        Raises:
            ValueError: the model cannot be measured so; the message says why, in a sentence.
        """
        number = _whole_step(step)
        if self._began and number % self.every:
            return None
        self._began = True  # even if it fails: a loop that goes on would try in each step
        refuse_tracing()
        jax.block_until_ready(params)  # else the steps that are under way would be timed, too
        started = time.perf_counter()
        audit = self._probe.measure(params)
        measurement = Measurement(number, time.time(), time.perf_counter() - started, audit)
        self._note(measurement)
        self.last = measurement
        if self._on_measure is not None:
            self._on_measure(measurement)
        return measurement

    def _note(self, measurement: Measurement) -> None:
        """Write a measurement down, and tell what is new in it."""
        event = measurement.to_dict()
        if self._file is not None:
            try:
                self._add(event, self._file)
            except WrittenByAnother as error:  # no reason to end somebody's training
                tell([_of_another(measurement.step, error)])
                self._file = self._dashboard = None
        if self._dashboard is not None:
            self._dashboard.write(measurement.step, measurement.time, measurement.scalars)
            self._dashboard.flush()
        tell(self._news.take(event))

    def _add(self, event: Mapping[str, Any], file: EventsFile) -> None:
        """Write an event to the file, and tell where it replaces later ones."""
        step, earlier = event["step"], file.last_step
        replaced = file.add(event)
        if replaced or not self._read:
            self._go_on_at(step)
        if replaced and earlier is not None and step < earlier:
            tell([_of_going_back(step, earlier, replaced, file.path)])

    def _go_on_at(self, step: int) -> None:
        """Continue what the folder has of earlier steps."""
        assert self._file is not None and self._folder is not None
        self._news = News()
        for event in self._file.lines():
            if event["step"] < step:
                self._news.take(event)
        if self._tensorboard:
            self._dashboard = EventWriter(self._folder, step)
        self._read = True


def _of_another(step: int, error: WrittenByAnother) -> Sentence:
    return Sentence(
        logging.ERROR,
        f"cbundles, step {step}: {error}. This one measures on and writes nothing more",
    )


def _of_going_back(step: int, earlier: int, replaced: int, path: Path) -> Sentence:
    return Sentence(
        logging.WARNING,
        f"cbundles, step {step} comes after step {earlier}, of this training or an earlier one in "
        f"the folder: {replaced} measurements move from {path} to replaced.jsonl",
    )


def _samples(
    inputs: Any,
    labels: Integer[Numbers, "samples ..."] | Sequence[int],
    num_classes: int | None,
    count: int,
    *,
    whole: bool,
) -> Samples:
    """So many of the samples, copied. Raises ValueError for what are no labelled samples."""
    array, classes = checked_labels(as_array(labels), num_classes)
    given = at_hand(batches_of(inputs, len(array), whole=False))
    picked = bundles.evenly_spread(len(array), checked_whole("samples", count))
    chosen = jax.tree.map(lambda leaf: np.asarray(leaf[picked]), given.inputs)
    for leaf in jax.tree.leaves(chosen):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
            raise ValueError("inputs hold NaN or infinity: nothing could be measured with them")
    at_once = len(picked) if whole else AT_ONCE
    return Samples(CutArrays(chosen, len(picked), at_once), array[picked], classes)


def _whole_step(step: SupportsIndex) -> int:
    """The step as an int. Raises ValueError."""
    if isinstance(step, jax.core.Tracer):
        raise ValueError(INSIDE_JIT)
    try:
        number = int(step.__index__())
    except (AttributeError, TypeError):
        raise ValueError(f"step must be a whole number, not {step!r}") from None
    if number < 0:
        raise ValueError(f"step must be a whole number from 0 on, not {number}")
    return number
