"""Table 1 of the paper: auto-tuned networks beside the best ResNets, ours beside the paper's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from cbundles import criterion, readings
from cbundles.chains import decision_on
from cbundles.config import Cell
from cbundles.decisions import autotune
from cbundles.files import write_atomically
from cbundles.records import SweepRecord
from cbundles.report import evidence, summary
from cbundles.report.runs import Run
from cbundles.report.statistics import mean_and_spread
from cbundles.report.table import Column, Row, Table
from cbundles.wording import counted

PAPER_EPOCHS, PAPER_FILTERS = 120, 64


@dataclass(frozen=True)
class Published:
    """A row as the paper has it: mean and spread over three runs, None where it gives none.

    accuracy: percent
    megabytes: float32
    milliseconds: a step of 64 images
    """

    dataset: str
    network: str
    layers: tuple[float, float | None]
    accuracy: tuple[float, float]
    megabytes: tuple[float, float | None]
    milliseconds: tuple[float, float | None]


PAPER = (
    Published("imagenette", "resnet", (50, None), (85.6, 0.8), (116, None), (310, None)),
    Published("imagenette", "vgg", (24, 1.6), (84.7, 0.1), (63, 6.0), (200, None)),
    Published("cifar10", "resnet", (76, None), (85.7, 0.4), (178, None), (130, None)),
    Published("cifar10", "vgg", (19, 0.9), (85.3, 0.4), (53, 1.0), (48, 2.5)),
    Published("svhn_cropped", "resnet", (50, None), (95.4, 0.1), (116, None), (90, None)),
    Published("svhn_cropped", "vgg", (19, 0.9), (95.1, 0.1), (54, 0.5), (46, 1.8)),
    Published("mnist", "resnet", (50, None), (99.4, 0.0), (116, None), (88, None)),
    Published("mnist", "vgg", (17, 1), (99.3, 0.5), (54, 2.1), (40, None)),
)
NETWORKS = {"resnet": "ResNet", "vgg": "auto-tune", "own": "auto-tune"}
MEASURED = (
    "layers",
    "accuracy [%]",
    "MB",
    "ms/step",
    "parameters",
    "GFLOP/image",
    "n",
)
PAPER_ROWS = "paper_rows"  # in run.json: whether the paper's rows stand beside those of the run
COLUMNS = [Column(key, key) for key in ("data set", "network", "source", *MEASURED, "how")]
ATTEMPT = ("seed", "layers", "pruned after epoch", "state")
OWN_COLUMNS = [column for column in COLUMNS if column.key != "source"]
OWN_CAPTION = (
    "Accuracy: test set, mean of the last 5 epochs, or of the last quarter of a training of fewer "
    "than 20; ± is the standard deviation over n seeds. MB: "
    "float32 parameters and running statistics. ms/step: inference of 64 images, median of "
    "synchronised calls on the device named in the row, one core where that is a CPU worker."
)
CAPTION = (
    f"{OWN_CAPTION} The paper's times are those of its own GPU. Rows at the end are smaller "
    "profiles, not table 1, or further networks of a row above."
)


def our_row(records: Sequence[SweepRecord]) -> Row:
    """One row from the completion records of the seeds of one network."""
    first, cell = records[0], records[0].cell
    built = f"{cell.model.base_filters} filters" if first.is_convolutional else cell.model.build
    milliseconds = [1000 * r.latency_seconds for r in records if r.latency_seconds]
    return {
        "data set": cell.data.name,
        "network": NETWORKS[cell.model.family],
        "source": "ours",
        "layers": mean_and_spread([record.depth for record in records], 1),
        "accuracy [%]": mean_and_spread([100 * summary.accuracy_of(r) for r in records], 1),
        "MB": _megabytes_in_words([r.bytes for r in records]),
        "ms/step": mean_and_spread(milliseconds, 1) if milliseconds else "not measured",
        "parameters": _parameters_in_words([r.parameters for r in records]),
        "GFLOP/image": mean_and_spread([r.flops / 1e9 for r in records], 3),
        "n": str(len(records)),
        "how": (
            f"{cell.data.name}, {built}, {counted(cell.training.epochs, 'epoch')}"
            f"{_pruned_by(cell)} "
            f"(accuracy {summary.accuracy_epochs_text(records)}), "
            f"{first.origin.device} ({first.origin.processor})"
        ),
    }


def _pruned_by(cell: Cell) -> str:
    """By what, in which reading, a network may have been pruned."""
    if not cell.training.checks:
        return ""
    by = "H > 0"
    if cell.training.stop_conflicting == criterion.CONFLICT_RATE:
        by = f"a conflict rate above {criterion.CLEAR_RATE:g}"
    reading = readings.name_in_full(cell.own_reading, convolutional=cell.model.is_convolutional)
    return f", pruned by {by} ({reading})"


def _megabytes_in_words(sizes: Sequence[int]) -> str:
    """Of networks of so many bytes, with as many digits as tell small networks apart."""
    digits = 1 if sizes[0] > 1e7 else 2 if sizes[0] > 1e5 else 3
    return mean_and_spread([size / 1e6 for size in sizes], digits)


def _parameters_in_words(numbers: Sequence[int]) -> str:
    if fmean(numbers) < 1e5:
        return mean_and_spread([number / 1e3 for number in numbers], 1) + " k"
    return mean_and_spread([number / 1e6 for number in numbers], 2) + " M"


def papers_row(paper: Published) -> Row:
    return {
        "data set": paper.dataset,
        "network": NETWORKS[paper.network],
        "source": "paper",
        "layers": _as_printed(*paper.layers),
        "accuracy [%]": _as_printed(*paper.accuracy),
        "MB": _as_printed(*paper.megabytes),
        "ms/step": _as_printed(*paper.milliseconds),
        "parameters": "",
        "GFLOP/image": "",
        "n": "3",
        "how": "120 epochs, 64 filters",
    }


def _as_printed(mean: float, spread: float | None) -> str:
    return f"{mean:g}" if spread is None else f"{mean:g} ± {spread:g}"


def row_not_run(paper: Published) -> Row:
    """In the place of ours, where no network of this size was run."""
    row = {column.key: "" for column in COLUMNS}
    identity = {"data set": paper.dataset, "network": NETWORKS[paper.network], "source": "ours"}
    return {**row, **identity, "accuracy [%]": "not run"}


def comparison(groups: Sequence[Sequence[SweepRecord]]) -> Table:
    """The paper's rows, each followed by ours when it was run at full size, then smaller ones."""
    ours: dict[Published, Row] = {}
    smaller = []
    for records in groups:
        paper = published(records[0])
        if paper is None or paper in ours:
            smaller.append(our_row(records))
        else:
            ours[paper] = our_row(records)
    rows = []
    for paper in PAPER:
        rows += [papers_row(paper), ours.get(paper) or row_not_run(paper)]
    return Table(rows + smaller, COLUMNS)


