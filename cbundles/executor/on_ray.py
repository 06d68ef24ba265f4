"""Run populations on a cluster of Ray, a task each: what `local` does on one machine.

    driver (the command)                         a task of Ray, on any machine of the cluster
    the run's folder: records, checkpoints  -->  a folder of its own, with what its job needs
    events, and files that have changed     <--  `local.run_jobs` with one worker process

The driver alone writes to the run. A task computes in a child process, as locally, so JAX never
enters a process of Ray, and it hands over what the child wrote: checkpoints now and then, records
and networks at the end. When a machine is lost the driver starts the job again from the last
checkpoint that it got; no machine has to share a disk with another.

Ray is an extra (``cbundles[ray]``) and is imported only here, when it is asked for.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbundles import data, stopping
from cbundles.config import Images
from cbundles.data import dataset
from cbundles.errors import InputError, in_one_line, quoted
from cbundles.executor import local
from cbundles.executor.planner import Job
from cbundles.files import write_atomically
from cbundles.store import CELLS, KINDS, WEIGHTS, Store

ATTEMPTS = 4  # at a job whose machines are lost; one that fails by itself is not tried again
AHEAD = 2  # times as many jobs as there is room for: a cluster that grows by demand sees it
SEND_SECONDS = 60.0  # from one hand-over of checkpoints to the next, at least
ANSWER_SECONDS = 10.0
AUTO = "auto"
CHECKPOINTS = "checkpoints"
LOST = "lost"  # an event between the driver and its tasks

# Files of a run by their place in it; None for one that is gone.
Files = dict[str, bytes | None]


@dataclass(frozen=True)
class RayCluster:
    """Where jobs go.

    address: of a running cluster, HOST:PORT, or ``auto`` for the one that this machine belongs to;
        None: one is started here, of this machine alone
    most: jobs at a time; None: as many as there is room for
    """

    address: str | None
    most: int | None

    def connect(self, device: str) -> int:
        """Join the cluster; returns how many jobs it has room for at a time. InputError when it
        cannot be reached, or has no such device."""
        import ray

        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
            own = {"num_cpus": self.most, "include_dashboard": False}
            _require_answer(self.address)
            _keep_off_standard_output()
            try:
                with stopping.kept():
                    ray.init(
                        address=self.address or "local",
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        **(own if self.address is None else {}),
                    )
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise InputError(f"--executor ray: {in_one_line(error)}") from None
        room = self.room(device)
        if not room:
            raise InputError(f"--executor ray: the cluster has no {device.upper()}")
        return room if self.most is None else min(room, self.most)

    def room(self, device: str) -> int:
        """How many jobs the whole cluster can do at a time, as it is now."""
        import ray

        return int(ray.cluster_resources().get(device.upper(), 0))


def _require_answer(address: str | None) -> None:
    """InputError unless somebody listens at HOST:PORT: Ray itself tries for many minutes."""
    if address == AUTO:
        address = _address_of_this_machine()
    if address is None:
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"--address {quoted(address)}: must be HOST:PORT; nearest valid: {AUTO}")
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS):
            pass
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(f"--address {address}: no Ray cluster answers there ({error})") from None


def _address_of_this_machine() -> str | None:
    """What Ray takes for ``auto``, as far as it is known: a machine keeps the address of its
    cluster in a file, also after that has gone."""
    if "RAY_ADDRESS" in os.environ:
        return os.environ["RAY_ADDRESS"]
    try:
        place = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
        return place.read_text().strip() or None
    except OSError:
        return None


def _keep_off_standard_output() -> None:
    """Ray prints what happens to its machines among our tables and lines of JSON, whatever it is
    told of logs. A job that is lost is told by us, and Ray's own logs have the rest."""
    worker: Any = sys.modules.get("ray._private.worker")
    if hasattr(worker, "print_to_stdstream"):  # not a public name: another version may lack it
        worker.print_to_stdstream = lambda data, ignore_prefix: None


def require_ray() -> None:
    """InputError where Ray is not installed; does not import it."""
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "--executor ray: Ray is not installed; pip install 'cbundles[ray]', or --executor local"
        )


