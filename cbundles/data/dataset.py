"""A decoded data set, and its storage: plain arrays in a folder, written once, mapped ever after.

A stored data set is a folder with four ``.npy`` files and ``meta.json``, which names each file's
SHA-256 and ends with its own. It is written beside its place and renamed, so it is complete or
absent. One that is damaged, or of a format that cannot be used, counts as absent and is made anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cbundles.config import FOLDER_PREFIX
from cbundles.errors import InputError
from cbundles.files import staging_path

# 1: class names were not covered by a checksum, 16-bit greys were clipped
# 2: folders without images could be classes
FORMAT_VERSION = 3
DTYPES = (np.dtype(np.uint8), np.dtype(np.float32))
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True)
class Facts:
    """What a plan needs to know of a data set, which need not be there yet."""

    train: int
    test: int
    image_shape: tuple[int, int, int]
    num_classes: int

    @property
    def inputs(self) -> int:
        height, width, channels = self.image_shape
        return height * width * channels


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images (N, H, W, C), uint8, or float32 that are used as they are; labels int32 (N,) in
    0..num_classes-1; classes: their names.

    fingerprint: 16 hex digits over all arrays; the same images give the same fingerprint.
    remarks: what was done to the images that people should know, in lines for them
    """

    name: str
    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    fingerprint: str
    remarks: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def facts(self) -> Facts:
        height, width, channels = self.train_images.shape[1:]
        shape = (height, width, channels)
        return Facts(len(self.train_labels), len(self.test_labels), shape, self.num_classes)


def write(
    folder: Path,
    name: str,
    classes: tuple[str, ...],
    arrays: dict[str, np.ndarray],
    remarks: Sequence[str] = (),
) -> None:
    """Store arrays under `folder`, atomically. InputError for arrays that cannot be right.

    remarks: what was done to the images, in lines for people
    """
    _check(name, classes, arrays)
    staging = staging_path(folder)
    try:
        staging.mkdir(parents=True)
        digests = {}
        for key in ARRAYS:
            np.save(staging / f"{key}.npy", np.ascontiguousarray(arrays[key]), allow_pickle=False)
            digests[key] = _sha256(staging / f"{key}.npy")
        meta = {
            "format": FORMAT_VERSION,
            "name": name,
            "classes": list(classes),
            "remarks": list(remarks),
            "sha256": digests,
        }
        meta["meta_sha256"] = _sha256_of_meta(meta)
        (staging / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        staging.replace(folder)
    except OSError as error:
        reason = f"{error.strerror or error}; name another cache with CBUNDLES_CACHE"
        raise InputError(f"{folder}: cannot be written: {reason}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def read(folder: Path, *, verify: bool) -> Dataset | None:
    """The stored data set, memory-mapped; None when there is none or it is damaged.

    verify: also compare every file with its recorded SHA-256 (reads the files once).
    """
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if not _is_whole(meta):
            return None
        if verify and any(_sha256(folder / f"{k}.npy") != meta["sha256"][k] for k in ARRAYS):
            return None
        arrays = {
            key: np.load(folder / f"{key}.npy", mmap_mode="r", allow_pickle=False) for key in ARRAYS
        }
        combined = "".join(meta["sha256"][key] for key in ARRAYS)
        return Dataset(
            name=meta["name"],
            classes=tuple(meta["classes"]),
            remarks=tuple(meta.get("remarks", ())),
            fingerprint=hashlib.sha256(combined.encode()).hexdigest()[:16],
            **arrays,
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _check(name: str, classes: tuple[str, ...], arrays: dict[str, np.ndarray]) -> None:
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.dtype not in DTYPES or images.ndim != 4 or len(images) == 0:
            raise InputError(
                f"{name}: {split} images must be uint8 or float32 (N, H, W, C), N > 0; "
                f"found {images.dtype} {images.shape}"
            )
        if labels.shape != images.shape[:1]:
            raise InputError(f"{name}: {len(images)} {split} images but {len(labels)} labels")
        if labels.min() < 0 or labels.max() >= len(classes):
            raise InputError(f"{name}: a {split} label is outside 0..{len(classes) - 1}")
    if arrays["train_images"].shape[1:] != arrays["test_images"].shape[1:]:
        raise InputError(
            f"{name}: train images are {arrays['train_images'].shape[1:]}, "
            f"test images {arrays['test_images'].shape[1:]}; they must agree (those of a folder do "
            "with data.image_size)"
        )


def _is_whole(meta: dict[str, Any]) -> bool:
    """Whether it is of a format that can be used. What older versions made of a folder of images
    may differ from what this one does."""
    number = meta["format"]
    if number < FORMAT_VERSION and meta["name"].startswith(FOLDER_PREFIX):
        return False
    if number == 1:
        return True
    return bool(1 < number <= FORMAT_VERSION and meta.pop("meta_sha256") == _sha256_of_meta(meta))


def _sha256_of_meta(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
