"""Numbers that README and docs tell of results are those that the published records give."""

from __future__ import annotations

import re
import subprocess
from statistics import fmean

import pytest
from conftest import ROOT
from published_results import in_one_line, judged_claims, published, said_of

from cbundles.records import SweepRecord
from cbundles.report import arm_tables, arms, comparison
from cbundles.report.summary import accuracy_of

# What the page of results says, the claim and run that it is about, and what the records must say.
RESULTS_PAGE = [
    ("is 1, 26 and 42 after one epoch", "C6", "cpu_mnist_fc",
     ["width 10: 1,", "width 25: 26,", "width 50: 42,"]),
    ("Spearman -0.95 (95 % interval -0.96 to -0.92) over 120 networks", "C11", "cpu_mnist_fc",
     ["Spearman -0.95, 95 % interval -0.96 to -0.92, n = 120", "(H^L: mean over all epochs"]),
    ("depth / width alone reaches -0.91 (-0.95 to -0.86)", "C11", "cpu_mnist_fc",
     ["depth / width -0.91 (-0.95 to -0.86)"]),
    ("Balanced accuracy 0.97 over 120 networks, as depth / width", "C10", "cpu_mnist_fc",
     ["balanced accuracy 0.970", ": depth / width: balanced accuracy 0.970, threshold chosen "
      "afterwards (from other seeds: 0.970)", "; reproduced"]),
    ("those of 10 are best (88 %, 3 seeds)", "C12", "cpu_mnist_vgg pooled+hidden+batch",
     ["best at 10 layers (88.0 %)", "; reproduced"]),
    ("With batch statistics both claims hold.", "C13", "cpu_mnist_vgg pooled+hidden+batch",
     ["; reproduced"]),
    ("With running ones, the paper's, neither", "C12", "cpu_mnist_vgg pooled+hidden+running",
     ["; not reproduced: contradicted"]),
    ("With running ones, the paper's, neither", "C13", "cpu_mnist_vgg pooled+hidden+running",
     ["; not reproduced: contradicted"]),
    ("VGGs of 76 layers are at chance (10.5 %), all three with H = 0", "C12",
     "cpu_mnist_vgg pooled+hidden+running",
     ["although H^L = 0 then in most networks (after any epoch 0.0014 nats at most): 76 layers "
      "(10.5 %, means over 3 seeds)"]),
    ("in 6 of 6 settings", "C18", "spirals_grow", ["plain-relu: (a) holds"]),
    ("in 2 of which a small network that never grows does, too", "C18", "mnist_grow",
     ["small, which never grows: reached by 16 of 20, median ratio 0.786",
      "small, which never grows: reached by 15 of 20, median ratio 0.774"]),
    ("At layers 24 and 26 of 25 and 150 (5 seeds)", "C7", "cpu_mnist_fc_width25",
     ["24 (3 of 5 conflict) at L = 25, 26 at L = 150", "; reproduced"]),
    ("no network of 25 layers conflicts by either reading (10 seeds)", "C7",
     "mnist_fc_depths hidden",
     ["first conflicting layer: none at L = 25", "; not reproduced: contradicted"]),
    ("on all of MNIST 0.75, depth / width 0.93 (90 networks)", "C10", "mnist_fc_depths hidden",
     ["balanced accuracy 0.750", "depth / width: balanced accuracy 0.929", "n = 90"]),
    ("by the largest of all weights 2 of 5 conflict, so that most networks of 25 have none", "C7",
     "cpu_mnist_fc_width25_all", ["none (2 of 5 conflict) at L = 25", "unstable"]),
    ("by the reading of our first versions in 2 of 3", "C16", "autotune_mnist_mini",
     ["unstable, holds for 2 of 3 seeds"]),
    ("Trained to the end in 5 of 5 seeds", "C16", "autotune_to_the_end",
     ["5 of 5 runs with at most three", "; reproduced"]),
    *(("in 80 of 80 chains (four readings, 20 seeds each)", "C16", run,
       ["20 of 20 runs with at most three", "; reproduced"])
      for run in ("autotune_seeds", "autotune_seeds_block", "autotune_seeds_batch",
                  "autotune_seeds_block_batch")),
    ("After one-epoch attempts that leaves 45 layers, a conflict rate 107 (20 seeds)", "N9",
     "autotune_seeds+autotune_seeds_by_rate",
     ["by H > 0 44.6 ±", "above 0.001 106.5 ±", "20 pairs", "; measured"]),
    ("trained to the end 43 and 54 (5 seeds)", "N9",
     "autotune_to_the_end+autotune_to_the_end_by_rate",
     ["by H > 0 42.8 ±", "above 0.001 54.0 ±", "+11.2 (-21.8 to 44.2)"]),
    ("at 96.5, 93.9, 93.0 and 92.6 % (mean of the last 5)", "C14",
     "cpu_mnist_resnet_20epochs pooled+hidden+running",
     ["mean of the last 5 epochs by depth 10: 96.5, 30: 93.9, 50: 93.0, 120: 92.6",
      "largest H^L 0.000", "unstable, holds for 1 of 3 seeds"]),
    ("No branch conflicts", "C17", "cpu_mnist_resnet_lesion",
     ["no branch conflicts in any of 3", "not testable"]),
    ("17 to 34 % of the blocks can go by smallest branch / skip, at random 2 % (3 networks, N6)",
     "N6", "cpu_mnist_resnet_blocks",
     ["34, 17 and 34 % by the best score (smallest branch / skip first)",
      "2, 2 and 2 % drawn at random", "; measured"]),
    ("They do (autocorrelation 0.997)", "C5", "toy",
     ["autocorrelation 0.997 under conflict", "0.913 as initialised", "not testable"]),
    ("accuracy 10.0 % (3 seeds), on all of MNIST 11.4 % (10 seeds, 50 epochs)", "C8",
     "mnist_fc_depths hidden",
     ["at least 2.2985 after every epoch; accuracy 0.114", "; reproduced"]),
    ("Of 58 networks that conflict", "C9", "cpu_mnist_fc",
     ["58 networks", "52 still conflict at epoch 5", "; reproduced"]),
    ("on all of MNIST 36 of 44", "C9", "mnist_fc_depths hidden",
     ["44 networks", "36 still conflict at epoch 5", "; reproduced"]),
    ("(50 epochs, one seed) 101 do, and 99 after five", "C9", "mnist_fc hidden",
     ["101 networks: median Spearman(epoch, H) 0.04; 99 still", "for 47 of 101 networks"]),
    ("(176 networks, one seed) 0.845, depth 0.973", "C10", "mnist_fc hidden",
     ["balanced accuracy 0.845", "depth: balanced accuracy 0.973"]),
    *(("On all of MNIST stopping as many of the lowest accuracy does the same", "C20", run,
       ["best of them ends at 11.3 %", f"lowest accuracy after epoch 1: best 11.3 %, saved {saved}",
        f"saved: {saved} of the grid's", "; reproduced"])
      for run, saved in (("mnist_fc_3epochs", "2 %"), ("mnist_fc_depths hidden", "8 %"))),
    *(("Stopping them saves 1 to 9 % of a grid's FLOPs", "C20", run,
       [f"saved: {saved} of the grid"])
      for run, saved in (("cpu_mnist_fc_signals", "1 %"), ("cpu_mnist_fc_all", "9 %"))),
    ("(600 layers, 12 networks", "C19", "cpu_mnist_resolution", ["600 (network, layer) pairs"]),
    ("effective rank has 0.89 and headroom 0.88", "N2", "cpu_mnist_fc_signals",
     ["before any training: H 0.76", "headroom 0.88 (", "effective rank 0.89 (",
      "(epoch 3), the nearest to 500: H 0.86 (0.81 to 0.90), test accuracy 0.94"]),
    ("72 networks it goes by 0.87, accuracy after epoch 1 by 0.80", "N7", "cpu_mnist_fc_signals",
     ["headroom 0.87 (", "test accuracy 0.80 (", "difference +0.0736 (-0.0389 to 0.199)",
      "depth / width 0.91", "effective rank 0.92", "; undecided"]),
    ("(median ratio 1, 57 networks), H is not (0.82)", "N8", "cpu_mnist_fc_signals",
     ["of 57 conflicting networks: conflict rate 1 (", "H 0.818"]),
    ("(Spearman 0.73), depth alone 0.62: not told apart (0.11, -0.01 to 0.23", "N5",
     "cpu_mnist_resnet_blocks", ["0.728 (", "0.616 (", "+0.111 (-0.00526 to 0.228)"]),
    ("in float64, too (5 seeds)", "C3", "toy_float64", ["; reproduced"]),
    ("saves 47 % of the FLOPs (35 to 58) and loses 1 of 34 networks near the best of their width "
     "(0 to 15 %; 150 networks)", "N1", "cpu_mnist_fc_signals",
     ["saves 46.8 (35.1 to 57.9)", "loses 1 of 34", "95 % interval 0 to 15 %", "as much saved by "
      "stopping the largest depth / width: saves 48.5 (36.4 to 59.5) % of the grid's FLOPs and "
      "loses 0 of 34", "; holds"]),
    ("of those near the best within each seed it loses 6 of 46, depth / width 1", "N1",
     "cpu_mnist_fc_signals", ["loses 6 of 46 networks", "largest depth / width: 1 of 46"]),
    ("on all of MNIST (90 networks) -0.88 beside -0.97", "C11", "mnist_fc_depths hidden",
     ["Spearman -0.97", "n = 90", "depth / width -0.88"]),
    ("on the 120 (AUC 0.961 and 0.987)", "C10", "cpu_mnist_fc",
     ["AUC 0.961", "AUC 0.987 (-0.0262 (-0.0487 to -0.00759))"]),
    ("on the 90 (0.982 and 0.945)", "C10", "mnist_fc_depths hidden",
     ["AUC 0.982", "AUC 0.945 (+0.0371 (0.014 to 0.0667))"]),
    ("(Spearman 0.86, 0.71), less than depth / width (0.92; N2)", "N2", "cpu_mnist_fc_signals",
     ["H 0.86 (", "test accuracy 0.71 (", "depth / width 0.92 (", "; holds"]),
    ("by 0.1 points (-1.0 to 1.2, 120 pairs;", "N3", "cpu_mnist_fc_precision",
     ["+0.1 (-1.0 to 1.2) points, mean of 120 pairs", "; holds"]),
    ("N8 does not, N7 is undecided", "N7", "cpu_mnist_fc_signals", ["; undecided"]),
    ("N8 does not, N7 is undecided", "N8", "cpu_mnist_fc_signals", ["does not hold"]),
    ("(AUC 0.72, 0.89; N4)", "N4", "cpu_mnist_fc_fixed_shape",
     ["0.715 (0.611 to 0.822)", "test accuracy 0.887", "; measured"]),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "claim", "run", "said"), RESULTS_PAGE)
