"""Training: golden steps, plans, and populations that change nothing for their members."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from mnist_images import first_images
from networks import cut, golden_params

from cbundles import config, train
from cbundles.data import augment, device, pipelines
from cbundles.data.dataset import Facts
from cbundles.errors import DamagedCheckpoint
from cbundles.experiments import pace, sweep
from cbundles.networks import fc, network
from cbundles.networks.network import Network
from cbundles.networks.shape import FcShape, shape_of

FACTS = Facts(640, 200, (28, 28, 1), 10)
RECIPE = train.Recipe(64, 1e-3, 1e-2, pipelines.NONE)


def test_golden_training_steps(golden):
    case = golden("trainsteps_fnn_w10_d4")
    shape, recipe = FcShape(784, 4, 10, 10), dataclasses.replace(RECIPE, batch_size=16)
    step = jax.jit(functools.partial(train.step, shape=shape, recipe=recipe))
    params = ravel_pytree(golden_params(case))[0]
    state = train.start(Network(params, np.zeros(0, np.float32)), recipe)
    images = augment.to_float(jnp.asarray(case["x_u8"])).reshape(18, 16, 784)
    for t in range(18):
        state, loss = step(state, images[t], case["y"][16 * t : 16 * (t + 1)])
        assert float(loss) == pytest.approx(case["losses"][t], abs=2e-6)
    final = network.views(shape)[0](state.params.fast)
    for ours, theirs in zip(final, golden_params(case, "final:"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)


def test_an_epochs_plan_uses_every_example_once_and_drops_the_rest():
    plan = train.plan(RECIPE, seed=3, number=1, examples=1000)
    assert plan.order.shape == (15, 64)
    assert len(np.unique(plan.order)) == 960 and plan.order.max() < 1000


def test_plans_depend_on_seed_and_epoch_only():
    def order(seed, number):
        return train.plan(RECIPE, seed, number, 1000).order.tobytes()

    assert order(0, 1) == order(0, 1)
    assert len({order(0, 1), order(0, 2), order(1, 1)}) == 3


def cells(
    *models: tuple[int, int, int], epochs: int = 2, early_steps: str = "none"
) -> list[config.Cell]:
    """Cells (depth, width, seed) of a short experiment."""
    probe = config.Probe(samples=256, steps=early_steps)
    training = config.Training(epochs=epochs)
    return [
        config.Cell(
            config.Data(),
            config.Model(depth=depth, width=width),
            dataclasses.replace(training, seed=seed),
            probe,
        )
        for depth, width, seed in models
    ]


@pytest.fixture(scope="module")
def small() -> device.DeviceData:
    """The first 640 images of mnist_mini: ten steps an epoch."""
    return device.place(first_images(640, 200), config.Data(), config.Probe(samples=256))


def last(states):
    return functools.reduce(lambda _, state: state, states)


@pytest.mark.parametrize(
    "models",
    [
        [(6, 10, 0), (6, 10, 1), (6, 10, 2)],  # seeds: nothing is padded
        [(6, 10, 0), (3, 7, 0), (9, 12, 5)],  # depth masked, width padded
    ],
)
def test_a_network_in_a_population_equals_the_network_alone(small, models):
    together = cells(*models)
    together_ended = last(sweep.train(together, small, FACTS))
    shape = together_ended.population.shape
    for i, cell in enumerate(together):
        alone = last(sweep.train([cell], small, FACTS))
        depth, width = cell.model.depth, cell.model.width
        own_shape = shape_of(cell.model, FACTS)
        padded = network.views(shape)[0](together_ended.population.state.params.fast[i])
        ours = cut(padded, depth, width)
        theirs = network.views(own_shape)[0](alone.population.state.params.fast[0])
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)
        for a, b in zip(padded, fc.pad(ours, shape), strict=True):
            np.testing.assert_array_equal(a, b)  # padding is still exactly zero
        for mine, its in zip(
            together_ended.members[i].history, alone.members[0].history, strict=True
        ):
            assert mine["test_accuracy"] == pytest.approx(its["test_accuracy"], abs=0.011)
            assert len(mine["entropy"]) == depth
            np.testing.assert_allclose(mine["entropy"], its["entropy"], atol=0.02)


def test_resuming_is_bit_identical(small):
    cell = cells((8, 10, 0), epochs=4)
    whole = last(sweep.train(cell, small, FACTS))
    frozen = None
    for state in sweep.train(cell, small, FACTS):
        if state.epoch == 2:
            frozen = state.freeze()
            break
    resumed = last(sweep.train(cell, small, FACTS, resume=frozen))
    assert resumed.members == whole.members
    for a, b in zip(
        jax.tree.leaves(resumed.population.state),
        jax.tree.leaves(whole.population.state),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("steps", "early_steps"), [(1, "none"), (3, "none"), (2, "1,6,9")])
def test_pauses_within_an_epoch_change_no_bit(small, monkeypatch, steps, early_steps):
    """Nor does an interruption at each of them, and after each measurement."""
    cell = cells((8, 10, 0), (8, 10, 1), epochs=2, early_steps=early_steps)
    whole = last(sweep.train(cell, small, FACTS))
    monkeypatch.setattr(pace, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(pace, "FIRST_STEPS", steps)
    frozen, pauses = None, 0
    while True:
        states = sweep.train(cell, small, FACTS, resume=frozen)
        state = next(states)
        pauses += state.population.step > 0
        frozen = state.freeze()
        if state.epoch == 2:
            break
    assert pauses >= 2 * (whole.population.steps // steps - 1) > 0
    assert state.members == whole.members
    ours, theirs = state.population.state, whole.population.state
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


def vgg(early_steps: str) -> list[config.Cell]:
    model = config.Model(family="vgg", blocks="1,1,0,0", depth=6, base_filters=2)
    probe = config.Probe(samples=256, steps=early_steps)
    return [config.Cell(config.Data(), model, config.Training(epochs=2), probe)]


@pytest.mark.parametrize("family", ["fc", "vgg"])
def test_measuring_within_the_first_epoch_changes_no_bit(small, family):
    """The fully connected population is padded in depth and width."""

    def cells_with(early_steps):
        if family == "vgg":
            return vgg(early_steps)
        return cells((6, 10, 0), (3, 7, 0), (9, 12, 5), early_steps=early_steps)

    plain = last(sweep.train(cells_with("none"), small, FACTS))
    early = last(sweep.train(cells_with("1,4,9"), small, FACTS))
    ours, theirs = early.population.state, plain.population.state
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    for mine, its in zip(early.members, plain.members, strict=True):
        assert mine.history == its.history and its.first_epoch == []
        assert [entry["step"] for entry in mine.first_epoch] == [1, 4, 9]
        layers = len(mine.history[0]["entropy"])
        assert all(len(entry["entropy"]) == layers for entry in mine.first_epoch)


def test_the_loss_within_an_epoch_is_that_of_its_batches_so_far(small):
    (cell,) = cells((4, 10, 0), epochs=1, early_steps="1,4")
    for state in sweep.train([cell], small, FACTS):
        step = state.population.step
        if step:
            entry = state.members[0].first_epoch[-1]
            batches = np.asarray(state.population.losses)[0]
            assert entry["step"] == step and not batches[step:].any()
            assert entry["train_loss"] == pytest.approx(batches[:step].mean(), rel=1e-6)


def test_a_checkpoint_without_a_measurement_that_is_past_is_refused(small):
    """As one of the same networks without early steps would be."""
    states = sweep.train(cells((4, 10, 0), early_steps="3"), small, FACTS)
    frozen = {state.population.step: state.freeze() for state in states if not state.epoch}
    assert list(frozen) == [0, 3]
    *_, resumed = sweep.train(cells((4, 10, 0), early_steps="3"), small, FACTS, resume=frozen[3])
    assert [entry["step"] for entry in resumed.members[0].first_epoch] == [3]
    for early_steps in ("none", "2,3"):
        other = cells((4, 10, 0), early_steps=early_steps)
        with pytest.raises(DamagedCheckpoint, match="measurements within the first epoch"):
            next(iter(sweep.train(other, small, FACTS, resume=frozen[3])))


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", "truncated", "other network"])
def test_a_damaged_checkpoint_is_refused(small, damage):
    frozen = next(iter(sweep.train(cells((4, 10, 0)), small, FACTS))).freeze()
    target = cells((4, 10, 0))
    if damage == "truncated":
        frozen = frozen[: len(frozen) // 2]
    elif damage == "other network":
        target = cells((5, 10, 0))
    else:
        frozen = damage
    with pytest.raises(DamagedCheckpoint):
        next(iter(sweep.train(target, small, FACTS, resume=frozen)))


def test_training_learns(small):
    state = last(sweep.train(cells((2, 32, 0), epochs=40), small, FACTS))
    accuracy = [entry["test_accuracy"] for entry in state.members[0].history]
    losses = [entry["train_loss"] for entry in state.members[0].history]
    assert losses[0] is None and losses[-1] < losses[1]
    assert accuracy[-1] > 0.5 > 0.2 > accuracy[0]
