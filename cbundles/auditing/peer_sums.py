"""What remains of the activations of a batch for the peers of the bundle entropy.

Sums suffice for all of them, but those that ask for directions grow with the square of a layer's
width, and so does the time that they take. A row is therefore folded into `FOLDED` numbers where it
has more than `WIDEST`, and what is counted unit by unit is counted for at most `MOST_UNITS` of
them. Of a batch remain at most `WIDEST` numbers a row and 3 x `MOST_UNITS` more (`BatchSums`); of
all batches together `WIDEST` x `WIDEST`, `WIDEST` for each class and 3 x `MOST_UNITS`, in float64
(`layer_sums.LayerSums`).

Folding is a random projection (a count sketch: Charikar, Chen and Farach-Colton, "Finding frequent
items in data streams", 2002): feature k is added, with a sign of its own, to number k modulo
`FOLDED`. Products of rows are kept in expectation; two directions whose cosine is c get one that is
off by about (1 - c^2) / sqrt(FOLDED), so hardly at all where they are alike. Ranks can be at most
`FOLDED`, and those that are not small beside it come out too low.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32, PyTree

from cbundles.arrays import Numbers, usual_promotion
from cbundles.auditing import signing
from cbundles.auditing.signing import ROWS, Signing, rows_of
from cbundles.materialised import computed_before

WIDEST = 256  # features of a row as it is
# A prime, so that features whose distance is a power of two, such as those of one channel, do not
# all go into the same few numbers.
FOLDED = 251
MOST_UNITS = 4096


class Watching(NamedTuple):
    """How values of sites are signed and summed.

    signing: see there.
    signs: 1 or -1 for each feature of the widest layer.
    is_new: which rows of the batch were in no batch before it.
    """

    signing: Signing
    signs: Float32[Numbers, " widest"]
    is_new: Bool[Numbers, " rows"]


class BatchSums(NamedTuple):
    """What remains of the rows of a batch; all but `folded` of those that are new alone.

    folded: the rows, or what they are folded into.
    on: for how many rows each unit is above 0.
    mean: of each unit.
    spread: the sum of the squared distances from it.
    lowest: of all numbers.
    change: the sum of 1 - cos(in, out) over the rows of a residual sum.
    changed: over how many of them.
    """

    folded: Float32[Numbers, "rows folded"]
    on: Int32[Numbers, " units"]
    mean: Float32[Numbers, " units"]
    spread: Float32[Numbers, " units"]
    lowest: Float32[Numbers, ""]
    change: Float32[Numbers, ""]
    changed: Int32[Numbers, ""]


def sign_and_sum(
    site: str,
    value: Float[Numbers, "batch ..."],
    how: Watching,
    branch: Float[Numbers, "batch ..."] | None = None,
    *,
    rows: str,
) -> tuple[Array, BatchSums]:
    """A reducer: the signatures of a value, and its sums. branch: of a residual sum."""
    signatures = signing.sign_once(site, value, how.signing, rows=rows)
    opaque_zero = jnp.ravel(how.signing.scales[site].opaque_zero)[0]
    with usual_promotion():
        sums = _summed(value, branch, how.signs, how.is_new, opaque_zero, rows=rows)
    return signatures, sums


SIGN_AND_SUM = {rows: functools.partial(sign_and_sum, rows=rows) for rows in ROWS}


@functools.partial(jax.jit, static_argnames="rows")
def _summed(
    value: Numbers,
    branch: Numbers | None,
    signs: Numbers,
    is_new: Numbers,
    opaque_zero: Numbers,
    *,
    rows: str,
) -> BatchSums:
    def summed(values: PyTree) -> BatchSums:
        own, of_branch = (
            None if one is None else rows_of(jnp.asarray(one), None, rows).astype(jnp.float32)
            for one in values
        )
        assert own is not None
        new, number = jnp.asarray(is_new)[:, None], is_new.sum()
        change = changed = jnp.zeros(())
        if of_branch is not None:
            change, changed = _change(own - of_branch, own, new[:, 0])
        units = own[:, :: step_between_units(own.shape[1])]
        mean = jnp.where(new, units, 0).sum(0) / number
        return BatchSums(
            folded=folded(own, signs),
            on=(new & (units > 0)).sum(0, dtype=jnp.int32),
            mean=mean,
            spread=jnp.where(new, jnp.square(units - mean), 0).sum(0),
            lowest=jnp.where(new, own, jnp.inf).min(),
            change=change,
            changed=changed.astype(jnp.int32),
        )

    return BatchSums(*computed_before(summed, (value, branch), jnp.asarray(opaque_zero)))


def folded(
    rows: Float32[Array, "rows features"], signs: Float32[Numbers, " widest"]
) -> Float32[Array, "rows folded"]:
    """Rows of at most `WIDEST` features as they are, others folded into `FOLDED` numbers."""
    features = rows.shape[1]
    if features <= WIDEST:
        return rows
    signed = rows * signs[:features]
    padded = jnp.pad(signed, ((0, 0), (0, -features % FOLDED)))
    return padded.reshape(len(rows), -1, FOLDED).sum(1)


def folded_width(features: int) -> int:
    """How many numbers `folded` leaves of a row."""
    return features if features <= WIDEST else FOLDED


def number_of_units(features: int) -> int:
    """How many of the features are counted as units."""
    return len(range(0, features, step_between_units(features)))


def step_between_units(features: int) -> int:
    """Every how many-th feature is counted as a unit: no more than `MOST_UNITS`, and about as many
    of every channel and place as of any other."""
    step = max(1, -(-features // MOST_UNITS))
    while math.gcd(step, features) > 1:
        step += 1
    return step


def _change(
    before: Float32[Array, "rows features"],
    after: Float32[Array, "rows features"],
    is_new: Bool[Array, " rows"],
) -> tuple[Float32[Array, ""], Int32[Array, ""]]:
    """The sum of 1 - cos of the rows, as `peer_measures.block_change`, and of how many."""
    left, right = _direction(before), _direction(after)
    counts = is_new & (before != 0).any(1) & (after != 0).any(1)
    changes = jnp.square(left - right).sum(1) / 2
    return jnp.where(counts, changes, 0).sum(), counts.sum()


def _direction(rows: Float32[Array, "rows features"]) -> Float32[Array, "rows features"]:
    """Rows divided by their lengths, whose squares may be too large or too small for a float."""
    largest = jnp.abs(rows).max(1, keepdims=True)
    scaled = rows / jnp.where(largest == 0, 1, largest)
    length = jnp.sqrt(jnp.square(scaled).sum(1, keepdims=True))
    return scaled / jnp.where(length == 0, 1, length)
