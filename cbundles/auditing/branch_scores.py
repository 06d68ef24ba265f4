"""What is known of a residual branch without switching it off: its size beside its skip, and by how
much the loss would change at first. Of each sample two numbers remain, so batches may overlap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from cbundles.arrays import Numbers
from cbundles.auditing.batches import Batches, length_of
from cbundles.auditing.subject import Scores, Subject
from cbundles.observe import Site
from cbundles.observe.layers import Sites


def scores_of_branches(
    subject: Subject,
    sites: Sites,
    branches: Sequence[Site],
    batches: Batches,
    labels: Int32[np.ndarray, "samples ..."],
    scores: Scores,
) -> dict[str, Float32[np.ndarray, "2 repeats"]]:
    """Of each repetition of a branch, by the name of its site, means over all samples:

    norm: ||branch|| / ||skip||;
    first_order: |dLoss/dgate|, where a gate multiplies the branch of one sample and is 1, that is
        |sum of gradient x activation|.
    """
    # A branch may go into several sums: the first one counts.
    sum_of = {branch: total for total, branch in reversed(list(sites.branches.items()))}
    reducer = _Reducer({site.name: (len(site.repeats), sum_of[site.name]) for site in branches})
    # A branch may stand in two sums, so a name may come twice.
    names = dict.fromkeys([*(site.name for site in branches), *reducer.sums])
    collected: dict[str, Float32[np.ndarray, "2 repeats samples"]] = {}
    for start, batch in batches:
        size = length_of(batch)
        own = labels[start : start + size]
        ones = np.ones(size, np.float32)
        found, _ = subject.slopes(batch, own, ones, scores, list(names), reducer)
        for name, values in found.items():
            array = np.asarray(values)
            if name not in collected:
                collected[name] = np.zeros((*array.shape[:2], len(labels)), np.float32)
            collected[name][..., start : start + size] = array
    return {name: values.mean(-1) for name, values in collected.items()}


class _Reducer:
    """A `subject.SlopeReducer`. branches: by name over how many axes a branch repeats, and the sum
    that it goes into."""

    def __init__(self, branches: Mapping[str, tuple[int, str]]) -> None:
        self.branches = branches

    @property
    def sums(self) -> list[str]:
        return [name for _, name in self.branches.values()]

    def __call__(
        self, values: Mapping[str, Numbers], gradients: Mapping[str, Numbers]
    ) -> dict[str, Float32[Array, "2 repeats batch"]]:
        found = {}
        for name, (axes, total) in self.branches.items():
            branch = _flat(values[name], axes)
            skip = _flat(values[total], axes) - branch
            slope = _flat(gradients[name], axes)
            by_branch, by_skip = (jnp.sqrt(jnp.square(a).mean(-1)) for a in (branch, skip))
            norm = by_branch / jnp.maximum(by_skip, 1e-12)
            found[name] = jnp.stack([norm, jnp.abs((slope * branch).sum(-1))])
        return found


def _flat(array: Numbers, axes: int) -> Float32[Array, "repeats batch numbers"]:
    shape = array.shape
    return jnp.asarray(array, jnp.float32).reshape(math.prod(shape[:axes]), shape[axes], -1)
