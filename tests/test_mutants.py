"""The faults that `scripts/mutants.py` puts into the tree can be put into it as it is now."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def mutants() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "scripts" / "mutants.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_fault_can_be_made(mutants):
    assert mutants.stale(mutants.FAULTS) == []


def test_a_fault_that_is_stale_is_told(mutants):
    edit = mutants.Edit("cbundles/files.py", "this stands nowhere", "else")
    (told,) = mutants.stale([mutants.Fault("writes", (edit,), ())])
    assert told == "writes: 'this stands nowhere' stands 0 times in cbundles/files.py, not once"


def test_tests_that_should_notice_a_fault_exist(mutants):
    for fault in mutants.FAULTS:
        for name in fault.tests:
            file, _, test = name.partition("::")
            assert f"def {test}" in (ROOT / file).read_text(encoding="utf-8")
