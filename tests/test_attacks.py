"""A short version of `scripts/attack.py`: a few attacks of each kind, always the same ones."""

from __future__ import annotations

import sys
from random import Random

import pytest
from conftest import ROOT
from matplotlib.figure import Figure

from cbundles.commands import report
from cbundles.report import drawing


@pytest.fixture
def attack(monkeypatch, tmp_path, cache):
    """The script as a module; what it changes in this process is changed back."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import attack

    monkeypatch.setenv("CBUNDLES_CACHE", str(cache))  # attacks name caches of their own
    monkeypatch.setattr(sys, "path", list(sys.path))
    for owner, name in (
        (report, "_helpers"),
        (Figure, "savefig"),
        (drawing, "_pixels_of"),
        (Figure, "draw_without_rendering"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    return attack


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("configurations", 40),
        ("files", 100),
        ("arrays", 20),
        pytest.param("kills", 1, marks=pytest.mark.slow),
        pytest.param("disk", 1, marks=pytest.mark.slow),
        pytest.param("pipes", 6, marks=pytest.mark.slow),
    ],
)
def test_nothing_that_is_attacked_answers_wrongly(attack, unchecked, kind, count, tmp_path):
    attempts = list(attack.KINDS[kind].attempts(Random(0), count, tmp_path))
    assert len(attempts) >= count
    failed = [attempt for attempt in attempts if attempt.problem is not None]
    assert failed == []


def test_a_seed_repeats_a_run(attack, tmp_path):
    kind = attack.KINDS["configurations"]
    first, second = (list(kind.attempts(Random(7), 10, tmp_path)) for _ in range(2))
    assert first == second
