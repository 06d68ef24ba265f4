"""Lesion study (the second work): remove blocks of a trained ResNet and see what it costs.

A block is removed by leaving out its branch, so that its skip alone remains. All networks that a
study asks for (`removal.variants`) pass through one compiled program, a mask of blocks each; what
a mask removes is not computed. `run` yields after every few networks and can continue from there.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import optax
from jax import lax
from jaxtyping import Bool

from cbundles import measure
from cbundles.config import Cell
from cbundles.data import augment
from cbundles.data.device import DeviceData, Examples
from cbundles.data.pipelines import Augmentation
from cbundles.decisions import removal
from cbundles.errors import DamagedCheckpoint
from cbundles.experiments.entries import six_digits_or_none
from cbundles.networks import conv, watched
from cbundles.networks.network import Network
from cbundles.networks.shape import ConvShape
from cbundles.population import measurement_of
from cbundles.records import Blocks, LesionRecord, Origin

AT_ONCE = 16  # networks between two checkpoints


class Progress(NamedTuple):
    """state: plain data from which `run` continues; done, total: how many networks."""

    state: dict[str, Any]
    done: int
    total: int


@functools.cache
def predictions_program(shape: ConvShape, augmentation: Augmentation) -> Any:
    """Compiled: the classes, int32 (V, N), that a network and uint8 images (N, H, W, C) give under
    V masks of the blocks that are kept, bool (V, blocks)."""

    def predict(subject: Network, images: jax.Array, masks: jax.Array) -> jax.Array:
        def one(keep: jax.Array) -> jax.Array:
            def classify(x: jax.Array) -> jax.Array:
                return jnp.argmax(watched.masked_logits(shape, subject, x, keep), axis=1)

            return measure.in_batches(images, classify, augmentation, measure.batch_of(shape))

        return lax.map(one, masks)

    return jax.jit(predict)


@functools.cache
def scores_program(shape: ConvShape, augmentation: Augmentation) -> Any:
    """Compiled: the scores of every block on examples, float32 (3, blocks), means over the samples.

    norm: ||branch|| / ||skip||; scaled_norm: the root mean square of the branch as it is measured
    (`watched.branch_scale`), so of what H compares; first_order: |dLoss/dgate|, where a gate
    multiplies the branch and is 1, that is |sum of gradient x activation|. In inference mode.
    """

    def norms(first: Any, second: Any, branch: Any, skip: Any) -> jax.Array:
        by_branch, by_skip = (jnp.sqrt(jnp.square(a).mean((1, 2, 3))) for a in (branch, skip))
        scaled = by_branch * watched.branch_scale(first, second)
        return jnp.stack([by_branch / jnp.maximum(by_skip, 1e-12), scaled])

    def scores(subject: Network, examples: Examples) -> jax.Array:
        def batch(rows: jax.Array) -> jax.Array:
            x, y = augment.plain(examples.images[rows], augmentation), examples.labels[rows]
            traced = watched.Watched(shape, subject, x)
            branches = traced.sites(conv.BRANCH)
            blocks = watched.groups(traced, conv.FIRST, conv.SECOND, conv.BRANCH, conv.SKIP)

            def loss(gates: jax.Array) -> tuple[jax.Array, jax.Array]:
                of_pixels = gates[..., None, None, None]
                logits, found = traced.run(
                    gate=watched.by_site(branches, of_pixels), read=dict.fromkeys(blocks, norms)
                )
                lost = optax.softmax_cross_entropy_with_integer_labels(logits, y).sum()
                return lost, watched.stack_blocks([group[-1] for group in blocks], found)

            slopes, seen = jax.grad(loss, has_aux=True)(jnp.ones((shape.layers, len(x))))
            return jnp.concatenate([jnp.moveaxis(seen, 1, 0), jnp.abs(slopes)[None]])

        rows = jnp.arange(len(examples.labels))
        found = measure.in_batches(rows, batch, augmentation, measure.batch_of(shape))
        return found.mean(-1)

    return jax.jit(scores)


def blocks(
    shape: ConvShape, subject: Network, data: DeviceData, cell: Cell
) -> dict[str, list[Any]]:
    """What is known of every block before any is removed, a list for each score: entropy, of the
    scaled branch, nats; conflict_rate; num_bundles; and those of `scores_program` on the probe
    set."""
    measurement, training = measurement_of(cell)._replace(further=()), cell.training
    branches = measure.layers_of_one(
        shape, subject, data.probe, measurement, training.learning_rate, training.batch_size
    ).branches
    assert branches is not None  # it is a ResNet
    entropy, rate, bundles, finite = (values[0] for values in branches)
    norm, scaled, first = scores_program(shape, measurement.augmentation)(subject, data.probe)
    scores = {"norm": norm, "scaled_norm": scaled, "first_order": first}
    rates = zip(rate, finite, strict=True)
    return {
        "entropy": [float(h) if ok else None for h, ok in zip(entropy, finite, strict=True)],
        "conflict_rate": [six_digits_or_none(c) if ok else None for c, ok in rates],
        "num_bundles": [int(n) for n in bundles],
        **{name: list(map(six_digits_or_none, values)) for name, values in scores.items()},
    }


def masks_without(
    variants: Sequence[Sequence[int]], rows: int, blocks: int
) -> Bool[np.ndarray, "rows blocks"]:
    """Which blocks each variant keeps, a row each. Rows beyond them keep none: they cost next to
    nothing."""
    masks = np.zeros((rows, blocks), bool)
    for number, gone in enumerate(variants):
        masks[number] = True
        masks[number, list(gone)] = False
    return masks


def _unpacked(right: str) -> Bool[np.ndarray, " images_and_padding"]:
    """Which test images were classified correctly, as a state holds it."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(right), np.uint8)).astype(bool)


