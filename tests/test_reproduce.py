"""Profiles of `make reproduce`, and the report, as real processes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from records import record

from cbundles.commands import profiles
from cbundles.errors import InputError
from cbundles.report import comparison
from cbundles.report.claims.finding import Finding, trial_of
from cbundles.store import Store


@pytest.mark.parametrize("path", sorted((ROOT / "configs/reproduce").glob("*.yaml")),
                         ids=lambda p: p.stem)  # fmt: skip
def test_profiles_that_are_shipped_are_valid(path):
    profile = profiles.Profile.of_file(path)
    assert profile.steps and len(profile.run_names) == len(profile.steps)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "must be a mapping"),
        ("results: r", "steps is missing"),
        ("resluts: r\nsteps: []", "results"),
        ("results: r\nsteps: [{toi: {}}]", "toy"),
        ("results: r\nsteps: [toy]", "step 1"),
        ("results: r\nsteps: [{sweep: {}}]", "config is missing"),
        ("results: r\nsteps: [{sweep: {confg: a}}]", "config"),
        ("results: r\nsteps: [{autotune: {dataset: mnist, seeds: many}}]", "must be a int"),
        ("results: r\nsteps: [{autotune: {dataset: mnits}}]", "mnist"),
        ("results: r\nsteps: [{sweep: {config: nowhere.yaml}}]", "nowhere.yaml"),
        ("results: r\nsteps: [{lesion: {}}]", "needs config, or dataset"),
        ("results: r\nsteps: [{lesion: {dataset: mnist, config: a.yaml}}]", "needs config"),
        ("results: r\nsteps: [{lesion: {dataset: mnist, every: few}}]", "must be a int"),
        ("results: r\nsteps: [{lesion: {dataset: mnist, every: 0}}]", "must be at least 1"),
        ("results: r\nsteps: [{lesion: {config: a.yaml, depth: 50}}]", "no effect with config"),
        ("results: [", "p.yaml"),
        ('results: "\\ud800"\nsteps: []', "without control characters"),
        ("results: 2026-13-45\nsteps: []", "p.yaml"),
        ("results: r\nsteps: [{toy: {}}, {toy: {}}]", "earlier step"),
    ],
)
def test_mistakes_in_a_profile(tmp_path, content, said):
    path = tmp_path / "p.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=re.escape(said)):
        profiles.Profile.of_file(path)


PROFILE = """
results: results
steps:
  - toy: {}
  - sweep: {config: ../../grid.yaml, set: [training.epochs=2]}
  - sweep: {config: ../../missing.yaml}
