"""Sweeps of a user's architecture: `model.build`."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import own_architectures
import pytest
from conftest import ROOT
from records import record, with_settings

import cbundles
from cbundles import config, data, user_functions
from cbundles.chance import PROBE_SET, generator
from cbundles.commands import status
from cbundles.config import Probe
from cbundles.data import device
from cbundles.data.dataset import Facts
from cbundles.errors import InputError
from cbundles.experiments import sweep
from cbundles.networks import network, own, saved
from cbundles.networks.shape import shape_of
from cbundles.records import Origin
from cbundles.report import runs, select
from cbundles.user_functions import source_digest

FACTS = Facts(10_000, 2_000, (28, 28, 1), 10)
TRAINING = {"epochs": 1, "batch_size": 512}
SAMPLES = 128
LINE = r"\(.*own_architectures\.py:\d+\)"


def grid(build, *, training=TRAINING, probe=(), **keywords):
    """Settings as a file has them."""
    return {
        "model": {"build": f"own_architectures:{build}", **keywords},
        "training": dict(training),
        "probe": {"samples": SAMPLES, **dict(probe)},
    }


def cells_of(*names, **settings):
    return config.build(grid(*names, **settings), default_name="own").cells


def write(content, path=Path("own.yaml")):
    path.write_text(json.dumps(content))  # JSON is YAML
    return str(path)


def shape(build, **keywords):
    (cell,) = cells_of(build, **keywords)
    return shape_of(cell.model, FACTS)


def test_a_sweep_of_two_keywords_is_trained_tabled_resumed_and_read_again(cli):
    half = write(grid("mlp", depth=2, activation=["relu", "tanh"]))
    done = cli("sweep", half, "--out", "run", "--keep-weights")
    assert done.returncode == 0, done.stderr
    whole = write(grid("mlp", depth=[2, 3], activation=["relu", "tanh"]))
    plan = json.loads(cli("sweep", whole, "--out", "run", "--plan", "--json").stdout)
    assert [one["finished"] for one in plan["cells"]].count(True) == 2
    done = cli("sweep", whole, "--out", "run", "--keep-weights")
    assert done.returncode == 0 and "finished already: 2" in done.stdout

    records = runs.read(Path("run")).records
    assert [len(record.layers) for record in records] == [2, 2, 3, 3]
    assert {record.family for record in records} == {"own"}
    with Path("run/table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["build.depth"], row["build.activation"], row["width"]) for row in rows] == [
        ("2", "relu", "8"), ("2", "tanh", "8"), ("3", "relu", "8"), ("3", "tanh", "8"),
    ]  # fmt: skip
    source = records[0].cell.model.source
    built = {(row["build"], row["build.source"]) for row in rows}
    assert built == {("own_architectures:mlp", source)}
    assert {row[key] for row in rows for key in ("block", "normalisation", "gain")} == {""}
    with Path("run/layers.csv").open() as file:
        layers = list(csv.DictReader(file))
    assert {row["name"] for row in layers} >= set(records[-1].layers)
    assert {row["build.activation"] for row in layers} == {"relu", "tanh"}
    assert "width 8, activation=tanh" in done.stdout
    assert "own_architectures:mlp: the digest of its file" in done.stdout
    described = json.loads(Path("run/run.json").read_text())
    assert described["config"]["model"]["source"] == records[0].cell.model.source

    assert cli("measure", "run", "--samples", "64").returncode == 0
    measured = runs.read(Path("run")).measured
    assert [record.depth for record in measured] == [2, 2, 3, 3]
    again = cli("audit", "run", "--samples", "64", "--json")
    assert again.returncode == 0, again.stderr
    assert len(again.stdout.splitlines()) == 4
    assert cli("report", ".").returncode == 0


def test_a_depth_that_is_not_given_is_what_is_measured(cli):
    file = write(grid("any_depth", depth=[None, 3]))
    done = cli("sweep", file, "--out", "run", "--keep-weights")
    assert done.returncode == 0, done.stderr
    done = cli("measure", "run", "--samples", "64")
    assert done.returncode == 0, done.stderr
    assert "width" not in done.stdout and "build.depth" in done.stdout
    size = ("depth", "width", "build.depth", "build.rate")
    for name in ("table", "layers", "readings", "probe_sizes"):
        with Path(f"run/{name}.csv").open() as file:
            found = {tuple(row[column] for column in size) for row in csv.DictReader(file)}
        assert found == {("2", "", "", "0.5"), ("3", "", "3", "0.5")}, name
    assert cli("report", ".").returncode == 0


@pytest.mark.parametrize("batch_norm", ["running", "batch"])
def test_what_is_measured_is_what_an_audit_of_the_kept_network_says(cli, batch_norm):
    probe = {"batch_norm": batch_norm, "headroom": "last"}
    file = write(grid("normalised", filters=[[4, 6]], probe=probe))
    done = cli("sweep", file, "--out", "run", "--keep-weights")
    assert done.returncode == 0, done.stderr
    (record,) = runs.read(Path("run")).records
    kept = f"run/weights/{record.id}.npz"
    with pytest.raises(InputError, match=r"load\(path, build='own_architectures:normalised'\)"):
        cbundles.load(kept)
    with pytest.raises(InputError, match="not by own_architectures:mlp"):
        cbundles.load(kept, build=own_architectures.mlp)
    with pytest.raises(InputError, match="build, a partial, has no name; give the name of"):
        cbundles.load(kept, build=functools.partial(own_architectures.normalised))
    model, variables = cbundles.load(kept, build=own_architectures.normalised)
    cbundles.load(kept, build="own_architectures:normalised")
    assert np.abs(variables["batch_stats"]["BatchNorm_0"]["mean"]).max() > 1e-3  # it was trained

    digits = data.load("mnist_mini")
    rows = device.probe_rows(Probe(samples=SAMPLES), 10_000, generator(0, PROBE_SET))
    images = np.float32(digits.train_images[rows]) * np.float32(1 / 255)

    def by_batch(model, x):
        return model(x, train=True)

    audit = cbundles.audit(
        model,
        images,
        digits.train_labels[rows],
        params=variables,
        call=by_batch if batch_norm == "batch" else None,
        batch_norm=batch_norm,
        batch_size=512,
        num_classes=10,
    )
    assert [layer.name for layer in audit.layers] == record.layers
    assert len(record.layers) == 2 + 1 + 2 * 3
    assert [len(layer.bundles.sizes) for layer in audit.layers] == record.history.num_bundles[-1]
    for layer, entropy in zip(audit.layers, record.history.entropy[-1], strict=True):
        assert layer.entropy == pytest.approx(entropy, abs=1e-6)
    found = [layer.headroom.bits for layer in audit.layers]
    assert found == record.history.headroom[-1]


def test_training_continues_to_the_same_bits():
    (cell,) = cells_of("normalised", probe={"steps": [7]})
    stored = data.load("mnist_mini")
    placed = device.place(stored, cell.data, cell.probe)
    origin = Origin(platform="", device="", processor="", versions={}, commit=None,
                    data_fingerprint=None)  # fmt: skip
    early, *_, whole = sweep.train([cell], placed, stored.facts)
    (expected,) = sweep.records([cell], whole, origin)
    first, second, *_ = sweep.train([cell], placed, stored.facts)
    del first, early
    *_, continued = sweep.train([cell], placed, stored.facts, second.freeze())
    (found,) = sweep.records([cell], continued, origin)
    assert found.history == expected.history
    assert np.array_equal(continued.population.networks.params, whole.population.networks.params)


@pytest.mark.slow
def test_the_example_is_trained_by_real_workers(process, tmp_path):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    settings = ("model.depth=4", "training.seed=0", "training.epochs=1", "probe.samples=64")
    flags = [flag for setting in settings for flag in ("--set", setting)]
    done = process("sweep", "examples/my_mlp.yaml", *flags, "--out", "run", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "width 32, normalised=True: most networks have no conflicting layer" in done.stdout
    assert (tmp_path / "run" / "table.csv").is_file()

    flags = ("--blocks", "1,2,1", "--seeds", "1", *flags[4:])  # without the settings of a grid
    done = process("autotune", "examples.my_vgg:build", "--dataset", "mnist_mini", *flags)
    assert done.returncode == 0, done.stderr
    assert "trained to the end: [1, 2, 1]" in done.stdout


def test_an_identity_changes_with_the_source(process, tmp_path):
    file = Path(shutil.copy(ROOT / "examples/my_mlp.py", tmp_path / "my_own.py"))
    content = {"model": {"build": "my_own:build", "depth": 2}}
    (tmp_path / "own.yaml").write_text(json.dumps(content))

    def identity():
        plan = process("sweep", "own.yaml", "--plan", "--json")
        assert plan.returncode == 0, plan.stderr
        (cell,) = json.loads(plan.stdout)["cells"]
        return cell["cell"], cell["config"]["model"]["source"]

    before = identity()
    file.write_text(f"# a comment\n\n{file.read_text()}\n# another\n".replace(",\n", ",  # here\n"))
    assert identity() == before
    file.write_text(file.read_text() + "\nANOTHER = 1\n")
    after = identity()
    assert before[0] != after[0] and before[1] != after[1]


def test_a_run_that_is_half_done_is_known_by_what_its_file_said():
    for content in (
        grid("mlp", depth=[2, 3], activation=["relu", "tanh"]),
        grid("staged"),  # whose default is a list
        grid("staged", blocks=[[1, 2, 1], [1, 3, 1]]),
    ):
        experiment = config.build(content, default_name="own")
        assert status.cells_of_run(json.loads(json.dumps(experiment.grid))) == experiment.cells


@pytest.mark.parametrize(
    "other",
    [
        'NAME = """a\n\nb # c\n"""\nPLACE = f"{NAME} # {{}}"\ndef f(\n  x,  # of\n\n  y,\n): ...\n',
        '# -*- coding: utf-8 -*-\nNAME = """a\n\nb # c\n"""\n\n# é\nPLACE = f"{NAME} # {{}}"  # é\n'
        "def f(\n  x,\n  y,\n): ...\n\n\n# end",
    ],
)
def test_a_digest_is_of_what_is_executed(other, tmp_path, monkeypatch):
    """Comments and empty lines outside of texts are not in it, whatever stands in texts is."""
    monkeypatch.setattr(user_functions, "_source_file", lambda path: path)
    text = 'NAME = """a\n\nb # c\n"""\nPLACE = f"{NAME} # {{}}"\ndef f(\n  x,\n  y,\n): ...\n'
    digests = []
    for content in (text, other, text.replace("b # c", "b"), text.replace("a\n\n", "a\n")):
        file = tmp_path / "of_a_user.py"
        file.write_text(content)
        digests.append(user_functions.source_digest(file, "here"))
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_a_network_of_another_source_is_not_built(monkeypatch):
    (cell,) = cells_of("mlp", depth=2)
    old = {**cell.asdict(), "model": {**cell.asdict()["model"], "source": "0123456789ab"}}
    with pytest.raises(InputError, match="no longer the one whose digest is 0123456789ab"):
        shape_of(config.Cell.fromdict(old).model, FACTS)


