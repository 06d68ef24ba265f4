"""A worked study in the report: its numbers, its files, its place on the page, and its absence."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import msgspec
import pytest
from conftest import ROOT
from test_page import page_under, require_sound_document

from cbundles.errors import InputError
from cbundles.records import worked
from cbundles.report import gathering, views, worked_study, worked_tables, worked_text

BLOCKS = [f"blocks/{number}/branch" for number in range(4)]
IMAGES, CORRECT, CORRECT_ANEW = 1000, 800, 790


def order(by, chosen, lost, lost_anew, names=BLOCKS):
    """One that gains nothing as it is, and two images with statistics taken anew."""
    return worked.JudgedOrder(
        by=by,
        words=f"{by} first",
        chosen=chosen,
        order=names,
        lost=lost,
        gained=[0] * 4,
        lost_anew=lost_anew,
        gained_anew=[2] * 4,
    )


def cost(number):
    """Of the whole network divided by a number; times are only nearly so."""
    return worked.NetworkCost(
        flops=4e9 / number, parameters=1000 // number, bytes=4000 // number, seconds=0.1 / number
    )


def study():
    network = worked.StudiedNetwork(
        description="a network of four blocks",
        data="made up",
        fingerprint="0" * 16,
        train=5000,
        epochs=1,
        seed=7,
        batch_size=10,
        rates="a rate of 0.1",
        seconds=90,
    )
    return worked.WorkedStudy(
        network=network,
        audited=100,
        rate=0.01,
        images=IMAGES,
        recalibrated=50,
        correct=CORRECT,
        correct_anew=CORRECT_ANEW,
        orders=[
            order("norm", worked.BY_SCORE, [0, 5, 300, 700], [4, 5, 8, 700]),
            order("greedy", worked.BY_ANSWERS, [0, 2, 6, 700], [0, 0, 30, 700]),
            order("last", worked.BY_NOTHING, [5, 200, 400, 700], [0, 200, 300, 700]),
        ],
        no_order={"highest H first": "it is 0 in all branches"},
        removed_by="greedy",
        smaller=[
            worked.SmallerNetwork(
                blocks=BLOCKS[:2], correct=798, correct_anew=802, before=cost(1), after=cost(2)
            )
        ],
        batch=250,
        threads=1,
        processor="a processor",
        versions={"torch": "9"},
        audit={},
    )


def test_how_many_blocks_can_go():
    """Six lost and none gained are the fewest that are significant; of 8 and 2 none is told."""
    rows = {row["order"]: row for row in worked_tables.table_of_orders(study()).rows}
    assert [rows[f"{by} first"]["removable"] for by in ("norm", "greedy", "last")] == [2, 2, 1]
    assert [rows[f"{by} first"]["removable_anew"] for by in ("norm", "greedy", "last")] == [3, 2, 1]
    assert rows["norm first"]["accuracy_without_2"] == (CORRECT - 5) / IMAGES
    assert rows["norm first"]["accuracy_without_2_anew"] == (CORRECT - 5 + 2) / IMAGES


def test_smaller_networks_stand_beside_the_whole_one():
    whole, smaller = worked_tables.table_of_smaller(study()).texts
    assert whole == ["0", "80.0", "79.0", "-", "0.004", "4.00", "100", "100", "100 %"]
    assert smaller == ["2", "79.8", "80.2", "0.5", "0.002", "2.00", "100", "50", "50 %"]


def test_sentences_tell_what_was_tested_and_what_was_not():
    told = " ".join(worked_text.study_sentences(study()))
    assert "As the network is (80.0 % with all blocks): before the first significant rise" in told
    assert "2 of 4 blocks go at most (norm first and greedy first), and 1 by a control" in told
    assert "(last first), of 2 orders and 1 control" in told
    assert "without 2, 79.8 % (greedy first) and 60.0 % (last first)" in told
    assert "taken anew on 50 images of training (79.0 % with all blocks)" in told
    assert "3 of 4 blocks" in told
    assert "0.6 points at best (6 lost, none gained)" in told
    assert "of 0.8 where 10 images change their answer" in told
    assert "No order comes from 'highest H first' (it is 0 in all branches)" in told
    assert "n = 1" in told and "seed 7" in told
    assert not re.search("caus|because|due to|leads? to", told)


def test_where_no_block_can_go_it_is_said():
    costly = [msgspec.structs.replace(one, lost=[10, 20, 30, 700]) for one in study().orders]
    told = worked_text.study_sentences(msgspec.structs.replace(study(), orders=costly))
    assert (
        "rises significantly without the first block alone, in all 2 orders and 1 control"
        in told[2]
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A published run, which a page needs, and a study."""
    root = tmp_path_factory.mktemp("results")
    (root / "toy").mkdir()
    for name in ("run.json", "records.jsonl.gz"):
        shutil.copy(ROOT / "results/toy" / name, root / "toy")
    worked.write_study(study(), root / "made")
    return root


def written_files(folder: Path):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_tables_figure_and_page(results):
    page = page_under(results, ("toy",))
    folder = results / "made"
    first = written_files(folder)
    assert {"study.md", "orders.csv", "smaller.csv", "fig_worked_study.png", "figures.md"} <= set(
        first
    )
    require_sound_document(page)
    text = page.read_text(encoding="utf-8")
    assert "id=studies" in text and "id='made-fig_worked_study'" in text
    (found,) = gathering.gather(results, ()).studies
    views.write_worked(found)
    assert written_files(folder) == first  # the same record, the same bytes


def test_a_line_for_each_order_and_number_of_blocks(results):
    lines = (results / "made/figures/fig_worked_study.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 2 * 4
    assert lines[1] == "norm first,by a score,false,1,blocks/0/branch,0.8,0,0"


def test_without_a_study_nothing_is_there(results, tmp_path):
    shutil.copytree(results / "toy", tmp_path / "toy")
    text = page_under(tmp_path, ("toy",)).read_text(encoding="utf-8")
    assert "id=studies" not in text
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["toy"]


def test_a_study_is_read_as_it_was_written(tmp_path):
    assert worked.read_study(worked.write_study(study(), tmp_path)) == study()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("images"), "images"),
        (lambda content: content.update(format=2), "reads format 1"),
        (lambda content: content.update(removed_by="nothing"), "no order 'nothing'"),
        (lambda content: content["orders"].pop(), "some must be controls"),
        (lambda content: content["orders"][0]["lost"].pop(), "order 'norm': not one count"),
    ],
)
def test_a_damaged_study_is_told_and_left_out(tmp_path, change, message):
    path = worked.write_study(study(), tmp_path / "made")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        worked.read_study(path)
    damaged: list[str] = []
    assert worked_study.studies_under(tmp_path, damaged) == []
    assert message in damaged[0] and str(path) in damaged[0]