@dataclass
class _Attempt:
    """A job that Ray has been given.

    number: from 1
    fingerprint: of its images, known once Ray has it
    has_ended: whether it has been told how it ended
    """

    job: Job
    number: int
    fingerprint: str = ""
    has_ended: bool = False


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    *,
    cluster: RayCluster,
    device: str,
    keep: Sequence[str] = (),
    logs: Path | None = None,
    data_dir: Path | None = None,
    manual_dir: Path | None = None,
    then: Callable[[Job], Sequence[Job]] = lambda finished: (),
) -> Generator[dict[str, Any], None, None]:
    """Do all jobs; yields the events of `local.run_jobs`. A job whose machine is lost is given to
    Ray again. Closing the iterator cancels all tasks."""
    import ray

    cluster.connect(device)
    store = Store(folder)
    needs = {"num_cpus": 1, "num_gpus": 1 if device == "gpu" else 0}
    # Retries are the driver's own: Ray's would start with the checkpoint of the first attempt.
    task = ray.remote(num_returns="streaming", max_retries=0, **needs)(_do)
    options = {
        "device": device,
        "keep": list(keep),
        "place": Path.cwd(),
        "data_dir": data_dir,
        "manual_dir": manual_dir,
        "send_seconds": SEND_SECONDS,
    }
    waiting = [_Attempt(job, 1) for job in reversed(jobs)]
    running: dict[Any, _Attempt] = {}

    def submit(attempt: _Attempt) -> None:
        attempt.fingerprint = _fingerprint(attempt.job)
        needed = _needed(attempt.job, store)
        running[task.remote(attempt.job, needed, attempt.fingerprint, options)] = attempt

    try:
        while waiting or running:
            most = cluster.most or max(1, AHEAD * cluster.room(device))
            while waiting and len(running) < most:
                submit(waiting.pop())
            (task_with_news, *_), _ = ray.wait(list(running), num_returns=1)
            attempt = running[task_with_news]
            event, files = _hear(task_with_news, attempt.job)
            if attempt.has_ended:  # whatever became of its process afterwards
                del running[task_with_news]
                continue
            if event is None:
                event = _failed(attempt.job, "its task ended without a word")
            if event["event"] == LOST:
                del running[task_with_news]
                event = _tell_of_loss(attempt, event["reason"])
                if event["event"] == "note":
                    waiting.append(_Attempt(attempt.job, attempt.number + 1))
            _take(files, attempt.fingerprint, store)
            if event["event"] == "failed" and event["log"] is not None:
                event["log"] = _keep_log(event["log"], attempt.job, logs or store.logs)
            if event["event"] == "finished":
                waiting += [_Attempt(job, 1) for job in then(attempt.job)]
            attempt.has_ended |= event["event"] in ("finished", "failed")
            if event["event"] != "started" or attempt.number == 1:
                yield event
    finally:
        for left in running:
            ray.cancel(left)


def _hear(task: Any, job: Job) -> tuple[dict[str, Any] | None, Files]:
    """What a task says next, and the files that it hands over; no event when nothing more comes."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        event, files = ray.get(next(task))
    except StopIteration:
        return None, {}
    except RayTaskError as error:  # the task itself has failed
        return _failed(job, in_one_line(error.cause)), {}
    except RayError as error:  # its process, or its machine, is gone; advice follows in many lines
        return {"event": LOST, "reason": in_one_line(error).partition(". ")[0]}, {}
    return event, files


def _tell_of_loss(attempt: _Attempt, reason: str) -> dict[str, Any]:
    """A note, as long as the job is to be tried again; then a failure."""
    if attempt.number == ATTEMPTS:
        return _failed(attempt.job, f"lost {ATTEMPTS} times; {reason}")
    label = attempt.job.cells[0].label
    return {"event": "note", "text": f"{label}: lost, and given to Ray again ({reason})"}


def _failed(job: Job, reason: str) -> dict[str, Any]:
    return {"event": "failed", "population": job.key, "reason": reason, "log": None}


def _fingerprint(job: Job) -> str:
    """Of the images of a job, which have been prepared here."""
    stored = dataset.read(data.storage_of(*job.cells[0].data.images), verify=False)
    if stored is None:
        raise InputError(f"{job.cells[0].data.images}: the decoded data set has disappeared")
    return stored.fingerprint


def _needed(job: Job, store: Store) -> Files:
    """What there is of a job already: its checkpoints, and the networks of its cells that are kept
    or studied."""
    patterns = [f"{CHECKPOINTS}/{job.key}-*", *(f"{WEIGHTS}/{cell.id}*" for cell in job.cells)]
    return {
        str(path.relative_to(store.folder)): path.read_bytes()
        for pattern in patterns
        for path in store.folder.glob(pattern)
    }


def _take(files: Files, fingerprint: str, store: Store) -> None:
    """Write what a task has handed over: records last, since whatever has one is finished."""
    records = [kind.folder for kind in KINDS]
    for name in sorted(files, key=lambda name: name.partition("/")[0] in records):
        path, content = store.folder / name, files[name]
        if content is None:
            path.unlink(missing_ok=True)
            continue
        is_cell = path.parent.name == CELLS.folder
        if not (is_cell and store.is_finished(path.stem, fingerprint)):
            write_atomically(path, content)


def _keep_log(content: bytes, job: Job, logs: Path) -> str:
    """Write what a task said of its failure where the logs of the run are; returns where."""
    path = logs / f"ray-{job.key}.txt"
    write_atomically(path, content)
    return str(path)


def _do(
    job: Job, needed: Files, fingerprint: str, options: dict[str, Any]
) -> Iterator[tuple[dict[str, Any] | None, Files]]:
    """A task of Ray, in a process of Ray: do a job in a folder of its own. Yields each event with
    the files that have changed."""
    try:
        local.refuse_double_precision()
        with _own_folder() as folder, _own_core(options["device"]), _there(options["place"]):
            _require_images(job.cells[0].data.images, fingerprint, options)
            for name, content in needed.items():
                assert content is not None
                write_atomically(folder / name, content)
            yield from _events_and_files(job, folder, options)
    except InputError as error:
        yield _failed(job, in_one_line(error)), {}


def _events_and_files(
    job: Job, folder: Path, options: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], Files]]:
    """The events of a job, and with some of them what has changed in its folder."""
    sent, sent_at = _versions(folder), time.monotonic()
    for event in _events(job, folder, options):
        files: Files = {}
        ends = event["event"] in ("finished", "failed")
        if ends or time.monotonic() - sent_at >= options["send_seconds"]:
            now = _versions(folder)
            changed = [name for name in now if now[name] != sent.get(name)]
            if not ends:  # the child may be between a record and what belongs to it
                changed = [n for n in changed if n.partition("/")[0] in (CHECKPOINTS, WEIGHTS)]
            for name in changed:
                with contextlib.suppress(FileNotFoundError):  # replaced a moment ago
                    files[name] = (folder / name).read_bytes()
                    sent[name] = now[name]
            if ends:
                files.update({name: None for name in sent if name not in now})
            sent_at = time.monotonic()
        yield event, files


def _events(job: Job, folder: Path, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those of one worker process. Logs stay here: the content of the one that a failure names
    goes along."""
    logs = folder / "logs"
    keep, device = options["keep"], options["device"]
    try:
        for event in local.run_jobs([job], folder, device=device, workers=1, keep=keep, logs=logs):
            if event["event"] == "failed" and event["log"] is not None:
                event["log"] = Path(event["log"]).read_bytes()
            yield event
    except InputError as error:  # the worker could not start, and its log says why
        reason = in_one_line(error).partition("; see ")[0]
        said = b"".join(path.read_bytes() for path in logs.glob("worker-*"))
        yield {**_failed(job, reason), "log": said or None}