def test_defaults_that_are_named_make_no_other_network():
    (short,), (long,) = cells_of("mlp", depth=2), cells_of("mlp", depth=2, width=8, classes=10)
    assert short == long and short.id == long.id
    assert short.label == (
        "own_architectures:mlp depth=2 width=8 activation=relu classes=10 seed=0 "
        "batch_size=512 samples=128"
    )


def test_a_default_that_is_a_list_stays_one():
    assert shape("widths_in_a_list").layers == 3
    assert shape("widths_in_a_list", widths=[[4, 5, 6]]).layers == 5


def test_one_and_true_are_two_settings():
    made = [with_keywords({"more": more}) for more in (True, 1, True)]
    found = select.groups(made, ())
    assert [len(group.records) for group in found] == [2, 1]
    assert [list(group.apart.values()) for group in found] == [[True], [1]]


def with_keywords(keywords):
    """A record of a user's network with these."""
    (cell,) = cells_of("mlp", depth=2)
    return with_settings(
        record(2, 8), model={**cell.asdict()["model"], "keywords": json.dumps(keywords)}
    )


def test_sizes_are_those_of_the_same_network_of_ours():
    mine = shape("mlp", depth=5, width=12)
    (ours,) = config.build({"model": {"depth": 5, "width": 12}}, default_name="fc").cells
    same = shape_of(ours.model, FACTS)
    for size in ("parameters", "statistics", "flops", "bytes", "columns", "layers"):
        assert getattr(mine, size) == getattr(same, size), size


