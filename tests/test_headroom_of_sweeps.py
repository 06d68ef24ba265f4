"""Headroom of the networks of a sweep: brute force on the very activations, the record, the tables,
and networks that are measured again."""

from __future__ import annotations

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from mnist_images import first_images
from records import OLDEST_READING, changed, entries_of, record

from cbundles import bits, bundles, config, scan
from cbundles.data import device
from cbundles.data.dataset import Facts
from cbundles.errors import DamagedCheckpoint, InputError
from cbundles.executor import planner
from cbundles.experiments import sweep
from cbundles.population import Population
from cbundles.records import SweepHistory, reading
from cbundles.report import answer, drawing, headroom_figures, summary, sweep_figures, sweep_tables
from cbundles.store import CELLS, MEASURED, Store

FACTS = Facts(640, 200, (28, 28, 1), 10)
SAMPLES, SCANNED = 150, 60
TWICE = 4  # images of the probe set that stand in it twice, with two labels


@pytest.fixture(scope="module")
def small() -> device.DeviceData:
    """The first 640 images of mnist_mini: ten steps an epoch. The first images of the probe set
    that are scanned are also the last ones, under other labels."""
    placed = device.place(first_images(640, 200), config.Data(), config.Probe(samples=SAMPLES))
    images, labels = np.array(placed.probe.images), np.array(placed.probe.labels)
    part = bundles.evenly_spread(SAMPLES, SCANNED)
    images[part[-TWICE:]] = images[part[:TWICE]]
    labels[part[-TWICE:]] = (labels[part[:TWICE]] + 1) % 10
    return placed._replace(probe=device.Examples(jnp.asarray(images), jnp.asarray(labels)))


def cells(family: str, *, epochs: int = 2, seeds: int = 1, **probe: object) -> list[config.Cell]:
    model = {"family": family}
    model |= {"width": 6, "depth": 7} if family == "fc" else {"blocks": "1,2,1,0"}
    oldest = {"amplitude": "all"} if family == "fc" else OLDEST_READING
    if probe.get("equality") == "gamma":
        oldest = {}
    content = {
        "model": model if family == "fc" else {**model, "base_filters": 3},
        "training": {"epochs": epochs, "seed": list(range(seeds))},
        "probe": {"samples": SAMPLES, **oldest, **probe},
    }
    return list(config.build(content, default_name="x").cells)


@pytest.fixture
def scanned_values(monkeypatch) -> list[np.ndarray]:
    """The activations that are scanned from here on, layer by layer, as the program has them."""
    monkeypatch.setattr(scan, "SCANNED_ROWS", SCANNED)
    values: list[np.ndarray] = []
    sign = bundles.signatures_of_scan

    def seen(rows, scales, keys, equality):
        jax.debug.callback(lambda found: values.append(np.array(found)), rows, ordered=True)
        return sign(rows, scales, keys, equality)

    monkeypatch.setattr(bundles, "signatures_of_scan", seen)
    scan.signatures_program.cache_clear()
    yield values
    scan.signatures_program.cache_clear()


@pytest.mark.parametrize(
    ("family", "probe"),
    [
        ("fc", {}),
        ("fc", {"resolution": "float16"}),
        ("fc", {"equality": "gamma", "gamma": 1e-7}),
        ("vgg", {"batch_norm": "batch"}),
        ("vgg", {"batch_norm": "running"}),
        ("vgg", {"last": "pooled"}),
        ("resnet", {"batch_norm": "batch"}),
    ],
)
def test_every_layer_of_a_trained_network_agrees_with_brute_force(
    small, scanned_values, family, probe
):
    seeds = 2 if family == "fc" else 1
    asked = cells(family, seeds=seeds, **probe)
    population = Population(asked, small, FACTS)
    for _ in range(3):
        population.advance(FACTS.train)
    assert population.epoch == 3
    found = population.headroom()
    layers = population.shape.layers + (1 if "last" in probe else 0)
    assert found.shape == (seeds, layers) and len(scanned_values) == seeds * layers
    part = bundles.evenly_spread(SAMPLES, SCANNED)
    labels = np.asarray(small.probe.labels)[part]
    pixels = np.asarray(small.probe.images)[part].reshape(SCANNED, -1)
    own = oracle.conflict_rate(oracle.bundle_ids(pixels), labels)
    assert own > 2e-3  # more than a layer may conflict, so that it has to be heeded
    for member in range(seeds):
        amplitude = float(np.abs(np.asarray(population.networks.params[member])).max())
        for layer in range(layers):
            values = scanned_values[member * layers + layer]
            assert len(values) == SCANNED
            expected = oracle.headroom(
                values,
                labels,
                amplitude,
                own=own,
                resolution=probe.get("resolution", "float32"),
                gamma=probe.get("gamma"),
            )
            assert found[member, layer] == expected, (member, layer)
    # Some of them end within the range, so that the scan has something to find.
    assert ((found > bits.LOWEST) & (found < bits.HIGHEST)).any()