def test_the_page_of_results(sentence, claim, run, said):
    assert sentence in in_one_line("docs/results.md")
    for part in said:
        assert part in said_of(claim, run)


def test_published_runs_agree_with_themselves():
    """Each finding is compared with the one of its own run, reading and scale."""
    every_run = list(published().values())
    compared = comparison.beside_published(every_run, every_run).table.rows
    assert {row["comparison"] for row in compared} == {"same verdict"}
    assert all(row["published"] == row["yours"] for row in compared)


def test_results_on_insertion():
    both = said_of("C18", "spirals_grow") + said_of("C18", "mnist_grow")
    assert both.count("(a) holds") == 6 and both.count("(b) holds") == 3
    for what, lower in (("at equal compute", 4), ("train loss max - matched", 2)):
        ends = re.findall(rf"{what} \S+ \(\S+ to ([^)]+)\)", both)
        assert len(ends) == 6 and sum(float(end) < 0 for end in ends) == lower
    assert both.count("not told apart from position random") == 4
    assert both.count("worse than position random") == 2
    assert (
        "at equal compute in 4; it reaches that of the larger network for less compute in 3"
        in in_one_line("docs/results.md")
    )


def test_the_fair_study_of_blocks():
    text = in_one_line("docs/lesion.md")
    costs, many = (said_of(claim, "cpu_mnist_resnet_blocks") for claim in ("N5", "N6"))
    assert "34, 17 and 34 % (smallest branch / skip first) | greedy 34, 8 and 0 %;" in text
    assert "34, 17 and 34 % by the best score" in many and "34, 8 and 0 % greedily" in many
    assert "last blocks first 2, 2 and 2 %" in many and "last blocks first 2, 2 and 2 %" in text
    assert "0.73 (0.64 to 0.81; least gradient x activation)" in text
    assert "least gradient x activation first 0.728 (0.644 to 0.811)" in costs
    assert "0.62 (0.55 to 0.68); difference 0.11 (-0.01 to 0.23)" in text
    assert "0.616 (0.554 to 0.679)" in costs and "+0.111 (-0.00526 to 0.228)" in costs
    assert "0.305 (0.228 to 0.382) at 4,096" in costs and "0.31 (0.23 to 0.38)" in text
    assert "+0.60 (p = 0.18), +2.70 (p = 1.9e-09) and +1.10" in many
    assert "+0.6, +2.7 and +1.1 points" in text