def test_a_saved_network_says_which_it_is(tmp_path):
    kept = shape("mlp", depth=2)
    one = saved.Saved(kept, network.initial(kept, 3, kept), {"cell": "x"})
    assert saved.decode(saved.encode(one), "here").shape == kept


def digest_of_file(module):
    return source_digest(module, "here")


@pytest.mark.parametrize(
    ("build", "keywords", "source"),
    [
        ("subprocess:getoutput", {"cmd": "touch executed"}, digest_of_file(subprocess)),
        ("reexporting:getoutput", {"cmd": "touch executed"}, digest_of_file(subprocess)),
        ("optax:sgd", {"learning_rate": 1}, "0123456789ab"),
        ("builtins:open", {"file": "executed", "mode": "w"}, "0123456789ab"),
        ("cbundles.files:write_atomically", {"path": "executed"}, "0123456789ab"),
    ],
)
def test_a_file_cannot_say_what_is_executed(build, keywords, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("reexporting.py").write_text("from subprocess import getoutput")
    named = own.Named(build, source, json.dumps(keywords))
    with pytest.raises(InputError, match=r"not your code under .*; a name that stands in a file"):
        own.architecture_of(named)
    kept = shape("mlp", depth=2)
    evil = dataclasses.replace(kept, **named._asdict())
    numbers = network.initial(kept, 3, kept)
    Path("evil.npz").write_bytes(saved.encode(saved.Saved(evil, numbers, {})))
    with pytest.raises(InputError, match="not imported unless you name it"):
        cbundles.load("evil.npz")
    assert not Path("executed").exists()


def test_what_a_file_names_is_imported_from_here(tmp_path, monkeypatch):
    shutil.copy(own_architectures.__file__, tmp_path / "mine_alone.py")
    monkeypatch.chdir(tmp_path)
    named = own.Named("mine_alone:mlp", digest_of_file(own_architectures), '{"depth": 2}')
    assert own.architecture_of(named).module.depth == 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"dept": 3},
            r"model\.dept = 3: no keyword of own_architectures:mlp; did you mean 'depth'",
        ),
        ({}, r"model\.depth: missing; a keyword of own_architectures:mlp without a default"),
        ({"depth": 0}, r"model\.depth = 0: must be at least 1; nearest valid: 1"),
        ({"depth": [2, 2]}, "an axis must not repeat a value"),
        ({"depth": 2, "activation": {}}, "must be text, a finite number, true, false, null"),
        (
            {"build": "own_architectures:normalised", "filters": [4]},
            "must be a list, as its default",
        ),
        ({"build": "builtins:dict"}, "has no file of Python source"),
        ({"build": "functools:partial"}, "Python cannot tell its keywords; write a function"),
        (
            {"build": "own_architectures:collecting", "depth": 2},
            r"it names none; what stands behind \* or \*\* cannot be a setting",
        ),
        (
            {"build": "own_architectures:by_position", "depth": 2},
            "its depth is given by position alone, so it cannot be a setting; let it be given",
        ),
        ({"depth": 2, "family": "fc"}, "model.build says which network it is; nearest valid: own"),
        ({"depth": 2, "source": "x"}, "no keyword of own_architectures:mlp"),
        ({"build": "own_architectures:mpl"}, "no function mpl: did you mean 'mlp'"),
        ({"build": "no_such_module:mlp"}, r"no module no_such_module, looked for from"),
        ({"build": "mlp"}, r"must be PACKAGE\.MODULE:FUNCTION"),
        ({"build": ["a:b", "c:d"]}, "one function a run"),
        ({"build": "own_architectures:source"}, "its keyword source is a setting of every model"),
        (
            {"build": "own_architectures:sizes_of_another_kind"},
            r"the default of its keyword depth is \(2, 2\): a depth is a whole number; call",
        ),
    ],
)
def test_what_cannot_be_a_grid_is_answered_at_once(model, message):
    content = {"model": {"build": "own_architectures:mlp", **model}}
    with pytest.raises(InputError, match=message):
        config.build(content, default_name="own", file="own.yaml")


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("bn", "no", "'no': must be true or false, as its default is; nearest valid: false"),
        ("bn", ["no", "yes"], "'no': must be true or false"),
        ("bn", "on", "nearest valid: true"),
        ("bn", 1, "nearest valid: true"),
        ("bn", "maybe", "nearest valid: false or true"),
        ("bn", None, "must be true or false"),
        ("heads", "8,12", "'8,12': must be a whole number, as its default is; nearest valid: 4"),
        ("heads", 8.4, "nearest valid: 8"),
        ("heads", True, "must be a whole number"),
        ("rate", "half", "must be a number, as its default is"),
        ("rate", "nan", "must be a finite number"),
        ("rate", False, "must be a finite number, as its default is; nearest valid: 0.5"),
    ],
)
def test_a_keyword_has_the_type_of_its_default(keyword, value, message):
    with pytest.raises(InputError, match=rf"own\.yaml: model\.{keyword} = .*{message}"):
        config.build(grid("typed", **{keyword: value}), default_name="own", file="own.yaml")


