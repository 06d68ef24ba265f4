"""Further readings, networks that are kept, and measuring them again."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from flax import serialization
from records import entries_of

from cbundles import config, keeping, readings
from cbundles.errors import InputError
from cbundles.executor import tasks
from cbundles.experiments import pace
from cbundles.networks import saved
from cbundles.readings import canonical
from cbundles.store import CELLS, MEASURED, Store

DENSE = """
data: {name: spirals}
model: {width: 6, depth: 8}
training: {epochs: 3, seed: [0, 1]}
probe: {samples: 300}
"""

VGG = """
data: {name: mnist_mini}
model: {family: vgg, blocks: "1,1,0,0", base_filters: 2}
training: {epochs: 2, batch_size: 500}
probe: {samples: 400}
"""


def cells(model: str, given: object = None, **more: object) -> tuple[config.Cell, ...]:
    content = {"model": {"family": model}, **more}
    if model == "fc":
        content["model"] |= {"width": 5, "depth": 3}
    else:
        content["model"] |= {"blocks": "1,1,1,1"}
    if given is not None:
        content["probe"] = {"readings": given, **content.get("probe", {})}
    return config.build(content, default_name="x").cells


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("none", "none"),
        ([], "none"),
        ("pooled", "pooled"),
        ("running, pooled", "pooled,running"),
        (["pooled+hidden", "paper", "hidden+pooled"], "paper,pooled+hidden"),
    ],
)
def test_readings_are_a_set_and_no_axis(given, expected):
    (cell,) = cells("vgg", given)
    assert cell.probe.readings == expected
    assert [one.name for one in cell.further_readings] == expected.replace("none", "").split(
        ","
    ) * (expected != "none")


def test_readings_belong_to_the_identity_of_a_cell():
    plain, asked, listed = (cells("vgg", given)[0] for given in (None, "paper", ["paper"]))
    assert asked.id == listed.id != plain.id
    assert plain.id == cells("vgg", "none")[0].id


def test_what_a_name_means_for_each_family():
    (vgg,), (dense,) = cells("vgg", "paper,block+batch"), cells("fc", "paper")
    block, paper = vgg.further_readings
    assert block.settings == ("block", "hidden", "batch")
    assert paper.settings == vgg.own_reading.settings == ("pooled", "hidden", "running")
    (paper,) = dense.further_readings
    assert paper.settings == dense.own_reading.settings == ("block", "hidden", "batch")


def test_the_oldest_reading_is_named_by_what_it_is():
    oldest = {"probe": {"last": "block", "amplitude": "all", "batch_norm": "batch"}}
    (old,), (new,) = cells("vgg", None, **oldest), cells("vgg", None)
    assert "probe.reading" not in old.unusual and old.label.endswith("reading=block+batch+all")
    assert new.unusual["probe.reading"] == "paper" and "reading" not in new.label
    (dense,) = cells("fc", None)
    assert dense.unusual["probe.reading"] == "hidden" and "reading" not in dense.label


@pytest.mark.parametrize(
    ("model", "given", "more", "message"),
    [
        ("vgg", "poolled", {}, "no reading 'poolled': did you mean 'pooled'?"),
        ("vgg", "batch+running", {}, "'batch+running' says both batch and running"),
        ("vgg", 3, {}, "must be names: a list, or text with commas"),
        ("vgg", [3], {}, "readings must be text"),
        ("fc", "running", {}, "neither pooled features nor batch normalisation"),
        ("vgg", "hidden", {"probe": {"equality": "gamma"}}, "no weight has a part"),
        ("fc", "hidden", {"growth": {"arm": "small"}}, "change their depth"),
    ],
)
def test_readings_that_do_not_exist(model, given, more, message):
    with pytest.raises(InputError, match=r"probe\.readings") as raised:
        cells(model, given, **more)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "expected"), [("last", ("last",)), ("0,1, last", ("0", "1", "last")), ("01,1", ("1",))]
)
def test_epochs_to_keep(text, expected):
    assert keeping.parse_epochs(text) == expected


@pytest.mark.parametrize("text", ["", "first", "-1", "1,,2", "1.5"])
def test_epochs_that_are_none(text):
    with pytest.raises(InputError, match="--keep-weights"):
        keeping.parse_epochs(text)


@pytest.mark.parametrize(("name", "text"), [("dense", DENSE), ("vgg", VGG)])
def test_measured_again_is_what_training_measured(cli, tmp_path, name, text):
    """All entries of kept networks, to the last digit; and what training had not measured."""
    asked = "all" if name == "dense" else "batch,block+all"
    (tmp_path / f"{name}.yaml").write_text(text)
    done = cli(
        "sweep", f"{name}.yaml", "--keep-weights", "0,1,last", "--set", f"probe.readings={asked}"
    )
    assert done.returncode == 0, done.stderr
    store = Store(tmp_path / "results" / name)
    trained = {record.id: record for record in store.records(CELLS)}
    assert all(store.kept_epochs(cell) == ["0", "1", "last"] for cell in trained)

    done = cli("measure", f"results/{name}", "--readings", asked)
    assert done.returncode == 0, done.stderr
    for record in store.records(MEASURED):
        history = entries_of(trained[record.id].history)
        assert record.kept_after == ["0", "1", "last"]
        for again, entry in zip(
            entries_of(record.history), (history[0], history[1], history[-1]), strict=True
        ):
            assert again == {**entry, "train_loss": None}
            assert entry["readings"].keys() == set(asked.split(","))
    with (store.folder / "readings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    layers = 8 if name == "dense" else 2
    pooled = 0 if name == "dense" else 1
    places = {"all": layers, "block+all": layers, "batch": layers + 1, "own": layers + pooled}
    per_network = places["own"] + sum(places[one] for one in asked.split(","))
    assert len(rows) == len(trained) * 3 * per_network

    again = cli("measure", f"results/{name}", "--readings", asked)
    assert again.returncode == 0 and "to measure" not in again.stdout
    more = "hidden" if name == "dense" else "pooled"
    planned = cli("measure", f"results/{name}", "--readings", more, "--plan")
    assert "epochs 0, 1, last" in planned.stdout and "Nothing was measured" in planned.stdout
    done = cli("measure", f"results/{name}", "--readings", more, "--json")
    assert done.returncode == 0, done.stderr
    for record in store.records(MEASURED):  # what was known stays
        assert record.readings == canonical(f"{asked},{more}")
    table = (store.folder / "readings.csv").read_bytes()
    cli("sweep", f"{name}.yaml", "--set", f"probe.readings={asked}")  # views are written anew
    assert (store.folder / "readings.csv").read_bytes() == table
    for record in store.records(MEASURED):
        assert record.history.readings.keys() == {*asked.split(","), more}


def test_only_what_is_asked_for_is_kept(cli, tmp_path):
    (tmp_path / "dense.yaml").write_text(DENSE)
    store = Store(tmp_path / "results" / "dense")
    for flags, kept in (
        (["--keep-weights"], ["last"]),
        (["--keep-weights", "1"], ["1", "last"]),
        (["--keep-weights=3,0"], ["0", "1", "last"]),
    ):
        done = cli("sweep", "dense.yaml", *flags)
        assert done.returncode == 0, done.stderr
        cells_there = store.ids()
        assert [store.kept_epochs(cell) for cell in cells_there] == [kept, kept]
    one = saved.read(store.weights_path(cells_there[0], "1"))
    assert one.origin["epoch"] == 1 and one.origin["cell"] == cells_there[0]
    done = cli("sweep", "dense.yaml", "--keep-weights", "0,1,last")
    assert "to train" not in done.stdout


@pytest.mark.parametrize("kept_before", [False, True])
@pytest.mark.parametrize("within_an_epoch", [False, True])
def test_a_checkpoint_past_an_epoch_that_is_to_be_kept(
    cli, tmp_path, monkeypatch, kept_before, within_an_epoch
):
    """Training starts again where the networks of that epoch are not there, and only there."""
    monkeypatch.setattr(tasks, "CHECKPOINT_SECONDS", 0.0)
    if within_an_epoch:
        monkeypatch.setattr(pace, "PAUSE_SECONDS", 0.0)
        monkeypatch.setattr(pace, "FIRST_STEPS", 1)
        save = Store.save_checkpoint

        def save_before_the_second_epoch_ends(self, key, content):
            population = serialization.msgpack_restore(content)["population"]
            if population["epoch"] < 2 and population["step"] < 3:
                save(self, key, content)

        monkeypatch.setattr(Store, "save_checkpoint", save_before_the_second_epoch_ends)
    (tmp_path / "dense.yaml").write_text(DENSE)
    drop, store = Store.drop_checkpoint, Store(tmp_path / "results" / "dense")
    monkeypatch.setattr(Store, "drop_checkpoint", lambda self, key: None)
    assert cli("sweep", "dense.yaml", "--keep-weights", "0,1,last").returncode == 0
    monkeypatch.setattr(Store, "drop_checkpoint", drop)
    expected = {cell: saved.read(store.weights_path(cell, "1")) for cell in store_cells(store)}
    store.sealed_path(CELLS).unlink()
    if not kept_before:
        for cell in expected:
            store.weights_path(cell, "1").unlink()
    done = cli("sweep", "dense.yaml", "--keep-weights", "0,1,last")
    assert done.returncode == 0, done.stderr
    assert ("it is past epoch 1" in done.stdout) == (not kept_before)
    for cell, before in expected.items():
        now = saved.read(store.weights_path(cell, "1"))
        np.testing.assert_array_equal(now.network.params, before.network.params)


def store_cells(store: Store) -> list[str]:
    return store.ids()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "dense.yaml", "--keep-weights", "9"], "nearest valid: last instead of 9"),
        (["sweep", "dense.yaml", "--keep-weights=first"], "'first' is no epoch"),
        (["sweep", "dense.yaml", "--keep-weights", "0,one"], "'one' is no epoch"),
        (["measure", "results/dense", "--readings", "hidden"], "no network was kept"),
        (["measure", "results/nowhere", "--readings", "hidden"], "no run here"),
    ],
)
def test_mistakes_are_one_message(cli, tmp_path, arguments, message):
    (tmp_path / "dense.yaml").write_text(DENSE)
    if arguments[0] == "measure":
        assert cli("sweep", "dense.yaml").returncode == 0
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_measuring_names_what_it_cannot_read(cli, tmp_path):
    (tmp_path / "dense.yaml").write_text(DENSE)
    assert cli("sweep", "dense.yaml", "--keep-weights").returncode == 0
    for given, message in (
        ("pooled", "neither pooled features"),
        ("hiden", "did you mean 'hidden'?"),
        ("none", "name at least one"),
    ):
        done = cli("measure", "results/dense", "--readings", given)
        assert done.returncode == 2 and message in done.stderr
    store = Store(tmp_path / "results" / "dense")
    first, second = (store.weights_path(cell) for cell in store_cells(store))
    shutil.copy(first, second)  # a network of another cell
    done = cli("measure", "results/dense", "--readings", "hidden")
    assert done.returncode == 2 and f"{second.name}: not this network" in done.stderr
    second.write_bytes(first.read_bytes()[:-50])
    done = cli("measure", "results/dense", "--readings", "hidden")
    assert done.returncode == 2 and second.name in done.stderr
    second.unlink()  # the other one is measured
    done = cli("measure", "results/dense", "--readings", "hidden")
    assert done.returncode == 0 and len(store.records(MEASURED)) == 1
    (record,) = store.records(MEASURED)
    assert record.id == first.stem
    assert record.history.readings.keys() == {"hidden"}


def test_a_network_that_ended_early_or_diverged_is_measured(cli, tmp_path):
    """The last epoch is the one that the file says; what is not finite has no entropy."""
    (tmp_path / "deep.yaml").write_text(
        "data: {name: spirals}\nmodel: {width: 2, depth: 40}\nprobe: {samples: 300}\n"
        "training: {epochs: 9, stop_conflicting: entropy, conflict_checks: 3}\n"
    )
    assert cli("sweep", "deep.yaml", "--keep-weights", "0,last").returncode == 0
    store = Store(tmp_path / "results" / "deep")
    (cell,) = store_cells(store)
    ended = store.record(cell).epochs_trained
    assert ended < 9  # it conflicts
    first = saved.read(store.weights_path(cell, "0"))
    params = np.full_like(first.network.params, np.nan)
    diverged = first._replace(network=first.network._replace(params=params))
    store.weights_path(cell, "0").write_bytes(saved.encode(diverged))
    done = cli("measure", "results/deep", "--readings", "hidden")
    assert done.returncode == 0, done.stderr
    (record,) = store.records(MEASURED)
    assert record.epochs_trained == [0, ended]
    assert record.history.entropy[0] == [None] * 40 != record.history.entropy[1]


def test_the_settings_of_every_word_are_known():
    assert set(readings.PAPER_WORDS) < set(readings.SETTING_OF)
