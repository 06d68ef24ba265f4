"""What a lesion study holds beside its own scores, so that they can be judged fairly.

Lost are test images that only the whole network classifies correctly, gained those that only the
other network does. Where statistics are taken anew without blocks, the whole network is that with
statistics taken anew, too; everywhere else it is the network as it was trained.
"""

from __future__ import annotations

import msgspec

from cbundles.decisions.removal import Curve
from cbundles.records.columns import Columns, Number


class AtBatchSize(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """H, in nats, when the metric is told this batch size, which sets its resolution.

    branches: of every scaled branch
    outputs: of every output that is measured
    """

    batch_size: int
    branches: list[Number]
    outputs: list[Number]


class Greedy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How greedy removal went.

    order: all blocks, counted from 0, as it took them
    images: of the probe set, by whose mean loss it chose, normalised by their own statistics
    candidates: how many blocks it tried at each step after the first
    tried: how many sets of blocks it tried in all
    """

    order: list[int]
    images: int
    candidates: int
    tried: int


class Controls(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The whole network, changed in other ways: how many test images are lost and gained.

    recalibrated: with statistics of batch normalisation taken anew
    trained_on: after some more epochs of training, from a fresh optimizer
    more_epochs: how many
    """

    recalibrated: tuple[int, int]
    trained_on: tuple[int, int]
    more_epochs: int


class FairBlocks(Columns, kw_only=True, frozen=True):
    """What is known of every block beside `studies.Blocks`, a value for each.

    block_change: 1 - cos(in, out)
    relu_state_entropy: bits, of the ReLU inside its branch
    lost: when it alone is removed and statistics are taken anew
    gained: likewise
    """

    block_change: list[Number]
    relu_state_entropy: list[Number]
    lost: list[int]
    gained: list[int]


class FairStudy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A network without some of its blocks, with statistics of batch normalisation taken anew.

    fitted_on: how many images of training these are taken on
    curves: what removing several blocks costs by the orders of `decisions.orders`, with the
        statistics of the whole network
    curves_anew: with those taken anew; also by the orders of the study itself, and of its draws
    by_batch_size: H at other batch sizes
    """

    fitted_on: int
    blocks: FairBlocks
    curves: list[Curve]
    curves_anew: list[Curve]
    controls: Controls
    greedy: Greedy
    by_batch_size: list[AtBatchSize]
