"""All chance: which stream of random numbers serves which purpose.

Everything random of our networks and their training is drawn on the host with NumPy's
counter-based Philox generator, whose key is a seed and the number of a stream: the same on every
device and under every version of JAX. A purpose owns a range of streams, the list below, so that no
two draw the same numbers from the same seed, and a layer, an epoch or a draw can be repeated
without those before it.

The numbers are frozen: results on disk depend on every one of them but `HASH_KEYS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Stream:
    """The streams of one purpose, numbered from `first` on."""

    first: int
    count: int = 1
    only_in: str = ""  # the one kind of network or of experiment that draws from it, if so


# Initial weights, layer by layer.
FC_WEIGHTS = Stream(0, 2**32, only_in="fully connected networks")
FC_OUTPUT_WEIGHTS = Stream(2**32, only_in="fully connected networks")
# The second weights of residual2 blocks, layer by layer.
FC_OUTER_WEIGHTS = Stream(2**33, 2**32, only_in="fully connected networks")
# Initial weights, by stage, block and place in the block.
CONV_WEIGHTS = Stream(0, 2**32, only_in="convolutional networks")
# Order and augmentation of the training images, epoch by epoch.
EPOCH = Stream(2**40, 2**40)
# Which training images bundles are measured on, and their augmentation.
PROBE_SET = Stream(2**50)
# Which points of the spirals are kept for testing.
SPIRALS_SPLIT = Stream(2**51)
# Where a layer is inserted by the arms that draw a position, epoch by epoch.
INSERTED_POSITION = Stream(2**52, 2**40, only_in="networks that change their depth")
# Which blocks of a trained network are removed, by group, number and draw.
REMOVED_BLOCKS = Stream(2**52, 2**40, only_in="lesion studies")
# Which training images are held out to judge edits by.
HELD_OUT = Stream(2**53)
# The odd numbers that rows of activations are hashed with; results do not depend on them.
HASH_KEYS = Stream(2**54)
# The signs with which wide activations are folded for the peers of an audit.
FOLDING_SIGNS = Stream(2**55)
# The points on a line, the order they are trained in, the weights of the deep plain network.
TOY_POINTS = Stream(0, only_in="the toy")
TOY_ORDER = Stream(1, only_in="the toy")
TOY_WEIGHTS = Stream(2, only_in="the toy")


def generator(seed: int, stream: Stream, number: int = 0) -> np.random.Generator:
    """A fresh generator for one of the streams of a purpose; number: which one, from 0.
    ValueError for one that belongs to somebody else."""
    if not 0 <= number < stream.count:
        raise ValueError(f"stream {number} of {stream.count}, which begin at {stream.first}")
    return np.random.Generator(np.random.Philox(key=[seed, stream.first + number]))
