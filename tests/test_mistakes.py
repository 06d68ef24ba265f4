"""Mistakes, and machines that are set up oddly, get one clear message and lose nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from processes import is_alive
from rich.console import Console

from cbundles import console
from cbundles.store import CELLS, Store


def folder_of_images(root, each=20):
    chance = np.random.default_rng(0)
    for part in ("train", "test"):
        for number, name in enumerate(("dark", "light")):
            (root / part / name).mkdir(parents=True)
            for image in range(each):
                pixels = chance.integers(100 * number, 100 * number + 100, (6, 6), np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{image}.png")
    return root


def test_networks_of_other_images_are_told_before_they_are_replaced(cli, tmp_path):
    root = folder_of_images(tmp_path / "mine")
    (tmp_path / "grid.yaml").write_text(
        f"data: {{name: 'folder:{root}'}}\nmodel: {{family: fc, depth: 2, width: [4, 5]}}\n"
        "training: {epochs: 1, batch_size: 8}\nprobe: {samples: 20}\n"
    )
    assert "other images" not in cli("sweep", "grid.yaml").stdout
    before = Store(tmp_path / "results/grid").records(CELLS)
    assert "other images" not in cli("sweep", "grid.yaml").stdout
    Image.fromarray(np.zeros((6, 6), np.uint8)).save(root / "train" / "dark" / "more.png")
    said = cli("sweep", "grid.yaml").stdout
    assert "holds 2 networks trained on other images than those that are there now" in said
    assert Store(tmp_path / "results/grid").records(CELLS) != before


def test_networks_of_one_auto_tuning_differ_in_their_seeds_alone(cli):
    done = cli(
        "autotune", "--dataset", "mnist_mini", "--set", "model.base_filters=[2, 4]", "--plan"
    )
    assert done.returncode == 2
    assert "model.base_filters = 2, 4: networks of one auto-tuning differ in" in done.stderr


def test_a_toy_does_not_write_over_another_run(cli, tmp_path):
    (tmp_path / "grid.yaml").write_text(
        "data: {name: spirals}\nmodel: {family: fc, depth: 2, width: 4}\ntraining: {epochs: 1}\n"
    )
    assert cli("sweep", "grid.yaml", "--out", "run").returncode == 0
    description = (tmp_path / "run" / "run.json").read_text()
    done = cli("toy", "--out", "run")
    assert done.returncode == 2 and "holds a run of kind sweep" in done.stderr
    assert (tmp_path / "run" / "run.json").read_text() == description


@pytest.mark.parametrize("name, value", [("JAX_PLATFORMS", "nonsense"), ("JAX_LOG_COMPILES", "x")])
def test_variables_that_jax_does_not_understand_are_named(process, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    done = process("toy", "--out", "toy")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"'{name}': '{value}'" in done.stderr


def test_a_log_takes_names_that_are_no_text(tmp_path):
    log = tmp_path / "logs" / "progress.log"
    display = console.display_for(Console(quiet=True), 1, as_json=True, log=log)
    display.line("see o\udcffy/worker-0.log, and H\u00b9")
    display.close()
    assert log.read_text(encoding="utf-8").endswith("see o\\udcffy/worker-0.log, and H\u00b9\n")


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_who_draws_figures_ends_with_the_command(tmp_path, end):
    command = [sys.executable, "-m", "cbundles.cli", "report", str(ROOT / "results")]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        start_new_session=True,
    ) as report:  # fmt: skip
        helpers: list[int] = []
        while report.poll() is None and not helpers:
            time.sleep(0.05)
            helpers = children_of(report.pid)
        time.sleep(2)
        helpers = children_of(report.pid)
        os.killpg(report.pid, end) if end == signal.SIGINT else report.kill()
        said = report.communicate(timeout=60)[1]
    deadline = time.monotonic() + 20
    while any(map(is_alive, helpers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert helpers and not any(map(is_alive, helpers))
    assert "Traceback" not in said
    if end == signal.SIGINT:
        assert said == "cbundles: stopped by SIGINT\n"


def children_of(pid: int) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except FileNotFoundError:
        return []
