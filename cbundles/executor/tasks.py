"""What a worker can be told to do: train a population, study lesions, prune, measure again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import jax

from cbundles import keeping
from cbundles.config import GROW, TRAIN, TUNE, Cell
from cbundles.errors import DamagedCheckpoint, InputError
from cbundles.executor.planner import LESION, MEASURE, PRUNE, Job, Population, Study
from cbundles.experiments import grow, lesion, prune, remeasure, removal, sweep, tune
from cbundles.experiments.history import Moment
from cbundles.keeping import LAST
from cbundles.networks import saved
from cbundles.networks.network import Network
from cbundles.networks.saved import Saved
from cbundles.networks.shape import ConvShape
from cbundles.store import LESIONS, MEASURED, PRUNED, write_atomically

if TYPE_CHECKING:
    from cbundles.executor.worker import Worker  # which is the program that runs us

Result = TypeVar("Result")

# Writing a checkpoint costs less than a percent at this pace, and a kill costs at most this much.
CHECKPOINT_SECONDS = float(os.environ.get("CBUNDLES_CHECKPOINT_SECONDS", "15"))


def job_of(task: dict[str, Any]) -> Job:
    """What the parent calls this task."""
    if task["task"] in (TRAIN, GROW, TUNE):
        return Population(tuple(Cell.fromdict(content) for content in task["cells"]))
    return Study(Cell.fromdict(task["cell"]), task["task"], (), 0.0)


def _train(worker: Worker, job: Job, task: dict[str, Any]) -> None:
    cells = job.cells
    data, facts, fingerprint = worker.data(cells[0])
    key = f"{job.key}-{fingerprint}"  # other images: another network

    def train(resume: bytes | None) -> sweep.Moment:
        return _epochs(worker, job, data, facts, resume, key, fingerprint)

    moment = _resuming(worker, key, train)
    extra = {}
    if cells[0].model.family != "fc" and moment.epoch == cells[0].training.epochs:
        extra["latency_seconds"] = sweep.latency(cells[0], moment, data, facts)
    origin = worker.origin(fingerprint)
    if LAST in _kept_of(worker, job):
        _keep(worker, job, moment, facts, fingerprint, LAST)
    for record in sweep.records(cells, moment, data, facts):
        if not worker.store.is_finished(record["cell"], fingerprint):
            if not worker.keep:  # what is there was trained on other images
                worker.store.drop_weights(record["cell"])
            worker.store.finish({**record, **extra, **origin})
    worker.store.drop_checkpoint(key)
    jax.clear_caches()  # compiled programs of this shape: 20 MB each, and rarely wanted again


def _resuming(worker: Worker, key: str, attempt: Callable[[bytes | None], Result]) -> Result:
    """What an attempt makes of the checkpoint that is there; or of None, from the start, when it is
    damaged, or nothing that this version can make sense of. Any other error leaves it in place."""
    try:
        return attempt(worker.store.load_checkpoint(key))
    except DamagedCheckpoint as error:
        text = f"{key}: checkpoint unusable ({error}); from the start"
        worker.send({"event": "note", "text": text})
        return attempt(None)


def _kept_of(worker: Worker, job: Job) -> list[str]:
    """The epochs of which a population's networks are to be kept."""
    return keeping.epochs_of(worker.keep, job.cells[0].training.epochs)


def _keep(
    worker: Worker, job: Job, moment: sweep.Moment, facts: Any, fingerprint: str, epoch: str
) -> None:
    """Write the networks of a population as they are now. epoch: see `keeping`."""
    networks = sweep.networks(job.cells, moment, facts)
    for cell, (shape, network) in zip(job.cells, networks, strict=True):
        whence = {
            "cell": cell.id,
            "config": cell.asdict(),
            "epoch": moment.epoch,
            **worker.origin(fingerprint),
        }
        content = saved.encode(Saved(shape, network, whence))
        write_atomically(worker.store.weights_path(cell.id, epoch), content)


def _require_kept(worker: Worker, job: Job, fingerprint: str, before: int) -> None:
    """DamagedCheckpoint, so that training starts again, when networks of epochs before this one
    are to be kept and are not there."""
    for epoch in _kept_of(worker, job):
        if epoch == LAST or int(epoch) >= before:
            continue
        for cell in job.cells:
            try:
                saved.read_of_cell(worker.store.weights_path(cell.id, epoch), cell.id, fingerprint)
            except InputError:
                raise DamagedCheckpoint(
                    f"it is past epoch {epoch}, of which the networks are to be kept"
                ) from None


def _epochs(
    worker: Worker,
    job: Job,
    data: Any,
    facts: Any,
    resume: bytes | None,
    key: str,
    fingerprint: str,
) -> sweep.Moment:
    """Train to the end, saving and reporting on the way; returns the last Moment."""
    saved_at, moment = time.monotonic(), None
    kept = _kept_of(worker, job)
    for moment in sweep.run(job.cells, data, facts, resume):
        if resume is not None:
            _require_kept(worker, job, fingerprint, before=moment.epoch)
            resume = None  # that was the first moment after the checkpoint
        if str(moment.epoch) in kept:
            _keep(worker, job, moment, facts, fingerprint, str(moment.epoch))
        last = moment.epoch == job.cells[0].training.epochs
        if not last and time.monotonic() - saved_at > CHECKPOINT_SECONDS:
            worker.store.save_checkpoint(key, sweep.freeze(moment))
            saved_at = time.monotonic()
        latest = [history[-1] for history in moment.history]
        worker.send(
            {
                "event": "epoch",
                "population": job.key,
                "epoch": moment.epoch,
                "test_accuracy": [entry["test_accuracy"] for entry in latest],
                "bundle_entropy": [entry["entropy"][-1] for entry in latest],
            }
        )
    assert moment is not None  # there is one before the first epoch
    return moment


