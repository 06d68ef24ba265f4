"""Equality within a tolerance (paper, eq. 1), decided by leaders."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32

from cbundles.arrays import Number

SKETCH = 8

# Candidates that are yet to be compared with a leader, and the leaders that are known so far.
State = tuple[Bool[Array, " samples"], Int32[Array, " samples"]]


def leaders(
    rows: Float32[Array, "samples columns"], factor: Float32[Number, ""], gamma: float
) -> Int32[Array, " samples"]:
    """For each sample the index of its leader; jittable.

    Rows i and j are close when ``(alpha/|B|) max_c |a_i[c] - a_j[c]| <= gamma``, factor being
    alpha/|B|, all in float32. Closeness is not transitive, so it makes no bundles by itself. The
    paper's rule is to "iterate once" over the samples in the order of the probe set: a sample joins
    the first leader that it is close to, and else becomes a leader. The result depends on that
    order. A row with NaN or infinity is close to nothing. (A difference below 1.2e-38, which
    XLA may flush to zero, counts as none; that shows only where gamma is 0.)

    Comparing every row with every leader would cost O(N^2 d). A sketch of a row, the largest value
    in each of eight groups of its columns, moves by no more than the row does, so only rows with
    close sketches are compared in full: O(bundles N + (close pairs) (N + d)), no (N, N) array.
    """
    n, d = rows.shape
    columns = -(-d // SKETCH)
    groups = -(-d // columns)
    padded = jnp.pad(rows, ((0, 0), (0, groups * columns - d)), constant_values=-jnp.inf)
    sketch = padded.reshape(n, groups, columns).max(axis=2)

    def close(difference: Float32[Array, "*shape"]) -> Bool[Array, "*shape"]:
        return factor * jnp.abs(difference) <= jnp.float32(gamma)

    def next_leader(leader_of: Int32[Array, " samples"]) -> Int32[Array, " samples"]:
        leader = jnp.argmax(leader_of < 0).astype(jnp.int32)
        alike = jnp.all(close(sketch - sketch[leader]), axis=1)
        leader_of = leader_of.at[leader].set(leader)

        def compare(state: State) -> State:
            candidates, leader_of = state
            sample = jnp.argmax(candidates)
            joins = jnp.all(close(rows[sample] - rows[leader]))
            joined = jnp.where(joins, leader, leader_of[sample])
            return candidates.at[sample].set(False), leader_of.at[sample].set(joined)

        start = (alike & (leader_of < 0), leader_of)
        return lax.while_loop(lambda state: jnp.any(state[0]), compare, start)[1]

    nobody = jnp.full(n, -1, jnp.int32)
    return lax.while_loop(lambda leader_of: jnp.any(leader_of < 0), next_leader, nobody)