def test_padding_does_not_show(small):
    deep, shallow = (
        dataclasses.replace(cell, model=dataclasses.replace(cell.model, depth=depth, width=width))
        for cell, depth, width in zip(cells("fc", seeds=2), (7, 4), (6, 5), strict=True)
    )
    together = Population([deep, shallow], small, FACTS)
    alone = Population([shallow], small, FACTS)
    np.testing.assert_array_equal(together.headroom()[1, :4], alone.headroom()[0])


def last(asked, small, resume=None):
    *_, state = sweep.train(asked, small, FACTS, resume)
    return state


@pytest.mark.parametrize("family", ["fc", "vgg"])
def test_asking_for_it_changes_no_bit_of_anything_else(small, family):
    plain = last(cells(family), small)
    assert all("headroom" not in entry for entry in plain.members[0].history)
    for when in ("last", "all"):
        asked = last(cells(family, headroom=when), small)
        for ours, theirs in zip(
            jax.tree.leaves(asked.population.state),
            jax.tree.leaves(plain.population.state),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)
        history = [dict(entry) for entry in asked.members[0].history]
        found = [entry.pop("headroom") for entry in history]
        assert history == plain.members[0].history
        assert [one is not None for one in found] == [when == "all", when == "all", True]
        layers = len(history[0]["entropy"])
        assert all(len(one) == layers for one in found if one is not None)


@pytest.mark.parametrize("when", ["last", "all"])
@pytest.mark.parametrize("family", ["fc", "vgg"])
def test_interrupted_and_resumed_it_has_the_same_bits(small, family, when):
    asked = cells(family, headroom=when, seeds=2 if family == "fc" else 1)
    whole = last(asked, small)
    for state in sweep.train(asked, small, FACTS):
        frozen = state.freeze()
        assert last(asked, small, frozen).members == whole.members


def test_a_checkpoint_of_networks_without_it_is_refused(small):
    frozen = next(sweep.train(cells("fc"), small, FACTS)).freeze()
    with pytest.raises(DamagedCheckpoint, match="headroom is missing"):
        next(sweep.train(cells("fc", headroom="all"), small, FACTS, frozen))
    frozen = next(sweep.train(cells("fc", headroom="all"), small, FACTS)).freeze()
    with pytest.raises(DamagedCheckpoint, match="headroom is not asked for"):
        next(sweep.train(cells("fc"), small, FACTS, frozen))


@pytest.mark.parametrize("damage", [[1.0] * 6, [0.25] * 7, [99.0] * 7, ["5"] * 7, 5.0])
def test_a_checkpoint_with_other_numbers_is_refused(small, damage):
    (cell,) = cells("fc", headroom="all")
    state = next(sweep.train([cell], small, FACTS))
    state.members[0].history[0]["headroom"] = damage
    with pytest.raises(DamagedCheckpoint):
        next(sweep.train([cell], small, FACTS, state.freeze()))


def test_training_that_ends_early_ends_with_it(small):
    (cell,) = cells("fc", epochs=5, headroom="last")
    narrow = dataclasses.replace(cell.model, width=2, depth=30)
    checked = dataclasses.replace(cell.training, stop_conflicting="entropy", conflict_checks=3)
    history = last([dataclasses.replace(cell, model=narrow, training=checked)], small).members[0]
    assert len(history.history) < 6
    known = [entry["headroom"] is not None for entry in history.history]
    assert known == [False] * (len(known) - 1) + [True]


