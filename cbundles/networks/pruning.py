"""Removing blocks of a trained ResNet for real: fewer parameters, not masks.

Where a block halves the image its skip stays, a convolution of one pixel; elsewhere nothing stays,
because a block's input is never negative and passes the block's ReLU unchanged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Bool

from cbundles.networks import conv, network
from cbundles.networks.network import Network
from cbundles.networks.shape import ConvShape


def without(shape: ConvShape, whole: Network, removed: Sequence[int]) -> tuple[ConvShape, Network]:
    """The network, as NumPy arrays, and its shape without some blocks, numbered from 0 in order.

    Its logits are those of `watched.masked_logits` with the same blocks not kept. ValueError for a
    network without skips, with inserted layers, and for blocks that it does not have.
    """
    if not shape.residual:
        raise ValueError("only blocks with a skip can be removed from a trained network")
    if shape.inserted:  # one might be left with no block before it
        raise ValueError("blocks can be removed only before layers have been inserted after some")
    if not set(removed) <= set(range(shape.layers)):
        raise ValueError(f"it has blocks 0 to {shape.layers - 1}")
    kept = np.array([block not in set(removed) for block in range(shape.layers)])
    of_params, of_statistics = network.views(shape)
    params = of_params(np.asarray(whole.params))
    statistics = of_statistics(np.asarray(whole.statistics))
    pairs, blocks, bare, number = [], list(shape.blocks), [], 0
    for i, stage in enumerate(shape.stages):
        halves = bool(stage.first)
        here = kept[number : number + blocks[i]]
        number += blocks[i]
        both = (params.stages[i], statistics.stages[i])
        pairs.append([_cut(one, halves, here) for one in both])
        blocks[i] = halves + int(here[halves:].sum())
        if halves and (not here[0] or i in shape.bare):
            bare.append(i)
    first, second, third, fourth = blocks
    smaller = dataclasses.replace(shape, blocks=(first, second, third, fourth), bare=tuple(bare))
    new = [tree._replace(stages=tuple(stages)) for tree, stages
           in zip((params, statistics), zip(*pairs, strict=True), strict=True)]  # fmt: skip
    return smaller, Network(*map(network.flat, new))


def _cut(stage: conv.Stage, halves: bool, kept: Bool[np.ndarray, " blocks"]) -> conv.Stage:
    """The units, or their statistics, of a stage that remain."""
    first = stage.first
    if halves and not kept[0]:
        first = first[-1:]
    return conv.Stage(first, jax.tree.map(lambda a: a[kept[halves:]], stage.rest))
