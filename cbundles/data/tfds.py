"""TensorFlow Datasets as a source. TensorFlow itself is needed only to *prepare* a data set.

Preparing runs in a process of its own, with every accelerator hidden from it, so TensorFlow never
shares a process with JAX and never touches its memory.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np

from cbundles.data import dataset
from cbundles.errors import InputError

TEST_SPLIT = {
    "mnist": "test",
    "cifar10": "test",
    "svhn_cropped": "test",
    "imagenette": "validation",
}
# Imagenette is published in several sizes, and TFDS lists the archives of all of them. The smallest
# (shorter side 160) is still larger than the 128 pixels that its images are reduced to.
BUILDER = {"imagenette": "imagenette/160px-v2"}
ARCHIVE = {"imagenette": "imagenette2-160.tgz"}
SIZE = {"imagenette": 128}
INPUT_ERROR_CODE = 2


def prepare(name: str, storage: Path, data_dir: Path | None, manual_dir: Path | None) -> None:
    """Download (or take from `manual_dir`), decode and store the data set, in a child process."""
    if manual_dir is not None and not manual_dir.expanduser().is_dir():
        raise InputError(f"--manual-dir {manual_dir}: not a folder")
    job = {
        "name": name,
        "storage": str(storage),
        "data_dir": str(data_dir.expanduser()) if data_dir else None,
        "manual_dir": str(manual_dir.expanduser().resolve()) if manual_dir else None,
    }
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "ABSL_MIN_LOG_LEVEL": "3",
    }
    print(f"preparing {name} with TensorFlow Datasets (once) ...", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__, json.dumps(job)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == INPUT_ERROR_CODE:
        raise InputError(done.stderr.strip().splitlines()[-1].replace("\\n", "\n"))
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise InputError(f"{name}: preparing the data set failed:\n{tail}")


def _prepare_here(job: dict[str, Any]) -> None:
    name, manual_dir = job["name"], job["manual_dir"]
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(f"{name}: TensorFlow Datasets cannot be imported: {error}") from None
    kwargs = {"data_dir": job["data_dir"]} if job["data_dir"] else {}
    try:
        builder = tfds.builder(
            BUILDER.get(name, name), file_format="array_record", try_gcs=False, **kwargs
        )
    except ValueError as error:  # prepared before, by someone else, in another file format
        raise InputError(
            f"{name}: the copy that TensorFlow Datasets has cannot be read without TensorFlow "
            f"({error}); name another folder with --data-dir"
        ) from None
    if not Path(builder.data_dir).is_dir():
        _require_archives(name, builder, manual_dir)
        _require_tensorflow(name)
        config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
        builder.download_and_prepare(download_config=config)
    arrays: dict[str, np.ndarray] = {}
    for split, source_name in (("train", "train"), ("test", TEST_SPLIT[name])):
        source = builder.as_data_source(source_name)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = _decode(source, SIZE.get(name))
    classes = tuple(builder.info.features["label"].names)
    dataset.write(Path(job["storage"]), name, classes, arrays)


def _decode(source: Any, size: int | None) -> tuple[np.ndarray, np.ndarray]:
    """All images, uint8 (N, H, W, C), and labels, int32 (N,). size: fit images of any shape into
    squares of so many pixels; without it, all have the same shape."""
    images, labels = None, np.empty(len(source), np.int32)
    for i in range(len(source)):
        example = source[i]
        image = example["image"] if size is None else resize_with_pad(example["image"], size)
        if images is None:
            images = np.empty((len(source), *image.shape), np.uint8)
        images[i], labels[i] = image, example["label"]
    assert images is not None, "a published data set has images"
    return images, labels


def resize_with_pad(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, 3), or grey (H, W) or (H, W, 1), -> uint8 (size, size, 3).

    Bilinear with half-pixel centres and without smoothing; the aspect ratio is kept and the shorter
    side padded with zeros, as TensorFlow's function of this name does.

    The original makes 138x138 for training, and 128x128 for testing, straight from the published
    image; we store 128x128, rounded to bytes, and enlarge that when training.
    """
    height, width = image.shape[:2]
    longer = max(height, width)
    pixels = np.broadcast_to(image.reshape(height, width, -1), (height, width, 3))
    pixels = _interpolated(pixels.astype(np.float32), height * size // longer, axis=0)
    pixels = _interpolated(pixels, width * size // longer, axis=1)
    # Half of the padding before it is rounded to whole pixels, rounded down.
    top, left = (size * (longer - side) // (2 * longer) for side in (height, width))
    result = np.zeros((size, size, 3), np.uint8)
    inner = result[top : top + pixels.shape[0], left : left + pixels.shape[1]]
    inner[...] = np.rint(pixels)
    return result


def _interpolated(pixels: np.ndarray, length: int, axis: int) -> np.ndarray:
    """float32, resized to `length` along one axis, each value between its two nearest pixels."""
    available = pixels.shape[axis]
    at = np.clip((np.arange(length) + 0.5) * (available / length) - 0.5, 0, available - 1)
    lower = at.astype(np.intp)
    upper = np.minimum(lower + 1, available - 1)
    shape = [1] * pixels.ndim
    shape[axis] = length
    fraction = (at - lower).astype(np.float32).reshape(shape)
    below, above = pixels.take(lower, axis), pixels.take(upper, axis)
    return below + fraction * (above - below)


def _require_tensorflow(name: str) -> None:
    try:
        import tensorflow  # noqa: F401
    except ImportError:
        raise InputError(
            f"{name}: preparing needs TensorFlow (reading does not): pip install tensorflow-cpu"
        ) from None


def _require_archives(name: str, builder: Any, manual_dir: str | None) -> None:
    """Fail at once, and say what is missing, where a download would retry for minutes."""
    missing = {
        url: info
        for url, info in builder.url_infos.items()
        if _filename(url, info) == ARCHIVE.get(name, _filename(url, info))
        and (manual_dir is None or not (Path(manual_dir) / _filename(url, info)).is_file())
    }
    unreachable = sorted({host for url in missing if not _reachable(host := urlparse(url))})
    if not unreachable:
        return
    lines = [
        f"  {_filename(url, info)}  ({info.size:,} bytes, sha256 {info.checksum})"
        for url, info in missing.items()
    ]
    where = f"into {manual_dir}" if manual_dir else "into one folder, and name it with --manual-dir"
    raise InputError(
        f"{name}: not prepared yet, and {unreachable[0].hostname} cannot be reached. "
        f"Put these archives {where}:\n" + "\n".join(lines)
    )


def _filename(url: str, info: Any) -> str:
    return info.filename or Path(urlparse(url).path).name


def _reachable(url: Any) -> bool:
    if urllib.request.getproxies():
        return True  # only the download itself can tell
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        with socket.create_connection((url.hostname, port), timeout=5):
            return True
    except OSError:
        return False


def main() -> int:
    try:
        _prepare_here(json.loads(sys.argv[1]))
    except InputError as error:
        print(str(error).replace("\n", "\\n"), file=sys.stderr)
        return INPUT_ERROR_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main())
