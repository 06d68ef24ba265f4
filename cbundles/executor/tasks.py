"""What a worker can be told to do: train a population, study lesions, prune, measure again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import msgspec

from cbundles import keeping
from cbundles.config import GROW, LESION, MEASURE, PRUNE, SWEEP, TUNE, Cell
from cbundles.decisions import removal
from cbundles.errors import DamagedCheckpoint, InputError
from cbundles.executor.context import Context
from cbundles.executor.planner import Job, PopulationJob, Study, checkpoint_of
from cbundles.experiments import grow, lesion, lesion_study, prune, remeasure, sweep, tune
from cbundles.experiments.pace import seconds_named
from cbundles.experiments.run_state import RunState
from cbundles.files import write_atomically
from cbundles.keeping import LAST
from cbundles.networks import saved
from cbundles.networks.network import Network
from cbundles.networks.saved import Saved
from cbundles.networks.shape import ConvShape
from cbundles.records import CellRecord, LesionRecord, PrunedRecord
from cbundles.spread import agreed, told_to_all
from cbundles.store import LESIONS, MEASURED, PRUNED
from cbundles.user_functions import trust

Result = TypeVar("Result")

POLICIES = {SWEEP: sweep, GROW: grow, TUNE: tune}  # by the kind of a cell

# Writing a checkpoint costs less than a percent at this pace, and a kill costs at most this much.
CHECKPOINT_SECONDS = seconds_named("CBUNDLES_CHECKPOINT_SECONDS", 15)


def job_of(task: dict[str, Any]) -> Job:
    """What the parent calls this task."""
    if task["task"] in (SWEEP, GROW, TUNE):
        cells = tuple(Cell.fromdict(content) for content in task["cells"])
        for cell in cells:
            if cell.model.is_own:
                trust(cell.model.build)  # of a configuration, which the parent has read
        return PopulationJob(cells)
    return Study(Cell.fromdict(task["cell"]), task["task"], (), 0.0)


def _train(context: Context, job: Job, task: dict[str, Any]) -> None:
    """Train a population to the end, as its command says, and write what became of it."""
    policy = POLICIES[job.cells[0].kind]
    data, facts, fingerprint = context.data(job.cells[0])
    training = Training(context, job, fingerprint)

    def train(resume: bytes | None) -> RunState[Any]:
        return training.follow(policy.train(job.cells, data, facts, resume), policy, resume)

    state = _resuming(context, training.key, train)
    training.finish(state, policy.records(job.cells, state, context.origin(fingerprint)))
    jax.clear_caches()  # compiled programs of this shape: 20 MB each, and rarely wanted again


def _resuming(context: Context, key: str, attempt: Callable[[bytes | None], Result]) -> Result:
    """What an attempt makes of the checkpoint that is there; or of None, from the start, when it is
    damaged, or nothing that this version can make sense of. Any other error leaves it in place."""
    try:
        return attempt(_checkpoint_of_first(context, key))
    except DamagedCheckpoint as error:
        text = f"{key}: checkpoint unusable ({error}); from the start"
        context.send({"event": "note", "text": text})
        return attempt(None)


def _checkpoint_of_first(context: Context, key: str) -> bytes | None:
    """What the first process has saved, in all that train together; None where it is damaged, of
    which the first one then hears."""
    content, damage = None, None
    if context.is_first:
        try:
            content = context.store.load_checkpoint(key)
        except DamagedCheckpoint as error:
            damage = error
    content = told_to_all(content)
    if damage is not None:
        raise damage
    return content


class Training:
    """A population on its way to its records: checkpoints, kept networks, progress."""

    def __init__(self, context: Context, job: Job, fingerprint: str) -> None:
        self.key = checkpoint_of(job, fingerprint)
        self._context = context
        self._job = job
        self._fingerprint = fingerprint
        self._kept = keeping.epochs_of(context.keep, job.cells[0].training.epochs)

    def follow(
        self, states: Iterator[RunState[Any]], policy: Any, resume: bytes | None
    ) -> RunState[Any]:
        """Save and report on the way; returns the last state."""
        saved_at, state = time.monotonic(), None
        for state in states:
            if resume is not None:
                # The first state after the checkpoint; at the end of an epoch that one comes next.
                at_end = state.population.step == 0
                self._require_kept(until=state.epoch - 1 if at_end else state.epoch)
                self._tell_of_resuming(state)
                resume = None
            if not state.population.step and str(state.epoch) in self._kept:
                self._keep(state, str(state.epoch))
            if agreed(time.monotonic() - saved_at > CHECKPOINT_SECONDS):
                content = state.freeze()  # by all that train together: each has a part
                if self._context.is_first:
                    self._context.store.save_checkpoint(self.key, content)
                saved_at = time.monotonic()
            self._context.send({"population": self._job.key, **policy.progress(state)})
        assert state is not None  # there is always one, if only that of the checkpoint
        return state

    def _tell_of_resuming(self, state: RunState[Any]) -> None:
        step = f", step {state.population.step}" if state.population.step else ""
        text = (
            f"{self._job.cells[0].label}: goes on from its checkpoint, now at epoch {state.epoch}"
        )
        self._context.send({"event": "note", "text": f"{text}{step}"})

    def finish(self, state: RunState[Any], records: Sequence[CellRecord]) -> None:
        """Write the records of all cells, and the trained networks that are wanted."""
        store = self._context.store
        if LAST in self._kept:
            self._keep(state, LAST)
        if not self._context.is_first:
            return
        for record in records:
            if store.is_finished(record.id, self._fingerprint):
                continue
            # What else is there was trained on other images.
            store.drop_weights(record.id, but=self._kept)
            store.finish(record)
        store.drop_checkpoint(self.key)

    def _keep(self, state: RunState[Any], epoch: str) -> None:
        """Write the networks as they are now. epoch: see `keeping`."""
        for number, cell in enumerate(self._job.cells):
            whence = {
                "cell": cell.id,
                "config": cell.asdict(),
                "epoch": state.epoch,
                **msgspec.to_builtins(self._context.origin(self._fingerprint)),
            }
            network = state.population.network_of(number)
            if self._context.is_first:
                path = self._context.store.weights_path(cell.id, epoch)
                write_atomically(path, saved.encode(Saved(*network, whence)))

    def _require_kept(self, until: int) -> None:
        """DamagedCheckpoint, so that training starts again, when networks of epochs up to this one
        are to be kept and are not there."""
        for epoch in self._kept:
            if epoch == LAST or int(epoch) > until:
                continue
            if agreed(self._context.is_first and not self._has_kept(epoch)):
                raise DamagedCheckpoint(
                    f"it is past epoch {epoch}, of which the networks are to be kept"
                )

    def _has_kept(self, epoch: str) -> bool:
        """Whether the networks of an epoch can be read."""
        for cell in self._job.cells:
            path = self._context.store.weights_path(cell.id, epoch)
            try:
                saved.read_of_cell(path, cell.id, self._fingerprint, or_diverged=True)
            except InputError:
                return False
        return True


def _trained(context: Context, cell: Cell) -> tuple[ConvShape, Network, Any, str, str]:
    """The trained network of a cell and its shape; the images; their fingerprint, and its own."""
    data, _, fingerprint = context.data(cell)
    path = context.store.weights_path(cell.id)
    one = saved.read_of_cell(path, cell.id, fingerprint, must_be_residual=True)
    digest = context.store.network_digest(cell.id)
    assert isinstance(one.shape, ConvShape) and digest is not None  # it has just been read
    return one.shape, one.network, data, fingerprint, digest


def _lesion(context: Context, job: Job, task: dict[str, Any]) -> None:
    (cell,) = job.cells
    shape, network, data, fingerprint, digest = _trained(context, cell)
    settings = removal.Settings(**task["settings"])
    identity = [digest, fingerprint, cell.asdict(), task["settings"]]
    key = f"{job.key}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]}"

    def study(resume: bytes | None) -> LesionRecord:
        images = len(data.test.labels)
        state = None if resume is None else lesion_study.thaw(resume, shape, images)
        for now in lesion_study.steps(shape, network, cell, data, settings, state):
            state = now.state
            context.store.save_checkpoint(key, lesion.freeze(state))
            part = {"part": now.done, "of": now.total, "what": "lesioned networks"}
            context.send({"event": "step", "population": job.key, **part})
        assert state is not None  # there is one before the first lesion
        origin = context.origin(fingerprint)
        return lesion_study.record(cell, settings, state, data, digest, origin)

    context.store.finish(_resuming(context, key, study), LESIONS)
    context.store.drop_checkpoints(job.key)
    jax.clear_caches()


def _prune(context: Context, job: Job, task: dict[str, Any]) -> None:
    (cell,) = job.cells
    shape, network, data, fingerprint, digest = _trained(context, cell)
    pruned = prune.prune(shape, network, cell, data, task["removed"], task["epochs"])
    origin = context.origin(fingerprint)
    whence = {
        "cell": cell.id,
        "removed": task["removed"],
        "config": cell.asdict(),
        "network": digest,
        **msgspec.to_builtins(origin),
    }
    made = (pruned.small, pruned.recalibrated, pruned.tuned)
    for path, one in zip(context.store.pruned_paths(task["name"]), made, strict=True):
        write_atomically(path, saved.encode(Saved(pruned.shape, one, whence)))
    record = PrunedRecord(
        id=task["name"],
        origin=origin,
        config=cell.asdict(),
        of=cell.id,
        blocks=task["blocks"],
        network=digest,
        compared=pruned.compared,
    )
    context.store.finish(record, PRUNED)
    jax.clear_caches()


def _measure(context: Context, job: Job, task: dict[str, Any]) -> None:
    (cell,) = job.cells
    data, _, fingerprint = context.data(cell)
    store = context.store
    epochs = store.kept_epochs(cell.id)
    kept = {
        epoch: saved.read_of_cell(
            store.weights_path(cell.id, epoch), cell.id, fingerprint, or_diverged=True
        )
        for epoch in epochs
    }
    networks = store.network_digests(cell.id)
    origin = context.origin(fingerprint)
    wanted = remeasure.Wanted(task["readings"], task["headroom"])
    probes = context.probes(cell, task["samples"])
    record = remeasure.remeasure(cell, kept, data, wanted, probes, networks, origin)
    store.finish(record, MEASURED)
    jax.clear_caches()


def next_task(context: Context, waiting: queue.Queue[dict[str, Any]]) -> dict[str, Any] | None:
    """What the parent says next; in other processes than the first of several, what the first one's
    parent says. None where all of them are to end."""
    content = None
    if context.is_first:
        task = waiting.get()
        content = json.dumps([task, context.keep]).encode() if task else None
    told = told_to_all(content)
    if told is None:
        return None
    next_one: dict[str, Any]
    next_one, context.keep = json.loads(told)
    return next_one


def perform(context: Context, task: dict[str, Any]) -> None:
    """Do a task and tell how it ended; a failure leaves its traceback in a file, if it can. Of the
    processes that train together, any but the first ends with it: the others cannot go on alone."""
    job = job_of(task)
    try:
        TASKS[task["task"]](context, job, task)
        context.send({"event": "finished", "population": job.key})
    except Exception as error:
        if not context.is_first:
            raise
        failure = {"event": "failed", "population": job.key, "reason": reason_of(error)}
        context.send({**failure, "log": _kept_traceback(context, job)})


def reason_of(error: Exception) -> str:
    """Kind and message of an error in one line."""
    return traceback.format_exception_only(error)[0].strip().splitlines()[0]


def _kept_traceback(context: Context, job: Job) -> str | None:
    """The file that has the traceback of a failure; None where it cannot be written either."""
    log = context.store.logs / f"failed-{job.key}.txt"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
    except OSError:
        with contextlib.suppress(OSError):  # nor the log of the worker, perhaps
            traceback.print_exc()
        return None
    return str(log)


TASKS: dict[str, Callable[[Context, Job, dict[str, Any]], None]] = {
    SWEEP: _train,
    GROW: _train,
    TUNE: _train,
    LESION: _lesion,
    PRUNE: _prune,
    MEASURE: _measure,
}
