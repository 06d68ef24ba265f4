"""What else is measured of the networks of a sweep: equal to plain NumPy, and without an effect on
anything else."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import plain_peers
import pytest
from records import changed

from cbundles import bundles, config
from cbundles.bits import SCANNED_ROWS
from cbundles.data import augment, device
from cbundles.data.dataset import Dataset
from cbundles.errors import InputError
from cbundles.experiments import entries
from cbundles.networks import network
from cbundles.population import Population
from cbundles.store import CELLS, Store

DENSE = """
data: {name: spirals}
model: {width: 6, depth: 8}
training: {epochs: 2, seed: [0, 1]}
probe: {samples: 300, steps: [2], peers: on}
"""


def cells(widths, depths, **probe):
    content = {
        "data": {"name": "mnist_mini"},
        "model": {"width": list(widths), "depth": list(depths)},
        "probe": {"samples": 700, "peers": "on", **probe},
    }
    return config.build(content, default_name="x").cells


@pytest.fixture(scope="module")
def few() -> tuple[Dataset, device.DeviceData]:
    chance = np.random.default_rng(0)
    images = chance.integers(0, 256, (800, 6, 6, 1), dtype=np.uint8)
    labels = chance.integers(0, 10, 800).astype(np.int32)
    stored = Dataset(
        "mnist_mini", tuple("abcdefghij"), images, labels, images[:50], labels[:50], "made up"
    )
    return stored, device.place(stored, config.Data(), config.Probe(samples=700))


def plain_forward(params, x):
    a = np.maximum(x @ params.first + params.first_bias, 0)
    for kernel, bias in zip(params.hidden, params.hidden_bias, strict=True):
        a = np.maximum(a @ kernel + bias, 0)
    return a


def test_peers_are_those_of_plain_numpy_in_padded_populations_too(few):
    stored, placed = few
    asked = cells([5, 12], [3, 6])
    population = Population(asked, placed, stored.facts)
    population.advance(5)
    x = augment.plain(placed.probe.images, population.measurement.augmentation)
    x, labels = np.asarray(x, np.float64).reshape(700, -1), np.asarray(placed.probe.labels)
    part = bundles.evenly_spread(700, SCANNED_ROWS)
    for member, found in enumerate(population.peers()):
        shape, one = population.network_of(member)
        rows = plain_forward(network.views(shape)[0](one.params), x)
        assert found.effective_rank == pytest.approx(plain_peers.effective_rank(rows), rel=1e-4)
        assert found.class_cosine == pytest.approx(plain_peers.class_cosine(rows, labels), abs=1e-5)

        def loss(params, shape=shape, one=one):
            logits = network.logits(shape, one._replace(params=params), jnp.asarray(x[part]))
            return -jax.nn.log_softmax(logits)[jnp.arange(len(part)), labels[part]].mean()

        expected = plain_peers.norm(jax.grad(loss)(jnp.asarray(one.params)))
        assert found.gradient_norm == pytest.approx(expected, rel=1e-4)


def test_what_is_not_finite_has_no_peers(few):
    stored, placed = few
    population = Population(cells([5], [3]), placed, stored.facts)
    state = population.state
    population.state = jax.tree.map(lambda a: a * jnp.nan if a.dtype == jnp.float32 else a, state)
    assert population.peers() == [(None, None, None)]


def test_whether_peers_are_measured_changes_nothing_else(cli, tmp_path):
    (tmp_path / "dense.yaml").write_text(DENSE)
    for name in ("on", "off"):
        done = cli("sweep", "dense.yaml", "--set", f"probe.peers={name}", "--out", name)
        assert done.returncode == 0, done.stderr
    with_peers, without = (
        {made.seed: made for made in Store(tmp_path / name).records(CELLS)}
        for name in ("on", "off")
    )
    assert with_peers.keys() == without.keys() == {0, 1}
    for seed, made in with_peers.items():
        other = without[seed]
        assert made.id != other.id and other.history.peers is None
        assert changed(made.history, peers=None) == other.history
        assert changed(made.first_epoch, peers=None) == other.first_epoch
        assert (len(made.history.peers), len(made.first_epoch.peers)) == (3, 1)
        assert all(value > 0 for value in made.history.peers.gradient_norm)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"family": "vgg", "depth": 10}}, "not of a vgg; nearest valid: off"),
        ({"growth": {"arm": "small"}}, "while networks change their depth; nearest valid: off"),
    ],
)
def test_peers_that_cannot_be(content, message):
    model = {"width": 5, "depth": 3}
    with pytest.raises(InputError, match=r"probe\.peers = 'on'") as raised:
        config.build({"model": model, **content, "probe": {"peers": "on"}}, default_name="x")
    assert message in str(raised.value)


def test_a_checkpoint_with_other_peers_is_not_continued(few):
    stored, placed = few
    (cell,) = cells([5], [3])
    population = Population([cell], placed, stored.facts)
    shape = population.shape_of(0)
    entry = entries.entry_of_member(0.5, population.measured(), 0, shape, None)
    found = entries.peers_of_entry(population.peers()[0])
    entries.check({**entry, "peers": found}, cell, shape)
    plain = dataclasses.replace(cell, probe=dataclasses.replace(cell.probe, peers="off"))
    entries.check(entry, plain, shape)
    for asked, wrong in (
        (cell, entry),
        (plain, {**entry, "peers": found}),
        (cell, {**entry, "peers": {**found, "class_cosine": "high"}}),
        (cell, {**entry, "peers": {**found, "more": 1.0}}),
    ):
        with pytest.raises(ValueError, match=r"peers|where a number belongs"):
            entries.check(wrong, asked, shape)
