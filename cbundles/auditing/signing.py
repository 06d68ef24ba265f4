"""From activations to signatures, while the model runs: what a row is, and at which scales.

Functions here are reducers (`subject.Reducer`); all numbers that an audit may vary are arguments of
theirs, so that they are not compiled into the model's program.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Integer, PyTree, Shaped, UInt32

from cbundles import bundles
from cbundles.arrays import Numbers
from cbundles.bundles import Equality, Scale
from cbundles.materialised import computed_before

SAMPLES, TOKENS = "samples", "tokens"
ROWS = (SAMPLES, TOKENS)
EXACT = Scale.of(0.0, 1.0, 1)  # beside no weight at all, rows are equal when all numbers are
SIGN_AT_ONE_SCALE = functools.partial(bundles.signature, equality=Equality())
SIGN_AT_MANY_SCALES = functools.partial(bundles.signatures_of_scan, equality=Equality())


class Signing(NamedTuple):
    """How the values of sites are signed.

    scales: by the name of a site; with a leading axis where there are several.
    keys: of the fingerprint.
    picked: which samples of the batch; None: all.
    """

    scales: dict[str, Scale]
    keys: UInt32[Numbers, " keys"]
    picked: Integer[Numbers, " picked"] | None = None


def sign_once(
    site: str, value: Float[Numbers, "batch ..."], how: Signing, *, rows: str
) -> UInt32[Array, "4 rows"]:
    """The signatures of a value at one scale."""
    numbers = how.scales[site], how.keys, how.picked
    return _signed(value, *numbers, sign=SIGN_AT_ONE_SCALE, rows=rows)


def sign_at_scales(
    site: str, value: Float[Numbers, "batch ..."], how: Signing, *, rows: str
) -> UInt32[Array, "scales 4 rows"]:
    """The signatures of a value at several scales."""
    numbers = how.scales[site], how.keys, how.picked
    return _signed(value, *numbers, sign=SIGN_AT_MANY_SCALES, rows=rows)


# Compiled, which inside a model's program means that layers of one shape are traced once.
@functools.partial(jax.jit, static_argnames=("sign", "rows"))
def _signed(
    value: Float[Array, "batch ..."],
    scales: Scale,
    keys: UInt32[Array, " keys"],
    picked: Integer[Array, " picked"] | None,
    *,
    sign: Callable[[Array, Scale, Array], Array],
    rows: str,
) -> UInt32[Array, "..."]:
    """``sign(rows of value, scales, keys)``, where value is computed before and as a whole. What is
    done with it, also a change of shape, belongs inside."""

    def signed(value: Array) -> Array:
        return sign(rows_of(value, picked, rows), scales, keys)

    return computed_before(signed, value, jnp.ravel(scales.opaque_zero)[0])


def rows_of(
    value: Shaped[Array, "batch ..."], picked: Integer[Array, " picked"] | None, rows: str
) -> Array:
    """What is compared: samples, or all tokens of all samples."""
    if picked is not None:
        value = value[picked]
    axes = 2 if rows == TOKENS else 1
    return value.reshape(math.prod(value.shape[:axes]), -1)


# One reducer each, so that a model's program is compiled for it once.
SIGN_ONCE = {rows: functools.partial(sign_once, rows=rows) for rows in ROWS}
SIGN_AT_SCALES = {rows: functools.partial(sign_at_scales, rows=rows) for rows in ROWS}


@functools.partial(jax.jit, static_argnames="tokens")
def sign_inputs(
    batch: PyTree, exact: Scale, keys: UInt32[Array, " keys"], *, tokens: int | None
) -> UInt32[Array, "4 rows"]:
    """The signatures of the inputs themselves, equal where all numbers of two rows are. exact:
    `EXACT`, as an argument."""
    parts = [_exact(leaf, tokens) for leaf in jax.tree.leaves(batch) if _has_rows(leaf, tokens)]
    return bundles.signature(jnp.concatenate(parts, axis=1), exact, keys, Equality())


def all_bits(batch: PyTree, tokens: int | None) -> PyTree:
    """Inputs of which `sign_inputs` compares 64 bits where numbers have them, which JAX by itself
    would cut to 32."""
    return jax.tree.map(lambda leaf: _split(leaf) if _has_rows(leaf, tokens) else leaf, batch)


def _split(leaf: Shaped[Numbers, "batch ..."]) -> PyTree:
    """Numbers of 64 bits as two of 32 each, on an axis of their own."""
    dtype = np.dtype(leaf.dtype)
    if dtype not in (np.int64, np.uint64, np.float64, np.complex128):
        return leaf
    numbers = np.ascontiguousarray(leaf)[..., None]
    if dtype == np.complex128:
        numbers = numbers.view(np.float64)
    if numbers.dtype != np.float64:
        return numbers.view(np.uint32)
    # Equal numbers have equal bits, zeros too; what is NaN or infinite shows in the rounded ones.
    return {"bits": (numbers + 0.0).view(np.uint32), "rounded": numbers.astype(np.float32)}


def columns_of_inputs(batch: PyTree, tokens: int | None) -> int:
    """How many numbers `sign_inputs` compares in each row."""
    columns = 0
    for leaf in jax.tree.leaves(batch):
        if _has_rows(leaf, tokens):
            numbers = math.prod(leaf.shape[1 if tokens is None else 2 :])
            columns += 2 * numbers if _takes_two_floats(jnp.dtype(leaf.dtype)) else numbers
    return columns


def tokens_of(batch: PyTree) -> int:
    """How many tokens a sample has. Raises ValueError where the inputs have no such axis."""
    for leaf in jax.tree.leaves(batch):
        if len(leaf.shape) > 1:
            return int(leaf.shape[1])
    raise ValueError('rows="tokens": no input has a second axis')


def _has_rows(leaf: Numbers, tokens: int | None) -> bool:
    return tokens is None or (len(leaf.shape) > 1 and leaf.shape[1] == tokens)


def _exact(
    leaf: Shaped[Numbers, "batch ..."], tokens: int | None
) -> Float32[Array, "rows columns"]:
    """The numbers of each row as floats that are different where the numbers are."""
    array = jnp.asarray(leaf)
    rows = array.shape[0] * (tokens or 1)
    array = array.reshape(rows, -1)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        array = jnp.concatenate([array.real, array.imag], axis=1)
    elif _takes_two_floats(array.dtype):
        array = jnp.concatenate([array >> 16, array & 0xFFFF], axis=1)
    return array.astype(jnp.float32)


def _takes_two_floats(dtype: jnp.dtype) -> bool:
    """Whether numbers have two parts, or 32 bits that count: a float holds 24 of them."""
    is_long = jnp.issubdtype(dtype, jnp.integer) and dtype.itemsize > 2
    return is_long or jnp.issubdtype(dtype, jnp.complexfloating)
