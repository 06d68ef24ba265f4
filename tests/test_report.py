"""From records to rows, boundary, tables and figures."""

from __future__ import annotations

import csv
import hashlib
import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import changed, record
from rich.console import Console

from cbundles.report import (
    answer,
    drawing,
    select,
    statistics,
    summary,
    sweep_figures,
    sweep_tables,
)
from cbundles.report.table import Column, Table, formatted


def test_accuracy_is_the_mean_of_the_last_epochs():
    row = summary.summary_of(record(4, 10, accuracy=0.9, epochs=9))
    assert row["test_accuracy"] == pytest.approx((0.8 + 0.9) / 2)
    assert row["epochs"] == 9 and row["train_loss"] == pytest.approx(1 / 9)


def test_entropy_is_that_of_the_last_layer_over_the_epochs():
    row = summary.summary_of(record(4, 10, entropy=[0.0, 0.1, 0.2, 0.3]))
    assert row["bundle_entropy"] == pytest.approx(0.3)
    assert row["first_conflicting_layer"] == 2
    assert summary.summary_of(record(4, 10))["first_conflicting_layer"] is None


def test_a_diverged_network_has_no_entropy():
    row = summary.summary_of(record(2, 10, entropy=[0.0, None]))
    assert row["diverged"] and row["bundle_entropy"] is None
    assert "diverged" in sweep_tables.network_table([row]).texts[0]
    assert ",true," in Table([row]).csv()


def test_a_network_that_diverges_later_is_marked_too():
    late = record(2, 10)
    late.history.entropy[-1] = [0.0, None]
    row = summary.summary_of(late)
    assert row["bundle_entropy"] == 0.0
    assert "diverged" in sweep_tables.network_table([row]).texts[0]
    assert "1 diverged" in answer.answers([late])[0].evidence[0]


def test_a_network_that_diverged_at_once_does_not_set_the_boundary():
    diverged = record(50, 10, seed=0, entropy=[None] * 50)
    assert summary.boundary([diverged, record(50, 10, seed=1, first=7)]) == {10: 7}
    assert summary.boundary([diverged]) == {10: None}


def test_boundary_comes_from_the_deepest_network_only():
    records = [
        record(50, 10, first=12), record(20, 10, first=3), record(5, 10),
        record(50, 40), record(20, 40, first=7),
    ]  # fmt: skip
    assert summary.boundary(records) == {10: 12, 40: None}


def test_boundary_is_the_median_over_seeds():
    with_conflicts = [record(50, 10, seed=s, first=f) for s, f in enumerate([10, 14, None])]
    assert summary.boundary(with_conflicts) == {10: 14}
    without = [record(50, 10, seed=s, first=f) for s, f in enumerate([10, None, None])]
    assert summary.boundary(without) == {10: None}


def test_tables():
    rows = [summary.summary_of(record(4, 10, first=2)), summary.summary_of(record(2, 10))]
    parsed = list(csv.DictReader(io.StringIO(Table(rows).csv())))
    assert [r["first_conflicting_layer"] for r in parsed] == ["2", ""]
    needed = "dataset model depth width seed epochs test_accuracy train_loss bundle_entropy"
    needed += " num_bundles first_conflicting_layer parameters bytes seconds"
    assert set(needed.split()) <= set(parsed[0])
    assert {"seconds_per_epoch", "seconds_probing", "seconds_compiling"} <= set(parsed[0])
    layers = sweep_tables.layer_rows(record(4, 10, first=2))
    assert len(layers) == 4 * 4
    assert layers[5] == {**layers[5], "epoch": 1, "layer": 2, "entropy": 0.5, "num_bundles": 2048}
    text = sweep_tables.network_page("name", rows, ["a note"], "an answer")
    assert text.count("\n| ") == 2 + len(rows) and "- a note" in text and "an answer" in text


ALL_FIGURES = [
    "fig1_accuracy_map",
    "fig4_entropy_by_layer",
    "fig4_entropy_profile",
    "fig5_accuracy_entropy",
]


@pytest.mark.parametrize("grid", [[(4, 10)], [(d, w) for d in (2, 5, 9) for w in (5, 10, 20)]])
def test_the_same_records_give_the_same_figures(tmp_path, grid):
    records = [record(d, w, first=None if w > 10 else 2, accuracy=0.1 * d) for d, w in grid]
    digests = []
    for attempt in ("one", "two"):
        pictures = sweep_figures.draw_sweep(records, tmp_path / attempt)
        stems = [picture.path.stem for picture in pictures]
        assert stems == (ALL_FIGURES if len(grid) > 1 else ALL_FIGURES[1:3])
        files = sorted((tmp_path / attempt).iterdir())
        assert len(files) == len(stems) * len((".png", ".pdf", ".csv"))
        drawings = [picture.drawing for picture in pictures]
        digests.append([hashlib.sha256(drawing).hexdigest() for drawing in drawings])
        digests.append([hashlib.sha256(p.read_bytes()).hexdigest() for p in files])
    assert digests[:2] == digests[2:]


