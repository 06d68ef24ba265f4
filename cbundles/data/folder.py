"""Any folder of images as a data set: ``ROOT/{train,test|val}/<class>/*``.

A class is a folder with at least one image among the training images. Every format counts that
Pillow reads. What is neither a class nor an image is left out and named (`contents`), so that
nobody trains on half of a data set without knowing it.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cbundles.config import FOLDER_PREFIX
from cbundles.data import dataset, decoding
from cbundles.data.dataset import Facts
from cbundles.errors import InputError

# Formats whose files Pillow knows by name, but has no pixels of without another program.
WITHOUT_PIXELS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
LAYOUT = "expected ROOT/{train,test|val}/<class>/ with images in it"
CLASSES_NAMED, PATHS_NAMED = 10, 5  # by `contents`


@dataclass
class Split:
    """The training images of a folder, or the others.

    images: the files of each class; both in order
    no_classes: folders that are hidden, or in which there is no image
    no_images: files, and folders inside classes, by their path
    """

    folder: Path
    images: dict[str, list[os.DirEntry[str]]] = field(default_factory=dict)
    no_classes: list[str] = field(default_factory=list)
    no_images: list[str] = field(default_factory=list)

    @property
    def paths(self) -> list[Path]:
        """Of all images, class after class."""
        return [Path(file.path) for files in self.images.values() for file in files]


def root_of(name: str) -> Path:
    given = Path(name.removeprefix(FOLDER_PREFIX))
    try:
        root = given.expanduser().resolve()
        is_folder = root.is_dir()
    except (OSError, RuntimeError, ValueError):  # nobody's home, links in a circle, a name too long
        root, is_folder = given, False
    if not is_folder:
        raise InputError(f"data.name = {name!r}: {root} is not a folder; {LAYOUT}")
    return root


def listing(root: Path) -> str:
    """One line an image with its size and time: changes whenever the folder's content does."""
    lines = []
    for split in _splits(root).values():
        for label, files in split.images.items():
            for file in files:
                status = file.stat()
                image = f"{split.folder.name}/{label}/{file.name}"
                lines.append(f"{image} {status.st_size} {status.st_mtime_ns}")
    return "\n".join(lines)


def facts(name: str, size: int | None) -> Facts:
    """Counts the images and looks at them without decoding."""
    train, test = _splits(root_of(name)).values()
    shape = decoding.shape_of(train.paths + test.paths, size)
    return Facts(len(train.paths), len(test.paths), shape, len(train.images))


def contents(name: str) -> list[str]:
    """What was found in a folder, in lines for people: images, classes, and what is left out."""
    train, test = _splits(root_of(name)).values()
    counts = [f"{label} {len(files)}" for label, files in train.images.items()]
    lines = [
        f"{name}: {len(train.paths)} training and {len(test.paths)} test images in "
        f"{len(counts)} classes: {_first(counts, CLASSES_NAMED)}"
    ]
    no_classes = train.no_classes + test.no_classes
    if no_classes:
        listed = _first(no_classes, PATHS_NAMED)
        lines.append(f"left out, hidden or without images: {listed}")
    beside = [entry.name for entry in _entries(root_of(name)) if not _is_hidden(entry)]
    of_neither = [one for one in beside if one not in (train.folder.name, test.folder.name)]
    if of_neither:
        listed = _first(of_neither, PATHS_NAMED)
        lines.append(f"left out, neither {train.folder.name} nor {test.folder.name}: {listed}")
    no_images = train.no_images + test.no_images
    if no_images:
        listed = _first(no_images, PATHS_NAMED)
        lines.append(f"left out, no images of a class: {len(no_images)} ({listed})")
    return lines


def _first(texts: Sequence[str], most: int) -> str:
    """``a, b, c and 4 more``."""
    listed = ", ".join(texts[:most])
    return f"{listed} and {len(texts) - most} more" if len(texts) > most else listed


def decode_images(name: str, size: int | None, storage: Path) -> None:
    """Read every image and store the arrays. Grey images stay one channel when all of them are."""
    root = root_of(name)
    splits = _splits(root)
    classes = tuple(splits["train"].images)
    arrays: dict[str, np.ndarray] = {}
    done: Counter[str] = Counter()
    is_grey = decoding.are_all_grey([path for split in splits.values() for path in split.paths])
    for key, split in splits.items():
        labels = [classes.index(label) for label, files in split.images.items() for _ in files]
        decoded = decoding.decode_files(split.paths, "L" if is_grey else "RGB", size)
        arrays[f"{key}_images"] = decoded.pixels
        arrays[f"{key}_labels"] = np.asarray(labels, np.int32)
        done += decoded.remarks
    remarks = [f"{count} images: {remark}" for remark, count in sorted(done.items())]
    dataset.write(storage, f"folder:{root.name}", classes, arrays, remarks)


def _splits(root: Path) -> dict[str, Split]:
    """``train`` and ``test``, in this order."""
    held_out = [root / n for n in ("test", "val") if (root / n).is_dir()]
    if not (root / "train").is_dir() or not held_out:
        raise InputError(f"{root}: no train and test (or val) folders; {LAYOUT}")
    splits = {"train": _scan(root / "train"), "test": _scan(held_out[0])}
    for split in splits.values():
        if not split.images:
            raise InputError(f"{split.folder}: no images; {LAYOUT}")
    if len(splits["train"].images) == 1:
        (only,) = splits["train"].images
        raise InputError(f"{root}: all training images are of one class, {only}; {LAYOUT}")
    unknown = [label for label in splits["test"].images if label not in splits["train"].images]
    if unknown:
        raise InputError(f"{held_out[0]}: class {unknown[0]!r} has no training images")
    return splits


def _scan(folder: Path) -> Split:
    """What lies in a folder of classes. Every worker lists it, and `pathlib` takes four times as
    long: 2 seconds for 60,000 files."""
    split = Split(folder)
    for label in _entries(folder):
        if not _leads_to(label.is_dir):
            split.no_images.append(f"{folder.name}/{label.name}")
            continue
        images: list[os.DirEntry[str]] = []
        others: list[str] = []
        for file in _entries(label.path):
            if _is_image(file):
                images.append(file)
            else:
                others.append(f"{folder.name}/{label.name}/{file.name}")
        if images and not _is_hidden(label):
            split.images[label.name] = images
            split.no_images += others
        else:
            split.no_classes.append(f"{folder.name}/{label.name}")
    return split


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror}") from None


def _leads_to(kind: Callable[[], bool]) -> bool:
    """kind: asks whether an entry is a file, or a folder; links in a circle lead to neither."""
    try:
        return kind()
    except OSError:
        return False


def _is_hidden(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".")


def _is_image(file: os.DirEntry[str]) -> bool:
    """By its name; whether it can be read is seen when it is."""
    is_named_so = file.name.lower().endswith(_suffixes())
    return is_named_so and not _is_hidden(file) and _leads_to(file.is_file)


@functools.cache
def _suffixes() -> tuple[str, ...]:
    """Of the files that Pillow reads, ``.png`` and some sixty others."""
    from PIL import Image

    known = Image.registered_extensions()  # has all plugins registered, so it comes first
    readable = {*Image.OPEN, "MPO"} - WITHOUT_PIXELS  # MPO is opened as JPEG
    return tuple(suffix for suffix, format_ in known.items() if format_ in readable)