def test_keywords_may_be_called_as_ours_are():
    """A hyphen in a block of ours names its activation; in a user's it says nothing."""
    (cell,) = cells_of("named_as_ours", block="plain-gelu", activation="tanh")
    assert cell.model.other_keywords == {"block": "plain-gelu", "activation": "tanh"}
    (cell,) = cells_of("named_as_ours", block=3)
    assert cell.model.other_keywords["block"] == 3


def test_a_whole_number_will_do_for_a_float():
    (cell,) = cells_of("typed", rate=1, bn=True, heads=3)
    assert cell.model.other_keywords == {"bn": True, "heads": 3, "rate": 1.0}


@pytest.mark.parametrize(
    ("build", "keywords", "message"),
    [
        ("nothing", {}, "called with no keyword: returned a dict, not a flax.linen.Module"),
        ("leaving", {}, "called with depth=2: SystemExit: 3"),
        ("raising", {"size": 4}, rf"called with size=4: ValueError: no network of size 4 {LINE}"),
        ("mlp", {"depth": 2, "classes": 7}, r"returns float32\[2,7\] for 2 images; a data set"),
        (
            "mlp",
            {"depth": 2, "activation": "rleu"},
            rf"given images float32.*AttributeError.*rleu.*{LINE}",
        ),
        ("Untold", {}, r"has no keyword train: write __call__\(self, x, train=False\)"),
        ("Dropping", {}, "wants random numbers when it is called, as dropout does"),
        ("Coarse", {}, r"bias is float16, not float32"),
        ("OneMap", {}, "has no layer that can be measured"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_answered_before_anything_is(build, keywords, message):
    with pytest.raises(InputError, match=message):
        shape(build, **keywords)


@pytest.mark.parametrize(
    ("section", "setting", "message"),
    [
        ("probe", {"last": "block"}, "has no effect with model.build"),
        ("probe", {"amplitude": "hidden"}, "has no effect with model.build"),
        ("probe", {"readings": ["block"]}, "model.build does not say what that is"),
        ("probe", {"peers": "on"}, "not of a user's architecture"),
        ("training", {"precision": "float64"}, "only fc is trained in it"),
        ("growth", {"arm": "max"}, "where a layer can come or go, its own function does not say"),
        ("growth", {"every": 3}, "with model.build: where a layer can come or go"),
        ("tuning", {"arm": "both"}, "where a layer can come or go, its own function does not say"),
    ],
)
def test_what_others_have_is_refused_with_the_reason(section, setting, message):
    content = grid("mlp", depth=2)
    content[section] = {**content.get(section, {}), **setting}
    with pytest.raises(InputError, match=message):
        config.build(content, default_name="own")


def test_a_module_that_exits_when_it_is_imported_is_told(cli):
    Path("exiting.py").write_text("raise SystemExit(3)")
    failed = cli("sweep", write({"model": {"build": "exiting:build"}}), "--plan")
    assert failed.returncode == 2 and "'exiting:build': SystemExit: 3 (" in failed.stderr


def test_a_command_says_what_is_wrong_and_leaves(cli):
    file = write(grid("mlp", depth=2, classes=3))
    for arguments in (["--plan"], []):
        failed = cli("sweep", file, "--out", "run", *arguments)
        assert failed.returncode == 2 and "returns float32[2,3]" in failed.stderr
    file = write(grid("mlp", depth=2))
    for command in ("grow", "tune"):
        failed = cli(command, file, "--out", "run")
        assert failed.returncode == 2
        assert "model.build = own_architectures:mlp: where a layer can come or go" in failed.stderr
    failed = cli("lesion", "--config", file, "--out", "run")
    assert failed.returncode == 2 and "model.family = own: only blocks with a skip" in failed.stderr
