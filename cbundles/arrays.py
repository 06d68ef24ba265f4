"""Names of arrays for annotations, and arrays that need another place.

Shapes and number formats stand in signatures and fields, ``Float32[Array, "batch classes"]``: see
jaxtyping for how they are written. A name stands for one size inside one signature, ``*name`` for
any number of axes, ``_`` and ``...`` for sizes that do not matter. The product never checks them;
`tests/conftest.py` does, in all tests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

Numbers = jax.Array | np.ndarray  # an array, whichever library it is of
Number = jax.Array | np.number  # a single one


def off_explicit_mesh(value: Any) -> Any:
    """An array that is spread over a mesh with explicit axes, as `jax.make_mesh` makes them, in the
    memory of the host: what is computed from it would have to say how each result is spread.
    Anything else as it is."""
    if isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer):
        mesh = getattr(value.sharding, "mesh", None)
        if mesh is not None and jax.sharding.AxisType.Explicit in mesh.axis_types:
            return np.asarray(value)
    return value


@contextlib.contextmanager
def usual_promotion() -> Iterator[None]:
    """Inside, numbers of several types or ranks meet as JAX has it by default, whatever its user
    forbids to code of theirs."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
