"""A trained network as a file: NumPy's .npz with the parameters, the statistics and a header.

    header       JSON: the format, the shape, and where the network comes from
    params       float32 (P,), all trainable parameters in one vector; rounded to it where the
                 network was trained in float64
    statistics   float32 (S,), those of batch normalisation; empty for fully connected networks

Nothing in it is executed when it is read, and NumPy alone can open it. That of a user's
architecture names a function, which is imported and called when the network is built, see
`load` and `user_functions`. In format 1 the vectors hold
the arrays below one after the other, each in C order; n is the number of blocks behind one another
that have the same shape (`shape.ConvShape.stages`, `fc.Params`).

    fully connected   first (inputs, width); first bias (width); hidden (depth - 1, width, width);
                      hidden biases (depth - 1, width); last (width, outputs); last bias (outputs);
                      outer (depth - 1, width, width), of blocks with two weights; where layers
                      are standardised the first scale and shift (width), then those of the others
                      (depth - 1, width)
    VGG, ResNet       stem: kernel (7, 7, C, D), bias (D), gamma (D), beta (D);
                      for each of the four stages: the units of the block that halves the image, if
                      there is one (first convolution, second, and of a ResNet the skip's), kernel,
                      bias, gamma, beta each; then the first convolutions of all other blocks,
                      kernels (n, 3, 3, D, D), biases, gammas, betas (n, D), and the second ones;
                      last (features, outputs); last bias (outputs); for each inserted layer its
                      kernel (3, 3, D, D) and bias (D)
    statistics        in the order of the units above: mean, variance, (D) or (n, D) each
    a user's own      params and statistics: the arrays of Flax's collections "params" and
                      "batch_stats", by sorted names at every level
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from jaxtyping import PyTree

from cbundles import formats
from cbundles.errors import InputError
from cbundles.networks.network import Network, module_of, variables_of
from cbundles.networks.shape import ConvShape, FcShape, OwnShape, Shape, shape_from_data
from cbundles.user_functions import name_of_function, trust

SHAPES: dict[str, type[Shape]] = {"fc": FcShape, "conv": ConvShape, "own": OwnShape}


class Saved(NamedTuple):
    """origin: plain data that says where the network comes from."""

    shape: Shape
    network: Network
    origin: dict[str, Any]


def encode(saved: Saved) -> bytes:
    """The content of the file."""
    kind = next(name for name, of in SHAPES.items() if isinstance(saved.shape, of))
    size = dataclasses.asdict(saved.shape)
    header = {
        "format": formats.NEWEST[formats.NETWORK],
        "kind": kind,
        "shape": size,
        "origin": saved.origin,
    }
    file = io.BytesIO()
    np.savez(
        file,
        header=np.array(json.dumps(header)),
        params=np.asarray(saved.network.params, np.float32),
        statistics=np.asarray(saved.network.statistics, np.float32),
    )
    return file.getvalue()


def read(path: Path, *, or_diverged: bool = False) -> Saved:
    """Read a network from a file. Raises InputError, which names it, when that cannot be, and for a
    network that diverged unless such a one will do."""
    try:
        return decode(path.read_bytes(), str(path), or_diverged=or_diverged)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def load(
    path: str | Path, *, build: str | Callable[..., nn.Module] | None = None
) -> tuple[nn.Module, dict[str, PyTree]]:
    """A trained network as a Flax module and its variables.

    ``module.apply(variables, images)`` gives logits, float32 (N, classes), of images, float32
    (N, H, W, C), prepared as the network was tested on them: multiplied by 1/255, and standardised
    where its data set's pipeline does that. The variables are NumPy arrays. A VGG or ResNet that is
    to be trained on is ``module.clone(norm="train")``, applied with ``mutable=["batch_stats"]``.

    Args:
        path: of a file in ``weights/``, which a run with ``--keep-weights`` has written, or in
            ``pruned/``.
        build: of a network of your own architecture the function that made it, or its name,
            ``"package.module:function"``. A file is not followed: without it nothing is imported.

    Raises:
        InputError: the file is no network of cbundles, or of another function than the one that was
            given, or of another version of its file; the message names it.
    """
    one = read(Path(path))
    _require_given(build, one.shape, str(path))
    return module_of(one.shape), variables_of(one.shape, one.network)


def _require_given(build: str | Callable[..., nn.Module] | None, shape: Shape, path: str) -> None:
    """InputError unless the function that a network is built by is the one that was given."""
    given = name_of_function(build, path) if callable(build) else build
    if not isinstance(shape, OwnShape):
        if given is not None:
            raise InputError(f"{path}: built by no function of yours; leave out build")
        return
    if given != shape.build:
        found = (
            "its function is not imported unless you name it"
            if given is None
            else f"not by {given}"
        )
        raise InputError(
            f"{path}: built by {shape.build}, {found}; "
            f"where you trust it: load(path, build={shape.build!r})"
        )
    trust(given)


def read_of_cell(
    path: Path,
    cell: str,
    fingerprint: str,
    *,
    must_be_residual: bool = False,
    or_diverged: bool = False,
) -> Saved:
    """Read a network of a cell. Raises InputError for that of another cell, for one that was
    trained on images of another fingerprint, and for what is left of a pruned one."""
    one = read(path, or_diverged=or_diverged)
    known = (one.origin.get("cell"), one.origin.get("data_fingerprint"))
    fits = not must_be_residual or getattr(one.shape, "residual", False)
    if known != (cell, fingerprint) or "removed" in one.origin or not fits:
        raise InputError(
            f"{path}: not this network, trained on these images; delete it to train it again"
        )
    return one


def decode(content: bytes, place: str, *, or_diverged: bool = False) -> Saved:
    """Read what `encode` wrote, as NumPy arrays. Raises InputError, which names the place, for
    anything else."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            header = json.loads(str(archive["header"]))
            params, statistics = archive["params"], archive["statistics"]
        formats.check(formats.NETWORK, header, place)
        shape = shape_from_data(SHAPES[header["kind"]], header["shape"])
        network = Network(params, statistics)
        expected = (shape.parameters, shape.statistics)
        if (params.shape, statistics.shape) != tuple((n,) for n in expected):
            raise ValueError(f"its shape needs {expected[0]} parameters and {expected[1]} "
                             f"statistics, it has {params.size} and {statistics.size}")  # fmt: skip
        for name, numbers in (("params", params), ("statistics", statistics)):
            if numbers.dtype != np.float32:
                raise ValueError(f"{name} are {numbers.dtype}, not float32")
            if not or_diverged and not np.isfinite(numbers).all():
                raise ValueError(f"{name} hold NaN or infinity: the network diverged")
        return Saved(shape, network, dict(header["origin"]))
    except InputError:
        raise
    except Exception as error:  # zipfile and NumPy raise many kinds for a damaged file
        raise InputError(f"{place}: not a network of cbundles ({error})") from None
