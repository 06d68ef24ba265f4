"""Runs on disk. A cell is finished when its record exists; records appear by atomic rename.

    results/<name>/
        run.json             what was run: configuration, versions, device, commit, data
        records.jsonl        completion records of the cells of a complete run, see `records`;
                             records.jsonl.gz in a published run, so that a clone stays small
        cells/<id>.json      completion record of one cell, until the run is complete
        checkpoints/<id>     the latest state of a population in training, gone when it ends
        weights/<id>.npz     the trained network of a cell, when it was asked for
        weights/<id>-epoch1.npz   the network after epoch 1, likewise
        measured/<id>.json   what further readings say of the networks of a cell that were kept
        lesions/<id>.json    what became of the trained network of a cell without some blocks
        pruned/              networks without some blocks, .npz, and what was measured of them
        lesions.jsonl, pruned.jsonl, measured.jsonl
                             these records of all cells, once a run is complete
        logs/                what the worker processes printed, and tracebacks of failed cells;
                             of a shard in a folder of its own
        before-fresh/        all of the above as it was before --fresh, until the first new record
        table.csv, ...       views, computed from the records alone

Killing a run at any moment leaves either a record or none, never half of one.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import itertools
import json
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np

from cbundles import formats, replacing
from cbundles.config import LESION, MEASURE, PRUNE, SWEEP
from cbundles.errors import InputError
from cbundles.files import clear_staging_files, lock, write_atomically
from cbundles.keeping import LAST
from cbundles.records import (
    HASH_OF_FILE,
    AnyRecord,
    CellRecord,
    GrowRecord,
    LesionRecord,
    MeasuredRecord,
    PrunedRecord,
    SweepRecord,
    ToyRecord,
    TuneRecord,
    reading,
    sealed,
)

Version = tuple[int, int, int]  # of a file, see `_version_of`
Kept = TypeVar("Kept", bound=AnyRecord, covariant=True)


@dataclass(frozen=True)
class Kind(Generic[Kept]):
    """Records that are kept together.

    folder: of their files until the run is complete
    sealed_file: in which all are then
    types: which records these may be
    unsaid: of what kind those are that do not say it, as the first ones do not
    """

    folder: str
    sealed_file: str
    types: tuple[type[Kept], ...]
    unsaid: str


CELLS: Kind[CellRecord] = Kind(
    "cells", "records.jsonl", (SweepRecord, GrowRecord, TuneRecord, ToyRecord), SWEEP
)
SWEEPS: Kind[SweepRecord] = Kind("cells", "records.jsonl", (SweepRecord,), SWEEP)  # of CELLS
LESIONS: Kind[LesionRecord] = Kind("lesions", "lesions.jsonl", (LesionRecord,), LESION)
PRUNED: Kind[PrunedRecord] = Kind("pruned", "pruned.jsonl", (PrunedRecord,), PRUNE)
MEASURED: Kind[MeasuredRecord] = Kind("measured", "measured.jsonl", (MeasuredRecord,), MEASURE)
KINDS: tuple[Kind[AnyRecord], ...] = (CELLS, LESIONS, PRUNED, MEASURED)
WEIGHTS, EVENTS = "weights", "tensorboard"
# Whoever looks whether a run is in use holds it for a moment, and a command that begins just then
# is not to be refused.
LOCK_TRIALS, LOCK_PAUSE_SECONDS = 20, 0.025
# What is drawn, fig4_entropy_by_layer.png or fig_resolution.pdf, and the list of captions.
FIGURE, CAPTIONS = "fig[0-9_]*.*", "figures.md"
VIEWS = (
    "table.csv",
    "table.md",
    "table.tex",
    "table1.csv",
    "table1.md",
    "table1.tex",
    "layers.csv",
    "lesion.csv",
    "lesion.md",
    "lesion_fair.csv",
    "pruned.csv",
    "growth.csv",
    "growth.md",
    "tuning.csv",
    "tuning.md",
    "readings.csv",
    "probe_sizes.csv",
)


def _is_of_run(place: Path) -> bool:
    """Whether a run writes a file at this place in its folder."""
    top, name = place.parts[0], place.name
    if len(place.parts) == 1:
        sealed = tuple(kind.sealed_file for kind in KINDS)
        return name == "run.json" or name.startswith(sealed) or name in VIEWS
    if top == "figures":
        return name == CAPTIONS or fnmatch.fnmatchcase(name, FIGURE)
    suffixes = {WEIGHTS: ".npz", "checkpoints": ".msgpack", **{k.folder: ".json" for k in KINDS}}
    return top == EVENTS or (top in suffixes and name.endswith(suffixes[top]))


class Store:
    """The folder of one run."""

    def __init__(self, folder: Path, damaged: list[str] | None = None) -> None:
        """damaged: a list on which damaged lines of sealed records are told, and left out, instead
        of an InputError."""
        self.folder = folder
        self._damaged = damaged
        self._read: dict[str, tuple[Version, dict[str, AnyRecord]]] = {}
        self.logs = folder / "logs"
        self.figures = folder / "figures"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process. Raises InputError while another process holds it."""
        with self._lock(".lock", "another cbundles process is writing here", shared=False):
            self._refuse_what_is_newer()
            clear_staging_files(self.folder)
            self.settle()
            self._refuse_what_is_no_run()
            try:
                yield
            finally:
                self.settle()
                clear_staging_files(self.folder)  # of writers that have died since the beginning

    @contextlib.contextmanager
    def shared(self, shard: str) -> Iterator[None]:
        """Hold one shard of the run, by the name of its folder; others may hold other shards.
        Raises InputError while another process holds this one, or the whole run."""
        whole_run = self._lock(".lock", "another cbundles process is writing here", shared=True)
        name = f"{self.logs.name}/{shard}/.lock"
        of_shard = self._lock(name, "another process is at work on this shard", shared=False)
        with whole_run, of_shard:
            self._refuse_what_is_newer()
            clear_staging_files(self.folder)
            self._refuse_what_is_no_run()
            yield

    @contextlib.contextmanager
    def _lock(self, name: str, why_not: str, *, shared: bool) -> Iterator[None]:
        """Hold a file of the folder, together with others that share it, or alone."""
        import fcntl

        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a")  # a file of this name may be somebody else's
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be written: {error}") from None
        with file:
            for _ in range(LOCK_TRIALS):
                with contextlib.suppress(BlockingIOError):
                    lock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                    break
                time.sleep(LOCK_PAUSE_SECONDS)
            else:
                raise InputError(
                    f"{self.folder}: {why_not}; wait for it, or choose another folder with --out"
                )
            yield

    def recover(self) -> None:
        """Put back what a killed `--fresh` has set aside and not replaced, before it is read; not
        while another process is about it."""
        if self.is_replacing:
            with contextlib.suppress(InputError), self.locked():
                pass

    def is_in_use(self) -> bool:
        """Whether a process holds the run, or a shard of it, now. To see it, this holds it itself
        for a moment, see LOCK_TRIALS."""
        import fcntl

        path = self.folder / ".lock"
        # Where a lock takes the right to write, as over NFS, it is asked for; the run of another
        # user may be read alone.
        for mode in ("r+", "r"):
            try:
                with path.open(mode) as file:
                    lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            except OSError:  # nobody ever held it, or this mode is refused
                continue
            return False
        return False

    def require_usable(self) -> None:
        """InputError for a place to which no run can go, as far as that shows without a lock."""
        self._refuse_damaged_description()
        self._refuse_what_is_newer()
        self._refuse_what_is_no_run()

    def _refuse_damaged_description(self) -> None:
        """InputError where nothing tells any more whether the run is a published one, or what kind
        of a run it is."""
        path = self.folder / "run.json"
        if path.is_file() and not self._description():
            raise InputError(
                f"{path}: damaged; restore it from a copy, or delete it if the run is your own: "
                "the records beside it count all the same"
            )

    def _refuse_what_is_newer(self) -> None:
        """InputError when run.json is of a format that this version would overwrite unread."""
        formats.check(formats.RUN, self._description(), str(self.folder / "run.json"))

    def _refuse_what_is_no_run(self) -> None:
        """InputError where no run is in the folder, but files of somebody else that one would write
        over."""
        of_kinds = [[self.folder / kind.folder, *self._sealed_paths(kind)] for kind in KINDS]
        places = [self.folder / "run.json", *itertools.chain(*of_kinds)]
        theirs = [str(path.relative_to(self.folder)) for path in self._views()]
        if theirs and not any(place.exists() for place in places):
            more = f" and {len(theirs) - 1} more" if len(theirs) > 1 else ""
            raise InputError(
                f"{self.folder}: holds no run, but {theirs[0]}{more}, which a run would write "
                "over; nearest valid: another folder, with --out"
            )

    @property
    def is_published(self) -> bool:
        """Whether this is a run of the repository itself, which no command changes unasked."""
        return self._description().get("published") is True

    def require_kind(self, kind: str) -> None:
        """InputError where the folder is that of a run of another kind."""
        found = self._description().get("kind", kind)
        if found != kind:
            raise InputError(
                f"{self.folder}: holds a run of kind {found}, which {kind} would write over; "
                "nearest valid: another folder, with --out"
            )

    @property
    def written(self) -> str:
        """When a command last wrote to the run, as ``2026-11-21 10:09``; "" where that is not
        known."""
        return str(self._description().get("written", ""))[:16].replace("T", " ")

    def _description(self) -> dict[str, Any]:
        """What run.json says; nothing when there is none, or a damaged one."""
        with contextlib.suppress(OSError, ValueError, RecursionError):
            content = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
            if isinstance(content, dict):
                return content
        return {}

    def cells_of_last_command(self) -> set[str]:
        """The cells that run.json names; none where there is no run, or a damaged one."""
        cells = self._description().get("cells", [])
        return (
            {cell for cell in cells if isinstance(cell, str)} if isinstance(cells, list) else set()
        )

    def record_path(self, cell: str, kind: Kind[AnyRecord] = CELLS) -> Path:
        return self.folder / kind.folder / f"{cell}.json"

    def sealed_path(self, kind: Kind[AnyRecord]) -> Path:
        """Of the file of a complete run: packed where the repository keeps it, else plain lines."""
        return self._sealed_paths(kind)[self.is_published]

    def _sealed_paths(self, kind: Kind[AnyRecord]) -> tuple[Path, Path]:
        """The plain file and the packed one; both are read, since a run may become published."""
        plain = self.folder / kind.sealed_file
        return plain, plain.with_name(f"{plain.name}{sealed.PACKED}")

    def has(self, cell: str, kind: Kind[AnyRecord] = CELLS) -> bool:
        """Whether there is a record, good or damaged."""
        return self.record_path(cell, kind).is_file() or cell in self._sealed(kind)

    def _sealed(self, kind: Kind[AnyRecord]) -> dict[str, AnyRecord]:
        """The records in the file of a complete run, which is read again when it has changed."""
        plain, packed = (self._sealed_in(path, kind) for path in self._sealed_paths(kind))
        return {**packed, **plain} if plain and packed else plain or packed

    def _sealed_in(self, path: Path, kind: Kind[AnyRecord]) -> dict[str, AnyRecord]:
        now = _version_of(path)
        if now is None:
            return {}
        known = self._read.get(path.name)
        if known is None or known[0] != now:
            known = self._read[path.name] = (now, sealed.decode(path, kind.unsaid, self._damaged))
        return known[1]

    def _write_sealed(self, kind: Kind[AnyRecord], records: Sequence[AnyRecord]) -> None:
        """Into the one file in which they belong; none is left without records."""
        path = self.sealed_path(kind)
        if records:
            is_packed = path.name.endswith(sealed.PACKED)
            write_atomically(path, sealed.encode(records, is_packed))
        for other in self._sealed_paths(kind):
            if other != path or not records:
                other.unlink(missing_ok=True)

    def seal(self) -> None:
        """Put all records of each kind into one file, which then is read back, and remove their
        own files. What is written later, or meanwhile by another process, opens the run again,
        until it is sealed anew."""
        for kind in KINDS:
            own_files, readable = {}, {}
            for cell in self._loose(kind):
                path = self.record_path(cell, kind)
                own_files[path] = _version_of(path)
                with contextlib.suppress(InputError):  # a damaged one stays for people to see
                    readable[cell] = self.record(cell, kind)
            if not own_files:
                continue
            records = {**self._sealed(kind), **readable}
            self._write_sealed(kind, list(records.values()))
            if self._sealed(kind) != records:
                raise RuntimeError(f"{self.sealed_path(kind)}: not what was written")
            for cell in readable:
                path = self.record_path(cell, kind)
                if _version_of(path) == own_files[path]:  # else it is newer than what was sealed
                    path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # something else may be there
                (self.folder / kind.folder).rmdir()

    def _loose(self, kind: Kind[AnyRecord]) -> list[str]:
        """Ids of the records that have a file of their own."""
        return sorted(path.stem for path in (self.folder / kind.folder).glob("*.json"))

    def has_loose_records(self) -> bool:
        """Whether some record has a file of its own: the run is open, until it is sealed."""
        return any(self._loose(kind) for kind in KINDS)

    def ids(self, kind: Kind[AnyRecord] = CELLS) -> list[str]:
        """Of all records of a kind."""
        return sorted({*self._loose(kind), *self._sealed(kind)})

    def is_finished(self, cell: str, fingerprint: str | None) -> bool:
        """True when the cell was trained on the data with this fingerprint; None: on any."""
        if not self.has(cell):
            return False
        trained_on = self.record(cell).origin.data_fingerprint
        return None in (fingerprint, trained_on) or trained_on == fingerprint

    @overload
    def record(self, cell: str) -> CellRecord: ...

    @overload
    def record(self, cell: str, kind: Kind[Kept]) -> Kept: ...

    def record(self, cell: str, kind: Kind[AnyRecord] = CELLS) -> AnyRecord:
        """A record; its own file comes before that of the whole run, which is older. InputError for
        one that is damaged, or of another kind."""
        path, is_sealed = self.record_path(cell, kind), False
        try:
            own_file = _content_of(path)
            if own_file is not None:
                record = reading.decode(own_file, kind.unsaid, str(path))
            else:
                is_sealed = True
                record = self._sealed(kind)[cell]
            if record.id != cell:
                raise ValueError(f"it is the record of {record.id}")
            if not isinstance(record, kind.types):
                raise ValueError(f"its kind is {record.kind}")
        except KeyError:
            raise InputError(f"{self.sealed_path(kind)}: no record of {cell}") from None
        except (OSError, ValueError, RecursionError) as error:
            way_out = "delete it to make it again"
            if is_sealed:
                path, way_out = self.sealed_path(kind), "delete its line to make it again"
            raise InputError(f"{path}: damaged record ({error}); {way_out}") from None
        return record

    def records(self, kind: Kind[Kept]) -> list[Kept]:
        """All records of a kind."""
        return [self.record(cell, kind) for cell in self.ids(kind)]

    def finish(self, record: AnyRecord, kind: Kind[AnyRecord] = CELLS) -> None:
        write_atomically(self.record_path(record.id, kind), reading.encode(record))

    def weights_path(self, cell: str, epoch: str = LAST) -> Path:
        """The file of a network as it was after an epoch, see `keeping`."""
        suffix = "" if epoch == LAST else f"-epoch{epoch}"
        return self.folder / WEIGHTS / f"{cell}{suffix}.npz"

    def kept_epochs(self, cell: str) -> list[str]:
        """The epochs of which there is a file, in order."""
        stems = [path.stem for path in self.folder.glob(f"{WEIGHTS}/{cell}-epoch*.npz")]
        suffixes = [stem.rpartition("-epoch")[2] for stem in stems]
        numbers = sorted(int(suffix) for suffix in suffixes if suffix.isdecimal())
        last = [LAST] if self.weights_path(cell).is_file() else []
        return [*map(str, numbers), *last]

    def drop_weights(self, cell: str, but: Collection[str]) -> None:
        """Remove the networks of a cell that were kept after other epochs than these."""
        for epoch in self.kept_epochs(cell):
            if epoch not in but:
                self.weights_path(cell, epoch).unlink(missing_ok=True)

    def pruned_paths(self, name: str) -> list[Path]:
        """Of a pruned network: as it is, with its own statistics, and after the fine-tune."""
        folder = self.folder / PRUNED.folder
        return [folder / f"{name}{kind}.npz" for kind in ("", "-recalibrated", "-tuned")]

    def network_digest(self, cell: str, epoch: str = LAST) -> str | None:
        """What identifies the network of a cell after an epoch: a hash of its numbers, whatever
        else its file says. None when it is not there; no network's digest when it is damaged."""
        try:
            with np.load(self.weights_path(cell, epoch), allow_pickle=False) as archive:
                numbers = [archive[name].tobytes() for name in ("params", "statistics")]
        except FileNotFoundError:
            return None
        except Exception:  # zipfile and NumPy raise many kinds for a damaged file
            return "damaged"
        return hashlib.sha256(b"".join(numbers)).hexdigest()[:16]

    def network_digests(self, cell: str) -> dict[str, str]:
        """What identifies each network of a cell that is there, by its epoch."""
        digests = {epoch: self.network_digest(cell, epoch) for epoch in self.kept_epochs(cell)}
        return {epoch: digest for epoch, digest in digests.items() if digest is not None}

    def is_network_of(self, record: LesionRecord | PrunedRecord, cell: str) -> bool:
        """Whether a study was made of the trained network of a cell that is there now; also when
        none is there."""
        if not record.network.startswith(HASH_OF_FILE):
            return self.network_digest(cell) in (None, record.network)
        file = _content_of(self.weights_path(cell))
        if file is None:
            return True
        return record.network == f"{HASH_OF_FILE}{hashlib.sha256(file).hexdigest()[:16]}"

    def replace(self, cells: Sequence[str], populations: Sequence[str] = ()) -> None:
        """Forget cells that are about to be trained again; until the first of them is, the folder
        as it was is kept, see `replacing`. populations: the keys of those that they are in."""
        replacing.set_aside(self.folder)
        self.forget(cells, populations)

    def replace_studies(self, kind: Kind[Kept], names: list[str]) -> None:
        """Forget studies of one kind that are about to be made again, likewise."""
        replacing.set_aside(self.folder)
        self._forget_records(kind, names)

    @property
    def is_replacing(self) -> bool:
        """Whether an earlier run is set aside until there is a new record."""
        return (self.folder / replacing.ASIDE).is_dir()

    def settle(self) -> bool:
        """Let go of what was to be replaced, or put it back where nothing has replaced it; returns
        whether it was put back."""
        return replacing.settle(self.folder, _is_of_run)

    def forget(self, cells: Sequence[str], populations: Sequence[str] = ()) -> None:
        """Remove the records and weights of cells, what was made of them, and the checkpoints of
        all this; those of other networks stay."""
        for kind in KINDS:
            self._forget_records(kind, cells)
        for cell in cells:
            self._remove(f"{WEIGHTS}/{cell}*")
        for key in {*cells, *populations}:
            self.drop_checkpoints(key)

    def _forget_records(self, kind: Kind[AnyRecord], names: Sequence[str]) -> None:
        """Remove the records whose names begin so, and what lies beside them."""
        kept = self._sealed(kind)
        left = [record for name, record in kept.items() if not name.startswith(tuple(names))]
        if not left or len(left) < len(kept):
            self._write_sealed(kind, left)
        for name in names:
            self._remove(f"{kind.folder}/{name}*")

    def _remove(self, pattern: str) -> None:
        for path in self.folder.glob(pattern):
            path.unlink(missing_ok=True)

    def clear_views(self) -> None:
        """Remove what is computed from records, so that nothing stale stays beside what is new."""
        for path in self._views():
            path.unlink(missing_ok=True)

    def _views(self) -> list[Path]:
        """The files that are there of those that are computed from records."""
        views = [self.figures / CAPTIONS, *(self.folder / name for name in VIEWS)]
        return [path for path in [*views, *self.figures.glob(FIGURE)] if path.is_file()]

    def _checkpoint(self, key: str) -> Path:
        return self.folder / "checkpoints" / f"{key}.msgpack"

    def save_checkpoint(self, key: str, content: bytes) -> None:
        write_atomically(self._checkpoint(key), formats.seal(content))

    def load_checkpoint(self, key: str) -> bytes | None:
        """What was saved last; None without a checkpoint. DamagedCheckpoint when it has changed."""
        content = _content_of(self._checkpoint(key))
        return None if content is None else formats.unseal(content)

    def checkpoints(self) -> list[tuple[str, float]]:
        """The key of each, and when it was saved, as seconds of the clock; the latest first."""
        saved = {}
        for path in self.folder.glob("checkpoints/*.msgpack"):
            with contextlib.suppress(FileNotFoundError):  # what it was for has ended meanwhile
                saved[path.stem] = path.stat().st_mtime
        return sorted(saved.items(), key=lambda item: -item[1])

    def drop_checkpoint(self, key: str) -> None:
        self._checkpoint(key).unlink(missing_ok=True)

    def drop_checkpoints(self, prefix: str) -> None:
        """Those whose key begins so."""
        self._remove(f"checkpoints/{prefix}*")

    def write_run(self, content: dict[str, Any]) -> None:
        numbered = {"format": formats.NEWEST[formats.RUN], **content}
        write_atomically(self.folder / "run.json", json.dumps(numbered, indent=1) + "\n")


def _version_of(path: Path) -> Version | None:
    """What changes when another file comes into this place; None without any."""
    try:
        now = path.stat()
    except OSError:
        return None
    return now.st_mtime_ns, now.st_size, now.st_ino


def _content_of(path: Path) -> bytes | None:
    """None without a file, which another process may have removed a moment ago."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
