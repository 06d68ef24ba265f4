"""The record of a worked study: which blocks of one trained network can go, and what that is worth.

`scripts/study_torch_resnet.py` makes one, with a library that reports do without. A study is one
JSON file, `study.json`, in a folder of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from cbundles import formats
from cbundles.errors import InputError
from cbundles.files import write_atomically
from cbundles.records.reading import parsed

FILE = "study.json"
BY_SCORE, BY_ANSWERS, BY_NOTHING = "by a score", "by answers", "by nothing"


class StudiedNetwork(msgspec.Struct, kw_only=True, frozen=True):
    """The network, and how it was trained.

    description: in words
    data: the name of its images; fingerprint: of them
    train: images of training
    rates: the learning rates, in words; so is what was done to the images
    """

    description: str
    data: str
    fingerprint: str
    train: int
    epochs: int
    seed: int
    batch_size: int
    rates: str
    seconds: float


class JudgedOrder(msgspec.Struct, kw_only=True, frozen=True):
    """What became of the network without the first 1, 2, ... blocks of an order.

    by: what it is called; words: likewise, for people
    chosen: "by a score", "by answers" of the samples of the audit, or "by nothing", a control
    order: the branches, by their names
    lost, gained: of the images on which all orders are judged, see `decisions.paired`
    lost_anew, gained_anew: after statistics of batch normalisation were taken anew, beside the
        whole network as it is
    """

    by: str
    words: str
    chosen: Literal["by a score", "by answers", "by nothing"]  # as named above
    order: list[str]
    lost: list[int]
    gained: list[int]
    lost_anew: list[int]
    gained_anew: list[int]

    def __post_init__(self) -> None:
        counts = (self.lost, self.gained, self.lost_anew, self.gained_anew)
        if {len(count) for count in counts} != {len(self.order)}:
            raise ValueError(f"order {self.by!r}: not one count for each of its blocks")


class NetworkCost(msgspec.Struct, kw_only=True, frozen=True):
    """flops and seconds: of one batch; bytes: of all parameters and statistics."""

    flops: float
    parameters: int
    bytes: int
    seconds: float


class SmallerNetwork(msgspec.Struct, kw_only=True, frozen=True):
    """What is left when blocks go for good.

    blocks: the sums that lost their branches
    correct, correct_anew: images that it classifies correctly, as it is and with statistics taken
        anew
    before, after: the whole network, measured in turn with the smaller one
    """

    blocks: list[str]
    correct: int
    correct_anew: int
    before: NetworkCost
    after: NetworkCost


class WorkedStudy(msgspec.Struct, kw_only=True, frozen=True):
    """One study of one network.

    audited: images of training by which scores and answers rank the blocks
    rate: the learning rate of the audit
    images: of the test set, on which all orders are judged
    recalibrated: images of training on which statistics are taken anew
    correct, correct_anew: of the test images, by the whole network
    orders: that were judged
    no_order: why there is none by some other score, by its words
    removed_by: the order whose first blocks the smaller networks lack
    smaller: networks, by how many blocks are gone
    batch: images in a batch, where FLOPs and seconds are told
    threads: with which everything ran
    audit: all that the audit found, as it says it
    """

    network: StudiedNetwork
    audited: int
    rate: float
    images: int
    recalibrated: int
    correct: int
    correct_anew: int
    orders: list[JudgedOrder]
    no_order: dict[str, str]
    removed_by: str
    smaller: list[SmallerNetwork]
    batch: int
    threads: int
    processor: str
    versions: dict[str, str]
    audit: dict[str, Any]

    def __post_init__(self) -> None:
        named = {order.by: order for order in self.orders}
        if self.removed_by not in named or not self.smaller:
            raise ValueError(f"no order {self.removed_by!r}, or no network without its blocks")
        if len({order.chosen == BY_NOTHING for order in self.orders}) != 2:
            raise ValueError("orders: some must be controls, and some not")
        if len({len(order.order) for order in self.orders}) != 1:
            raise ValueError("orders: each must have all blocks")


def write_study(study: WorkedStudy, folder: Path) -> Path:
    """Write a study into a folder of its own; returns the file."""
    content = {"format": formats.NEWEST[formats.STUDY], **msgspec.to_builtins(study)}
    path = folder / FILE
    write_atomically(path, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    return path


def read_study(path: Path) -> WorkedStudy:
    """Raises InputError for a file that is damaged, or of a format that is not known."""
    try:
        content = parsed(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no object")
        formats.check(formats.STUDY, content, str(path))
        return msgspec.convert(content, WorkedStudy)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}: {error})") from None
