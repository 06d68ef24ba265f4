"""Any folder of images as a data set: ``ROOT/{train,test|val}/<class>/*.{png,jpg,jpeg}``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cbundles.config import FOLDER_PREFIX
from cbundles.data import dataset
from cbundles.data.dataset import Facts
from cbundles.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
GREY = ("L", "1")
GREY_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
UNBOUNDED = {"I": "32-bit integers", "F": "32-bit floats"}
STEPS_PER_GREY = 257  # of 65,535 greys in one of 255
THREADS = min(8, os.cpu_count() or 1)
LAYOUT = "expected ROOT/{train,test|val}/<class>/*.{png,jpg,jpeg}"


def root_of(name: str) -> Path:
    root = Path(name.removeprefix(FOLDER_PREFIX)).expanduser().resolve()
    if not root.is_dir():
        raise InputError(f"data.name = {name!r}: {root} is not a folder; {LAYOUT}")
    return root


def listing(root: Path) -> str:
    """One line an image with its size and time: changes whenever the folder's content does."""
    lines = []
    for split in _splits(root).values():
        for label, entry in sorted(_scan(split), key=_place):
            status = entry.stat()
            lines.append(f"{split.name}/{label}/{entry.name} {status.st_size} {status.st_mtime_ns}")
    return "\n".join(lines)


def facts(name: str) -> Facts:
    """Counts the images and looks at the first one."""
    from PIL import Image

    splits = {split: _images(path) for split, path in _splits(root_of(name)).items()}
    first = splits["train"][0]
    with _readable(first), Image.open(first) as image:
        shape = (image.height, image.width, 1 if _is_grey(image) else 3)
    classes = {path.parent.name for path in splits["train"]}
    return Facts(len(splits["train"]), len(splits["test"]), shape, len(classes))


def decode(name: str, storage: Path) -> None:
    """Read every image and store the arrays. Grey images stay one channel when all of them are."""
    root = root_of(name)
    splits = _splits(root)
    classes = tuple(sorted(p.name for p in splits["train"].iterdir() if p.is_dir()))
    arrays: dict[str, np.ndarray] = {}
    grey = _all_grey([p for split in splits.values() for p in _images(split)])
    for split, directory in splits.items():
        unknown = {p.name for p in directory.iterdir() if p.is_dir()} - set(classes)
        if unknown:
            raise InputError(f"{directory}: class {sorted(unknown)[0]!r} has no training images")
        paths = _images(directory)
        labels = [classes.index(p.parent.name) for p in paths]
        arrays[f"{split}_images"] = _read_all(paths, "L" if grey else "RGB")
        arrays[f"{split}_labels"] = np.asarray(labels, np.int32)
    dataset.write(storage, f"folder:{root.name}", classes, arrays)


def _splits(root: Path) -> dict[str, Path]:
    held_out = [root / n for n in ("test", "val") if (root / n).is_dir()]
    if not (root / "train").is_dir() or not held_out:
        raise InputError(f"{root}: no train and test (or val) folders; {LAYOUT}")
    splits = {"train": root / "train", "test": held_out[0]}
    for path in splits.values():
        if next(_scan(path), None) is None:
            raise InputError(f"{path}: no images; {LAYOUT}")
    return splits


def _scan(split: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Class and directory entry of every image, in no order. Every worker lists the folder, and
    `pathlib` takes four times as long: 2 seconds for 60,000 files."""
    with os.scandir(split) as labels:
        for label in labels:
            if label.is_dir():
                with os.scandir(label) as files:
                    for file in files:
                        if file.name.lower().endswith(SUFFIXES):
                            yield label.name, file


def _place(image: tuple[str, os.DirEntry[str]]) -> tuple[str, str]:
    return image[0], image[1].name


def _images(split: Path) -> list[Path]:
    return [split / label / entry.name for label, entry in sorted(_scan(split), key=_place)]


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns whatever the image library says of a bad file into an InputError that names it."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as an image: {error}") from None


def _all_grey(paths: list[Path]) -> bool:
    from PIL import Image

    for path in paths:
        with _readable(path), Image.open(path) as image:
            if not _is_grey(image):
                return False
    return True


def _is_grey(image: Image.Image) -> bool:
    return image.mode in GREY or _has_16_bit_greys(image)


def _has_16_bit_greys(image: Image.Image) -> bool:
    """Some versions of Pillow open a PNG of 16-bit greys in mode I, which holds 32 bits."""
    return image.mode in GREY_16_BIT or (image.mode == "I" and image.format == "PNG")


def _read_all(paths: list[Path], mode: str) -> np.ndarray:
    """uint8 (N, H, W, C), decoded by several threads: decoding does not hold Python's lock."""
    first = _read(paths[0], mode)
    images = np.empty((len(paths), *first.shape), np.uint8)

    def put(i: int) -> None:
        pixels = _read(paths[i], mode)
        if pixels.shape != first.shape:
            raise InputError(
                f"{paths[i]}: is {pixels.shape[1]}x{pixels.shape[0]}, the first image "
                f"{paths[0].name} {first.shape[1]}x{first.shape[0]}; all must agree"
            )
        images[i] = pixels

    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for _ in pool.map(put, range(len(paths))):
                pass
        except InputError:
            pool.shutdown(cancel_futures=True)
            raise
    return images


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
