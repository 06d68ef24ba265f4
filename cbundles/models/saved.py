"""A trained network as a file: NumPy's .npz with the parameters, the statistics and a header.

    header       JSON: the shape, and where the network comes from
    params       float32 (P,), statistics: float32 (S,); see `network.Network`

Nothing in it is executed when it is read, and NumPy alone can open it.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cbundles.errors import InputError
from cbundles.models.network import Network
from cbundles.models.shape import ConvShape, FcShape, Shape

FORMAT = 1
SHAPES: dict[str, Any] = {"fc": FcShape, "conv": ConvShape}


class Saved(NamedTuple):
    """origin: plain data that says where the network comes from."""

    shape: Shape
    network: Network
    origin: dict[str, Any]


def encode(saved: Saved) -> bytes:
    """The content of the file."""
    kind = next(name for name, of in SHAPES.items() if isinstance(saved.shape, of))
    size = dataclasses.asdict(saved.shape)
    header = {"format": FORMAT, "kind": kind, "shape": size, "origin": saved.origin}
    file = io.BytesIO()
    np.savez(
        file,
        header=np.array(json.dumps(header)),
        params=np.asarray(saved.network.params, np.float32),
        statistics=np.asarray(saved.network.statistics, np.float32),
    )
    return file.getvalue()


def read(path: Path) -> Saved:
    """Read a network from a file. Raises InputError, which names it, when that cannot be."""
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def read_trained(path: Path, cell: str, fingerprint: str) -> Saved:
    """Read the trained ResNet of a cell. Raises InputError for any other network, and for one that
    was trained on images of another fingerprint."""
    one = read(path)
    known = (one.origin.get("cell"), one.origin.get("data_fingerprint"))
    whole = getattr(one.shape, "residual", False) and "removed" not in one.origin
    if known != (cell, fingerprint) or not whole:
        raise InputError(f"{path}: not this network, trained on these images; delete it to train "
                         "it again")  # fmt: skip
    return one


def decode(content: bytes, place: str) -> Saved:
    """Read what `encode` wrote, as NumPy arrays. Raises InputError, which names the place, for
    anything else."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            header = json.loads(str(archive["header"]))
            params, statistics = archive["params"], archive["statistics"]
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']}, this version reads {FORMAT}")
        lists = {k: tuple(v) if isinstance(v, list) else v for k, v in header["shape"].items()}
        shape: Shape = SHAPES[header["kind"]](**lists)
        network = Network(params, statistics)
        expected = (shape.parameters, getattr(shape, "statistics", 0))
        if (params.shape, statistics.shape) != tuple((n,) for n in expected):
            raise ValueError(f"its shape needs {expected[0]} parameters and {expected[1]} "
                             f"statistics, it has {params.size} and {statistics.size}")  # fmt: skip
        return Saved(shape, network, dict(header["origin"]))
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{place}: not a network of cbundles ({error})") from None
