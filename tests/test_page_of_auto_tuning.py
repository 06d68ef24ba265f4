"""docs/auto-tuned.md tells what the published records of auto-tuning give."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from statistics import fmean, stdev

import pytest
from conftest import ROOT
from published_results import in_one_line, published, said_of

from cbundles.records import SweepRecord
from cbundles.report import fixed_depths, table1
from cbundles.report.runs import Run
from cbundles.report.statistics import Estimate, estimate, paired
from cbundles.report.summary import accuracy_of

PAGE = "docs/auto-tuned.md"
SMALL, UNTUNED, RULES = (
    "Table 1 in small",
    "Beside depths that nobody tuned",
    "By H or by the conflict rate?",
)
SEEDS = ("layers, first seed", "second seed", "third seed")


def columns_below(heading: str) -> list[dict[str, str]]:
    """Of the first table below a heading each column, by what its rows begin with."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    below = text[text.index(f"## {heading}") :].splitlines()
    first = next(number for number, line in enumerate(below) if line.startswith("|"))
    lines = below[first : below.index("", first)]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    labels, *columns = zip(*rows, strict=True)
    return [dict(zip(labels, column, strict=True)) for column in columns]


def name_of(column: dict[str, str]) -> str:
    return column["run in `results/`"].split("`")[1]


@functools.cache
def columns_in_small() -> list[dict[str, str]]:
    return columns_below(SMALL)


def of_seeds(records: Sequence[SweepRecord]) -> dict[int, float]:
    """Percent of the test images that the network of each seed gets right at the end."""
    return {one.seed: 100 * accuracy_of(one) for one in records}


def after_the_last_epoch(records: Sequence[SweepRecord]) -> dict[int, float]:
    return {one.seed: 100 * one.history.test_accuracy[-1] for one in records}


def told(difference: Estimate) -> str:
    low, high = f"{difference.low:.1f}", f"{difference.high:.1f}"
    return f"{difference.mean:.1f} ({low} to {high})"


def mean_with_spread(numbers: Sequence[float]) -> str:
    return f"{fmean(numbers):.1f} ± {stdev(numbers):.1f}"


def share(part: Sequence[SweepRecord], whole: Sequence[SweepRecord], what: str) -> str:
    means = [fmean(getattr(one, what) for one in some) for some in (part, whole)]
    return f"{100 * means[0] / means[1]:.0f} %"


def gap_by_seed(run: Run) -> dict[int, float]:
    """Percentage points that the auto-tuned network of a seed has less than the ResNet."""
    parts = table1.parts_of(run)
    tuned, baseline = of_seeds(parts["tuned"]), of_seeds(parts["baseline"])
    return {seed: baseline[seed] - tuned[seed] for seed in tuned}


@pytest.mark.parametrize("column", columns_in_small(), ids=name_of)
def test_table_1_in_small(column):
    run = published()[name_of(column)]
    parts, by_cell = table1.parts_of(run), run.by_cell
    baseline, tuned = (table1.our_row(parts[part]) for part in ("baseline", "tuned"))
    cell = parts["tuned"][0].cell
    dataset = table1.row_of(cell).dataset
    assert cell.model.base_filters == int(column["filters"].split(",")[0])
    assert (cell.training.epochs, len(parts["tuned"])) == (20, 3)
    for label, chain in zip(SEEDS, run.description["attempts"], strict=True):
        assert column[label] == " -> ".join(str(by_cell[network].depth) for network in chain)
    assert column["auto-tuned VGG [%]"] == tuned["accuracy [%]"]
    assert (
        column["ResNet [%]"] == f"{baseline['accuracy [%]']} ({parts['baseline'][0].depth} layers)"
    )
    assert column["ResNet - auto-tuned [points]"] == told(estimate(list(gap_by_seed(run).values())))
    for what in ("FLOPs", "bytes"):
        of_resnet = share(parts["tuned"], parts["baseline"], what.lower())
        assert column[f"{what}, of the ResNet's"] == of_resnet
    papers = {one.network: one.accuracy[0] for one in table1.PAPER if one.dataset == dataset}
    assert column["the paper's two, 64 filters, 120 epochs [%]"] == ", ".join(
        f"{papers[network]:g}" for network in ("vgg", "resnet")
    )


