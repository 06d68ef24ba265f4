"""The structure: imports point one way, and light commands stay light."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from cbundles import __version__

PACKAGE = ROOT / "cbundles"
LAYERS = [
    ["arrays", "dashboards", "errors", "files", "provenance", "stopping", "wording"],
    ["spread", "materialised"],
    ["formats", "chance", "keeping", "early_steps", "replacing", "user_functions"],
    ["identity", "readings", "bits", "criterion"],
    ["config"],
    ["probe_sizes"],
    ["data"],
    ["decisions"],
    ["records"],
    ["observe"],
    ["networks"],
    ["optim"],
    ["bundles", "peer_measures"],
    ["train"],
    ["measure"],
    ["scan"],
    ["peers"],
    ["auditing"],
    ["removing", "monitoring", "autotuning"],
    ["surgery"],
    ["population"],
    ["experiments"],
    ["store"],
    ["chains"],
    ["report"],
    ["executor"],
    ["console", "streams"],
    ["commands"],
    ["cli"],
    ["__main__"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def module_of(path: Path) -> str:
    """``cbundles.data.folder``; a package has the name of its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def statements(node: ast.AST, types: bool) -> Iterator[ast.AST]:
    """Everything below a node, also inside functions; types: also what is never executed."""
    for child in ast.iter_child_nodes(node):
        if types or not only_for_types(child):
            yield child
            yield from statements(child, types)


def import_graph(*, types: bool) -> dict[str, set[str]]:
    """For each of our modules those that it imports, anywhere in it; types: also for types only."""
    paths = {module_of(path): path for path in PACKAGE.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for module, path in paths.items():
        named = set()
        for node in statements(ast.parse(path.read_text()), types):
            if isinstance(node, ast.ImportFrom) and node.module:
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= {name if name in paths else node.module for name in inside}
            elif isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
        graph[module] = (named & paths.keys()) - {module, "cbundles"}
    return graph


def test_imports_point_one_way():
    """From part to part upwards in the list above; inside a part without any circle."""
    graph = import_graph(types=True)
    assert {module.split(".")[1] for module in graph if "." in module} == set(LEVEL)
    for module, others in graph.items():
        if module == "cbundles":  # imports lazily what it offers
            continue
        part = module.split(".")[1]
        for other in others:
            above = other.split(".")[1]
            assert above == part or LEVEL[above] < LEVEL[part], f"{module} imports {other}"
    # Raises CycleError, which names the circle.
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["sweep", "--help"], 0),
        (["audit", "my_models:build"], 2),
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
    code = "import sys; from cbundles.report import sweep_figures; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_version_is_named_alike_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert f"## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_files_that_contributors_are_sent_to_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:cbundles|tests|configs|scripts)/[\w./]*)`", text)
    assert len(named) > 20
    for path in named:
        assert (ROOT / path).exists(), path


def test_hooks_download_nothing():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (repository,) = hooks["repos"]
    assert repository["repo"] == "local"
    assert all(hook["language"] == "system" for hook in repository["hooks"])


def test_a_function_of_the_report_has_its_name_for_itself():
    homes: dict[str, list[str]] = {}
    for path in (PACKAGE / "report").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                homes.setdefault(node.name, []).append(path.name)
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


def test_records_are_asked_by_attributes():
    """Only what reads and writes them knows how they are laid out on disk."""
    by_key = re.compile(r"\brecords?(\[-?\d+\])?\[[\"']")
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "records":
            assert not by_key.search(path.read_text()), path


def test_records_need_no_jax():
    code = "import sys; import cbundles.records; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_an_audit_imports_no_library_that_is_optional():
    libraries = {"equinox", "keras", "torch"}
    code = f"import sys, cbundles; cbundles.audit; print({libraries} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
