"""The structure: imports point one way, and light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "cbundles"
LAYERS = [
    ["errors", "provenance"],
    ["identity"],
    ["config"],
    ["data"],
    ["observe"],
    ["models"],
    ["optim"],
    ["bundles"],
    ["train"],
    ["measure"],
    ["experiments"],
    ["store"],
    ["report"],
    ["executor"],
    ["console"],
    ["commands"],
    ["cli"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Names of our own top-level parts that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "cbundles":
                found |= {alias.name for alias in node.names}
            elif node.module.startswith("cbundles."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("cbundles.")}
    return found & set(LEVEL)


def test_every_file_has_its_place():
    parts = {part_of(p) for p in PACKAGE.rglob("*.py")} - {"__init__"}
    assert parts == set(LEVEL)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_imports_point_one_way(path):
    part = part_of(path)
    if part != "__init__":
        for other in imports(path) - {part}:
            assert LEVEL[other] < LEVEL[part], f"{path} imports {other}"


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["sweep", "--help"], 0),
        (["report", "nowhere"], 2),
        (["reproduce", str(ROOT / "configs/reproduce/cpu.yaml"), "--plan"], 0),
        (["autotune", "--dataset", "cifar10", "--plan"], 0),
        (["sweep", str(ROOT / "configs" / "mnist_fc.yaml"), "--plan"], 0),
        (["sweep", str(ROOT / "configs" / "mnist_fc.yaml"), "--set", "model.widht=3"], 2),
    ],
)
def test_light_commands_import_nothing_heavy(arguments, exit_code):
    code = f"""
import sys
from cbundles import cli
sys.argv = ["cbundles", *{arguments!r}]
try:
    cli.main()
except SystemExit as stop:
    assert (stop.code or 0) == {exit_code}, stop.code
heavy = {{"jax", "flax", "tensorflow", "tensorflow_datasets", "matplotlib"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_report_draws_without_jax():
    code = "import sys; from cbundles.report import figures, tables; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