def parts_of(run: Run) -> dict[str, list[SweepRecord]]:
    """The records of an auto-tuning: the ResNets to compare with (baseline), and the networks that
    tuning ended at (tuned)."""
    known = run.by_cell
    return {
        part: [known[cell] for cell in run.description.get(part, []) if cell in known]
        for part in ("baseline", "tuned")
    }


def of_run(run: Run) -> list[list[SweepRecord]]:
    """The records of an auto-tuning, a group for each row of the table."""
    return [records for records in parts_of(run).values() if records]


def write_run(run: Run) -> list[Path]:
    """The networks of an auto-tuning, beside those of the paper where that was asked for; returns
    the paths."""
    groups, folder = of_run(run), run.store.folder
    if run.description.get(PAPER_ROWS):
        return write_table1(groups, folder)
    title = "# Auto-tuned networks"
    ways = f"## Attempts\n\n{_table_of_attempts(run).markdown()}"
    if not groups:
        path = folder / "table.md"
        write_atomically(path, f"{title}\n\nNo network has come to its end yet.\n\n{ways}")
        return [path]
    own = Table([our_row(group) for group in groups], OWN_COLUMNS)
    page = f"{title}\n\n{OWN_CAPTION}\n\n{own.markdown()}\n{ways}"
    return write_in_formats(own, folder / "table", page)


