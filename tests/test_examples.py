"""The examples: each is short, audits a model on real images, and ends with a picture."""

from __future__ import annotations

import importlib.util
import runpy

import pytest
from conftest import ROOT

HEALTHY = "layers conflicts: "
# What each needs beyond the package itself, and what it says.
EXAMPLES = [
    pytest.param("linen_cnn", None, [HEALTHY], id="linen_cnn"),
    pytest.param("nnx_resnet", None, [HEALTHY], id="nnx_resnet"),
    pytest.param("vision_transformer", None, [HEALTHY], id="vision_transformer"),
    pytest.param(
        "flax_remove",
        None,
        [HEALTHY, "accuracy", "Went: ResNet/sum#", "It can be trained further"],
        id="flax_remove",
    ),
    pytest.param("equinox_mlp", "equinox", [HEALTHY], id="equinox_mlp"),
    pytest.param(
        "keras_application",
        "keras",
        ["layers conflict, first digits/mobilenet", f"themselves: None of 27 {HEALTHY}"],
        id="keras_application",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("name", "library", "sentences"), EXAMPLES)
def test_examples_end_with_a_picture(name, library, sentences, tmp_path, monkeypatch, capsys):
    if library is not None and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    path = ROOT / "examples" / f"{name}.py"
    assert len(path.read_text().splitlines()) < 60
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    said = " ".join(capsys.readouterr().out.split())
    for sentence in sentences:
        assert sentence in said
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_every_example_is_run():
    """Those that need PyTorch have an environment and a test of their own; the monitor's is run in
    `test_monitor`, and architectures for commands (``my_...``) beside the tests of the commands."""
    names = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"__init__", "monitor"}
    names = {name for name in names if not name.startswith("my_")}
    run = {example.values[0] for example in EXAMPLES}
    assert {name for name in names - run if not name.startswith("torch")} == set()