def _versions(folder: Path) -> dict[str, tuple[int, int]]:
    """What is in a folder of a run, but for logs, and what changes when a file is replaced."""
    folders = [CHECKPOINTS, WEIGHTS, *(kind.folder for kind in KINDS)]
    versions = {}
    for path in (path for name in folders for path in folder.glob(f"{name}/[!.]*")):
        with contextlib.suppress(FileNotFoundError):
            now = path.stat()
            versions[str(path.relative_to(folder))] = (now.st_mtime_ns, now.st_ino)
    return versions


def _require_images(images: Images, fingerprint: str, options: dict[str, Any]) -> None:
    """Make sure that this machine has the images, and the same ones as the driver."""
    here = data.load(*images, data_dir=options["data_dir"], manual_dir=options["manual_dir"])
    if here.fingerprint != fingerprint:
        raise InputError(
            f"{images}: other images on {os.uname().nodename} ({here.fingerprint}) than where the "
            f"command was started ({fingerprint})"
        )


def _scratch() -> Path:
    """Where the tasks of this user are at work on this machine."""
    return Path(tempfile.gettempdir()) / f"cbundles-ray-{os.getuid()}"


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder for one task, named after its process; those of killed ones are removed first."""
    _scratch().mkdir(exist_ok=True)
    for other in _scratch().glob("task-*"):
        try:
            os.kill(int(other.name.split("-")[1]), 0)  # asks only whether there is such a process
        except ProcessLookupError:
            shutil.rmtree(other, ignore_errors=True)
        except (PermissionError, ValueError):
            continue
    with tempfile.TemporaryDirectory(prefix=f"task-{os.getpid()}-", dir=_scratch()) as name:
        yield Path(name)


@contextlib.contextmanager
def _there(place: Path) -> Iterator[None]:
    """In the folder from which the command was started, where this machine has it, too: paths of
    images are relative to it."""
    with contextlib.chdir(place) if place.is_dir() else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _own_core(device: str) -> Iterator[None]:
    """Bind this thread, and the child that it starts, to a core that no other task has: Ray counts
    cores and does not say which. Where all are taken, or a GPU computes, nothing is bound."""
    import fcntl

    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    with contextlib.ExitStack() as held:
        for core in sorted(cores) if device == "cpu" else ():
            file = held.enter_context((_scratch() / f"core-{core}").open("w"))
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.sched_setaffinity(0, {core})
                break
        try:
            yield
        finally:
            if cores:
                os.sched_setaffinity(0, cores)
