"""Values that are in memory, as a whole, before they are read.

XLA on a CPU computes what makes a value again for every place at which it is read. Where that is
more than a few operations and the places are many, this costs more than it saves: signing behind a
normalisation took ten times as long, and the transforms of a convolution's tiles a fifth longer.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from cbundles.arrays import Numbers

# A number that is none, and that no computation leaves behind.
SIGNALLING_NAN = 0x7F800001


def computed_before(
    function: Callable[[PyTree], PyTree], values: PyTree, opaque_zero: Shaped[Array, ""]
) -> PyTree:
    """``function(values)`` of values that are computed before and as a whole: what a `cond` is
    given is in memory, as it stands. Not so under `vmap` where the zero differs among members, for
    then both sides of it are computed.

    opaque_zero: a 0 of which XLA does not know that it is one.
    """
    like = jax.eval_shape(function, values)

    def never(values: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)

    return jax.lax.cond(opaque_zero == 0, function, never, values)


def opaque_zero_of(numbers: Float[Numbers, "*sizes"]) -> Bool[Array, ""]:
    """A 0, made of the first of some numbers."""
    first = jnp.ravel(jnp.asarray(numbers))[0].astype(jnp.float32)
    return jax.lax.bitcast_convert_type(first, jnp.uint32) == jnp.uint32(SIGNALLING_NAN)
