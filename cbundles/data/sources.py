"""Where data sets come from: inside the package, TensorFlow Datasets, or a folder of images.

Every source ends in the same storage (`dataset.write`), from which all processes map it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cbundles.config import FOLDER_PREFIX
from cbundles.data import dataset, folder, mnist_files, spirals, tfds
from cbundles.data.dataset import Dataset, Facts
from cbundles.errors import InputError
from cbundles.files import clear_staging_files, lock

PUBLISHED = {
    "mnist_mini": Facts(10_000, 2_000, (28, 28, 1), 10),
    "spirals": Facts(450, 150, (1, 1, 2), 2),
    "mnist": Facts(60_000, 10_000, (28, 28, 1), 10),
    "cifar10": Facts(50_000, 10_000, (32, 32, 3), 10),
    "svhn_cropped": Facts(73_257, 26_032, (32, 32, 3), 10),
    "imagenette": Facts(9_469, 3_925, (128, 128, 3), 10),
}
PACKAGED = ("mnist_mini", "spirals")  # need nothing but the package
LONGEST_PART = 50  # characters of a folder's name, which may have four bytes each
EMBEDDED = Path(__file__).parent / "mnist_mini.npz"


def cache_root() -> Path:
    """``$CBUNDLES_CACHE``, else ``$XDG_CACHE_HOME/cbundles``, else ``~/.cache/cbundles``."""
    if named := os.environ.get("CBUNDLES_CACHE"):
        return Path(named)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "cbundles"
    try:
        return Path.home() / ".cache" / "cbundles"
    except RuntimeError:
        raise InputError(
            "no home directory is known (HOME is unset); name a cache with CBUNDLES_CACHE"
        ) from None


def storage_of(name: str, size: int | None = None) -> Path:
    """The folder in which a decoded data set is kept. size: see `config.Images`."""
    if name.startswith(FOLDER_PREFIX):
        source = folder.root_of(name)
        listing = folder.listing(source).encode(errors="surrogateescape")  # names of any bytes
        digest = hashlib.sha256(listing).hexdigest()[:16]
        short = source.name[:LONGEST_PART]
        scaled = "" if size is None else f"-{size}"
        return cache_root() / "data" / f"folder-{short}-{digest}{scaled}"
    return cache_root() / "data" / name


def load(
    name: str,
    size: int | None = None,
    *,
    data_dir: Path | None = None,
    manual_dir: Path | None = None,
) -> Dataset:
    """The decoded data set, prepared on first use and checked against its checksums.

    size: pixels of either side to which the images of a folder are scaled, see `config.Images`
    data_dir: where TensorFlow Datasets keeps what it prepares (its own default when None).
    manual_dir: a folder with the publisher's archives, for machines without internet.
    Raises InputError when the data cannot be had; the message says which files to put where.
    """
    storage = storage_of(name, size)
    stored = dataset.read(storage, verify=True)
    if stored is not None:  # also where nothing can be written, as in a cache that many share
        return stored
    with _one_at_a_time(storage.parent):
        stored = dataset.read(storage, verify=True)
        if stored is None:
            if name == "mnist_mini":
                _unpack_embedded(storage)
            elif name == "spirals":
                dataset.write(storage, name, ("first", "second"), spirals.arrays())
            elif name.startswith(FOLDER_PREFIX):
                folder.decode_images(name, size, storage)
            elif name == "mnist" and manual_dir is not None and mnist_files.are_in(manual_dir):
                mnist_files.store(manual_dir, storage)
            else:
                tfds.prepare(name, storage, data_dir, manual_dir)
            stored = dataset.read(storage, verify=True)
    if stored is None:
        raise InputError(f"{name}: the prepared copy in {storage} is damaged; delete that folder")
    return stored


@contextlib.contextmanager
def _one_at_a_time(directory: Path) -> Iterator[None]:
    """Two commands that need the same data for the first time: the second waits for the first."""
    import fcntl

    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".lock").open("w")
    except OSError as error:
        raise InputError(
            f"{directory}: cannot be written ({error}); name another cache with CBUNDLES_CACHE"
        ) from None
    with file:
        lock(file, fcntl.LOCK_EX)
        clear_staging_files(directory)
        yield


def describe(name: str, size: int | None = None) -> Facts:
    """The size of a data set, without preparing it. size: see `config.Images`."""
    if name.startswith(FOLDER_PREFIX):
        return folder.facts(name, size)
    return PUBLISHED[name]


def must_be_fetched(name: str, size: int | None = None, *, manual_dir: Path | None = None) -> bool:
    """Whether a data set is neither prepared yet nor made of what lies here: TensorFlow Datasets
    has to get it. size and manual_dir: as for `load`."""
    if name in PACKAGED or name.startswith(FOLDER_PREFIX):
        return False
    if name == "mnist" and manual_dir is not None and mnist_files.are_in(manual_dir):
        return False
    return dataset.read(storage_of(name, size), verify=False) is None


def contents(name: str) -> list[str]:
    """What was found in a folder of images, in lines for people; other sources are known."""
    return folder.contents(name) if name.startswith(FOLDER_PREFIX) else []


def remarks(name: str, size: int | None = None) -> tuple[str, ...]:
    """What was done to images when they were decoded, in lines for people; nothing to most."""
    stored = dataset.read(storage_of(name, size), verify=False)
    return () if stored is None else stored.remarks


def _unpack_embedded(storage: Path) -> None:
    with np.load(EMBEDDED, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in dataset.ARRAYS}
    dataset.write(storage, "mnist_mini", tuple(str(digit) for digit in range(10)), arrays)