def test_the_page_on_resolution():
    text, said = in_one_line("docs/resolution.md"), said_of("N3", "cpu_mnist_fc_precision")
    for of, stored, difference in (
        ("float32", "float16", "-0.5 (-1.8 to 0.9)"),
        ("float64", "float16", "+0.7 (-0.7 to 2.1)"),
        ("float32", "bfloat16", "-1.3 (-3.0 to 0.4)"),
        ("float64", "bfloat16", "-2.4 (-3.8 to -0.9)"),
    ):
        assert f"| {of} | {stored} | {difference} |" in text
        assert f"{of}, weights stored in {stored} - float32: {difference} points, 120" in said
    assert "| float64 | float64 | +0.1 (-1.0 to 1.2) |" in text
    assert "+0.1 (-1.0 to 1.2) points, mean of 120 pairs" in said
    assert "37 of the 120 pairs" in text and "37 of 120 pairs end at 15 % or less" in said
    by_size: dict[tuple[int, int, str], list[SweepRecord]] = {}
    for one in published()["cpu_mnist_fc_precision"].records:
        if one.cell.training.storage == "precision":
            key = one.width, one.depth, one.cell.training.precision
            by_size.setdefault(key, []).append(one)
    for width, depth in ((10, 50), (10, 75), (10, 100), (25, 50), (25, 75), (25, 100)):
        both = [by_size[width, depth, precision] for precision in ("float32", "float64")]
        entropy = [fmean(one.history.entropy[-1][-1] for one in some) for some in both]
        accuracy = [100 * fmean(map(accuracy_of, some)) for some in both]
        assert (
            f"| {width} x {depth} | {entropy[0]:.2f} | {entropy[1]:.2f} | {accuracy[0]:.1f} % | "
            f"{accuracy[1]:.1f} % |"
        ) in text