def run(
    shape: ConvShape,
    subject: Network,
    cell: Cell,
    data: DeviceData,
    settings: removal.Settings,
    resume: dict[str, Any] | None = None,
) -> Iterator[Progress]:
    """Measure all blocks, then evaluate every variant on the test set.

    The state holds blocks; right: which test images the whole network classifies correctly; and
    outcomes: for each variant how many of those it loses and how many others it gains.
    """
    subject = jax.tree.map(jnp.asarray, subject)
    program = predictions_program(shape, measurement_of(cell).augmentation)
    labels = np.asarray(data.test.labels)

    def right(removed: list[tuple[int, ...]]) -> np.ndarray:
        """Whether each test image is classified correctly, bool (AT_ONCE, N), without some blocks;
        rows that are not asked for are of a network without any."""
        masks = masks_without(removed, AT_ONCE, shape.layers)
        return np.asarray(program(subject, data.test.images, masks)) == labels

    if resume is None:
        resume = {"blocks": blocks(shape, subject, data, cell), "outcomes": []}
        resume["right"] = np.packbits(right([()])[0]).tobytes().hex()
    whole = _unpacked(resume["right"])[: len(labels)]
    todo = removal.variants(resume["blocks"], settings)
    outcomes = list(resume["outcomes"])
    yield Progress(resume, len(outcomes), len(todo))
    while len(outcomes) < len(todo):
        now = [variant.removed for variant in todo[len(outcomes) :][:AT_ONCE]]
        found = right(now)[: len(now)]
        lost, gained = (whole & ~found).sum(1), (~whole & found).sum(1)
        outcomes += [list(pair) for pair in zip(lost.tolist(), gained.tolist(), strict=True)]
        yield Progress({**resume, "outcomes": outcomes}, len(outcomes), len(todo))


def freeze(state: dict[str, Any]) -> bytes:
    """A state of `run` as bytes: JSON."""
    return json.dumps(state).encode()


def thaw(frozen: bytes, shape: ConvShape, images: int) -> dict[str, Any]:
    """What `freeze` made of a state, of a network of this shape and so many test images.
    DamagedCheckpoint for anything else."""
    try:
        state: dict[str, Any] = msgspec.json.decode(frozen)
        not_yet = [0] * shape.layers  # what the record will say besides; all must be as long
        msgspec.convert({**state["blocks"], "lost": not_yet, "gained": not_yet}, Blocks)
        if len(bytes.fromhex(state["right"])) != -(-images // 8):
            raise ValueError(f"it holds predictions of other than {images} images")
        msgspec.convert(state["outcomes"], list[tuple[int, int]])
    except Exception as error:  # whatever content of another kind makes the lines above raise
        raise DamagedCheckpoint(str(error)) from error
    return state


def record(
    cell: Cell,
    settings: removal.Settings,
    state: dict[str, Any],
    images: int,
    network: str,
    origin: Origin,
) -> LesionRecord:
    """The completed study. images: of the test set; network: what identifies it."""
    todo = removal.variants(state["blocks"], settings)
    pairs = zip(todo, state["outcomes"], strict=True)
    evaluated = [(variant, lost, gained) for variant, (lost, gained) in pairs]
    single = [outcome for outcome in evaluated if outcome[0].of == removal.SINGLE]
    alone = {
        "lost": [lost for _, lost, _ in single],
        "gained": [gained for _, _, gained in single],
    }
    right = _unpacked(state["right"])
    return LesionRecord(
        id=cell.id,
        origin=origin,
        config=cell.asdict(),
        settings=settings,
        images=images,
        correct=int(right.sum()),
        blocks=msgspec.convert({**state["blocks"], **alone}, Blocks),
        curves=removal.curves(evaluated),
        network=network,
    )
