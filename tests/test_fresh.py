"""`--fresh`: nothing is lost before there is something in its place."""

from __future__ import annotations

import json
import shutil

import msgspec
import pytest
from conftest import ROOT
from records import changed

from cbundles import replacing
from cbundles.executor import local
from cbundles.experiments import toy
from cbundles.store import CELLS, Store

GRID = """
data: {name: spirals}
model: {width: 4, depth: [2, 3]}
training: {epochs: 2}
probe: {samples: 64}
"""
APART = {"logs", ".lock"}


@pytest.fixture
def finished(cli, tmp_path):
    """A folder with a finished run, of which the networks are kept."""
    (tmp_path / "grid.yaml").write_text(GRID)
    done = cli("sweep", "grid.yaml", "--keep-weights", "0,last")
    assert done.returncode == 0, done.stderr
    return tmp_path / "results/grid"


def contents(folder):
    """Of everything that belongs to a run."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not APART & set(path.relative_to(folder).parts)
    }


def test_a_plan_of_a_fresh_run_counts_nothing_as_finished(cli, finished):
    before = contents(finished)
    plan = json.loads(cli("sweep", "grid.yaml", "--plan", "--json", "--fresh").stdout)
    assert not any(cell["finished"] for cell in plan["cells"])
    assert plan["total"]["seconds"] > 0
    text = cli("sweep", "grid.yaml", "--plan", "--fresh").stdout
    assert "--fresh replaces 2 finished networks in results/grid, last written 20" in text
    assert "0 finished already" in text
    assert "2 finished already" in cli("sweep", "grid.yaml", "--plan").stdout
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "gpu"], "no GPU that JAX can use"),
        (["--keep-weights", "5"], "nearest valid"),
        (["--set", "training.batch_size=500"], "nearest valid: 450"),
        (["--set", "data.name=folder:nowhere"], "is not a folder"),
    ],
)
def test_what_cannot_be_run_replaces_nothing(cli, finished, arguments, message):
    before = contents(finished)
    refused = cli("sweep", "grid.yaml", "--fresh", *arguments)
    assert refused.returncode == 2 and message in refused.stderr
    assert contents(finished) == before


def test_without_room_nothing_is_replaced(cli, finished, monkeypatch):
    before = contents(finished)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 9, 10))
    refused = cli("sweep", "grid.yaml", "--fresh")
    assert refused.returncode == 2 and "make room" in refused.stderr
    assert contents(finished) == before


def test_a_fresh_run_says_what_it_replaces_and_leaves_nothing_behind(cli, finished):
    old = Store(finished).records(CELLS)
    done = cli("sweep", "grid.yaml", "--fresh")
    assert done.returncode == 0, done.stderr
    assert "--fresh replaces 2 finished networks in results/grid" in done.stdout
    new = Store(finished).records(CELLS)
    assert [record.id for record in new] == [record.id for record in old]
    assert all(a.seconds != b.seconds for a, b in zip(old, new, strict=True))
    assert not (finished / "weights").exists() or not list((finished / "weights").iterdir())
    assert not [path for path in finished.iterdir() if "before-fresh" in path.name]


def test_records_of_another_grid_stay(cli, finished):
    done = cli("sweep", "grid.yaml", "--set", "model.depth=2", "--fresh")
    assert done.returncode == 0 and "replaces 1 finished network in" in done.stdout
    assert len(Store(finished).ids(CELLS)) == 2


@pytest.mark.parametrize("end", [KeyboardInterrupt, None])
def test_a_fresh_run_that_finishes_nothing_changes_nothing(cli, finished, monkeypatch, end):
    """Interrupted, or every network failed; even when networks were kept on the way."""
    before = contents(finished)

    def run_jobs(jobs, folder, **_):
        Store(folder).weights_path(jobs[0].cells[0].id, "0").parent.mkdir(exist_ok=True)
        Store(folder).weights_path(jobs[0].cells[0].id, "0").write_bytes(b"of another version")
        Store(folder).save_checkpoint("new", b"half a training")
        assert not Store(folder).ids(CELLS)
        if end is not None:
            raise end
        for job in jobs:
            yield {"event": "failed", "population": job.key, "reason": "no", "log": "none"}

    monkeypatch.setattr(local, "run_jobs", run_jobs)
    done = cli("sweep", "grid.yaml", "--fresh")
    assert done.returncode == (130 if end else 1)
    assert "the earlier run is as it was" in done.stdout
    assert contents(finished) == before


def killed(folder, *, after):
    """A run as it is when it was killed: set aside and forgotten, and with its first record."""
    store = Store(folder)
    records = store.records(CELLS)
    store.replace([record.id for record in records])
    if after == "a record":
        store.finish(changed(records[0], seconds=[9.0, 9.0, 9.0]))
    return records


@pytest.mark.parametrize(
    "command",
    [
        ("sweep", "grid.yaml"),
        ("sweep", "grid.yaml", "--plan"),
        ("measure", "results/grid", "--readings", "hidden", "--plan"),
        ("report",),
    ],
)
def test_whoever_comes_next_finds_the_earlier_run(cli, finished, command):
    old = killed(finished, after="nothing")
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    assert "[1/" not in done.stdout
    assert Store(finished).records(CELLS) == old
    assert len(list((finished / "weights").iterdir())) == 4


def test_what_somebody_keeps_in_the_folder_stays(finished):
    killed(finished, after="nothing")
    notes, numbers = finished / "notes.md", finished / "mine" / "data.csv"
    numbers.parent.mkdir()
    for path in (notes, numbers, finished / "figures" / "mine.png"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    Store(finished).save_checkpoint("new", b"half a training")
    Store(finished).recover()
    assert notes.read_text() == numbers.read_text() == "mine"
    assert (finished / "figures" / "mine.png").exists()
    assert not list((finished / "checkpoints").glob("new*"))


def test_after_the_first_record_the_rest_is_made_anew(cli, finished):
    old = killed(finished, after="a record")
    plan = cli("sweep", "grid.yaml", "--plan")
    assert "1 finished already" in plan.stdout
    assert not (finished / replacing.ASIDE).exists()
    done = cli("sweep", "grid.yaml")
    assert "finished already: 1" in done.stdout and "[1/1]" in done.stdout
    new = {record.id: record for record in Store(finished).records(CELLS)}
    assert new[old[0].id].seconds == [9.0, 9.0, 9.0]


@pytest.mark.parametrize("step", ["gathering", "putting back", "leaving"])
def test_putting_back_can_be_killed_too(finished, monkeypatch, step):
    before = contents(finished)
    if step == "gathering":
        shutil.copytree(finished, finished / replacing.GATHERING)
        (finished / replacing.GATHERING / "run.json").unlink()
    else:
        killed(finished, after="nothing")
    if step == "putting back":
        link, count = replacing._link, iter(range(3))

        def link_and_die(source, target):
            if next(count, None) is None:
                raise KeyboardInterrupt
            link(source, target)

        monkeypatch.setattr(replacing, "_link", link_and_die)
        with pytest.raises(KeyboardInterrupt):
            Store(finished).settle()
        monkeypatch.setattr(replacing, "_link", link)
    elif step == "leaving":
        replacing._put_back(finished, lambda place: True)
        (finished / replacing.ASIDE).rename(finished / replacing.LEAVING)
        (finished / replacing.LEAVING / "run.json").unlink()
    Store(finished).settle()
    assert contents(finished) == before


def test_a_file_system_without_links_gets_copies(cli, finished, monkeypatch):
    def no_links(source, target):
        raise PermissionError

    monkeypatch.setattr("os.link", no_links)
    before = contents(finished)
    killed(finished, after="nothing")
    Store(finished).recover()
    assert contents(finished) == before


def test_a_fresh_toy_keeps_what_it_has_trained(cli, tmp_path, monkeypatch):
    run = Store(tmp_path / "mine")
    shutil.copytree(ROOT / "results/toy", run.folder)
    description = json.loads((run.folder / "run.json").read_text())
    del description["published"]
    run.write_run(description)
    before = {record.id: record for record in run.records(CELLS)}
    names = iter(list(before))

    def anew(*_, **__):
        record = before[next(names)]
        return msgspec.structs.replace(
            record, origin=msgspec.structs.replace(record.origin, processor="another one")
        )

    monkeypatch.setattr(toy, "train_toy", anew)
    monkeypatch.setattr(toy, "plain", anew)
    done = cli("toy", "--fresh", "--out", "mine")
    assert done.returncode == 0, done.stderr
    after = Store(run.folder).records(CELLS)
    assert len(after) == len(before)
    assert {record.origin.processor for record in after} == {"another one"}


def test_a_fresh_toy_and_a_fresh_tuning_are_kept_until_the_first_record(cli, tmp_path):
    refused = cli("toy", "--fresh", "--device", "gpu")
    assert refused.returncode == 2 and "no GPU" in refused.stderr
    tuning = (
        "autotune", "--dataset", "mnist_mini", "--blocks", "1,1,0,0", "--seeds", "1",
        "--set", "model.base_filters=2", "--set", "training.epochs=1", "--set", "probe.samples=64",
    )  # fmt: skip
    assert cli(*tuning).returncode == 0
    folder = tmp_path / "results/autotune_mnist_mini"
    before = contents(folder)
    refused = cli(*tuning, "--fresh", "--device", "gpu")
    assert refused.returncode == 2 and contents(folder) == before
    plan = cli(*tuning, "--fresh", "--plan")
    assert "--fresh replaces" in plan.stdout
    done = cli(*tuning, "--fresh")
    assert done.returncode == 0 and "recorded:" not in done.stdout


@pytest.mark.faults
@pytest.mark.slow
def test_killed_for_real_before_and_after_the_first_record(process, frozen, cli, finished):
    before = contents(finished)
    fresh = ("sweep", "grid.yaml", "--fresh", "--workers", "1", "--set", "training.epochs=2")
    with frozen(*fresh, at="results/grid/checkpoints/*"):
        pass
    assert (finished / replacing.ASIDE).is_dir() and not list(finished.glob("cells/*"))
    again = process("sweep", "grid.yaml")
    assert again.returncode == 0 and "to train" not in again.stdout
    old = {name: content for name, content in before.items() if name != "run.json"}
    assert {name: contents(finished)[name] for name in old if "figures" not in name} == {
        name: content for name, content in old.items() if "figures" not in name
    }
    with frozen(*fresh, at="results/grid/cells/*.json"):
        pass
    again = process("sweep", "grid.yaml")
    assert again.returncode == 0 and "finished already: 1" in again.stdout
    assert not (finished / replacing.ASIDE).exists()


def test_checkpoints_of_other_networks_stay(cli, finished):
    """Those of a grid that shares the folder, and half of which is trained."""
    store = Store(finished)
    of_this = store.ids(CELLS)[0]
    for key in (f"{of_this}-images", f"{of_this}-lesion-images", "other-images"):
        store.save_checkpoint(key, b"half a training")
    assert cli("sweep", "grid.yaml", "--fresh").returncode == 0
    assert [key for key, _ in store.checkpoints()] == ["other-images"]
