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
from jaxtyping import Array, Bool, Float32, Int32, PyTree, Shaped

from cbundles.arrays import Numbers
from cbundles.networks import conv, fc, network
from cbundles.networks.network import Network
from cbundles.networks.shape import ConvShape, OwnShape, Shape
from cbundles.observe import Observed, Site, observe

SCALE_EPSILON = 1e-6


class Watched:
    """A network, and the images that pass through it, whose values inside can be seen and changed.

    norm: one of `conv.NORMS`. Made and used while a program is traced: nothing is computed before
    `run`.
    """

    def __init__(
        self,
        shape: Shape,
        subject: Network,
        x: Float32[Array, "batch *pixels"],
        norm: str = conv.RUNNING,
    ) -> None:
        def logits(
            subject: Network, x: Float32[Array, "batch *pixels"]
        ) -> Float32[Array, "batch outputs"]:
            if norm in (conv.TRAIN, conv.RESET):
                return network.moving_logits(shape, subject, x, norm)[0]
            return network.logits(shape, subject, x, norm)

        self.shape = shape
        self._arguments = (subject, x)
        self._observed: Observed = observe(logits, *self._arguments)

    def run(
        self, *, params: Float32[Array, " params"] | None = None, **effects: Any
    ) -> tuple[Float32[Array, "batch outputs"], dict[str, PyTree]]:
        """Logits, and what was read by the names of sites; effects: see `Observed.run`. params:
        instead of the network's own."""
        subject, x = self._arguments
        if params is not None:
            subject = subject._replace(params=params)
        logits: Array
        logits, found = self._observed.run(subject, x, **effects)
        return logits, found

    def sites(self, label: str) -> list[Site]:
        """Those that the network itself names so, in order."""
        return [site for site in self._observed.sites if site.label == label]

    @property
    def outputs(self) -> list[Site]:
        """The outputs of layers, or of blocks: one site for each, or for several in a row."""
        return self.sites(conv.BLOCK if isinstance(self.shape, ConvShape) else fc.LAYER)


def by_site(
    sites: Sequence[Site], per_block: Shaped[Numbers, "blocks ..."]
) -> dict[str, Shaped[Numbers, "..."]]:
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


def by_block(sites: Sequence[Site], found: Mapping[str, PyTree]) -> list[PyTree]:
    """What was found at sites, one a block."""
    each: list[PyTree] = []
    for site in sites:
        each += [*found[site.name]] if site.repeats else [found[site.name]]
    return each


def stack_blocks(sites: Sequence[Site], found: Mapping[str, PyTree]) -> Shaped[Array, "blocks ..."]:
    """What was found at sites, arrays of one shape, along a first axis of blocks."""
    return jnp.concatenate([found[s.name] if s.repeats else found[s.name][None] for s in sites])


def branch_scale(
    first: Float32[Array, "batch height width filters"],
    second: Float32[Array, "batch height width filters"],
) -> Float32[Array, ""]:
    """By which the original code multiplies a branch to measure it: 1 / (deviation of the first
    convolution's output x that of the second's), over all images, pixels and filters. It takes back
    that batch normalisation makes small differences as large as any."""
    return lax.rsqrt(first.var() + SCALE_EPSILON) * lax.rsqrt(second.var() + SCALE_EPSILON)


# Places of a network where activations are measured.
OUTPUTS, POOLED, BRANCHES = "outputs", "pooled", "branches"


