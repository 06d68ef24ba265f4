"""Names of arrays for annotations.

Shapes and number formats stand in signatures and fields, ``Float32[Array, "batch classes"]``: see
jaxtyping for how they are written. A name stands for one size inside one signature, ``*name`` for
any number of axes, ``_`` and ``...`` for sizes that do not matter. The product never checks them;
`tests/conftest.py` does, in all tests.
"""

from __future__ import annotations

import jax
import numpy as np

Numbers = jax.Array | np.ndarray  # an array, whichever library it is of
Number = jax.Array | np.number  # a single one
