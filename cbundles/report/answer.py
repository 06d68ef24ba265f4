"""What a sweep answers: which layers hurt, and how deep should a network of this width be?

Layers are looked at in the deepest networks of each width: after the first epoch, as the paper
does, and after the last one. A single pair of samples in one bundle makes H positive and says
little, so a layer counts as conflicting here when its conflict rate is above `CLEAR_RATE`; the
paper's H > 0 stands beside it. An answer names how many networks it rests on, and says so where H
explains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median_low

from cbundles import criterion
from cbundles.bits import HIGHEST, Headroom, in_short
from cbundles.config import layers_of_block
from cbundles.criterion import CLEAR_RATE
from cbundles.records import SweepRecord
from cbundles.report import select
from cbundles.report.summary import (
    first_above,
    is_pooled,
    least_headroom,
    place_in_words,
    width_in_words,
)
from cbundles.report.words import lowest_to_highest
from cbundles.wording import counted

CHANCE_MARGIN = 0.02  # no better than so much above the share of one of equally large classes
LOSS_WORTH_A_WORD = 0.1  # by so much the deepest networks are worse than the best ones

FOOTNOTE = (
    f"A layer conflicts when its conflict rate is above {CLEAR_RATE:g}: the probability that two "
    "samples of different classes share a bundle. A single such pair makes H > 0."
)
FOOTNOTE_WITHOUT_RATES = "A layer conflicts when H > 0, which a single pair of samples can cause."

CONFLICTS_WHEN = {
    criterion.ENTROPY: "H > 0",
    criterion.CONFLICT_RATE: f"the conflict rate exceeds {CLEAR_RATE:g}",
}
DEPTH_AND_SEED = ("model.depth", "model.blocks", "training.seed")


@dataclass(frozen=True)
class Answer:
    """What is said of networks that differ in depth and seed alone.

    advice: which networks, and how deep they should be
    evidence: what that rests on, sentence by sentence
    """

    advice: str
    evidence: tuple[str, ...]

    @property
    def as_lines(self) -> list[str]:
        """For a terminal."""
        return [self.advice, *(f"    {sentence}" for sentence in self.evidence)]

    @property
    def as_markdown(self) -> str:
        """An item of a list."""
        return "\n".join([f"- {self.advice}", *(f"  - {each}" for each in self.evidence), ""])


def answers(records: Sequence[SweepRecord]) -> list[Answer]:
    """The answer for each width of a sweep, and each of its other settings."""
    told = []
    for group in select.groups(records, across=DEPTH_AND_SEED):
        first = group.records[0]
        name = f"filters {first.width}" if first.is_convolutional else width_in_words(first)
        others = {path: value for path, value in group.apart.items() if path not in SAID_BY_NAME}
        apart = select.Group(group.records, others).name
        told.append(_answer(f"{name}, {apart}" if apart else name, group.records))
    return told


def lines(records: Sequence[SweepRecord]) -> list[str]:
    """All answers, and what they mean by a conflict, for a terminal."""
    told = [line for each in answers(records) for line in each.as_lines]
    return [*told, footnote(records)] if told else []


def page(records: Sequence[SweepRecord]) -> str:
    """The same in Markdown."""
    told = "".join(each.as_markdown for each in answers(records))
    return f"{told}\n{footnote(records)}\n" if told else ""


def of_tuned(records: Sequence[SweepRecord]) -> str:
    """What auto-tuning answers, from the networks that it ended with, one a seed."""
    depths = [record.depth for record in records]
    accuracies = [100 * record.history.test_accuracy[-1] for record in records]
    conflicting = [record for record in records if not math.isinf(places([record], -1).first)]
    chance = [r for r in records if is_at_chance(r.history.test_accuracy[-1], r)]
    over = counted(len(records), "seed")
    return (
        f"answer: about {median_low(depths)} layers ({lowest_to_highest(depths)} over {over}); "
        f"accuracy after the last epoch {lowest_to_highest(accuracies, '.1f')} %; when trained, "
        f"{len(conflicting)} of {len(records)} conflict and {len(chance)} are at chance"
    )


def footnote(records: Sequence[SweepRecord]) -> str:
    """What an answer means by a conflict."""
    # Of layers that diverged there is none, but of those networks before they were trained.
    measured = (rates for record in records for rates in record.history.conflict_rate)
    known = any(rate is not None for rates in measured for rate in rates)
    return FOOTNOTE if known else FOOTNOTE_WITHOUT_RATES


SAID_BY_NAME = ("model.width", "model.base_filters")


@dataclass(frozen=True)
class Places:
    """Where conflicts begin in networks of one depth, at one time.

    networks: how many there are
    sound: how many of them did not diverge
    clear: the first layer (or block) of each whose conflict rate exceeds `CLEAR_RATE`; infinite
        where there is none. None where rates were not measured, in records of earlier versions.
    any_pair: the same for H > 0
    network: one of them, for the names of its places
    """

    networks: int
    sound: int
    clear: list[float] | None
    any_pair: list[float]
    network: SweepRecord

    @property
    def judged(self) -> list[float]:
        """The reading that the answer is based on."""
        return self.any_pair if self.clear is None else self.clear

    @property
    def first(self) -> float:
        """The median over those that conflict; infinite where most do not."""
        found = [place for place in self.judged if not math.isinf(place)]
        return median_low(found) if found and 2 * len(found) >= len(self.judged) else math.inf


def places(records: Sequence[SweepRecord], evaluation: int) -> Places:
    """Where conflicts begin after an evaluation: 1 is the first epoch, -1 the last."""
    sound = [record for record in records if None not in record.history.entropy[evaluation]]
    rates = [record.history.conflict_rate[evaluation] for record in sound]
    known = all(None not in rate for rate in rates)
    entropies = [record.history.entropy[evaluation] for record in sound]
    return Places(
        networks=len(records),
        sound=len(sound),
        clear=[first_above(CLEAR_RATE, rate) or math.inf for rate in rates] if known else None,
        any_pair=[first_above(0.0, entropy) or math.inf for entropy in entropies],
        network=records[0],
    )


def _answer(name: str, records: Sequence[SweepRecord]) -> Answer:
    whole = [record for record in records if not is_stopped(record)]
    deepest = _of_the_largest_depth(records)
    early = places(deepest, 1)
    after_epoch_1 = f"{_deepest(deepest)}, after epoch 1: {_where(early, deepest)}"
    if not whole:
        advice = f"{name}: fewer layers; every network was stopped"
        return Answer(advice, (after_epoch_1, *_stopped_told(records)))
    kept = _of_the_largest_depth(whole)
    trained = places(kept, -1)
    return Answer(
        f"{name}: {_advice(whole, early, trained)}",
        (
            f"{_deepest(kept)}, trained: {_where(trained, kept)}",
            after_epoch_1,
            *(f"{_deepest(kept)}, trained: {each}" for each in _headroom_told(kept)),
            _accuracies(whole),
            *_stopped_told(records),
        ),
    )


def _of_the_largest_depth(records: Sequence[SweepRecord]) -> list[SweepRecord]:
    return select.only(records, depth=max(record.depth for record in records))


def is_stopped(record: SweepRecord) -> bool:
    """Whether training ended early since the last layer conflicted: `training.stop_conflicting`."""
    return record.epochs_trained < record.epochs


def _stopped_told(records: Sequence[SweepRecord]) -> list[str]:
    """How many networks were stopped, and what that saved. Nothing where none was."""
    stopped = [record for record in records if is_stopped(record)]
    if not stopped:
        return []
    left_out = sum(record.flops * (record.epochs - record.epochs_trained) for record in stopped)
    share = left_out / sum(record.flops * record.epochs for record in records)
    rule = CONFLICTS_WHEN[stopped[0].cell.training.stop_conflicting]
    networks = counted(len(records), "network")
    return [
        f"{len(stopped)} of {networks} stopped, as {rule} in the last layer: saves "
        f"{100 * share:.0f} % of the FLOPs; how good they would have become is not known"
    ]


def _advice(records: Sequence[SweepRecord], early: Places, trained: Places) -> str:
    first = min(early.first, trained.first)
    if not early.sound and not trained.sound:
        return "the deepest networks diverged, so their layers say nothing"
    if 2 * trained.sound < trained.networks:
        text = "most of the deepest networks diverged while they were trained"
        return text if math.isinf(early.first) else f"{text}; conflicts began {_begin(early)}"
    if first == 1:
        return "layers conflict from the first one on, so the depth is not what limits it"
    if not math.isinf(first):
        return _where_depths_are_compared(records, _begins(early, trained))
    what_is_bad = _loss_without_conflict(records)
    if what_is_bad:
        return f"H says nothing here: most networks have no conflicting layer, yet {what_is_bad}"
    return f"most networks have no conflicting layer up to {_deepest(records)}"


def _where_depths_are_compared(records: Sequence[SweepRecord], begins: str) -> str:
    """What to do where conflicts begin: nothing that the accuracies of other depths speak
    against."""
    by_depth = accuracy_by_depth(records)
    if len(by_depth) > 1:
        if all(is_at_chance(accuracy, records[0]) for accuracy in by_depth.values()):
            return f"{begins}, and all depths are at chance"
        deepest = max(by_depth)
        others = [accuracy for depth, accuracy in by_depth.items() if depth != deepest]
        if by_depth[deepest] > max(others):
            return f"{begins}, yet {counted(deepest, 'layer')} are best: H does not decide here"
    return f"use fewer layers: {begins}"


def _begins(early: Places, trained: Places) -> str:
    """Where conflicts begin by the trained networks, and by their first epoch. These need not be
    the same: those that were stopped had only that."""
    where_trained, where_early = _begin(trained), _begin(early)
    if where_early == where_trained:
        return f"conflicts begin {where_trained}"
    if math.isinf(trained.first):
        return f"conflicts begin {where_early} after epoch 1, and {where_trained} when trained"
    return f"conflicts begin {where_trained} when trained, {where_early} after epoch 1"


def _begin(found: Places) -> str:
    """``in layer 34``, ``in the pooled features``, ``nowhere in most networks``."""
    first, network = found.first, found.network
    if math.isinf(first):
        return "nowhere in most networks"
    if is_pooled(first, network):
        return "in the pooled features"
    layer = layers_of_block(int(first))[0] if network.is_convolutional else first
    return f"in layer {layer:g}"


def _deepest(records: Sequence[SweepRecord]) -> str:
    return counted(max(record.depth for record in records), "layer")


def _loss_without_conflict(records: Sequence[SweepRecord]) -> str:
    """What is wrong with networks in which H sees nothing; "" where nothing is."""
    by_depth = accuracy_by_depth(records)
    depth, best = max(by_depth), max(by_depth.values())
    if is_at_chance(by_depth[depth], records[0]):
        return f"networks of {counted(depth, 'layer')} are at chance"
    lost = 100 * (best - by_depth[depth])
    if lost > 100 * LOSS_WORTH_A_WORD:
        return f"{counted(depth, 'layer')} are {lost:.0f} points worse than the best depth"
    return ""


def _where(found: Places, networks: Sequence[SweepRecord]) -> str:
    """``first conflict in layer 34 in 2 of 3 networks; first H > 0 in layer 31 in 3``. Later layers
    need not conflict."""
    diverged = len(networks) - found.sound
    of = f"of {counted(len(networks), 'network')}"
    text = f"conflicts in none {of}"
    conflicting = [place for place in found.judged if not math.isinf(place)]
    if conflicting:
        place = _layer(median_low(conflicting), networks[0])
        text = f"first conflict in {place} in {len(conflicting)} {of}"
    pairs = [place for place in found.any_pair if not math.isinf(place)]
    if found.clear is not None and pairs and pairs != conflicting:
        text += f"; first H > 0 in {_layer(median_low(pairs), networks[0])} in {len(pairs)}"
    return f"{text}; {diverged} diverged" if diverged else text


def _headroom_told(networks: Sequence[SweepRecord]) -> list[str]:
    """How far trained networks are from conflicting: of the one in the middle the layer that is
    nearest to it. Nothing where that was not measured."""
    found = sorted(
        least for record in networks if (least := least_headroom(record.history, -1)) is not None
    )
    if not found:
        return []
    middle = found[(len(found) - 1) // 2]
    headroom = Headroom(middle.bits, networks[0].cell.training.learning_rate)
    if middle.bits >= HIGHEST:
        return [f"every layer has {headroom}"]
    told = f"{_layer(middle.place, networks[0])} {headroom}, the least of all layers"
    if len(found) > 1:
        ends = dict.fromkeys(in_short(least.bits) for least in (found[0], found[-1]))
        told += f" ({' to '.join(ends)} in {counted(len(found), 'network')})"
    return [told]


def _layer(place: float, record: SweepRecord) -> str:
    """A place, with the layers of a block, or the name of a layer in a user's architecture."""
    text = place_in_words(place, record)
    if record.layers is not None:
        return f"{text} ({record.layers[int(place) - 1]})"
    if not record.is_convolutional or is_pooled(place, record):
        return text
    first, second = layers_of_block(int(place))
    return f"{text} (layers {first} and {second})"


