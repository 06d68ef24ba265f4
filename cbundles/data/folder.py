"""Any folder of images as a data set: ``ROOT/{train,test|val}/<class>/*``.

A class is a folder with at least one image among the training images. Every format counts that
Pillow reads. What is neither a class nor an image is left out and named (`contents`), so that
nobody trains on half of a data set without knowing it.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cbundles.config import FOLDER_PREFIX
from cbundles.data import dataset
from cbundles.data.dataset import Facts
from cbundles.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

# Formats whose files Pillow knows by name, but has no pixels of without another program.
WITHOUT_PIXELS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
GREY = ("L", "1")
GREY_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
UNBOUNDED = {"I": "32-bit integers", "F": "32-bit floats"}
STEPS_PER_GREY = 257  # of 65,535 greys in one of 255
THREADS = min(8, os.cpu_count() or 1)
LAYOUT = "expected ROOT/{train,test|val}/<class>/ with images in it"
CLASSES_NAMED, PATHS_NAMED = 10, 5  # by `contents`
PROBLEMS_NAMED = 20


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


def facts(name: str) -> Facts:
    """Counts the images and looks at the first one."""
    from PIL import Image

    train, test = _splits(root_of(name)).values()
    first = train.paths[0]
    with _readable(first), Image.open(first) as image:
        shape = (image.height, image.width, 1 if _is_grey(image) else 3)
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
    no_images = train.no_images + test.no_images
    if no_images:
        listed = _first(no_images, PATHS_NAMED)
        lines.append(f"left out, no images of a class: {len(no_images)} ({listed})")
    return lines


def _first(texts: Sequence[str], most: int) -> str:
    """``a, b, c and 4 more``."""
    listed = ", ".join(texts[:most])
    return f"{listed} and {len(texts) - most} more" if len(texts) > most else listed


def decode_images(name: str, storage: Path) -> None:
    """Read every image and store the arrays. Grey images stay one channel when all of them are."""
    root = root_of(name)
    splits = _splits(root)
    classes = tuple(splits["train"].images)
    arrays: dict[str, np.ndarray] = {}
    grey = _all_grey([path for split in splits.values() for path in split.paths])
    for key, split in splits.items():
        labels = [classes.index(label) for label, files in split.images.items() for _ in files]
        arrays[f"{key}_images"] = _read_all(split.paths, "L" if grey else "RGB")
        arrays[f"{key}_labels"] = np.asarray(labels, np.int32)
    dataset.write(storage, f"folder:{root.name}", classes, arrays)


def _splits(root: Path) -> dict[str, Split]:
    """``train`` and ``test``, in this order."""
    held_out = [root / n for n in ("test", "val") if (root / n).is_dir()]
    if not (root / "train").is_dir() or not held_out:
        raise InputError(f"{root}: no train and test (or val) folders; {LAYOUT}")
    splits = {"train": _scan(root / "train"), "test": _scan(held_out[0])}
    for split in splits.values():
        if not split.images:
            raise InputError(f"{split.folder}: no images; {LAYOUT}")
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


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns whatever the image library says of a bad file into an InputError that names it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of many kinds, from SyntaxError to what a zip bomb raises
        raise InputError(f"{path}: cannot be read as an image: {error}") from None


def _all_grey(paths: list[Path]) -> bool:
    """Of those that can be read; `_read_all` tells of the others."""
    from PIL import Image

    for path in paths:
        with contextlib.suppress(InputError), _readable(path), Image.open(path) as image:
            if not _is_grey(image):
                return False
    return True


def _is_grey(image: Image.Image) -> bool:
    return image.mode in GREY or _has_16_bit_greys(image)


def _has_16_bit_greys(image: Image.Image) -> bool:
    """Some versions of Pillow open a PNG of 16-bit greys in mode I, which holds 32 bits."""
    return image.mode in GREY_16_BIT or (image.mode == "I" and image.format == "PNG")


def _read_all(paths: list[Path], mode: str) -> np.ndarray:
    """uint8 (N, H, W, C), decoded by several threads: decoding does not hold Python's lock.
    InputError names the files that cannot be used, and why."""
    images, problems = np.empty((0, 0, 0, 0), np.uint8), []
    with ThreadPoolExecutor(THREADS) as pool:
        read = pool.map(functools.partial(_read_or_problem, mode=mode), paths)
        for number, (path, pixels) in enumerate(zip(paths, read, strict=True)):
            if isinstance(pixels, str):
                problems.append(pixels)
                continue
            if not len(images):  # the first one that can be read decides the shape
                images, first = _room_for(paths, pixels), path
            if pixels.shape != images.shape[1:]:
                problems.append(
                    f"{path}: is {pixels.shape[1]}x{pixels.shape[0]}, the first image "
                    f"{first.name} {images.shape[2]}x{images.shape[1]}; all must agree"
                )
                continue
            images[number] = pixels
    if problems:
        raise InputError(_all_of(problems, len(paths)))
    return images


def _read_or_problem(path: Path, mode: str) -> np.ndarray | str:
    """One image, or why it cannot be read."""
    try:
        return _read(path, mode)
    except InputError as error:
        return str(error)


def _room_for(paths: list[Path], pixels: np.ndarray) -> np.ndarray:
    """An array for as many images of this shape."""
    try:
        return np.empty((len(paths), *pixels.shape), np.uint8)
    except MemoryError as error:
        raise InputError(f"{paths[0].parent.parent}: {error}") from None


def _all_of(problems: Sequence[str], images: int) -> str:
    """One problem as it is; of several how many there are, and the first of them."""
    if len(problems) == 1:
        return problems[0]
    lines = [f"{len(problems)} of {images} images cannot be used:"]
    lines += [f"  {problem}" for problem in problems[:PROBLEMS_NAMED]]
    if len(problems) > PROBLEMS_NAMED:
        lines.append(f"  and {len(problems) - PROBLEMS_NAMED} more")
    return "\n".join(lines)


def _read(path: Path, mode: str) -> np.ndarray:
    """One image, uint8 (H, W, C)."""
    from PIL import Image

    with _readable(path), Image.open(path) as image:
        if _has_16_bit_greys(image):
            return _scaled_to_8_bits(np.asarray(image), mode)
        if image.mode in UNBOUNDED:
            raise InputError(
                f"{path}: its pixels are {UNBOUNDED[image.mode]} (mode {image.mode}), for which "
                "black and white are not defined; save it with 8 or 16 bits a channel"
            )
        pixels = np.asarray(image.convert(mode), np.uint8)
    return pixels.reshape(*pixels.shape[:2], -1)


def _scaled_to_8_bits(greys: np.ndarray, mode: str) -> np.ndarray:
    """16-bit greys (H, W) as uint8 (H, W, C). `Image.convert` would make all above 255 white."""
    scaled = np.rint(greys / STEPS_PER_GREY).astype(np.uint8)[..., None]
    return np.repeat(scaled, len(mode), axis=2)  # L has one channel, RGB three