def test_a_layer_that_is_not_finite_has_none(small):
    population = Population(cells("fc", headroom="all"), small, FACTS)
    params = population.state.params
    broken = jax.tree.map(lambda leaf: leaf.at[..., -1].set(jnp.inf), params)
    population.state = population.state._replace(params=broken)
    state = sweep.RunState(population, [sweep.Observed()])
    sweep._measure(state)
    (entry,) = state.members[0].history
    assert entry["entropy"] == entry["headroom"] == [None] * 7


# The setting.


def test_it_belongs_to_the_identity_of_a_cell():
    (plain,), (off,) = cells("fc"), cells("fc", headroom="off")
    assert plain.id == off.id and plain.probe.headroom == "off"
    others = {cells("fc", headroom=when)[0].id for when in ("last", "all")}
    assert len({plain.id, *others}) == 3


@pytest.mark.parametrize("text", ["off", "'off'", "OFF"])
def test_off_is_a_word(tmp_path, text):
    """For YAML 1.1 it is a boolean."""
    path = tmp_path / "one.yaml"
    path.write_text(f"model: {{width: 5, depth: 3}}\nprobe: {{headroom: {text}}}\n")
    if text == "OFF":
        with pytest.raises(InputError, match=r"probe.headroom = 'OFF': did you mean 'off'"):
            config.load(path, [])
        return
    for overrides in ([], ["probe.headroom=off"]):
        (cell,) = config.load(path, overrides).cells
        assert cell.probe.headroom == "off"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"probe": {"headroom": "lats"}}, "probe.headroom = 'lats': did you mean 'last'?"),
        ({"probe": {"headroom": True}}, "probe.headroom = True: must be text"),
        ({"probe": {"headroom": "all"}, "growth": {"arm": "small"}}, "nearest valid: off"),
        (
            {"probe": {"headroom": "last"}, "training": {"learning_rate": 1e-35}},
            "training.learning_rate = 1e-35: probe.headroom looks 14 bits below it; nearest valid",
        ),
    ],
)
def test_what_cannot_be_is_refused(content, message):
    with pytest.raises(InputError) as raised:
        config.build({"model": {"width": 5, "depth": 3}, **content}, default_name="x")
    assert message in str(raised.value)


def test_its_cost_is_predicted():
    facts = Facts(60_000, 10_000, (28, 28, 1), 10)
    for family in ("fc", "vgg"):
        (plain,), (last_one,), (each,) = (
            cells(family, headroom=when) for when in ("off", "last", "all")
        )
        once = planner.headroom_seconds(plain, facts)
        off, one, three = (
            planner.training_seconds(cell, facts) for cell in (plain, last_one, each)
        )
        assert (one - off, three - off) == pytest.approx((once, 3 * once)) and once > 0
        assert (
            planner.record_bytes(plain)
            < planner.record_bytes(last_one)
            < planner.record_bytes(each)
        )
        population = planner.PopulationJob((plain,)), planner.PopulationJob((last_one,))
        less, more = (planner.worker_bytes(one, facts) for one in population)
        assert less < more


# Records, tables and figures.


def with_headroom(made, *after_last):
    """A record with the headroom of its layers after the last epoch."""
    unknown = [None] * (len(made.history) - 1)
    return changed(made, history={"headroom": [*unknown, list(after_last)]})


def test_a_record_keeps_it_and_one_without_says_nothing():
    plain = record(3, 4)
    assert "headroom" not in json.loads(reading.encode(plain))["history"]
    made = with_headroom(plain, 5.0, None, -10.5)
    encoded = reading.encode(made)
    assert json.loads(encoded)["history"]["headroom"] == [None, None, None, [5.0, None, -10.5]]
    assert reading.decode(encoded, "nothing", "here") == made
    assert SweepHistory.of_entries(entries_of(made.history)) == made.history


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ([None, [1.0] * 3], "headroom has 2 values, entropy has 4"),
        ([None, None, None, [1.0]], "headroom[3] has 1 layers, entropy[0] 3"),
        ([None, None, None, [1.0, 2.0, 99.0]], "headroom[3][2] is 99: half bits from -10.5 to 14"),
        ([None, None, [0.0, 0.25, 0.5], None], "headroom[2][1] is 0.25: half bits"),
        ([None, None, None, ["5", 5, 5]], "Expected `float | null`, got `str`"),
        ("last", "got `str` - at `$.history.headroom`"),
    ],
)
def test_a_damaged_one_is_named(tmp_path, damage, message):
    made = record(3, 4)
    content = json.loads(reading.encode(made))
    content["history"]["headroom"] = damage
    store = Store(tmp_path / "run")
    path = store.record_path(made.id, CELLS)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="damaged record") as raised:
        store.record(made.id)
    assert message in str(raised.value)