"""
GRID = "model: {width: [4, 8], depth: [2, 4]}\ndata: {name: spirals}\nprobe: {samples: 64}\n"


@pytest.fixture
def repository(tmp_path):
    """A folder with a profile, and the toy that is published."""
    profiles = tmp_path / "configs/reproduce"
    profiles.mkdir(parents=True)
    (profiles / "p.yaml").write_text(PROFILE)
    (tmp_path / "grid.yaml").write_text(GRID)
    missing = "data: {name: 'folder:nowhere'}\nmodel: {width: 4, depth: 2}\n"
    (tmp_path / "missing.yaml").write_text(missing)
    for folder in ("results/toy", "reproduction/toy"):  # as if it had been trained already
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(ROOT / "results/toy/records.jsonl.gz", tmp_path / folder)
    shutil.copy(ROOT / "results/toy/run.json", tmp_path / "results/toy")
    return tmp_path


def digests_under(*folders):
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_reproduce_compare_and_report(cli, repository):
    """Steps run beside what is published, and are not repeated; one without data is left out and
    named; the report is built from records, and again the same after its figures were deleted."""
    published = digests_under(repository / "results")
    partly = cli("reproduce", "p")
    assert partly.returncode == 2, partly.stdout + partly.stderr
    assert "nowhere" in partly.stdout and "C1" in partly.stdout
    assert "step 2 of 3" in partly.stdout and "[4/4]" in partly.stdout
    assert digests_under(repository / "results") == published
    own = repository / "reproduction"
    page = (own / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 + 4
    assert not re.search(r"(src|href)='?https?:", page)
    assert "C1" in page and "not run" in page and "Table 1" in page
    assert (own / "claims.csv").is_file() and (own / "claims.tex").is_file()
    compared = rows_of(own / "comparison.csv")
    assert [row["id"] for row in compared] == ["C1", "C2", "C3", "C4", "C5"]
    assert {row["comparison"] for row in compared} == {"same verdict"}
    assert all(row["published"] == row["yours"] for row in compared)
    assert "left out, since these runs do not reach them: 15 claims" in partly.stdout

    profile = repository / "configs/reproduce/p.yaml"
    profile.write_text(PROFILE.rsplit("\n", 2)[0])  # without the missing one
    plan = cli("reproduce", "p", "--plan")
    assert plan.stdout.count("finished") == 2 and "reproduction/grid" in plan.stdout

    views = digests_under(own)
    for folder in own.glob("*/figures"):
        shutil.rmtree(folder)
    assert cli("report", "reproduction").returncode == 0
    assert digests_under(own) == views


def test_whoever_publishes_writes_to_the_published_runs(cli, repository):
    profile = repository / "configs/reproduce/p.yaml"
    profile.write_text(PROFILE.rsplit("\n", 2)[0])
    done = cli("reproduce", "p", "--publish")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "comparison" not in done.stdout
    for name in ("toy", "grid"):
        run = json.loads((repository / f"results/{name}/run.json").read_text())
        assert run["published"] is True
    assert not (repository / "reproduction/grid").exists()


def test_another_scale_is_no_contradiction():
    def said(published, own, same_grids=()):
        return comparison._how_they_compare(own, published, same_grids)

    def finding(reproduced, scale, run="a"):
        return Finding(scale, "a number", reproduced, (run,), (), trial_of([reproduced], "seed"))

    assert said(finding(True, "large"), finding(True, "large")) == "same verdict"
    assert said(finding(True, "large", run="b"), finding(False, "large")) == "another verdict"
    other = said(finding(True, "large"), finding(False, "small"))
    assert other == "not comparable, the scales differ: published large; yours small"
    # Of one grid the criterion may pick 20 networks here and 21 there.
    assert said(finding(True, "20"), finding(True, "21"), {"a"}) == "same verdict"
    assert said(finding(True, "20", "b"), finding(True, "21"), {"a"}).startswith("not comparable")
    assert said(None, finding(True, "small")) == "not published"


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_claims_are_judged_on_published_runs_and_own_ones_stand_apart(cli, repository):
    """A user's grid is large enough for claims about grids: they are not the paper's."""
    assert cli("report").returncode == 0
    before = digests_under(repository / "results")
    grid = [
        record(depth, width, seed, first=width if depth > width else None, accuracy=1 / depth)
        for depth in (5, 25, 50)
        for width in (4, 10, 20)
        for seed in range(3)
    ]
    own = Store(repository / "results/mine")
    for made in grid:
        own.finish(made)
    cells = [made.id for made in grid]
    own.write_run({"name": "mine", "kind": "sweep", "cells": cells, "data": {}})
    assert cli("report").returncode == 0
    page = "results/report.html"
    changed = {
        path
        for path, digest in digests_under(repository / "results").items()
        if "results/mine" not in path and before.get(path) != digest
    }
    assert changed == {str(repository / page)}
    _, yours = (repository / page).read_text().split("<h2 id=own>")
    yours, _ = yours.split("<h2 id=runs>")
    assert "mine" in yours and "C11" in yours and "fig1_accuracy_map" in yours
    assert "fig2_toy" not in yours


def test_what_is_published_and_no_profile_names_is_shown_and_not_judged(cli, repository):
    (repository / "configs/reproduce/p.yaml").write_text("results: results\nsteps: []\n")
    done = cli("report")
    assert done.returncode == 0 and "20 not run" in done.stdout
    claims = [json.loads(line) for line in cli("report", "--json").stdout.splitlines()]
    assert [claim["verdict"] for claim in claims] == ["not run"] * 29
    assert "fig2_toy" in (repository / "results/report.html").read_text()


@pytest.mark.parametrize("damage", ["a record", "a sealed line", "a header", "run.json"])
def test_what_is_damaged_is_named_and_left_out(cli, repository, damage):
    own = Store(repository / "results/mine")
    made = [record(4, 10), record(4, 20)]
    for one in made:
        own.finish(one)
    cells = [one.id for one in made]
    own.write_run({"name": "mine", "kind": "sweep", "cells": cells, "data": {}})
    place = own.folder / "records.jsonl"
    if damage == "a record":
        place = own.record_path(cells[0])
        place.write_text("{")
    elif damage == "run.json":
        place = own.folder / "run.json"
        place.write_text("{")
    else:
        own.seal()
        lines = place.read_text().splitlines()
        lines[0 if damage == "a header" else 1] = "{"
        place.write_text("\n".join(lines))
    done = cli("report")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("left out: ")]
    assert str(place.relative_to(repository)) in line and "damaged" in line
    assert "C1" in (repository / "results/claims.md").read_text()
    if damage in ("a record", "a sealed line"):
        assert "mine: 1 not finished" in done.stdout


def test_report_needs_records(cli, tmp_path):
    (tmp_path / "results").mkdir()
    empty = cli("report")
    assert empty.returncode == 2 and "no run with records" in empty.stderr
    (tmp_path / "results/x").mkdir()
    for content in ("{", "{}", '{"cells": 3}', "[]", '{"cells": [], "kind": "sweeep"}'):
        (tmp_path / "results/x/run.json").write_text(content)
        damaged = cli("report")
        assert damaged.returncode == 2 and "run.json" in damaged.stderr
        assert "Traceback" not in damaged.stderr


def test_the_report_does_without_jax():
    code = "import sys; from cbundles.commands import report; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
