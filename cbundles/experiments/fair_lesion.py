"""What a fair comparison needs beside a lesion study of its own scores (`lesion`).

The statistics of batch normalisation that a network holds fit the whole of it, so without blocks it
is worse than it has to be: everything is evaluated again with statistics that are taken anew on
images of the probe set, and compared with the whole network whose statistics are taken anew, too,
since that alone may change its accuracy. Further orders (`decisions.orders`) stand beside those of
the study, greedy removal among them; so do the whole network with statistics taken anew, and the
whole network trained for one more epoch. And H is measured at other batch sizes, which set its
resolution.

Scores of others, and networks with statistics taken anew, are those of an audit (`auditing`), for
which our networks are models like any other. Orders are chosen on images of training alone, and
judged on all test images. `steps` yields after every few networks and can continue from there.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float32, UInt8

from cbundles import measure
from cbundles.auditing import audit
from cbundles.auditing.batches import batches_of
from cbundles.auditing.lesions import branches_in
from cbundles.auditing.models import subject_of
from cbundles.auditing.output import scores_in
from cbundles.auditing.trials import Trials, difference_of
from cbundles.config import Cell
from cbundles.data.device import DeviceData, Examples
from cbundles.data.pipelines import Augmentation
from cbundles.decisions import orders, removal
from cbundles.decisions.orders import (
    FITTED_ON,
    GREEDY_CANDIDATES,
    GREEDY_IMAGES,
    GreedySoFar,
)
from cbundles.decisions.removal import Variant
from cbundles.errors import DamagedCheckpoint
from cbundles.experiments.entries import require_numbers, six_digits_or_none
from cbundles.experiments.lesion import Progress, masks_without
from cbundles.experiments.prune import right_answers, trained_on
from cbundles.networks import conv, network, watched
from cbundles.networks.network import Network
from cbundles.networks.shape import ConvShape
from cbundles.population import measurement_of
from cbundles.records.fair import AtBatchSize, Controls, FairBlocks, FairStudy, Greedy
from cbundles.scan import some_of

AT_ONCE = 4  # networks between two checkpoints
BATCH_SIZES = (64, 128, 256, 512, 1024, 2048, 4096)
MORE_EPOCHS = 1
DIVERGED = 1e30  # in the place of a loss that is NaN or infinite, which JSON does not have
# The measures of an audit that are scores of blocks, and where in a block each is taken: the ReLU
# inside a branch goes with it, the one behind the sum stays.
SITES_OF_PEERS = {"block_change": "*/*/sum", "relu_state_entropy": "*/*/relu"}
State = dict[str, Any]


def steps(
    shape: ConvShape,
    subject: Network,
    cell: Cell,
    data: DeviceData,
    settings: removal.Settings,
    blocks: Mapping[str, Sequence[float | None]],
    resume: State | None = None,
) -> Iterator[Progress]:
    """All of it, for a network whose blocks are known: blocks are the scores of `lesion.blocks`.

    The state holds scores, by_batch_size and controls as the record does; greedy: a `GreedySoFar`;
    as_it_is and anew: how many test images each variant loses and gains, see `variants_as_it_is`
    and `variants_anew`; anew beside the whole network with statistics taken anew, too.
    """
    subject = jax.tree.map(jnp.asarray, subject)
    model = AuditedNetwork(shape, subject, measurement_of(cell).augmentation)
    if resume is None:
        resume = {
            "scores": model.peer_scores(data.probe),
            "by_batch_size": entropies_by_batch_size(shape, subject, cell, data),
            "greedy": _as_lists(GreedySoFar()),
            "as_it_is": [],
            "anew": [],
            "controls": None,
        }
    state = dict(resume)
    for so_far in _greedy_removal(shape, subject, cell, data, GreedySoFar(**state["greedy"])):
        state["greedy"] = _as_lists(so_far)
        yield _progress(state, blocks, settings)
    trials = model.trials(data)
    # Variants that remove the same blocks are evaluated once, by `Trials`.
    for variant in variants_as_it_is(state, blocks, settings)[len(state["as_it_is"]) :]:
        (difference,) = trials.differences([variant.removed])
        state["as_it_is"] = [*state["as_it_is"], [difference.lost, difference.gained]]
        yield from _now_and_then(state, blocks, settings, len(state["as_it_is"]))
    for variant in variants_anew(state, blocks, settings)[len(state["anew"]) :]:
        difference = trials.difference_anew_from_whole_anew(variant.removed)
        state["anew"] = [*state["anew"], [difference.lost, difference.gained]]
        yield from _now_and_then(state, blocks, settings, len(state["anew"]))
    if state["controls"] is None:
        more = trained_on(shape, subject, cell, data, MORE_EPOCHS)
        recalibrated = difference_of(trials.whole, trials.whole_anew)
        further = difference_of(trials.whole, right_answers(shape, more, cell, data))
        state["controls"] = {
            "recalibrated": [recalibrated.lost, recalibrated.gained],
            "trained_on": [further.lost, further.gained],
        }
    yield _progress(state, blocks, settings)


def _as_lists(so_far: GreedySoFar) -> dict[str, Any]:
    """As JSON gives it back, so that a study that goes on has the same state."""
    return {"gone": list(so_far.gone), "costs": list(so_far.costs), "tried": so_far.tried}


def variants_as_it_is(
    state: State, blocks: Mapping[str, Sequence[float | None]], settings: removal.Settings
) -> list[Variant]:
    """The networks without blocks that are evaluated with the statistics of the whole one: those
    of further orders, since the study itself has all others."""
    scores = {**state["scores"], "conflict_rate": blocks["conflict_rate"]}
    # While greedy removal is under way only the number of its variants matters.
    greedy = [*state["greedy"]["gone"]]
    greedy += [block for block in range(len(blocks["entropy"])) if block not in greedy]
    found = []
    for name, order in orders.further_orders(scores, greedy).items():
        found += removal.along_order(name, order, settings)
    return found


def variants_anew(
    state: State, blocks: Mapping[str, Sequence[float | None]], settings: removal.Settings
) -> list[Variant]:
    """The networks without blocks that are evaluated with statistics taken anew: all."""
    return [*removal.variants(blocks, settings), *variants_as_it_is(state, blocks, settings)]


def expected_steps(blocks: Mapping[str, Sequence[float | None]], settings: removal.Settings) -> int:
    """How many steps there will be if every score of others differs between blocks."""
    distinct = [float(block) for block in range(len(blocks["entropy"]))]
    unknown = {"scores": dict.fromkeys(SITES_OF_PEERS, distinct), "greedy": {"gone": []}}
    return _steps_in_all(unknown, blocks, settings)


def _steps_in_all(
    state: State, blocks: Mapping[str, Sequence[float | None]], settings: removal.Settings
) -> int:
    """Steps of greedy removal, and networks as they are and anew."""
    as_it_is = variants_as_it_is(state, blocks, settings)
    anew = variants_anew(state, blocks, settings)
    return len(blocks["entropy"]) + len(as_it_is) + len(anew)


def _progress(
    state: State, blocks: Mapping[str, Sequence[float | None]], settings: removal.Settings
) -> Progress:
    done = len(state["greedy"]["gone"]) + len(state["as_it_is"]) + len(state["anew"])
    return Progress(dict(state), done, _steps_in_all(state, blocks, settings))


def _now_and_then(
    state: State,
    blocks: Mapping[str, Sequence[float | None]],
    settings: removal.Settings,
    done: int,
) -> Iterator[Progress]:
    """A checkpoint, once every few networks."""
    if done % AT_ONCE == 0:
        yield _progress(state, blocks, settings)


class AuditedNetwork:
    """A network of ours as a model that an audit takes. augmentation: says how images become
    numbers."""

    def __init__(self, shape: ConvShape, subject: Network, augmentation: Augmentation) -> None:
        self.outputs = shape.outputs
        self.module = network.module_of(shape)
        self.variables = network.variables_of(shape, subject)
        self.augmentation = augmentation

    def call(self, module: Any, images: UInt8[Array, "batch *pixels"]) -> Array:
        logits: Array = module(measure.as_numbers(images, self.augmentation))
        return logits

    def peer_scores(self, probe: Examples) -> dict[str, list[float | None]]:
        """What others measure of every block, on the probe set."""
        audited = audit(
            self.module,
            np.asarray(probe.images),
            np.asarray(probe.labels),
            params=self.variables,
            call=self.call,
            layers=list(SITES_OF_PEERS.values()),
            headroom=False,
            peers=True,
        )
        scores: dict[str, list[float | None]] = {}
        for peer, sites in SITES_OF_PEERS.items():
            # In the order in which their values are made, which is that of the blocks.
            layers = [one for one in audited.peers if _is_at(one.layer, sites)]
            scores[peer] = [six_digits_or_none(getattr(one, peer)) for one in layers]
        return scores

    def trials(self, data: DeviceData) -> Trials:
        """It without some of its blocks, tried on the test images. Statistics are taken anew on
        images of the probe set, which are one batch."""
        test = batches_of(np.asarray(data.test.images), len(data.test.labels), whole=False)
        some = some_of(data.probe, FITTED_ON)
        fitting = batches_of(np.asarray(some.images), len(some.labels), whole=True)
        subject = subject_of(
            self.module, params=self.variables, call=self.call, trainable=None, batch_norm="running"
        )
        labels = np.asarray(data.test.labels, np.int32)
        branches = branches_in(subject.sites(test.first))
        scores = scores_in(None, self.outputs, labels.shape)
        return Trials(subject, branches, test, labels, scores, fitting)


def _is_at(layer: str, sites: str) -> bool:
    """Whether a layer, perhaps one repetition of a site, is at sites of this pattern."""
    return fnmatch.fnmatchcase(layer.partition("[")[0], sites)


def entropies_by_batch_size(
    shape: ConvShape, subject: Network, cell: Cell, data: DeviceData
) -> list[dict[str, Any]]:
    """H of every scaled branch and of every output when the metric is told other batch sizes: the
    same activations and weights, compared at other resolutions."""
    measurement, rate = measurement_of(cell)._replace(further=()), cell.training.learning_rate
    found = []
    for size in BATCH_SIZES:
        measured = measure.layers_of_one(shape, subject, data.probe, measurement, rate, size)
        assert measured.branches is not None  # it is a ResNet
        entropies = {
            "branches": _entropies(measured.branches),
            "outputs": _entropies(measured.own),
        }
        found.append({"batch_size": size, **entropies})
    return found


def _entropies(layers: measure.Layers) -> list[float | None]:
    """Of a population of one; None where an activation is not finite."""
    pairs = zip(layers.entropy[0], layers.finite[0], strict=True)
    return [six_digits_or_none(entropy) if finite else None for entropy, finite in pairs]


@functools.cache
def losses_program(shape: ConvShape, augmentation: Augmentation) -> Any:
    """Compiled: the mean cross-entropies, float32 (V,), of a network on examples under V masks of
    the blocks that are kept, normalised by the statistics of these examples."""

    def losses(
        subject: Network, examples: Examples, masks: Bool[Array, "variants blocks"]
    ) -> Float32[Array, " variants"]:
        x = measure.as_numbers(examples.images, augmentation)

        def one(keep: Bool[Array, " blocks"]) -> Float32[Array, ""]:
            logits = watched.masked_logits(shape, subject, x, keep, conv.BATCH)
            each = optax.softmax_cross_entropy_with_integer_labels(logits, examples.labels)
            return each.mean()

        losses: Array = lax.map(one, masks)
        return losses

    return jax.jit(losses)


def _greedy_removal(
    shape: ConvShape, subject: Network, cell: Cell, data: DeviceData, so_far: GreedySoFar
) -> Iterator[GreedySoFar]:
    """Greedy removal, a block at a time, by the loss on some images of the probe set."""
    program = losses_program(shape, measurement_of(cell).augmentation)
    examples = some_of(data.probe, GREEDY_IMAGES)

    def losses_without(variants: Sequence[tuple[int, ...]]) -> list[float]:
        found: list[float] = []
        for start in range(0, len(variants), GREEDY_CANDIDATES):
            some = variants[start : start + GREEDY_CANDIDATES]
            masks = masks_without(some, GREEDY_CANDIDATES, shape.layers)
            losses = np.asarray(program(subject, examples, masks))[: len(some)]
            found += np.nan_to_num(losses, nan=np.inf).clip(max=DIVERGED).tolist()
        return found

    while len(so_far.gone) < shape.layers:
        so_far = orders.one_more_gone(so_far, shape.layers, losses_without, GREEDY_CANDIDATES)
        yield so_far


def require_state(state: State, shape: ConvShape) -> None:
    """DamagedCheckpoint for what is no state of `steps`, of a network of this shape."""
    try:
        for name in SITES_OF_PEERS:
            require_numbers(state["scores"][name], or_none=True)
            if len(state["scores"][name]) != shape.layers:
                raise ValueError(f"it holds {name} of other than {shape.layers} blocks")
        GreedySoFar(**state["greedy"])
        require_numbers(state["greedy"]["costs"])
        for entry in state["by_batch_size"]:
            AtBatchSize(**entry)
        for lost, gained in (*state["as_it_is"], *state["anew"]):
            require_numbers([lost, gained])
        if state["controls"] is not None:
            require_numbers([*state["controls"]["recalibrated"], *state["controls"]["trained_on"]])
    except Exception as error:  # whatever content of another kind makes the lines above raise
        raise DamagedCheckpoint(str(error)) from error


def fair_study(
    state: State,
    settings: removal.Settings,
    blocks: Mapping[str, Sequence[float | None]],
    probe_images: int,
) -> FairStudy:
    """The completed part of a record. probe_images: how many the probe set has."""
    as_it_is = _evaluated(variants_as_it_is(state, blocks, settings), state["as_it_is"])
    anew = _evaluated(variants_anew(state, blocks, settings), state["anew"])
    alone = [(lost, gained) for variant, lost, gained in anew if variant.of == removal.SINGLE]
    greedy = GreedySoFar(**state["greedy"])
    return FairStudy(
        fitted_on=min(FITTED_ON, probe_images),
        blocks=FairBlocks(
            **state["scores"],
            lost=[lost for lost, _ in alone],
            gained=[gained for _, gained in alone],
        ),
        curves=removal.curves(as_it_is),
        curves_anew=removal.curves(anew),
        controls=Controls(
            recalibrated=tuple(state["controls"]["recalibrated"]),
            trained_on=tuple(state["controls"]["trained_on"]),
            more_epochs=MORE_EPOCHS,
        ),
        greedy=Greedy(
            order=list(greedy.gone),
            images=min(GREEDY_IMAGES, probe_images),
            candidates=GREEDY_CANDIDATES,
            tried=greedy.tried,
        ),
        by_batch_size=[AtBatchSize(**entry) for entry in state["by_batch_size"]],
    )


def _evaluated(
    variants: Sequence[Variant], outcomes: Sequence[Sequence[int]]
) -> list[tuple[Variant, int, int]]:
    pairs = zip(variants, outcomes, strict=True)
    return [(variant, lost, gained) for variant, (lost, gained) in pairs]