def visit(
    shape: Shape,
    subject: Network,
    x: Float32[Array, "batch *pixels"],
    see: Mapping[str, Callable[[Array], Array]],
    norm: str,
) -> dict[str, Shaped[Array, "activations ..."]]:
    """What is seen at each place that `see` names, ``see[place](a)`` of every activation a there,
    stacked: of `OUTPUTS` those of layers or blocks, shape.layers; of `POOLED` the features behind
    the last block, one; of `BRANCHES` those of a ResNet, scaled."""
    if isinstance(shape, OwnShape):  # which has nothing but layers
        return {
            place: network.layers_seen(shape, subject, x, seen, norm) for place, seen in see.items()
        }
    traced = Watched(shape, subject, x, norm)
    sites = {OUTPUTS: traced.outputs, POOLED: traced.sites(conv.POOLED)}
    read: dict[Site | tuple[Site, ...], Callable[..., Array]] = {}
    for place in see.keys() & sites.keys():
        read |= dict.fromkeys(sites[place], see[place])
    if BRANCHES in see:

        def see_scaled(first: Array, second: Array, branch: Array) -> Array:
            return see[BRANCHES](branch * branch_scale(first, second))

        sites[BRANCHES] = traced.sites(conv.BRANCH)
        read |= dict.fromkeys(groups(traced, conv.FIRST, conv.SECOND, conv.BRANCH), see_scaled)
    _, found = traced.run(read=read)
    return {place: stack_blocks(sites[place], found) for place in see}


def groups(traced: Watched, *labels: str) -> list[tuple[Site, ...]]:
    """Sites of these labels that belong to the same block."""
    return list(zip(*(traced.sites(label) for label in labels), strict=True))


def masked_logits(
    shape: ConvShape,
    subject: Network,
    x: Float32[Array, "batch height width channels"],
    keep: Bool[Array, " blocks"],
    norm: str = conv.RUNNING,
) -> Float32[Array, "batch outputs"]:
    """Logits without some branches of a ResNet, which then cost nothing. A block that is not kept
    is its skip alone, as a bare one is always. norm: one of `conv.NORMS`."""
    if len(keep) != shape.layers:
        raise ValueError(f"{len(keep)} rows for {shape.layers} blocks")
    traced = Watched(shape, subject, x, norm)
    bare = [sum(shape.blocks[:stage]) for stage in shape.bare]  # first of their stages
    with_branch = np.delete(np.arange(shape.layers), bare)
    return traced.run(keep=by_site(traced.sites(conv.BRANCH), keep[with_branch]))[0]


def slopes(
    shape: Shape,
    subject: Network,
    x: Float32[Array, "batch *pixels"],
    y: Int32[Array, " batch"],
    norm: str = conv.RUNNING,
) -> tuple[
    Float32[Array, " params"], list[tuple[Float32[Array, "batch ..."], Float32[Array, "batch ..."]]]
]:
    """Gradients of the mean cross-entropy of a batch x with classes y: by the parameters; and at
    every place where a layer could be inserted, after each hidden layer or block and what has been
    inserted there, the activation and the gradient by it.
    """
    traced = Watched(shape, subject, x, norm)
    # Layers that were inserted behind the last block of a site are sites themselves; what counts
    # there is the output of the last one. See `_behind`.
    places = [*traced.outputs, *traced.sites(conv.INSERTED)]
    zeros = {s.name: jnp.zeros((*s.repeats, *s.shape), s.dtype) for s in places}

    def loss(
        params: Float32[Array, " params"], zeros: dict[str, Float32[Array, "..."]]
    ) -> tuple[Float32[Array, ""], dict[str, Float32[Array, "..."]]]:
        logits, found = traced.run(
            params=params, perturb=zeros, read=dict.fromkeys(places, lambda a: a)
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), found

    (by_params, by_values), values = jax.grad(loss, (0, 1), has_aux=True)(subject.params, zeros)
    pairs = zip(_behind(traced, values), _behind(traced, by_values), strict=True)
    return by_params, list(pairs)


def _behind(traced: Watched, found: Mapping[str, PyTree]) -> list[PyTree]:
    """What was found behind each layer or block, and behind what has been inserted there."""
    each = by_block(traced.outputs, found)
    inserted = getattr(traced.shape, "inserted", ())
    for block, site in zip(inserted, traced.sites(conv.INSERTED), strict=True):
        each[block] = found[site.name]  # in order, so that the last one stays
    return each
