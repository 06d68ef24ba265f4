"""Files of images as one array of pixels, and what was done to make them so.

Where a size is given, each image is scaled until its shorter side has that many pixels (bicubic,
every source pixel counts), and the square in its middle is taken. Without one all must agree.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cbundles.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

GREY = ("L", "1")
GREY_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
UNBOUNDED = {"I": "32-bit integers", "F": "32-bit floats"}
STEPS_PER_GREY = 257  # of 65,535 greys in one of 255
THREADS = min(8, os.cpu_count() or 1)
PROBLEMS_NAMED = 20

TRANSPARENT = "transparent, shown in the colours that the file has beneath"
COLOURED = "grey among coloured ones, made RGB"
ENLARGED = "smaller than data.image_size, enlarged"


class Decoded(NamedTuple):
    """Images of one shape.

    pixels: uint8 (N, H, W, C)
    remarks: what was done to how many of them
    """

    pixels: np.ndarray
    remarks: Counter[str]


class _Read(NamedTuple):
    """One image, uint8 (H, W, C), and which of the remarks above it gives cause to."""

    pixels: np.ndarray
    remarks: tuple[str, ...]


def shape_of(paths: Sequence[Path], size: int | None) -> tuple[int, int, int]:
    """Height, width and channels that images will have: of the first one where no size is given."""
    from PIL import Image

    with _readable(paths[0]), Image.open(paths[0]) as image:
        height, width = (size, size) if size else (image.height, image.width)
        is_grey = _is_grey(image) and are_all_grey(paths)
        return height, width, 1 if is_grey else 3


def are_all_grey(paths: Sequence[Path]) -> bool:
    """Of those that can be read; `decode_files` tells of the others."""
    from PIL import Image

    for path in paths:
        with contextlib.suppress(InputError), _readable(path), Image.open(path) as image:
            if not _is_grey(image):
                return False
    return True


def decode_files(paths: Sequence[Path], mode: str, size: int | None = None) -> Decoded:
    """By several threads: decoding does not hold Python's lock. InputError names the files that
    cannot be used, and why.

    mode: L for grey images, else RGB
    size: pixels of either side; None: as they are
    """
    pixels, problems = np.empty((0, 0, 0, 0), np.uint8), []
    counts: Counter[str] = Counter()
    other_shapes = 0
    with ThreadPoolExecutor(THREADS) as pool:
        results = pool.map(functools.partial(_read_or_problem, mode=mode, size=size), paths)
        for number, (path, read) in enumerate(zip(paths, results, strict=True)):
            if isinstance(read, str):
                problems.append(read)
                continue
            if not len(pixels):  # the first one that can be read decides the shape
                pixels, first = _room_for(paths, read.pixels), path
            if read.pixels.shape != pixels.shape[1:]:
                other_shapes += 1
                problems.append(
                    f"{path}: is {_size(read.pixels)}, the first image {first.name} "
                    f"{_size(pixels[0])}; all must agree"
                )
                continue
            pixels[number] = read.pixels
            counts.update(read.remarks)
    if problems:
        smallest = min(pixels.shape[1:3]) if other_shapes else None
        raise InputError(_all_of(problems, len(paths), smallest))
    return Decoded(pixels, counts)


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _all_of(problems: Sequence[str], images: int, smallest: int | None) -> str:
    """One problem as it is; of several how many there are, and the first of them.

    smallest: the shorter side of the first image, where others have another shape
    """
    lines = list(problems)
    if len(problems) > 1:
        lines = [f"{len(problems)} of {images} images cannot be used:"]
        lines += [f"  {problem}" for problem in problems[:PROBLEMS_NAMED]]
    if len(problems) > PROBLEMS_NAMED:
        lines.append(f"  and {len(problems) - PROBLEMS_NAMED} more")
    if smallest is not None:
        lines.append(
            f"data.image_size = {smallest}, where a command has it --image-size {smallest}, scales "
            "each image to that many pixels and takes the square in its middle"
        )
    return "\n".join(lines)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns whatever the image library says of a bad file into an InputError that names it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of many kinds, from SyntaxError to what a zip bomb raises
        raise InputError(f"{path}: cannot be read as an image: {error}") from None


def _is_grey(image: Image.Image) -> bool:
    return image.mode in GREY or _has_16_bit_greys(image)


def _has_16_bit_greys(image: Image.Image) -> bool:
    """Some versions of Pillow open a PNG of 16-bit greys in mode I, which holds 32 bits."""
    return image.mode in GREY_16_BIT or (image.mode == "I" and image.format == "PNG")


def _read_or_problem(path: Path, mode: str, size: int | None) -> _Read | str:
    """One image, or why it cannot be read."""
    try:
        return _read(path, mode, size)
    except InputError as error:
        return str(error)


def _room_for(paths: Sequence[Path], pixels: np.ndarray) -> np.ndarray:
    """An array for as many images of this shape."""
    try:
        return np.empty((len(paths), *pixels.shape), np.uint8)
    except MemoryError as error:
        raise InputError(f"{paths[0].parent.parent}: {error}") from None


def _read(path: Path, mode: str, size: int | None) -> _Read:
    from PIL import Image, ImageOps

    remarks = []
    with _readable(path), Image.open(path) as image:
        if image.mode in UNBOUNDED and not _has_16_bit_greys(image):
            raise InputError(
                f"{path}: its pixels are {UNBOUNDED[image.mode]} (mode {image.mode}), for which "
                "black and white are not defined; save it with 8 or 16 bits a channel"
            )
        if image.has_transparency_data:
            remarks.append(TRANSPARENT)
        if mode != "L" and _is_grey(image):
            remarks.append(COLOURED)
        if size and size > min(image.size):
            remarks.append(ENLARGED)
        plain = _with_8_bits(image) if _has_16_bit_greys(image) else image
        converted = plain.convert(mode)
        if size:
            converted = ImageOps.fit(converted, (size, size), Image.Resampling.BICUBIC)
        pixels = np.asarray(converted, np.uint8)
    return _Read(pixels.reshape(*pixels.shape[:2], -1), tuple(remarks))


def _with_8_bits(image: Image.Image) -> Image.Image:
    """An image of 16-bit greys as one of 8 bits. `Image.convert` would make all above 255 white."""
    from PIL import Image

    return Image.fromarray(np.rint(np.asarray(image) / STEPS_PER_GREY).astype(np.uint8))