def test_readme_is_short():
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()
    assert sum(1 for word in words if word.strip("|-")) <= 950


def test_readme_sorts_the_claims_by_verdict():
    """Each row of its table: the claims that the published records put there."""
    by_row: dict[str, set[str]] = {}
    for judged in judged_claims().values():
        if not judged.id.startswith("N"):
            by_row.setdefault(judged.verdict, set()).add(judged.id)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    in_text = dict(re.findall(r"^\| \*\*([^*]+)\*\*[^|]*\| (.*) \|$", text, re.MULTILINE))
    assert {row.lower(): claims_named(cell) for row, cell in in_text.items()} == by_row
    one_line = in_one_line("README.md")
    for run, free, after_one in (
        ("cpu_mnist_fc", "-0.91", "-0.91"),
        ("mnist_fc_depths hidden", "-0.88", "-0.86"),
        ("cpu_mnist_fc_signals", "-0.92", "-0.86"),
        ("mnist_fc_3epochs", "-0.71", "-0.81"),
        ("mnist_fc hidden", "-0.73", "-0.72"),
    ):
        said = said_of("C11", run)
        assert f"H^L after epoch 1 {after_one}" in said and f"depth / width {free}" in said
    said = said_of("C10", "mnist_fc hidden")
    assert "balanced accuracy 0.845" in said and "depth: balanced accuracy 0.973" in said
    assert "in three grids, the figure's included, more in a fourth" in one_line
    assert "a balanced accuracy of 0.845; depth alone, with a threshold" in one_line
    assert (
        "H reaches -0.91, -0.86, -0.86 and -0.72 in four grids, depth / width -0.91, -0.88, -0.92 "
        "and -0.73 (120, 90, 150 and 176 networks); of the 176 with 3 epochs instead of 50 -0.81 "
        "and -0.71"
    ) in in_one_line("docs/results.md")