def test_a_grid_with_holes_is_drawn(tmp_path):
    grid = [record(5, w, first=3) for w in range(1, 12)] + [record(9, 4, first=2), record(7, 2)]
    assert len(sweep_figures.draw_sweep(grid, tmp_path)) == 4


def test_a_diverged_network_is_no_network_without_conflicts(tmp_path):
    grid = [record(10, 8, family="vgg"), record(30, 8, family="vgg", entropy=[0.0] * 29 + [None])]
    sweep_figures.draw_sweep(grid, tmp_path)
    rows = rows_of(tmp_path / "fig6_depth.csv")
    assert [row["bundle_entropy_last"] for row in rows] == ["0.0", ""]


def test_widths_of_convolutional_networks_are_variants():
    grid = [record(10, 8, family="vgg"), record(10, 16, family="vgg")]
    assert [group.name for group in summary.variants(grid)] == ["filters=8", "filters=16"]


def test_conflicts_of_a_convolutional_network_are_told_by_block_and_its_layers(tmp_path):
    """A network of 6 layers has 2 blocks, and its second block holds the layers 4 and 5."""
    conv = {"family": "vgg", "blocks": "1,1,0,0", "entropy": [0.0, 0.5]}
    row = summary.summary_of(record(6, 8, **conv))
    assert (row["first_conflicting_block"], row["first_conflicting_layer"]) == (2, 4)
    table = sweep_tables.network_table([row])
    assert "layer of first H > 0, epoch 1" not in table.titles
    assert "2 (layers 4 and 5)" in table.texts[0]
    last = sweep_tables.layer_rows(record(6, 8, **conv))[-1]
    assert (last["block"], last["layer"], last["entropy"]) == (2, "4-5", 0.5)
    plain = summary.summary_of(record(6, 8, first=2))
    assert (plain["first_conflicting_block"], plain["first_conflicting_layer"]) == (None, 2)
    assert "block of first H > 0, epoch 1" not in sweep_tables.network_table([plain]).titles


def test_the_largest_entropy_follows_the_classes_of_the_probe_set():
    equal, unequal = record(3, 4), changed(record(3, 4), largest_entropy=0.2)
    assert summary.largest_entropy([equal]) == math.log(10)
    assert summary.largest_entropy([unequal]) == 0.2
    (axes, *_) = drawing.drawn(sweep_figures.accuracy_against_entropy([unequal], "")).axes
    assert axes.get_xlim()[1] == pytest.approx(0.21)


def test_special_characters_stay_in_their_column():
    odd = ["a|b", "x & y", "50 %", "C:\\d_1", "#{$~^"]
    table = Table([dict(zip("abcde", odd, strict=True))], [Column(key, key) for key in "abcde"])
    assert table.markdown().splitlines()[-1].count(" | ") == len(odd) - 1
    tex = table.latex("lllll").splitlines()[-3]
    assert tex.count(" & ") == len(odd) - 1 and r"x \& y" in tex and r"50 \%" in tex
    assert r"C:\textbackslash{}d\_1" in tex and r"\#\{\$\textasciitilde{}" in tex


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_a_figure_comes_with_its_numbers_and_its_caption(tmp_path):
    grid = [record(d, w, s, first=3 if d > 5 else None)
            for d in (5, 9) for w in (5, 10) for s in (0, 1)]  # fmt: skip
    pictures = sweep_figures.draw_sweep(grid, tmp_path)
    numbers = list(
        csv.DictReader(io.StringIO((tmp_path / "fig5_accuracy_entropy.csv").read_text()))
    )
    assert len(numbers) == len(grid) and numbers[-1]["bundle_entropy"] == "0.5"
    profile = rows_of(tmp_path / "fig4_entropy_profile.csv")
    assert {(row["depth"], row["epoch"]) for row in profile} == {("9", "1")}
    for part in ("mnist_mini", "8 networks", "2 seeds", "3 epochs", "a test"):
        assert part in pictures[0].small_print


def test_groups_agree_in_all_but_the_given_settings_and_are_named_by_what_differs():
    grid = [record(4, 10, seed, samples=n) for n in (512, 2048) for seed in (0, 1)]
    few, many = select.groups(grid, across=("training.seed",))
    assert (few.name, many.name) == ("probe_samples=512", "probe_samples=2048")
    assert few.records == grid[:2] and many.records == grid[2:]
    (whole,) = select.groups(grid, across=("training.seed", "probe.samples"))
    assert whole.name == "" and whole.records == grid
    assert len(select.groups(grid, across=("training.seed",), also=lambda r: r.id)) == 4
    assert select.groups([], across=()) == []