def test_tables_say_which_layer_has_least():
    made = [
        with_headroom(record(3, 4, seed=0), 5.0, 1.5, 1.5),
        with_headroom(record(3, 4, seed=1), 5.0, None, 1.5),
        with_headroom(record(3, 4, seed=2), 14.0, 14.0, 14.0),
    ]
    rows = [summary.summary_of(one) for one in made]
    found = [(row["headroom_last"], row["headroom_layer_last"]) for row in rows]
    assert found == [(1.5, 2), (None, None), (14.0, 1)]
    table = sweep_tables.network_table(rows)
    place = table.titles.index("headroom [bits], last epoch")
    assert table.titles[place + 1] == "least in layer"
    assert [line[place : place + 2] for line in table.texts] == [
        ["1.5", "2"], ["-", "-"], [">=14", "1"],
    ]  # fmt: skip
    assert "headroom_last" not in summary.summary_of(record(3, 4))
    usual = sweep_tables.network_table([summary.summary_of(record(3, 4))])
    assert not any("headroom" in title or "least" in title for title in usual.titles)
    block = with_headroom(record(10, 4, family="vgg", entropy=[0.0] * 4), 5.0, 3.0, 4.0, 3.5)
    assert summary.summary_of(block)["headroom_layer_last"] == 4  # the first of block 2


def told_of(*made):
    (told,) = answer.answers(made)
    *_, sentence, accuracies = told.evidence
    assert accuracies.startswith("accuracy")
    return sentence


def test_an_answer_says_how_far_it_is_to_a_conflict():
    assert told_of(with_headroom(record(3, 4), 6.0, 5.0, 7.0)) == (
        "3 layers, trained: layer 2 conflicts below a learning rate of 3.1e-05: 5 bits of "
        "headroom, the least of all layers"
    )
    seeds = [
        with_headroom(record(3, 4, seed=0), 6.0, 5.0, 7.0),
        with_headroom(record(3, 4, seed=1), 6.0, 5.0, -3.0),
        with_headroom(record(3, 4, seed=2), -10.5, -10.5, -10.5),
        with_headroom(record(3, 4, seed=3), 6.0, None, 5.0),
    ]
    assert told_of(*seeds) == (
        "3 layers, trained: layer 3 conflicts already, by 3 bits, the least of all layers "
        "(<-10 to 5 in 3 networks)"
    )
    high = with_headroom(record(3, 4), 14.0, 14.0, 14.0)
    assert told_of(high) == "3 layers, trained: every layer has 14 bits of headroom or more"
    assert "after epoch 1" in told_of(seeds[3])  # one that diverged is not told of


