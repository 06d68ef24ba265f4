"""Profiles of `make reproduce`, and the report, as real processes."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from cbundles.commands import reproduce
from cbundles.errors import InputError


@pytest.mark.parametrize("path", sorted((ROOT / "configs/reproduce").glob("*.yaml")),
                         ids=lambda p: p.stem)  # fmt: skip
def test_profiles_that_are_shipped_are_valid(path):
    profile = reproduce.Profile.of_file(path)
    assert profile.steps and len({step.folder for step in profile.steps}) == len(profile.steps)


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
        reproduce.Profile.of_file(path)


PROFILE = """
results: results
steps:
  - toy: {}
  - sweep: {config: grid.yaml, set: [training.epochs=2]}
  - sweep: {config: missing.yaml}
"""


def test_reproduce_and_report(cli, tmp_path):
    """Steps run and are not repeated; one without data is left out and named; the report is built
    from records, and again the same after its figures were deleted."""
    (tmp_path / "results/toy").mkdir(parents=True)
    shutil.copy(ROOT / "results/toy/records.jsonl", tmp_path / "results/toy")
    grid = "model: {width: [4, 8], depth: [2, 4]}\ndata: {name: spirals}\n"
    (tmp_path / "grid.yaml").write_text(grid + "probe: {samples: 64}\n")
    missing = "data: {name: 'folder:nowhere'}\nmodel: {width: 4, depth: 2}\n"
    (tmp_path / "missing.yaml").write_text(missing)
    (tmp_path / "p.yaml").write_text(PROFILE)
    partly = cli("reproduce", "p.yaml")
    assert partly.returncode == 2, partly.stdout + partly.stderr
    assert "nowhere" in partly.stdout and "C1" in partly.stdout
    assert "step 2 of 3" in partly.stdout and "[4/4]" in partly.stdout
    results = tmp_path / "results"
    page = (results / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 + 4
    assert not re.search(r"(src|href)='?https?:", page)
    assert "C1" in page and "not run" in page and "Table 1" in page
    assert (results / "claims.csv").is_file() and (results / "claims.tex").is_file()

    (tmp_path / "p.yaml").write_text(PROFILE.rsplit("\n", 2)[0])  # without the missing one
    plan = cli("reproduce", "p.yaml", "--plan")
    assert plan.stdout.count("finished") == 2

    def digests():
        files = [*results.rglob("figures/*"), *results.glob("*.*")]
        return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    before = digests()
    for folder in results.glob("*/figures"):
        shutil.rmtree(folder)
    assert cli("report").returncode == 0
    assert digests() == before


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
