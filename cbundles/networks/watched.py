"""Our networks under observation: their sites in the order of their layers and blocks.

A network is a plain Flax module; `cbundles.observe` finds the values that are named in it. Equal
blocks are scanned, so one site may stand for many of them: what goes into it, and what is read
there, has a leading axis. Here are the few functions that go from blocks to sites and back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from cbundles.networks import conv, fc, network
from cbundles.networks.network import Network
from cbundles.networks.shape import ConvShape, Shape
from cbundles.observe import Observed, Site, observe

SCALE_EPSILON = 1e-6


class Watched:
    """A network, and the images that pass through it, whose values inside can be seen and changed.

    norm: one of `conv.NORMS`. Made and used while a program is traced: nothing is computed before
    `run`.
    """

    def __init__(
        self, shape: Shape, subject: Network, x: jax.Array, norm: str = conv.RUNNING
    ) -> None:
        def logits(subject: Network, x: jax.Array) -> jax.Array:
            if norm in (conv.TRAIN, conv.RESET):
                return network.moving_logits(shape, subject, x, norm)[0]
            return network.logits(shape, subject, x, norm)

        self.shape = shape
        self._arguments = (subject, x)
        self._observed: Observed = observe(logits, *self._arguments)

    def run(
        self, *, params: jax.Array | None = None, **effects: Any
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Logits (B, outputs), and what was read by the names of sites; see `Observed.run`. params:
        instead of the network's own."""
        subject, x = self._arguments
        if params is not None:
            subject = subject._replace(params=params)
        logits: jax.Array
        logits, found = self._observed.run(subject, x, **effects)
        return logits, found

    def sites(self, label: str) -> list[Site]:
        """Those that the network itself names so, in order."""
        return [site for site in self._observed.sites if site.label == label]

    @property
    def outputs(self) -> list[Site]:
        """The outputs of layers, or of blocks: one site for each, or for several in a row."""
        return self.sites(conv.BLOCK if isinstance(self.shape, ConvShape) else fc.LAYER)


def by_site(sites: Sequence[Site], per_block: Any) -> dict[str, Any]:
    """What belongs to each site, of an array with one row for each block behind the sites.
    ValueError for another number of rows."""
    rows_of, used = {}, 0
    for site in sites:
        count = site.repeats[0] if site.repeats else 1
        rows = per_block[used : used + count]
        rows_of[site.name] = rows if site.repeats else rows[0]
        used += count
    if used != len(per_block):
        raise ValueError(f"{len(per_block)} rows for {used} blocks")
    return rows_of


def by_block(sites: Sequence[Site], found: Mapping[str, Any]) -> list[Any]:
    """What was found at sites, one a block."""
    each: list[Any] = []
    for site in sites:
        each += [*found[site.name]] if site.repeats else [found[site.name]]
    return each


def stack_blocks(sites: Sequence[Site], found: Mapping[str, Any]) -> jax.Array:
    """What was found at sites, arrays of one shape, along a first axis of blocks."""
    return jnp.concatenate([found[s.name] if s.repeats else found[s.name][None] for s in sites])


def branch_scale(first: jax.Array, second: jax.Array) -> jax.Array:
    """By which the original code multiplies a branch to measure it, float32 (): 1 / (deviation of
    the first convolution's output x that of the second's), over all images, pixels and filters. It
    takes back that batch normalisation makes small differences as large as any."""
    return lax.rsqrt(first.var() + SCALE_EPSILON) * lax.rsqrt(second.var() + SCALE_EPSILON)


# Places of a network where activations are measured.
OUTPUTS, POOLED, BRANCHES = "outputs", "pooled", "branches"


def visit(
    shape: Shape,
    subject: Network,
    x: jax.Array,
    see: Mapping[str, Callable[[jax.Array], jax.Array]],
    norm: str,
) -> dict[str, jax.Array]:
    """What is seen at each place that `see` names, ``see[place](a)`` of every activation a there,
    stacked: of `OUTPUTS` those of layers or blocks, (shape.layers, ...); of `POOLED` the features
    behind the last block, (1, ...); of `BRANCHES` those of a ResNet, scaled."""
    traced = Watched(shape, subject, x, norm)
    sites = {OUTPUTS: traced.outputs, POOLED: traced.sites(conv.POOLED)}
    read: dict[Any, Callable[..., jax.Array]] = {}
    for place in see.keys() & sites.keys():
        read |= dict.fromkeys(sites[place], see[place])
    if BRANCHES in see:

        def see_scaled(first: jax.Array, second: jax.Array, branch: jax.Array) -> jax.Array:
            return see[BRANCHES](branch * branch_scale(first, second))

        sites[BRANCHES] = traced.sites(conv.BRANCH)
        read |= dict.fromkeys(groups(traced, conv.FIRST, conv.SECOND, conv.BRANCH), see_scaled)
    _, found = traced.run(read=read)
    return {place: stack_blocks(sites[place], found) for place in see}


def groups(traced: Watched, *labels: str) -> list[tuple[Site, ...]]:
    """Sites of these labels that belong to the same block."""
    return list(zip(*(traced.sites(label) for label in labels), strict=True))


def masked_logits(shape: ConvShape, subject: Network, x: jax.Array, keep: jax.Array) -> jax.Array:
    """Logits (B, outputs) without some branches of a ResNet, which then cost nothing. keep: bool
    (blocks,); a block that is not kept is its skip alone, as a bare one is always."""
    if len(keep) != shape.layers:
        raise ValueError(f"{len(keep)} rows for {shape.layers} blocks")
    traced = Watched(shape, subject, x)
    bare = [sum(shape.blocks[:stage]) for stage in shape.bare]  # first of their stages
    with_branch = np.delete(np.arange(shape.layers), bare)
    return traced.run(keep=by_site(traced.sites(conv.BRANCH), keep[with_branch]))[0]


def slopes(
    shape: Shape, subject: Network, x: jax.Array, y: jax.Array, norm: str = conv.RUNNING
) -> tuple[jax.Array, list[tuple[jax.Array, jax.Array]]]:
    """Gradients of the mean cross-entropy of a batch x, float32 (B, H, W, C), with classes y, int32
    (B,): by the parameters, (P,); and at every place where a layer could be inserted, after each
    hidden layer or block and what has been inserted there, the activation and the gradient by it.
    """
    traced = Watched(shape, subject, x, norm)
    # Layers that were inserted behind the last block of a site are sites themselves; what counts
    # there is the output of the last one. See `_behind`.
    places = [*traced.outputs, *traced.sites(conv.INSERTED)]
    zeros = {s.name: jnp.zeros((*s.repeats, *s.shape), s.dtype) for s in places}

    def loss(params: jax.Array, zeros: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, Any]]:
        logits, found = traced.run(
            params=params, perturb=zeros, read=dict.fromkeys(places, lambda a: a)
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), found

    (by_params, by_values), values = jax.grad(loss, (0, 1), has_aux=True)(subject.params, zeros)
    pairs = zip(_behind(traced, values), _behind(traced, by_values), strict=True)
    return by_params, list(pairs)


def _behind(traced: Watched, found: Mapping[str, Any]) -> list[Any]:
    """What was found behind each layer or block, and behind what has been inserted there."""
    each = by_block(traced.outputs, found)
    inserted = getattr(traced.shape, "inserted", ())
    for block, site in zip(inserted, traced.sites(conv.INSERTED), strict=True):
        each[block] = found[site.name]  # in order, so that the last one stays
    return each