def test_the_figure_of_headroom_by_layer():
    made = [
        with_headroom(
            record(3, width, seed=seed), *(width - 5.0 + seed - layer for layer in range(3))
        )
        for width in (4, 9)
        for seed in (0, 1)
    ]
    (picture,) = headroom_figures.headroom_profiles(made, "made up")
    assert picture.title == "After the last epoch, layers conflict with width 4"
    (axes,) = drawing.drawn(picture).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["width 4 (n = 2)", "width 9 (n = 2)"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "layer (of the deepest networks)",
        "headroom [bits of the learning rate]",
    )
    assert axes.lines[1].get_ydata().tolist() == [4.5, 3.5, 2.5]
    assert len(picture.rows) == 4 * 3 and picture.rows[0]["headroom"] == -1.0
    (picture,) = headroom_figures.headroom_profiles(made[2:], "made up")
    assert picture.title == (
        "After the last epoch, no layer conflicts: least headroom 2 bits, with width 9"
    )
    assert headroom_figures.headroom_profiles([record(3, 4)], "") == []
    diverged = with_headroom(record(3, 4), 1.0, None, None)
    assert headroom_figures.headroom_profiles([diverged], "") == []
    conv = with_headroom(record(10, 4, family="vgg", entropy=[0.0] * 4), 5.0, 3.0, 4.0, 3.5)
    assert [p.stem for p in sweep_figures._pictures_of(summary.variants([conv])[0])] == [
        "fig_headroom_profile"
    ]
    deeper = with_headroom(record(20, 4, family="vgg", entropy=[0.0] * 9), *[1.0] * 9)
    (picture,) = headroom_figures.headroom_profiles([conv, deeper], "")
    (axes,) = drawing.drawn(picture).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert (axes.get_xlabel(), labels) == ("block", ["depth 10 (n = 1)", "depth 20 (n = 1)"])


# From the command line.

DENSE = """
data: {name: spirals}
model: {width: 6, depth: 8}
training: {epochs: 2, seed: [0, 1]}
probe: {samples: 300, headroom: all, steps: [2], readings: hidden}
"""
VGG = """
data: {name: mnist_mini}
model: {family: vgg, blocks: "1,1,0,0", base_filters: 2}
training: {epochs: 1, batch_size: 500}
probe: {samples: 600, headroom: last}
"""


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("name", "text"), [("dense", DENSE), ("vgg", VGG)])
def test_a_sweep_shows_it_and_kept_networks_have_the_same(cli, tmp_path, name, text):
    (tmp_path / f"{name}.yaml").write_text(text)
    done = cli("sweep", f"{name}.yaml", "--keep-weights", "0,last")
    assert done.returncode == 0, done.stderr
    assert "bits of headroom" in done.stdout or "conflicts already, by" in done.stdout
    store = Store(tmp_path / "results" / name)
    trained = {made.id: made for made in store.records(CELLS)}
    by_network = {row["cell"]: row for row in rows_of(store.folder / "table.csv")}
    layers = rows_of(store.folder / "layers.csv")
    for made in trained.values():
        headroom = made.history.headroom[-1]
        assert float(by_network[made.id]["headroom_last"]) == min(headroom)
        told = [
            float(row["headroom"])
            for row in layers
            if (row["cell"], row["epoch"], row["reading"])
            == (made.id, str(made.epochs_trained), "own")
        ]
        assert told == headroom
    assert all(not row["headroom"] for row in layers if row["reading"] != "own")
    assert (store.figures / "fig_headroom_profile.csv").exists()

    planned = cli("measure", f"results/{name}", "--headroom", "--plan")
    assert "epochs 0, last" in planned.stdout
    done = cli("measure", f"results/{name}", "--headroom")
    assert done.returncode == 0, done.stderr
    assert "least headroom" in done.stdout
    for again in store.records(MEASURED):
        history = trained[again.id].history
        first, last_one = again.history.headroom
        assert last_one == history.headroom[-1]
        assert history.headroom[0] in (None, first)  # where training did not measure it
        assert again.history.entropy == [history.entropy[0], history.entropy[-1]]
    assert all(row["headroom"] for row in rows_of(store.folder / "readings.csv"))

    assert "to measure" not in cli("measure", f"results/{name}", "--headroom").stdout
    more = "all" if name == "dense" else "running"
    done = cli("measure", f"results/{name}", "--readings", more)
    assert done.returncode == 0, done.stderr
    for again in store.records(MEASURED):  # what was known stays
        assert again.history.headroom is not None and more in again.history.readings


def test_measuring_wants_something_to_measure(cli, tmp_path):
    (tmp_path / "dense.yaml").write_text(DENSE.replace("headroom: all, ", ""))
    assert cli("sweep", "dense.yaml", "--keep-weights").returncode == 0
    done = cli("measure", "results/dense")
    assert done.returncode == 2
    assert "name at least one, such as paper, or --headroom" in done.stderr
    assert "headroom" not in (tmp_path / "results/dense/table.csv").read_text()
    assert "headroom" not in (tmp_path / "results/dense/layers.csv").read_text()