def claims_named(text: str) -> set[str]:
    """C1 to C4 and C6 in "(C1 to C4) ... (C6)"."""
    named = set(re.findall(r"\bC\d+\b", text))
    for first, last in re.findall(r"\bC(\d+) to C(\d+)\b", text):
        named |= {f"C{number}" for number in range(int(first), int(last) + 1)}
    return named


def test_depth_on_cifar10():
    text = in_one_line("docs/results.md")
    for family in ("vgg", "resnet"):
        records = sorted(
            published()[f"cpu_cifar10_{family}"].sweeps, key=lambda record: record.depth
        )
        assert [record.depth for record in records] == [10, 30, 50, 76]
        rows = {
            "accuracy [%]": [f"{100 * accuracy_of(record):.1f}" for record in records],
            "H after the last epoch": [
                f"{record.history.entropy[-1][-1]:.2f}" for record in records
            ],
        }
        for label, numbers in rows.items():
            name = {"vgg": "VGG", "resnet": "ResNet"}[family]
            assert f"| {name}: {label} | {' | '.join(numbers)} |" in text
        if family == "vgg":
            first, second = (100 * accuracy_of(record) for record in records[:2])
            assert round(first - second) == 13 and "30 layers are 13 points below 10" in text
            entropy = [after[-1] for record in records[:2] for after in record.history.entropy[1:]]
            assert not any(entropy) and "neither VGG has H > 0 after any epoch" in text


def test_deep_networks_after_5_and_20_epochs():
    """The table of both families on mnist_mini, and what is said of single networks below it."""
    text = in_one_line("docs/results.md")
    rows = re.findall(r"\| (?:VGG|ResNet), (\d+) epochs \| ([\d. |]+) \| `(\w+)` \|", text)
    assert len(rows) == 4
    for epochs, numbers, run in rows:
        by_depth: dict[int, list[SweepRecord]] = {}
        for record in published()[run].sweeps:
            assert record.epochs_trained == int(epochs) and record.width == 8
            by_depth.setdefault(record.depth, []).append(record)
        means = [
            f"{100 * fmean(one.history.test_accuracy[-1] for one in by_depth[depth]):.1f}"
            if depth in by_depth
            else ""
            for depth in (4, 10, 30, 50, 76, 100, 120)
        ]
        assert [number.strip() for number in numbers.split("|")] == means, run
        assert {len(records) for records in by_depth.values()} == {3}
    (of_figure,) = published()["imagenette_vgg100"].sweeps
    assert [round(after[-1], 3) for after in of_figure.history.entropy] == [0, 0.006, 2.130, 2.233]
    untrained = [one.history.entropy[0][-1] for one in published()["table1_wide_cifar10"].sweeps]
    assert len(untrained) == 6 and {f"{entropy:.2f}" for entropy in untrained} == {"2.30"}
    assert "six of 100 to 120 on CIFAR-10 (H 2.30," in text
    of_50 = [one for one in published()["cpu_mnist_vgg_20epochs"].sweeps if one.depth == 50]
    for epoch in (5, 20):
        accuracies = sorted(100 * one.history.test_accuracy[epoch] for one in of_50)
        said = f"{accuracies[0]:.0f} to {accuracies[-1]:.0f} % after epoch {epoch}"
        assert said in text


INSERTION = re.compile(
    r"^\| (?P<data>spirals|MNIST), (?P<setting>\S+) \| (?P<small>[^|]+) \| (?P<equal>[^|]+) \| "
    r"(?P<large>[^|]+) \| (?P<alone>[^|]+) \| (?P<matched>[^|]+) \| (?P<random>[^|]+) \|$",
    re.MULTILINE,
)


def test_the_table_on_insertion():
    rows = list(
        INSERTION.finditer((ROOT / "docs" / "changing-depth.md").read_text(encoding="utf-8"))
    )
    assert len(rows) == 6
    for row in rows:
        said = said_of("C18", {"spirals": "spirals_grow", "MNIST": "mnist_grow"}[row["data"]])
        said = said[said.index(f"{row['setting']}: (a)") :]
        said = re.split(r"; (?=\w+-\w+: \(a\))", said)[0]
        assert f"max - small {row['small']}," in said and f"equal compute {row['equal']};" in said
        for what, cell in (("large's loss", row["large"]), ("never grows:", row["alone"])):
            reached, _, ratio = cell.partition(", ")
            assert f"{what} reached by {reached}, median ratio {ratio or 'infinite'};" in said
        assert f"max - matched {row['matched']};" in said
        assert f"position random (train loss {row['random']}," in said


