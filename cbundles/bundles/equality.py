"""When are two activations equal? Rows are turned into signatures: equal rows, equal signatures.

Two samples are *bundled* by a layer when the weight update cannot tell their activations apart
(paper, definition 1 and eq. 1). There are two readings of that:

`weight_amplitude`  A weight w moves by a * (alpha / |B|), so two activations are the same when they
    lead to the same number ``q = w - a * alpha * (1/|B|)``, every operation rounded to float32 in
    this order, where w is the largest absolute trainable weight of the whole model. So does the
    original code, whose revisions differ in the weights that w is taken over: see
    `cbundles.readings`. Equality of q is an equivalence relation.
`gamma`  Equation 1 read literally, a tolerance; see `leaders`.

The signature of the first reading is a hash of q that reads each activation once. Its collisions
cannot pass silently: see `fingerprint`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, UInt, UInt32

from cbundles.arrays import Number
from cbundles.bundles.leaders import leaders
from cbundles.chance import HASH_KEYS, generator
from cbundles.errors import did_you_mean

RULES = ("weight_amplitude", "gamma")
RESOLUTIONS = ("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
GAMMA = 1e-8
LANES = 3
LANE_DISTANCE = 16  # columns between the keys of two lanes; any number would do, 64 bytes is fast
MARGIN = LANES * LANE_DISTANCE
ABSOLUTE = np.uint32(0x7FFFFFFF)
INFINITY = np.uint32(0x7F800000)

GROUPS, GROUPED_FROM = 4, 128  # of rows that are read together; columns of such rows, at least

Results = tuple[UInt32[Array, ""], ...]  # of one row: the three lanes, and the largest ``|q|``


@dataclass(frozen=True)
class Equality:
    """The choice of a reading; compiled into programs. Raises ValueError when it makes no sense.

    rule: one of `RULES`. gamma: the tolerance of the second rule, as in eq. 1. resolution: one of
    `RESOLUTIONS`, the format in which the model keeps its weights (first rule): w and q are rounded
    to it, to the nearest even; the update itself is computed in float32, as processors do. Beyond
    its range, float8_e4m3fn (which has no infinity) saturates.
    """

    rule: str = "weight_amplitude"
    gamma: float = GAMMA
    resolution: str = "float32"

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("equality", self.rule, RULES),
            ("resolution", self.resolution, RESOLUTIONS),
        ):
            if value not in valid:
                raise ValueError(f"{name} = {value!r}: {did_you_mean(value, valid)}")
        if self.rule == "gamma" and self.resolution != "float32":
            raise ValueError('resolution has no effect on the equality "gamma"')
        if self.rule != "gamma" and self.gamma != GAMMA:
            raise ValueError('gamma has no effect on the equality "weight_amplitude"')

    @property
    def streams(self) -> bool:
        """Whether signatures may be taken a batch at a time, and joined."""
        return self.rule == "weight_amplitude"


class Scale(NamedTuple):
    """What turns an activation into a step of a weight: numbers *known only at run time*.

    Were they compile-time constants, XLA would fold ``alpha * (1/|B|)`` into one factor and change
    the partition. ``opaque_zero`` is 0, and an argument for the same reason: see `weight_update`.
    """

    amplitude: Float32[Number, ""]
    learning_rate: Float32[Number, ""]
    inverse_batch_size: Float32[Number, ""]
    opaque_zero: UInt32[Number, ""]

    @classmethod
    def of(cls, amplitude: float, learning_rate: float, batch_size: int) -> Scale:
        return cls(
            np.float32(amplitude),
            np.float32(learning_rate),
            np.float32(1.0 / batch_size),
            np.uint32(0),
        )


def draw_keys(columns: int, salt: int) -> UInt32[np.ndarray, " keys"]:
    """The keys of `fingerprint` for rows of up to `columns` numbers, all odd. They are an argument
    of programs, not part of them, so that another salt needs no other program."""
    chance = generator(salt, HASH_KEYS)
    return chance.integers(2**32, size=columns + MARGIN, dtype=np.uint32) | np.uint32(1)


def signature(
    activations: Float[Array, "samples *features"],
    scale: Scale,
    keys: UInt32[Array, " keys"],
    equality: Equality,
) -> UInt32[Array, "4 samples"]:
    """A layer's activations as three lanes that are the same for rows that are equal, and the
    largest ``|q|`` of each row as bits, by which NaN and infinity show. keys: see `draw_keys`.

    When the equality `streams`, rows may be given a batch at a time, and the parts joined;
    otherwise the whole probe set is needed at once.
    """
    rows = activations.reshape(activations.shape[0], -1).astype(jnp.float32)
    if equality.rule == "weight_amplitude":
        return fingerprint(rows, scale, keys, equality.resolution)
    leader = leaders(rows, scale.learning_rate * scale.inverse_batch_size, equality.gamma)
    leader = leader.astype(jnp.uint32)
    largest = jnp.max(_bits(rows) & ABSOLUTE, axis=1)
    return jnp.stack([leader, jnp.zeros_like(leader), jnp.zeros_like(leader), largest])


def weight_update(
    rows: Float32[Array, "samples columns"], scale: Scale, resolution: str = "float32"
) -> Float32[Array, "samples columns"]:
    """q = w - a * alpha * (1/|B|), with the bits that NumPy gives; w is a number of the format
    `resolution`, to which q is yet to be rounded.

    (Except that a step below 1.2e-38, which XLA may flush to zero, differs when w is 0.)

    A compiler may contract the last multiplication and the subtraction into one fused operation
    that rounds once. Passing the product through an integer operation it cannot see through
    (xor with a zero that arrives at run time) rules that out.
    """
    step = rows * scale.learning_rate * scale.inverse_batch_size
    amplitude = jnp.abs(jnp.asarray(scale.amplitude, jnp.float32))  # -0.0 would give a q of -0.0
    w = rounded(amplitude, resolution, scale.opaque_zero)
    return w - _opaque(step, scale.opaque_zero)


def rounded(
    x: Float[Array, "*shape"], resolution: str, opaque_zero: UInt32[Number, ""]
) -> Float[Array, "*shape"]:
    """x, rounded to the nearest even number of a float format and back in its own.

    Through the bits of the narrow format: a compiler may drop a conversion there and back.
    opaque_zero: 0, known only at run time.
    """
    return _opaque(_stored(x, resolution), opaque_zero).astype(x.dtype)


def rounded_bits(
    q: Float32[Array, "samples columns"], resolution: str
) -> UInt32[Array, "samples columns"]:
    """The bits of q rounded to a float format. -0.0 equals 0.0, so it gets its bits.

    In float32 q is never -0.0: a difference is that only of -0.0 and 0.0, and w, an absolute value,
    is not -0.0. Of a narrower format q may be a number below 0 that rounds to it.
    """
    stored = _stored(q, resolution)
    if stored.dtype == jnp.float32:
        return _bits(stored)
    return _bits(jnp.where(stored == 0, jnp.zeros_like(stored), stored))


def fingerprint(
    rows: Float32[Array, "samples columns"],
    scale: Scale,
    keys: UInt32[Array, " keys"],
    resolution: str = "float32",
) -> UInt32[Array, "4 samples"]:
    """A signature of each row of activations by the weight-amplitude rule; see `signature`.

    The bits of an element of q in column c are mixed by a bijection x -> m_c(x) with a key of its
    own. With more keys k, all odd, two lanes are the sums of ``k[c] m_c(q[c])`` over the columns,
    modulo 2^32, and the third is that sum of the mixed elements rotated by 16 bits.

    Collisions. Rows that differ in one column never collide: an odd multiple of a difference is
    not 0. For rows that differ in more columns, let t be the least number of trailing zero bits of
    the differences between their mixed elements, t' the same after the rotation. Over the keys k
    the lanes collide, independently, with a probability of at most 2^(t-31), 2^(t-31), 2^(t'-31)
    (they use one sequence of keys, shifted). The keyed mixing makes large t rare, and large t and
    t' together rarer: taking mixed differences as random, all 96 bits agree once in 2^77 pairs of
    rows that differ in two columns, once in 2^87 of others. `partition` sorts by at most 64 of the
    bits; rows that these do not tell apart but the others do are noticed and lead to other keys.
    """
    d = rows.shape[1]
    keys_of = [keys[lane * LANE_DISTANCE : lane * LANE_DISTANCE + d] for lane in range(LANES + 1)]
    firsts = _groups(*rows.shape)
    size = -(-rows.shape[0] // len(firsts))
    operands, nothing = [], []
    for first in firsts:
        q = weight_update(rows[first : first + size], scale, resolution)
        operands.append(_hashed(q, keys_of, resolution))
        nothing.append((np.uint32(0),) * (LANES + 1))

    def combined(x: list[Results], y: list[Results]) -> list[Results]:
        return list(map(_combined, x, y))

    # One reduction of all reads q once and is vectorised; several reductions are not.
    results: list[Results] = lax.reduce(operands, nothing, combined, (1,))
    # Of the last groups, which may overlap with the one before, only what is new.
    new = [
        jnp.stack(of_group)[:, group * size - first :]
        for group, (first, of_group) in enumerate(zip(firsts, results, strict=True))
    ]
    return jnp.concatenate(new, axis=1)


def _groups(samples: int, columns: int) -> list[int]:
    """The first row of each group of equally many rows that a processor reads at the same time.

    One row after the other keeps a core waiting for memory, since the work on the numbers of one
    cache line is too much to ask for the next in time: on one processor four rows take a quarter
    to two thirds of the time, on another 0.9 to 1.14 of it. A short row is over before that tells,
    and a GPU has other rows to go on with.
    """
    is_cpu = jax.default_backend() == "cpu"
    is_spread = bool(jax.sharding.get_abstract_mesh().axis_names)  # then a group is on many devices
    if columns < GROUPED_FROM or samples < GROUPS or is_spread or not is_cpu:
        return [0]
    size = -(-samples // GROUPS)
    return [min(group * size, samples - size) for group in range(GROUPS)]


def _hashed(
    q: Float32[Array, "rows columns"],
    keys_of: Sequence[UInt32[Array, " columns"]],
    resolution: str,
) -> tuple[UInt32[Array, "rows columns"], ...]:
    """What is added up of each number for each lane, and ``|q|``. keys_of: each lane and the
    mixing."""
    first, second, third, mixing = keys_of
    mixed = _mix(rounded_bits(q, resolution), mixing)
    rotated = (mixed << 16) | (mixed >> 16)
    return mixed * first[None], mixed * second[None], rotated * third[None], _bits(q) & ABSOLUTE


def _combined(x: Results, y: Results) -> Results:
    """Sums of the lanes, and the larger of the last results."""
    return *(a + b for a, b in zip(x[:-1], y[:-1], strict=True)), jnp.maximum(x[-1], y[-1])


def _mix(
    x: UInt32[Array, "samples columns"], key: UInt32[Array, " columns"]
) -> UInt32[Array, "samples columns"]:
    """A bijection of x, for an odd key, in which every input bit reaches every output bit (two
    rounds of multiply and xor-shift)."""
    x = (x ^ (x >> 16)) * key[None]
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _stored(x: Float[Array, "*shape"], resolution: str) -> Float[Array, "*shape"]:
    """x as an array of a float format."""
    if resolution == "float8_e4m3fn":
        limit = float(jnp.finfo(resolution).max)
        x = jnp.clip(x, -limit, limit)
    return x.astype(resolution)


def _bits(x: Float[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """The bits of floats of any size, as uint32 numbers."""
    return _raw(x).astype(jnp.uint32)


def _raw(x: Float[Array, "*shape"]) -> UInt[Array, "*shape"]:
    return lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}")


def _opaque(x: Float[Array, "*shape"], opaque_zero: UInt32[Number, ""]) -> Float[Array, "*shape"]:
    """x, in a way that keeps the compiler from merging what comes before with what comes after."""
    raw = _raw(x)
    return lax.bitcast_convert_type(raw ^ jnp.asarray(opaque_zero, raw.dtype), x.dtype)