def test_settings_without_a_meaning_for_a_network_tell_no_groups_apart():
    plain = [record(4, 10, gamma=gamma, batch_norm=norm)
             for gamma, norm in ((1e-8, "batch"), (1e-3, "running"))]  # fmt: skip
    assert len(select.groups(plain, across=())) == 1
    leaders = [record(4, 10, equality="gamma", gamma=gamma) for gamma in (1e-8, 1e-3)]
    assert [group.name for group in select.groups(leaders, across=())] == [
        "probe_gamma=1e-08", "probe_gamma=0.001",
    ]  # fmt: skip


def test_one_table_in_every_form():
    table = Table(
        [{"who": "a", "loss": 0.25, "bold": True}, {"who": "b", "loss": None, "bold": False}],
        [Column("who", "network"),
         Column("loss", "loss", formatted("loss", "{:.1f} %", 100), to_the_right=True)],
    )  # fmt: skip
    assert table.csv() == "who,loss,bold\na,0.25,true\nb,,false\n"
    lines = ["| network | loss |", "| --- | ---: |", "| a | 25.0 % |", "| b | - |", ""]
    assert table.markdown() == "\n".join(lines)
    assert table.latex("lr").splitlines()[2:5] == [r"network & loss \\", r"\midrule",
                                                    r"a & 25.0 \% \\"]  # fmt: skip
    assert table.latex("Xr").startswith(r"\begin{tabularx}{\textwidth}{Xr}")
    shown = table.first(1).terminal("title")
    assert shown.row_count == 1 and [column.justify for column in shown.columns] == [
        "left",
        "right",
    ]
    estimate = Table([{"loss": statistics.estimate([1.0, 2.0, 3.0])}])
    assert estimate.csv().startswith("loss,loss_low,loss_high\n2.0,-0.484")
    assert Table([]).csv() == ""


def test_variants_get_their_own_figures(tmp_path):
    one, other = record(4, 10, first=3), record(4, 10, first=3, epochs=5)
    groups = summary.variants([one, other])
    assert [group.name for group in groups] == ["epochs=3", "epochs=5"]
    rows = [summary.summary_of(one), summary.summary_of(other)]
    assert sweep_tables.network_table(rows).texts[1][0] == "5"
    names = [drawn.path.name for drawn in sweep_figures.draw_sweep([one, other], tmp_path)]
    assert len(names) == 4 and "fig4_entropy_by_layer-2.png" in names


def test_a_title_relates_accuracy_to_entropy_only_where_several_networks_have_some():
    def titled(conflicting):
        networks = [
            record(10, 20, seed, first=9 if seed < conflicting else None, accuracy=0.5 + seed / 20)
            for seed in range(6)
        ]
        return sweep_figures.accuracy_against_entropy(networks, "").title

    assert titled(1).startswith("Too few networks to relate: 1 of 6 with H > 0")
    assert titled(3).startswith("The larger the bundle entropy, the lower the accuracy")


def test_columns_are_shown_whole_or_not_at_all():
    columns = [Column("network", "network"), Column("accuracy", "accuracy", to_the_right=True),
               Column("rate", "conflict rate", to_the_right=True)]  # fmt: skip
    rows = [{"network": "vgg of 30 layers", "accuracy": "1234567890 %", "rate": "0"}]
    table = Table(rows, columns)
    # "network" may be broken between words, "1234567890 %" may not.
    for width, shown in ((7 + 1 + 12 + 1 + 8, 3), (7 + 1 + 12 + 1 + 7, 2), (7 + 1 + 11, 1), (1, 1)):
        kept, others = table.within(width)
        assert (kept.columns, others) == (columns[:shown], 3 - shown)
    kept, _ = table.within(29)
    console = Console(width=29, file=io.StringIO())
    console.print(kept.terminal())
    assert "1234567890 %" in console.file.getvalue() and "\u2026" not in console.file.getvalue()


@given(
    st.lists(st.lists(st.integers(0, 10**12).map(str), min_size=4, max_size=4), min_size=1),
    st.integers(20, 130),
)
def test_no_number_is_cut_in_a_table_that_is_as_wide_as_its_lines(texts, width):
    columns = [Column(f"c{number}", "a long title", to_the_right=True) for number in range(4)]
    rows = [{f"c{number}": text for number, text in enumerate(line)} for line in texts]
    kept, _ = Table(rows, columns).within(width)
    console = Console(width=width, file=io.StringIO())
    console.print(kept.terminal(width=width))
    words = console.file.getvalue().split()
    assert all(text in words for line in kept.texts for text in line)
