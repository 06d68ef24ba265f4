"""docs/claims.md says what the judges read: criteria, needs, plans and constants."""

from __future__ import annotations

import re

import yaml
from conftest import ROOT

from cbundles.report import claims
from cbundles.report.claims import plans, shortfall
from cbundles.report.claims.finding import UNSTABLE_FROM

PAGE = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")


def rows_of(section):
    """The cells of each line of the table under a heading, without its head."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_page_has_the_criteria_and_needs_that_judges_read():
    needs = shortfall.needs()
    expected = [
        [entry["id"], entry["claim"], entry["criterion"], needs[entry["id"]]["needs"],
         needs[entry["id"]]["part"]]
        for entry in yaml.safe_load(claims.CRITERIA.read_text())
    ]  # fmt: skip
    assert rows_of("Criteria") == expected


def test_the_page_has_the_plans_that_judges_read():
    expected = [
        [plan.id, plan.claim, plan.criterion, plan.known, plan.needs, plan.part]
        for plan in plans.written()
    ]
    assert rows_of("Plans") == expected
    assert [row[0] for row in expected] == [f"N{number}" for number in range(1, 10)]


def test_plans_are_those_that_were_written_down(shared):
    named = re.findall(r"^\| (N\d+) \|", (shared / "CLAIMS.md").read_text(), re.MULTILINE)
    assert [plan.id for plan in plans.written()] == named


def test_seeds_that_were_used_before_are_said():
    (text,) = re.findall(r"not 0 to 22, 30 or\s31", PAGE)
    assert text and {*range(23), 30, 31} == plans.USED_SEEDS


def test_where_no_direction_is_claimed_none_is_judged():
    asking = [plan.id for plan in plans.written() if not plan.has_direction]
    assert asking == ["N4", "N5", "N6", "N9"] and "(N4, N5, N6 and N9)" in PAGE


def test_the_share_that_makes_a_claim_unstable_is_a_fifth():
    assert UNSTABLE_FROM == 1 / 5 and "at least a fifth of the parts" in PAGE


def test_second_readings_are_of_claims():
    known = set(shortfall.needs())
    for claim, *_ in rows_of("Second readings"):
        assert set(claim.split(", ")) <= known
