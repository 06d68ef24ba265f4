"""Folders of images with something in them that is none."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from attacks.attempt import Attempt, HungError, limited
from attacks.damage import damaged_bytes
from cbundles import data
from cbundles.errors import InputError

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16", "YCbCr")
CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"zTXt", b"iCCP", b"gAMA", b"acTL", b"IDAT", b"IEND", b"xxxx")
SIZE = 6


def attempts(chance: Random, count: int, folder: Path) -> Iterator[Attempt]:
    """Every odd entry once, then images that are damaged by chance."""
    os.environ["CBUNDLES_CACHE"] = str(folder / "cache")
    root = _good_folder(folder / "images")
    for number, (name, odd) in enumerate(ODD.items()):
        changed = folder / f"odd{number}"
        shutil.copytree(root, changed)
        odd(changed / "train/a")
        yield _loaded(changed, name, None)
    for _ in range(count - len(ODD)):
        changed = folder / "changed"
        shutil.rmtree(changed, ignore_errors=True)
        shutil.copytree(root, changed)
        content, what = _odd_image(chance)
        place = chance.choice(("train/a/0.png", "train/b/1.png", "test/a/0.png"))
        (changed / place).write_bytes(content)
        size = chance.choice((None, 4, 5, SIZE, 31))
        yield _loaded(changed, f"{place}: {what}, image_size {size}", size)


def _loaded(root: Path, what: str, size: int | None) -> Attempt:
    """Describe and load a folder: both must agree, or refuse it with a name in it."""
    name = f"folder:{root}"
    answers: list[Any] = []
    for look in (data.describe, data.load):
        try:
            with limited():
                answers.append(look(name, size))
        except InputError as error:
            if str(root) not in str(error):
                return Attempt(what, f"names no place: {error}")
            answers.append(None)
        except (Exception, HungError) as error:
            return Attempt(what, f"{type(error).__name__}: {error}"[:300])
    described, loaded = answers
    if loaded is None:
        return Attempt(what, None)
    facts = loaded.facts
    if described is not None and described != facts:
        return Attempt(what, f"described as {described}, loaded as {facts}")
    return Attempt(what, None if size not in (None, SIZE) else _wrong_pixels(root, loaded))


def _wrong_pixels(root: Path, loaded: data.Dataset) -> str | None:
    """An image that was not touched must be loaded as it is."""
    with Image.open(root / "test/b/1.png") as image:
        good = np.asarray(image)
    same = any(np.array_equal(found, good) for found in loaded.test_images)
    return None if same else "an image that was not touched has been changed"


def _good_folder(root: Path) -> Path:
    pixels = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in "ab":
            (root / split / label).mkdir(parents=True)
            for number in range(2):
                image = Image.fromarray(pixels.integers(0, 256, (SIZE, SIZE, 3), np.uint8))
                image.save(root / split / label / f"{number}.png")
    return root


def _odd_image(chance: Random) -> tuple[bytes, str]:
    """A PNG with an odd chunk, an image of another kind, or the bytes of one, damaged."""
    kind, mode = chance.choice(FORMATS), chance.choice(MODES)
    if chance.random() < 0.35:
        chunk = chance.choice(CHUNKS)
        content = chance.randbytes(chance.choice((0, 1, 4, 13, 300)))
        png = _png(SIZE, SIZE)
        place = chance.choice((8, 33, len(png) - 12))  # before the header, behind it, at the end
        return png[:place] + _chunk(chunk, content) + png[place:], f"PNG with {chunk!r} {content!r}"
    size = chance.choice((SIZE, SIZE, 1, 7))
    image = Image.new(mode, (size, size))
    try:
        file = io.BytesIO()
        image.save(file, kind)
    except (OSError, ValueError, KeyError):  # no such mode in this format
        return damaged_bytes(chance, _png(SIZE, SIZE)), "PNG, damaged"
    content = file.getvalue()
    if chance.random() < 0.6:
        return damaged_bytes(chance, content), f"{kind} of {mode}, damaged"
    return content, f"{kind} of {mode}, {size} pixels"


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def _png(width: int, height: int, pixels: bytes | None = None, bits: int = 8) -> bytes:
    rows = pixels if pixels is not None else (b"\x00" + b"\x55" * 3 * width) * height
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    body = _chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + header + body + _chunk(b"IEND", b"")


def _bomb(into: Path) -> None:
    (into / "0.png").write_bytes(_png(50_000, 50_000, b"\x00" * 10**6))


def _text_bomb(into: Path) -> None:
    png = _png(SIZE, SIZE)
    text = _chunk(b"zTXt", b"k\x00\x00" + zlib.compress(b"x" * 10**8, 9))
    (into / "0.png").write_bytes(png[:33] + text + png[33:])


def _replaced_by(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def odd(into: Path) -> None:
        (into / "0.png").unlink()
        make(into / "0.png")

    return odd


def _circle(path: Path) -> None:
    path.symlink_to(path)


def _without_rights(path: Path) -> None:
    path.write_bytes(_png(SIZE, SIZE))
    path.chmod(0)


def _added(name: bytes) -> Callable[[Path], None]:
    def odd(into: Path) -> None:
        with open(os.path.join(os.fsencode(into), name), "wb") as file:  # noqa: PTH118, PTH123
            file.write(_png(SIZE, SIZE))

    return odd


def _class(name: bytes) -> Callable[[Path], None]:
    def odd(into: Path) -> None:
        for split in ("train", "test"):
            folder = os.path.join(os.fsencode(into.parent.parent / split), name)  # noqa: PTH118
            os.mkdir(folder)  # noqa: PTH102
            with open(os.path.join(folder, b"0.png"), "wb") as file:  # noqa: PTH118, PTH123
                file.write(_png(SIZE, SIZE))

    return odd


ODD: dict[str, Callable[[Path], None]] = {
    "a bomb": _bomb,
    "a bomb in a text chunk": _text_bomb,
    "no width": lambda into: void((into / "0.png").write_bytes(_png(0, SIZE))),
    "16 bits a colour": lambda into: void((into / "0.png").write_bytes(_png(SIZE, SIZE, bits=16))),
    "3 bits a colour": lambda into: void((into / "0.png").write_bytes(_png(SIZE, SIZE, bits=3))),
    "an empty file": _replaced_by(lambda path: path.touch()),
    "a pipe": _replaced_by(os.mkfifo),
    "a folder": _replaced_by(lambda path: path.mkdir()),
    "a device": _replaced_by(lambda path: path.symlink_to("/dev/zero")),
    "a broken link": _replaced_by(lambda path: path.symlink_to("nowhere")),
    "a link to itself": _replaced_by(_circle),
    "a file without rights": _replaced_by(_without_rights),
    "a class that is a link to itself": lambda into: _circle(into.parent / "c"),
    "a class that is a file": lambda into: (into.parent / "c").touch(),
    "a class without images": lambda into: (into.parent / "c").mkdir(),
    "a class without rights": lambda into: into.chmod(0),
    "a name that is not UTF-8": _added(b"\xff\xfe.png"),
    "a name of two lines": _added(b"a\nb.png"),
    "a long name": _added(b"x" * 251 + b".png"),
    "a class that is not UTF-8": _class(b"\xff\xfe"),
    "a class of two lines": _class(b"a\nb"),
    "a class with brackets": _class(b"[red]c"),
}


def void(_: object) -> None:
    """What writes a file returns how much; nobody asks."""