def _accuracies(records: Sequence[SweepRecord]) -> str:
    """The best depth, the deepest, and those that are at chance."""
    by_depth = accuracy_by_depth(records)
    best = max(by_depth, key=lambda depth: by_depth[depth])
    text = f"accuracy after the last epoch: best {100 * by_depth[best]:.1f} % with {best} layers"
    deepest = max(by_depth)
    if deepest != best:
        text += f", {100 * by_depth[deepest]:.1f} % with {deepest}"
    chance = [depth for depth in sorted(by_depth) if is_at_chance(by_depth[depth], records[0])]
    if chance:
        text += f"; at chance with {_with_commas(chance)}"
        unexplained = [
            depth for depth in chance if _most_conflict_nowhere(select.only(records, depth=depth))
        ]
        if unexplained:
            text += f", without conflicts in most networks of {_with_commas(unexplained)}"
    return text


def _most_conflict_nowhere(records: Sequence[SweepRecord]) -> bool:
    """Whether most networks have no conflict once trained; one that diverged does not tell."""
    free = sum(math.isinf(place) for place in places(records, -1).judged)
    return 2 * free > len(records)


def _with_commas(depths: Sequence[int]) -> str:
    return ", ".join(map(str, depths))


def accuracy_by_depth(records: Sequence[SweepRecord]) -> dict[int, float]:
    """Mean over seeds of the test accuracy after the last epoch, by depth."""
    return {
        depth: fmean(
            record.history.test_accuracy[-1] for record in select.only(records, depth=depth)
        )
        for depth in select.depths(records)
    }


def is_at_chance(accuracy: float, record: SweepRecord) -> bool:
    """Whether a network is hardly better than one that knows nothing of its input."""
    return accuracy <= 1 / record.num_classes + CHANCE_MARGIN