def _edit(worker: Worker, job: Job, task: dict[str, Any]) -> None:
    """Train a population whose networks change their depth."""
    cells = job.cells
    data, facts, fingerprint = worker.data(cells[0])
    key = f"{job.key}-{fingerprint}"
    moment = _resuming(worker, key, lambda resume: _edited(worker, job, data, facts, resume, key))
    origin = worker.origin(fingerprint)
    made = (grow if cells[0].kind == GROW else tune).records(cells, moment)
    for number, (cell, record) in enumerate(zip(cells, made, strict=True)):
        if worker.keep:
            whence = {"cell": cell.id, "config": cell.asdict(), **origin}
            content = saved.encode(Saved(*moment.subjects.network_of(number), whence))
            write_atomically(worker.store.weights_path(cell.id), content)
        if not worker.store.is_finished(cell.id, fingerprint):
            if not worker.keep:  # what is there was trained on other images
                worker.store.drop_weights(cell.id)
            worker.store.finish({**record, **origin})
    worker.store.drop_checkpoint(key)
    jax.clear_caches()


def _edited(
    worker: Worker, job: Job, data: Any, facts: Any, resume: bytes | None, key: str
) -> Moment:
    """Train to the end, saving and reporting on the way; returns the last Moment."""
    saved_at = time.monotonic()
    growing = job.cells[0].kind == GROW
    run, moment = (grow.run if growing else tune.run), None
    for moment in run(job.cells, data, facts, resume):
        if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
            worker.store.save_checkpoint(key, moment.freeze())
            saved_at = time.monotonic()
        if growing:
            part = {"part": moment.epoch, "of": job.cells[0].training.epochs, "what": "epochs"}
        else:
            share = round(100 * tune.progress(moment))
            part = {"part": share, "of": 100, "what": "% of the compute"}
        worker.send({"event": "step", "population": job.key, **part})
    assert moment is not None  # there is always one, if only that of the checkpoint
    return moment


def _trained(worker: Worker, cell: Cell) -> tuple[ConvShape, Network, Any, str, str | None]:
    """The trained network of a cell and its shape; the images; their fingerprint, and its own."""
    data, _, fingerprint = worker.data(cell)
    path = worker.store.weights_path(cell.id)
    one = saved.read_of_cell(path, cell.id, fingerprint, must_be_residual=True)
    assert isinstance(one.shape, ConvShape)
    return one.shape, one.network, data, fingerprint, worker.store.network_digest(cell.id)


def _lesion(worker: Worker, job: Job, task: dict[str, Any]) -> None:
    (cell,) = job.cells
    shape, network, data, fingerprint, digest = _trained(worker, cell)
    settings = removal.Settings(**task["settings"])
    identity = [digest, fingerprint, cell.asdict(), task["settings"]]
    key = f"{job.key}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]}"

    def study(resume: bytes | None) -> dict[str, Any]:
        state = None if resume is None else lesion.thaw(resume, shape, len(data.test.labels))
        for now in lesion.run(shape, network, cell, data, settings, state):
            state = now.state
            worker.store.save_checkpoint(key, lesion.freeze(state))
            part = {"part": now.done, "of": now.total, "what": "lesioned networks"}
            worker.send({"event": "step", "population": job.key, **part})
        assert state is not None  # there is one before the first lesion
        return lesion.record(cell, settings, state, images=len(data.test.labels))

    record = _resuming(worker, key, study)
    origin = {"network": digest, **worker.origin(fingerprint)}
    worker.store.finish({**record, **origin}, LESIONS)
    worker.store.drop_checkpoints(job.key)
    jax.clear_caches()


def _prune(worker: Worker, job: Job, task: dict[str, Any]) -> None:
    (cell,) = job.cells
    shape, network, data, fingerprint, digest = _trained(worker, cell)
    pruned = prune.prune(shape, network, cell, data, task["removed"], task["epochs"])
    origin = {"network": digest, **worker.origin(fingerprint)}
    of = {"of": cell.id, "config": cell.asdict(), "blocks": task["blocks"], **origin}
    whence = {"cell": cell.id, "removed": task["removed"], "config": cell.asdict(), **origin}
    made = (pruned.small, pruned.recalibrated, pruned.tuned)
    for path, one in zip(worker.store.pruned_paths(task["name"]), made, strict=True):
        write_atomically(path, saved.encode(Saved(pruned.shape, one, whence)))
    worker.store.finish({"cell": task["name"], **of, **pruned.record}, PRUNED)
    jax.clear_caches()


def _measure(worker: Worker, job: Job, task: dict[str, Any]) -> None:
    (cell,) = job.cells
    data, _, fingerprint = worker.data(cell)
    store = worker.store
    epochs = store.kept_epochs(cell.id)
    kept = {
        epoch: saved.read_of_cell(store.weights_path(cell.id, epoch), cell.id, fingerprint)
        for epoch in epochs
    }
    record = remeasure.remeasure(cell, kept, data, task["readings"])
    networks = {epoch: store.network_digest(cell.id, epoch) for epoch in epochs}
    store.finish({**record, "networks": networks, **worker.origin(fingerprint)}, MEASURED)
    jax.clear_caches()


TASKS: dict[str, Callable[[Worker, Job, dict[str, Any]], None]] = {
    TRAIN: _train,
    GROW: _edit,
    TUNE: _edit,
    LESION: _lesion,
    PRUNE: _prune,
    MEASURE: _measure,
}
