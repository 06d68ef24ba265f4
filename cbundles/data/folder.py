"""Any folder of images as a data set: ``ROOT/{train,test|val}/<class>/*.{png,jpg,jpeg}``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cbundles.config import FOLDER_PREFIX
from cbundles.data import dataset
from cbundles.data.dataset import Facts
from cbundles.errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg"}
GREY = ("L", "1")
LAYOUT = "expected ROOT/{train,test|val}/<class>/*.{png,jpg,jpeg}"


def root_of(name: str) -> Path:
    root = Path(name.removeprefix(FOLDER_PREFIX)).expanduser().resolve()
    if not root.is_dir():
        raise InputError(f"data.name = {name!r}: {root} is not a folder; {LAYOUT}")
    return root


def listing(root: Path) -> str:
    """One line an image with its size and time: changes whenever the folder's content does."""
    files = (p for split in _splits(root).values() for p in _images(split))
    return "\n".join(
        f"{p.relative_to(root)} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in files
    )


def facts(name: str) -> Facts:
    """Counts the images and looks at the first one."""
    from PIL import Image

    splits = {split: _images(path) for split, path in _splits(root_of(name)).items()}
    first = splits["train"][0]
    with _readable(first), Image.open(first) as image:
        shape = (image.height, image.width, 1 if image.mode in GREY else 3)
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
        if not _images(path):
            raise InputError(f"{path}: no images; {LAYOUT}")
    return splits


def _images(split: Path) -> list[Path]:
    return sorted(p for p in split.glob("*/*") if p.suffix.lower() in SUFFIXES)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns whatever the image library says of a bad file into an InputError that names it."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read as an image: {error}") from None


def _all_grey(paths: list[Path]) -> bool:
    from PIL import Image

    for path in paths:
        with _readable(path), Image.open(path) as image:
            if image.mode not in GREY:
                return False
    return True


def _read_all(paths: list[Path], mode: str) -> np.ndarray:
    from PIL import Image

    images: list[np.ndarray] = []
    for path in paths:
        with _readable(path), Image.open(path) as image:
            pixels = np.asarray(image.convert(mode), np.uint8)
        if images and pixels.shape != images[0].shape:
            raise InputError(
                f"{path}: is {pixels.shape[1]}x{pixels.shape[0]}, the first image "
                f"{paths[0].name} {images[0].shape[1]}x{images[0].shape[0]}; all must agree"
            )
        images.append(pixels)
    stacked = np.stack(images)
    return stacked[..., None] if stacked.ndim == 3 else stacked
