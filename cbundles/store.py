"""Runs on disk. A cell is finished when its record exists; records appear by atomic rename.

    results/<name>/
        run.json             what was run: configuration, versions, device, commit, data
        records.jsonl        completion records of the cells of a complete run, see `sealed`
        cells/<id>.json      completion record of one cell, until the run is complete
        checkpoints/<id>     the latest state of a population in training, gone when it ends
        weights/<id>.npz     the trained network of a cell, when it was asked for
        weights/<id>-epoch1.npz   the network after epoch 1, likewise
        measured/<id>.json   what further readings say of the networks of a cell that were kept
        lesions/<id>.json    what became of the trained network of a cell without some blocks
        pruned/              networks without some blocks, .npz, and what was measured of them
        lesions.jsonl, pruned.jsonl, measured.jsonl
                             these records of all cells, once a run is complete
        logs/                what the worker processes printed, and tracebacks of failed cells
        before-fresh/        all of the above as it was before --fresh, until the first new record
        table.csv, ...       views, computed from the records alone

Killing a run at any moment leaves either a record or none, never half of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cbundles import formats, replacing, sealed
from cbundles.errors import InputError
from cbundles.keeping import LAST

# Kinds of records.
CELLS, LESIONS, PRUNED, MEASURED = "cells", "lesions", "pruned", "measured"
# All records of a kind, once a run is complete.
SEALED_FILES = {
    CELLS: "records.jsonl",
    LESIONS: "lesions.jsonl",
    PRUNED: "pruned.jsonl",
    MEASURED: "measured.jsonl",
}
WEIGHTS = "weights"
VIEWS = ("table.csv", "table.md", "layers.csv", "lesion.csv", "lesion.md", "pruned.csv",
         "growth.csv", "growth.md", "tuning.csv", "tuning.md", "readings.csv")  # fmt: skip
# Keys without which a record of a kind is damaged.
NEEDED = {
    CELLS: (),
    LESIONS: (
        "blocks",
        "config",
        "correct",
        "curves",
        "data_fingerprint",
        "images",
        "network",
        "settings",
    ),
    PRUNED: (
        "blocks",
        "bytes",
        "config",
        "correct",
        "epochs",
        "flops",
        "gained",
        "images",
        "latency_seconds",
        "layers",
        "lost",
        "network",
        "parameters",
        "removed",
    ),
    MEASURED: (
        "config",
        "data_fingerprint",
        "epochs",
        "epochs_trained",
        "history",
        "networks",
        "readings",
    ),
}


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that it is, at every moment, absent, the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, staging = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(staging).chmod(0o644)
        Path(staging).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(staging).unlink()
        raise


class Store:
    """The folder of one run."""

    def __init__(self, folder: Path, damaged: list[str] | None = None) -> None:
        """damaged: a list on which damaged lines of sealed records are told, and left out, instead
        of an InputError."""
        self.folder = folder
        self._damaged = damaged
        self._read: dict[str, tuple[Any, dict[str, dict[str, Any]]]] = {}
        self.logs = folder / "logs"
        self.figures = folder / "figures"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process. Raises InputError while another process holds it."""
        import fcntl

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / ".lock").open("w")
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be written: {error}") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"{self.folder}: another cbundles process is writing here; "
                    "wait for it, or choose another folder with --out"
                ) from None
            self._refuse_what_is_newer()
            for pattern in (".*.????????", "*/.*.????????"):  # staging files of a killed process
                for litter in self.folder.glob(pattern):
                    litter.unlink(missing_ok=True)
            self.settle()
            try:
                yield
            finally:
                self.settle()

    def recover(self) -> None:
        """Put back what a killed `--fresh` has set aside and not replaced, before it is read; not
        while another process is about it."""
        if (self.folder / replacing.ASIDE).is_dir():
            with contextlib.suppress(InputError), self.locked():
                pass

    def _refuse_what_is_newer(self) -> None:
        """InputError when run.json is of a format that this version would overwrite unread."""
        formats.check(formats.RUN, self._description(), str(self.folder / "run.json"))

    @property
    def is_published(self) -> bool:
        """Whether this is a run of the repository itself, which no command changes unasked."""
        return self._description().get("published") is True

    @property
    def written(self) -> str:
        """When a command last wrote to the run, as ``2026-11-21 10:09``; "" where that is not
        known."""
        return str(self._description().get("written", ""))[:16].replace("T", " ")

    def _description(self) -> dict[str, Any]:
        """What run.json says; nothing when there is none, or a damaged one."""
        with contextlib.suppress(OSError, ValueError):
            content = json.loads((self.folder / "run.json").read_text())
            if isinstance(content, dict):
                return content
        return {}

    def record_path(self, cell: str, kind: str = CELLS) -> Path:
        return self.folder / kind / f"{cell}.json"

    def sealed_path(self, kind: str) -> Path:
        return self.folder / SEALED_FILES[kind]

    def has(self, cell: str, kind: str = CELLS) -> bool:
        """Whether there is a record, good or damaged."""
        return self.record_path(cell, kind).is_file() or cell in self._sealed(kind)

    def _sealed(self, kind: str) -> dict[str, dict[str, Any]]:
        """The records in the file of a complete run, which is read again when it has changed."""
        path = self.sealed_path(kind)
        try:
            now = path.stat()
        except OSError:
            return {}
        version = (now.st_mtime_ns, now.st_size, now.st_ino)
        if self._read.get(kind, (None, {}))[0] != version:
            self._read[kind] = (version, sealed.decode(path, self._damaged))
        return self._read[kind][1]

    def seal(self) -> None:
        """Put all records of each kind into one file, which then is read back, and remove their
        own files. What is written later opens the run again, until it is sealed anew."""
        for kind in SEALED_FILES:
            loose = self._loose(kind)
            if not loose:
                continue
            readable: dict[str, dict[str, Any]] = {}
            for cell in loose:
                with contextlib.suppress(InputError):  # a damaged one stays for people to see
                    readable[cell] = self.record(cell, kind)
            records = {**self._sealed(kind), **readable}
            write_atomically(self.sealed_path(kind), sealed.encode(list(records.values())))
            if self._sealed(kind) != records:
                raise RuntimeError(f"{self.sealed_path(kind)}: not what was written")
            for cell in readable:
                self.record_path(cell, kind).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # something else may be there
                (self.folder / kind).rmdir()

    def _loose(self, kind: str) -> list[str]:
        """Ids of the records that have a file of their own."""
        return sorted(path.stem for path in (self.folder / kind).glob("*.json"))

    def ids(self, kind: str = CELLS) -> list[str]:
        """Of all records of a kind."""
        return sorted({*self._loose(kind), *self._sealed(kind)})

    def is_finished(self, cell: str, fingerprint: str | None) -> bool:
        """True when the cell was trained on the data with this fingerprint; None: on any."""
        if not self.has(cell):
            return False
        found = self.record(cell).get("data_fingerprint", fingerprint)
        return fingerprint is None or bool(found == fingerprint)

    def record(self, cell: str, kind: str = CELLS) -> dict[str, Any]:
        """A record; its own file comes before that of the whole run, which is older."""
        path = self.record_path(cell, kind)
        try:
            if path.is_file():
                content: dict[str, Any] = json.loads(path.read_text())
            else:
                content, path = self._sealed(kind)[cell], self.sealed_path(kind)
            formats.check(formats.RECORD, content, str(path))
            if content["cell"] != cell:
                raise ValueError(f"it is the record of {content['cell']}")
            if missing := set(NEEDED[kind]) - content.keys():
                raise ValueError(f"without {', '.join(sorted(missing))}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if path == self.sealed_path(kind):
                raise InputError(
                    f"{path}: damaged record of {cell} ({error}); delete its line to make it again"
                ) from None
            raise InputError(
                f"{path}: damaged record ({error}); delete it to make it again"
            ) from None
        return content

    def records(self, kind: str) -> list[dict[str, Any]]:
        """All records of a kind."""
        return [self.record(cell, kind) for cell in self.ids(kind)]

    def finish(self, record: dict[str, Any], kind: str = CELLS) -> None:
        content = {"format": formats.NEWEST[formats.RECORD], **record}
        write_atomically(self.record_path(record["cell"], kind), json.dumps(content) + "\n")

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
        folder = self.folder / PRUNED
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

    def is_network_of(self, record: dict[str, Any], cell: str) -> bool:
        """Whether a study was made of the trained network of a cell that is there now; also when
        none is there."""
        if record.get("format", 1) > 1:
            return self.network_digest(cell) in (None, record["network"])
        try:  # the first format hashed the file
            file = self.weights_path(cell).read_bytes()
        except FileNotFoundError:
            return True
        return bool(hashlib.sha256(file).hexdigest()[:16] == record["network"])

    def replace(self, cells: list[str]) -> None:
        """Forget cells that are about to be trained again; until the first of them is, the folder
        as it was is kept, see `replacing`."""
        replacing.set_aside(self.folder)
        self.forget(cells)

    def settle(self) -> bool:
        """Let go of what was to be replaced, or put it back where nothing has replaced it; returns
        whether it was put back."""
        return replacing.settle(self.folder)

    def forget(self, cells: list[str]) -> None:
        """Remove the records and weights of cells, and what was made of them; all checkpoints."""
        for kind in SEALED_FILES:
            kept = self._sealed(kind)
            left = [r for name, r in kept.items() if not name.startswith(tuple(cells))]
            if not left:
                self.sealed_path(kind).unlink(missing_ok=True)
            elif len(left) < len(kept):
                write_atomically(self.sealed_path(kind), sealed.encode(left))
        for folder in (*SEALED_FILES, WEIGHTS):
            for cell in cells:
                for path in self.folder.glob(f"{folder}/{cell}*"):
                    path.unlink(missing_ok=True)
        for path in self.folder.glob("checkpoints/*"):
            path.unlink(missing_ok=True)

    def clear_views(self) -> None:
        """Remove what is computed from records, so that nothing stale stays beside what is new."""
        views = [self.folder / name for name in VIEWS]
        for path in [*views, *self.figures.glob("fig*.*")]:
            path.unlink(missing_ok=True)

    def _checkpoint(self, key: str) -> Path:
        return self.folder / "checkpoints" / f"{key}.msgpack"

    def save_checkpoint(self, key: str, content: bytes) -> None:
        write_atomically(self._checkpoint(key), formats.seal(content))

    def load_checkpoint(self, key: str) -> bytes | None:
        """What was saved last; None without a checkpoint. DamagedCheckpoint when it has changed."""
        try:
            return formats.unseal(self._checkpoint(key).read_bytes())
        except FileNotFoundError:
            return None

    def drop_checkpoint(self, key: str) -> None:
        self._checkpoint(key).unlink(missing_ok=True)

    def drop_checkpoints(self, prefix: str) -> None:
        """Those whose key begins so."""
        for path in self.folder.glob(f"checkpoints/{prefix}*"):
            path.unlink(missing_ok=True)

    def write_run(self, content: dict[str, Any]) -> None:
        numbered = {"format": formats.NEWEST[formats.RUN], **content}
        write_atomically(self.folder / "run.json", json.dumps(numbered, indent=1) + "\n")
