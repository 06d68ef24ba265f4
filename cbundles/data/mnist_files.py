"""MNIST from the four files that its publisher gives out, without TensorFlow.

The images come in the order in which TensorFlow Datasets keeps them, so the data set has the same
fingerprint whichever way it came. That order is by the MD5 of the split's name followed by the
image's number in the file.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np

from cbundles.data import dataset
from cbundles.errors import InputError

FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
COUNT = {"train": 60_000, "test": 10_000}
SIDE, CLASSES = 28, 10
UNSIGNED_BYTES = 0x08  # how the format writes the type of its numbers


def are_in(folder: Path) -> bool:
    """Whether a folder holds all four files."""
    names = [name for pair in FILES.values() for name in pair]
    return all((folder.expanduser() / name).is_file() for name in names)


def store(folder: Path, storage: Path) -> None:
    """Decode the files and keep what is in them. InputError for a damaged one."""
    folder = folder.expanduser()
    arrays: dict[str, np.ndarray] = {}
    for split, (images, labels) in FILES.items():
        count = COUNT[split]
        order = _published_order(split, count)
        pixels = _numbers(folder / images, (count, SIDE, SIDE))[order]
        arrays[f"{split}_images"] = pixels[..., None]
        arrays[f"{split}_labels"] = _numbers(folder / labels, (count,))[order].astype(np.int32)
        if arrays[f"{split}_labels"].max() >= CLASSES:
            raise InputError(f"{folder / labels}: holds a label above {CLASSES - 1}")
    dataset.write(storage, "mnist", tuple(str(digit) for digit in range(CLASSES)), arrays)


def _published_order(split: str, count: int) -> list[int]:
    """Numbers of the images in their file, in the order in which they are kept."""

    def digest(number: int) -> bytes:
        return hashlib.md5(f"{split}{number}".encode(), usedforsecurity=False).digest()

    return sorted(range(count), key=digest)


def _numbers(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """What an IDX file holds, uint8 of this shape: two zero bytes, the type of its numbers, how
    many axes, the length of each as a big-endian 32-bit number, and the numbers."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged ({error}); get it again") from None
    lengths = np.array(shape, ">u4").tobytes()
    header = bytes([0, 0, UNSIGNED_BYTES, len(shape)]) + lengths
    size = len(header) + int(np.prod(shape))
    if not content.startswith(header) or len(content) != size:
        raise InputError(f"{path}: not the file of MNIST of that name; get it again")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)