class Attempts(NamedTuple):
    """The networks that auto-tuning made of a seed, of which the last may be in training yet, as
    far as they are known.

    layers: of each
    pruned: after which epochs all but the last were
    """

    seed: int
    layers: list[str]
    pruned: list[str]
    state: str


def attempts(run: Run) -> list[Attempts]:
    """Of each seed of which there is a record."""
    known, description, found = run.by_cell, run.description, []
    for chain in description["attempts"]:
        records = [known.get(cell) for cell in chain]
        trained = [record for record in records if record is not None]
        if not trained:
            continue
        layers = list(_layers_along(records, description.get("rule")))
        pruned = ["?" if record is None else str(record.epochs_trained) for record in records[:-1]]
        state = _state_of(chain[-1], description)
        found.append(Attempts(trained[0].seed, layers, pruned, state))
    return found


def _table_of_attempts(run: Run) -> Table:
    """A row for each seed."""
    rows = [
        {
            "seed": str(one.seed),
            "layers": " -> ".join(one.layers),
            "pruned after epoch": ", ".join(one.pruned) or "-",
            "state": one.state,
        }
        for one in attempts(run)
    ]
    return Table(rows, [Column(key, key) for key in ATTEMPT])


def _layers_along(records: Sequence[SweepRecord | None], rule: str | None) -> Iterator[str]:
    """Of each network of a chain; of one without a record by what the one before led to."""
    for before, record in itertools.pairwise([None, *records]):
        if record is not None:
            yield str(record.depth)
        else:
            yield "?" if before is None or rule is None else _layers_left(before, rule)


def _layers_left(record: SweepRecord, rule: str) -> str:
    """By an attempt, to the network that follows it; "?" where that cannot be told: what a user's
    blocks are made of is not known, nor what another version's rule does."""
    if record.cell.model.is_own:
        return "?"
    try:
        following = autotune.following(record.cell, decision_on(record, rule))
    except ValueError:
        return "?"
    return "?" if following is None else str(following.model.depth)


def _state_of(cell: str, description: Mapping[str, Any]) -> str:
    """Of the last network of a seed."""
    if cell in description.get("tuned", []):
        return "trained to the end"
    return "given up" if cell in description.get("given_up", []) else "under way"


def write_table1(
    groups: Sequence[Sequence[SweepRecord]], folder: Path, beside: str = ""
) -> list[Path]:
    """The table of the paper with our rows; returns the paths. beside: what stands below it in
    Markdown."""
    table = comparison(groups)
    page = f"# Table 1\n\n{CAPTION}\n\n{table.markdown()}{beside}"
    return write_in_formats(table, folder / "table1", page)


def write_in_formats(table: Table, path: Path, page: str) -> list[Path]:
    """A table in three formats; returns the paths. page: what is written in Markdown."""
    texts = {
        "csv": table.csv(),
        "md": page,
        "tex": table.latex("l" * len(table.columns)),
    }
    paths = []
    for kind, text in texts.items():
        paths.append(path.with_suffix(f".{kind}"))
        write_atomically(paths[-1], text)
    return paths


def published(record: SweepRecord) -> Published | None:
    """The paper's row that a record belongs to; None for another size, data set or recipe."""
    cell = record.cell
    if cell.training.epochs != PAPER_EPOCHS or cell.model.base_filters != PAPER_FILTERS:
        return None
    return row_of(cell) if evidence.on_named_data(cell) == cell else None


def row_of(cell: Cell) -> Published | None:
    """The paper's row that a network belongs to, with any number of filters and epochs; None for
    another data set or recipe."""
    named = evidence.on_named_data(cell)
    if not evidence.is_as_the_paper_trains(named):
        return None
    for paper in PAPER:
        is_named = (paper.dataset, paper.network) == (named.data.name, cell.model.family)
        is_as_deep = paper.network == "vgg" or cell.model.depth == paper.layers[0]
        if is_named and is_as_deep:
            return paper
    return None


def resnet_of(paper: Published) -> Published:
    """The row of the ResNet that a row is compared with."""
    return next(p for p in PAPER if (p.dataset, p.network) == (paper.dataset, "resnet"))