def test_positions_on_mnist():
    text, said = in_one_line("docs/changing-depth.md"), said_of("C18", "mnist_grow")
    for number, exact in (
        ("by 0.0031, 95 % interval 0.0001 to 0.0061", "random (train loss +0.00306 (8.26e-05 to"),
        ("0.0047, 0.0019 to 0.0075", "random (train loss +0.00471 (0.00188 to 0.00753)"),
        ("p = 0.045 and 0.0024, uncorrected, n = 20", "p = 0.045 uncorrected, n = 20"),
        (
            "(0.0070, 0.0043 to 0.0097, p = 0.00003)",
            "min (train loss +0.00701 (0.00433 to 0.00969)",
        ),
    ):
        assert number in text and exact in said


def test_first_layers_over_probe_sizes():
    text, said = in_one_line("docs/claims.md"), said_of("C7", "cpu_mnist_fc_probe_sizes")
    for sentence in (
        "layer 41 on with 128 samples, 31 with 512, 26 with 2,048, 22 with 8,192 and 20 with all",
        "three of five have it with 2,048 samples (median layer 24), with 512 one and with 128",
        "it begins in layer 53 of 150, and in none of 25",
    ):
        assert sentence in text
    for size, layers in (
        ("128", "none at L = 25, 41"),
        ("512", "none (1 of 5 conflict) at L = 25, 31"),
        ("2048", "24 (3 of 5 conflict) at L = 25, 26"),
        ("8192", "21 at L = 25, 22"),
        ("all training", "21 at L = 25, 20"),
    ):
        assert f"{size} samples: {layers} at L = 150" in said
    assert "0.001 instead of H > 0: none at L = 25, 53 at L = 150" in said


def test_the_tuner_beside_the_best_fixed_depth():
    text = in_one_line("docs/changing-depth.md")
    (setting,) = arms.settings_of(published()["tune_mnist_mini"].edited)
    rows = {(row["start"], row["arm"]): row for row in arm_tables.arms_table(setting).rows}
    for start, number in ((6, "-2.9 (-4.7 to -1.1)"), (40, "-3.7 (-6.7 to -0.6)")):
        difference = rows[start, "both"]["test_accuracy_vs_best_fixed"]
        assert difference.text(percent=True) == number
    assert rows[6, "both"]["best_fixed_start"] == 2
    assert "2.9 (1.1 to 4.7) and 3.7 (0.6 to 6.7) points below the fixed network of 2" in text


def test_what_the_lesion_test_could_have_seen():
    said, text = said_of("C17", "cpu_mnist_resnet_lesion"), in_one_line("docs/lesion.md")
    assert "0.3 points at best (6 images lost" in said and "0.3 points at best (six images" in text
    assert "of 0.45 when 15 images change" in said and "0.45 when 15 images change" in text
    assert "worst of these is: smallest scaled branch first" in said
    assert "the scaled branch predicts worst" in text and "Spearman 0.57; branch" in text


def published_files():
    """All files under results that git has."""
    listed = subprocess.run(
        ["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(listed.stdout.split())


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone")
def test_published_figures_are_where_their_captions_say():
    """Git has every picture of a published run that its list of captions shows."""
    tracked = published_files()
    for captions in (name for name in tracked if name.endswith("/figures/figures.md")):
        shown = re.findall(r"\(([^()]+\.png)\)", (ROOT / captions).read_text(encoding="utf-8"))
        folder = captions.rpartition("/")[0]
        assert shown and {f"{folder}/{picture}" for picture in shown} <= tracked, captions


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone")
@pytest.mark.parametrize("page", ["measurements", "auto-tuned", "results", "scale"])
def test_records_that_a_page_names_are_published(page):
    """Git has every run and record that stands on a page as evidence."""
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    named = re.findall(r"`(results/[^`]+)`", text)
    named += [f"results/bench/{name}" for name in re.findall(r"`(\w+\.(?:json|md))`", text)]
    tracked = published_files()
    runs = {name.split("/")[1] for name in tracked}
    missing = [
        name
        for name in named
        if name not in tracked and name.removeprefix("results/").rstrip("/") not in runs
    ]
    assert named and not missing
