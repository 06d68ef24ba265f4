"""Make `cbundles/data/mnist_mini.npz` from the publisher's four MNIST archives.

The first 1,000 training and 200 test images of each digit, in their original order. Usage:

    python scripts/make_mnist_mini.py FOLDER_WITH_THE_ARCHIVES
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parent.parent / "cbundles" / "data" / "mnist_mini.npz"
PER_CLASS = {"train": ("train", 1000), "test": ("t10k", 200)}


def read_idx(path: Path, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def main() -> None:
    folder = Path(sys.argv[1])
    arrays = {}
    for split, (prefix, count) in PER_CLASS.items():
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 8)
        chosen = np.sort(np.concatenate([np.flatnonzero(labels == d)[:count] for d in range(10)]))
        arrays[f"{split}_images"] = images[chosen]
        arrays[f"{split}_labels"] = labels[chosen].astype(np.int32)
    np.savez_compressed(TARGET, **arrays)
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
