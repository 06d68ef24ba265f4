"""Which folder a command writes to: published runs stay as they are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from cbundles.commands.places import reproduction_of
from cbundles.store import CELLS, Store

GRID = "data: {name: spirals}\nmodel: {width: 4, depth: 2}\ntraining: {epochs: 1}\n"


@pytest.fixture
def published(cli, tmp_path):
    """A folder of which the run of `grid.yaml` is published."""
    (tmp_path / "grid.yaml").write_text(GRID + "probe: {samples: 64}\n")
    done = cli("sweep", "grid.yaml", "--publish")
    assert done.returncode == 0, done.stderr
    return tmp_path


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_whoever_publishes_marks_the_run(published):
    run = json.loads((published / "results/grid/run.json").read_text())
    assert run["published"] is True and Store(published / "results/grid").is_published


def test_a_published_run_is_made_again_beside_it(cli, published):
    before = contents(published / "results")
    done = cli("sweep", "grid.yaml")
    assert done.returncode == 0 and "[1/1]" in done.stdout  # trained, not taken over
    assert (
        "results/grid holds the published run; this one goes to reproduction/grid; --publish "
        "adds to it" in done.stdout
    )
    assert contents(published / "results") == before
    own = published / "reproduction/grid"
    assert len(Store(own).records(CELLS)) == 1
    assert "published" not in json.loads((own / "run.json").read_text())
    as_data = cli("sweep", "grid.yaml", "--json")
    assert "goes to reproduction/grid" in as_data.stderr
    assert json.loads(as_data.stdout)["folder"] == "reproduction/grid"
    plan = cli("sweep", "grid.yaml", "--plan")
    assert "1 finished already" in plan.stdout and "reproduction/grid" in plan.stdout


def test_only_who_publishes_adds_to_a_published_run(cli, published):
    before = contents(published / "results")
    for command in (
        ("sweep", "grid.yaml", "--out", "results/grid"),
        ("sweep", "grid.yaml", "--out", str(published / "results/grid"), "--plan"),
        ("toy", "--out", "results/grid"),
    ):
        refused = cli(*command)
        assert refused.returncode == 2 and "--publish" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    assert contents(published / "results") == before
    more = cli("sweep", "grid.yaml", "--set", "training.seed=[0, 1]", "--publish")
    assert more.returncode == 0 and "finished already: 1" in more.stdout


def test_studies_of_a_published_run_are_refused(cli, tmp_path):
    grid = "data: {name: mnist_mini}\nmodel: {family: resnet, depth: 4, base_filters: 2}\n"
    (tmp_path / "nets.yaml").write_text(f"{grid}training: {{epochs: 1}}\nprobe: {{samples: 64}}\n")
    assert cli("sweep", "nets.yaml", "--keep-weights", "--publish").returncode == 0
    before = contents(tmp_path / "results")
    for command in (("lesion",), ("prune",), ("measure", "--readings", "pooled")):
        refused = cli(*command, "results/nets")
        assert refused.returncode == 2 and "holds a published run" in refused.stderr
    assert contents(tmp_path / "results") == before


def test_own_runs_go_to_results(cli, tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID + "probe: {samples: 64}\n")
    done = cli("sweep", "grid.yaml")
    assert done.returncode == 0 and "reproduction" not in done.stdout
    assert not Store(tmp_path / "results/grid").is_published


def test_what_stands_for_a_folder_of_results():
    assert reproduction_of(Path("results")) == Path("reproduction")
    assert reproduction_of(Path("results/smoke")) == Path("reproduction/smoke")
    assert reproduction_of(Path("mine/smoke")) == Path("mine/smoke")


def test_every_run_of_the_repository_is_published_and_others_are_ignored():
    def git(*arguments):
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    listed = git("ls-files", "results/*/run.json")
    if listed.returncode:
        pytest.skip("skipped: not a git repository")
    paths = [ROOT / line for line in listed.stdout.splitlines()]
    assert len(paths) >= 15
    assert [path for path in paths if not Store(path.parent).is_published] == []
    for path in ("results/quickstart/run.json", "reproduction/toy/run.json", "results/report.html"):
        assert git("check-ignore", path).returncode == 0, path