@pytest.mark.parametrize("column", columns_below(UNTUNED), ids=name_of)
def test_depths_that_nobody_tuned(column):
    run = published()[name_of(column)]
    tuned = table1.parts_of(published()[run.name.removesuffix("_vgg")])["tuned"]
    for layers in (10, 20):
        some = [one for one in run.sweeps if one.depth == layers]
        assert column[f"{layers} layers [%]"] == mean_with_spread(list(of_seeds(some).values()))
        more = paired(of_seeds(some), of_seeds(tuned))
        assert column[f"{layers} layers - auto-tuned [points]"] == told(more)
        if layers == 10:
            parts = table1.parts_of(published()[run.name.removesuffix("_vgg")])
            assert column["FLOPs, of the auto-tuned"] == share(some, tuned, "flops")
            of_resnet = share(some, parts["baseline"], "flops")
            assert column["FLOPs, of the ResNet's"] == of_resnet
            more = paired(of_seeds(some), of_seeds(parts["baseline"]))
            assert column["10 layers - ResNet [points]"] == told(more)
            more = paired(after_the_last_epoch(some), after_the_last_epoch(tuned))
            assert column["the same after epoch 20 [points]"] == told(more)


def test_restarts_in_small():
    text = in_one_line(PAGE)
    restarts = {}
    for name, holds in (
        ("table1_small_mnist", "3 of 3"),
        ("table1_small_cifar10", "2 of 3"),
        ("table1_small_imagenette", "1 of 3"),
        ("table1_wide_imagenette", "1 of 3"),
    ):
        assert f"; {holds} runs with at most three, each after epoch 1" in said_of("C16", name)
        run = published()[name]
        chains = run.description["attempts"]
        restarts[name] = [run.by_cell[cell] for chain in chains for cell in chain[:-1]]
    assert "holds in 3 of 3 seeds on MNIST and in 2 of 3 on CIFAR-10, where one seed" in text
    assert "On Imagenette it holds in 1 of 3 seeds at either width" in text
    late = {
        name: [one for one in some if one.epochs_trained == 2] for name, some in restarts.items()
    }
    assert [len(some) for some in restarts.values()] == [8, 9, 7, 8]
    assert [len(some) for some in late.values()] == [0, 0, 2, 2]
    assert "two of the seven restarts with 8 filters, and two of the eight with 64" in text
    rates = {
        name: [one.history.conflict_rate[-1][-1] for one in some] for name, some in restarts.items()
    }
    assert min(rates["table1_small_mnist"]) > 0.98 and "was 0.98 or more, on CIFAR-10 0.96" in text
    assert min(rates["table1_small_cifar10"]) > 0.96
    on_imagenette = (rates["table1_small_imagenette"], rates["table1_wide_imagenette"])
    assert [sum(rate > 0.001 for rate in some) for some in on_imagenette] == [3, 3]
    assert "above 0.001 at three of the seven restarts with 8 filters, and at three of the" in text
    stopped_late = [one for some in late.values() for one in some]
    assert round(min(one.history.conflict_rate[-1][-1] for one in stopped_late), 2) == 0.76
    assert max(one.history.conflict_rate[-2][-1] for one in stopped_late) == 0
    assert "the four networks that were stopped after epoch 2 had a rate of 0.76 or more" in text


def test_latencies_in_small():
    text = in_one_line(PAGE)
    for name, least, most in (
        ("table1_small_mnist", 9, 18),
        ("table1_small_cifar10", 35, 56),
        ("table1_small_imagenette", 290, 607),
    ):
        times = [
            1000 * one.latency_seconds for one in table1.parts_of(published()[name])["baseline"]
        ]
        assert (round(min(times)), round(max(times))) == (least, most)
    assert "took 9 to 18 ms on MNIST, 35 to 56 on CIFAR-10 and 290 to 607 on Imagenette" in text


def test_what_the_papers_width_changes():
    text = in_one_line(PAGE)
    wide, narrow = published()["table1_wide_imagenette"], published()["table1_small_imagenette"]
    parts = table1.parts_of(wide)
    tuned = table1.our_row(parts["tuned"])
    assert f"tuned networks have {tuned['layers']} layers and {tuned['MB']} MB" in text
    assert (tuned["layers"], tuned["MB"]) == ("27.3 ± 3.1", "61.3 ± 4.5")
    larger = paired(gap_by_seed(narrow), gap_by_seed(wide))
    assert told(larger) == "15.1 (3.9 to 26.4)"
    assert "is 15.1 points larger with 8 filters than with 64, seed by seed (3.9 to 26.4)" in text
    last = [one.history.test_accuracy[-5:] for part in parts.values() for one in part]
    assert round(100 * max(max(five) - min(five) for five in last)) == 17
    assert "by up to 17 points between the last 5 epochs" in text


