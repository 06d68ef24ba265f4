"""Every command that a page shows is run: those of a page one after the other in one folder, in
processes of their own. Where a command takes minutes, what it trains is made smaller."""

from __future__ import annotations

import importlib.util
import itertools
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from documented_commands import commands_shown

pytestmark = pytest.mark.slow

SMALL_GRID = """
data: {name: mnist_mini}
model: {family: fc, width: 8, depth: [2, 3]}
training: {epochs: 1}
"""
# What a reader of the page would have written, and what their folder would have.
FILES = {
    "my.yaml": "name: my\n" + SMALL_GRID,
    "my_sweep.yaml": "name: my_sweep\n" + SMALL_GRID,
    "my_resnets.yaml": (
        "name: my_resnets\ndata: {name: mnist_mini}\n"
        "model: {family: resnet, depth: 50, base_filters: 1}\ntraining: {epochs: 1}\n"
    ),
}
BEFORE = {"audit results/my_run": "sweep my.yaml --keep-weights --out results/my_run"}
ONE_NETWORK = "--set training.seed=0 --set training.epochs=1"
SHORT_GROWTH = (
    "--set training.seed=0 --set training.epochs=3 --set growth.arm=max "
    "--set growth.first_epoch=1 --set growth.every=1"
)
SHORT_TUNING = "--set training.seed=0 --set training.epochs=6 --set tuning.arm=both"
# By the beginning of a command: what is added to it, so that it takes seconds.
SMALLER = {
    "sweep quickstart": "--set training.epochs=1 --set model.depth=2",
    "sweep configs/cpu/mnist_fc_signals.yaml": (
        f"{ONE_NETWORK} --set model.width=10 --set model.depth=5"
    ),
    "grow configs/spirals_grow.yaml": f"{SHORT_GROWTH} --set model.block=plain-relu",
    "grow configs/mnist_grow.yaml": SHORT_GROWTH,
    "grow configs/cpu/mnist_vgg_grow.yaml": SHORT_GROWTH,
    "tune configs/tune_mnist_mini.yaml": f"{SHORT_TUNING} --set model.depth=2",
    "tune configs/tune_spirals.yaml": f"{SHORT_TUNING} --set model.depth=2",
    "autotune --dataset mnist_mini": f"{ONE_NETWORK} --blocks 1,1,1,1 --baseline resnet-10",
    "autotune examples.my_vgg:build": "--seeds 1 --set training.epochs=1 --blocks 1,1,1",
    "lesion --config configs/cpu/mnist_resnet_lesion.yaml": (
        f"{ONE_NETWORK} --set model.depth=10 --set model.base_filters=2 --draws 2"
    ),
    "lesion results/my_resnets": "--every 20 --draws 1",
    "sweep my.yaml --executor ray": "--plan",  # tests of Ray run it
}
NEEDS = {
    "prune examples.torch_resnet:build": "torch",
    "sweep quickstart": "tensorboardX",
    "sweep my.yaml --executor ray": "ray",
}
BY_PAGE = [
    pytest.param([shown.line for shown in group], id=page.name)
    for page, group in itertools.groupby(
        (shown for shown in commands_shown() if shown.is_whole), key=lambda shown: shown.page
    )
]


def of_beginning(table, line, otherwise):
    return next((table[start] for start in table if line.startswith(start)), otherwise)


@pytest.mark.parametrize("lines", BY_PAGE)
def test_the_commands_of_a_page_work(lines, tmp_path):
    for folder in ("configs", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    for line in lines:
        library = of_beginning(NEEDS, line, None)
        if library is not None and importlib.util.find_spec(library) is None:
            continue
        for command in (BEFORE.get(line), f"{line} {of_beginning(SMALLER, line, '')}"):
            if command is not None:
                run(command, tmp_path)


def run(command, folder):
    done = subprocess.run(
        [sys.executable, "-m", "cbundles", *shlex.split(command)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"cbundles {command}\n{done.stderr}"


def test_what_is_made_smaller_is_shown():
    lines = [shown.line for shown in commands_shown() if shown.is_whole]
    for beginning in [*SMALLER, *NEEDS, *BEFORE]:
        assert any(line.startswith(beginning) for line in lines), beginning