def test_what_other_pages_tell_of_it():
    cells = {name_of(column): column for column in columns_in_small() + columns_below(UNTUNED)}
    wide = cells["table1_wide_imagenette"]
    tuned, baseline = wide["auto-tuned VGG [%]"], wide["ResNet [%]"].partition(" (")[0]
    imagenette, cifar10 = (
        cells[f"table1_small_{data}"]["ResNet - auto-tuned [points]"].partition(" ")
        for data in ("imagenette", "cifar10")
    )
    better, on_imagenette = (
        cells[f"table1_small_{data}_vgg"]["10 layers - auto-tuned [points]"].partition(" ")
        for data in ("cifar10", "imagenette")
    )
    for page, sentences in {
        "README.md": [
            f"nor at 64 on Imagenette ({tuned} and {baseline} %)",
            f"of 8 filters are {imagenette[0]} points worse than ResNets on Imagenette "
            f"{imagenette[2]} and {cifar10[0]} on CIFAR-10 {cifar10[2]}",
            f"{on_imagenette[0]} points better than auto-tuned VGGs on Imagenette "
            f"{on_imagenette[2]} and {better[0]} on CIFAR-10 {better[2].rstrip(')')};",
        ],
        "docs/results.md": [
            f"ResNet-50 {baseline} %, auto-tuned VGGs {tuned} %",
            f"with 8 filters VGGs are {''.join(imagenette).replace(' (', ' points worse (')}, "
            f"on CIFAR-10 {''.join(cifar10)}",
            f"on Imagenette {on_imagenette[0]} points better than the tuned ones "
            f"{on_imagenette[2]}, on CIFAR-10 {better[0]} points {better[2]}",
        ],
    }.items():
        for sentence in sentences:
            assert sentence in in_one_line(page)


def test_rules_beside_depths_that_nobody_tuned():
    page = fixed_depths.page_beside_fixed_depths(list(published().values()))
    page = page[page.index("Accuracy after epoch 20") :]
    text = in_one_line(PAGE)
    swept = "VGG, hand-picked | cpu_mnist_vgg_20epochs"
    for row, number in (
        ("auto-tune | autotune_mnist_mini | 26 to 34", "90.8 ± 0.5"),
        ("auto-tune | autotune_to_the_end | 32 to 50", "62.5 ± 21.3"),
        ("auto-tune | autotune_to_the_end_by_rate | 32 to 76", "46.8 ± 38.0"),
        (f"{swept} | 10", "95.9 ± 0.3"),
        (f"{swept} | 30", "91.2 ± 2.4"),
    ):
        assert f"| {row} | {number} |" in page and number in text
    assert (
        "reach 62.5 and 46.8 %, ten layers that nobody tuned 95.9 % (after epoch 20)"
        in in_one_line("docs/results.md")
    )


def test_auto_tuning_by_rule():
    by_h, by_rate = columns_below(RULES)
    for column, ending in ((by_h, ""), (by_rate, "_by_rate")):
        for name, attempts in (("autotune_seeds", "20 seeds, attempts of one epoch"),
                               ("autotune_to_the_end", "5 seeds, 20 epochs")):  # fmt: skip
            (records,) = table1.of_run(published()[name + ending])
            row = table1.our_row(records)
            assert column[f"{attempts}: layers at the end"].startswith(f"{row['layers']} (")
        assert column["accuracy, mean of the last 5 epochs"] == f"{row['accuracy [%]']} %"
    text = in_one_line(PAGE)
    one_epoch, to_the_end = (
        said_of("N9", f"{name}+{name}_by_rate")
        for name in ("autotune_seeds", "autotune_to_the_end")
    )
    assert "+61.9 (50.3 to 73.5)" in one_epoch and "61.9 layers more (50.3 to 73.5)" in text
    assert (
        "1 of 20 seeds end at the same" in one_epoch and "19 of 20 seeds end at different" in text
    )
    assert "+11.2 (-21.8 to 44.2)" in to_the_end and "11.2 layers more are left (-21.8 to" in text
    assert "accuracy -10.8 (-84.3 to 62.7) points" in to_the_end
    assert "accuracy is 10.8 points lower (-62.7 to 84.3)" in text
    assert "0 of 5 seeds end at the same" in to_the_end


def test_auto_tuning_by_reading():
    results, text = in_one_line("docs/results.md"), in_one_line(PAGE)
    left = {}
    for name in ("", "_block", "_batch", "_block_batch"):
        (records,) = table1.of_run(published()[f"autotune_seeds{name}"])
        left[name] = table1.our_row(records)["layers"]
        assert f"{left[name]} (" in text
    assert (
        "running statistics leave 45 layers, batch statistics 24 (20.3 fewer, 11.7 to 28.9)"
        in results
    )
    assert left["_batch"] == left["_block_batch"] == "24.3 ± 5.0" and left[""] == "44.6 ± 18.6"


def test_auto_tuning_in_the_reading_of_the_first_versions():
    text = in_one_line(PAGE)
    for part, row in table1.parts_of(published()["autotune_mnist_mini"]).items():
        ours = table1.our_row(row)
        assert f"| {ours['accuracy [%]']} |" in text
        assert part == "baseline" or f"| {ours['layers']} | {ours['accuracy [%]']} |" in text
