"""Table 1 of the paper: auto-tuned networks beside the best ResNets, ours beside the paper's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbundles.config import Cell
from cbundles.report import evidence, summary, tables
from cbundles.report.runs import Run
from cbundles.store import write_atomically

PAPER_EPOCHS, PAPER_FILTERS = 120, 64


@dataclass(frozen=True)
class Published:
    """A row as the paper has it: accuracy in percent, float32 megabytes, milliseconds a step of
    64 images; mean and spread over three runs, None where it gives none."""

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
NETWORKS = {"resnet": "ResNet", "vgg": "auto-tune"}
COLUMNS = ("data set", "network", "source", "layers", "accuracy [%]", "MB", "ms/step", "parameters",
           "GFLOP/image", "n", "how")  # fmt: skip


def row(records: Sequence[dict[str, Any]]) -> dict[str, str]:
    """One row from the completion records of the seeds of one network."""
    rows = [summary.row(record) for record in records]
    cell = Cell.fromdict(records[0]["config"])
    times = [1000 * r["latency_seconds"] for r in records if r.get("latency_seconds")]
    first = records[0]
    how = (
        f"{cell.data.name}, {cell.model.base_filters} filters, {cell.training.epochs} epochs, "
        f"{first['device']} ({first['processor']})"
    )
    values = (
        cell.data.name,
        NETWORKS[cell.model.family],
        "ours",
        _spread([row["depth"] for row in rows], 1),
        _spread([100 * row["test_accuracy"] for row in rows], 1),
        _spread([record["bytes"] / 1e6 for record in records], 1 if first["bytes"] > 1e7 else 2),
        _spread(times, 1) if times else "not measured",
        _spread([record["parameters"] / 1e6 for record in records], 2) + " M",
        _spread([record["flops"] / 1e9 for record in records], 3),
        str(len(records)),
        how,
    )
    return dict(zip(COLUMNS, values, strict=True))


def rows(groups: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, str]]:
    """The paper's rows, each followed by ours when it was run at full size, then smaller ones."""
    found, smaller = [], []
    ours = {}
    for group in groups:
        paper = published(group[0])
        if paper is None or paper in ours:
            smaller.append(row(group))
        else:
            ours[paper] = row(group)
    for paper in PAPER:
        found.append(_published(paper))
        missing = {**_published(paper), **dict.fromkeys(COLUMNS[3:], ""), "source": "ours"}
        missing["accuracy [%]"] = "not run"
        found.append(ours.get(paper, missing))
    return found + smaller


def of_run(run: Run) -> list[list[dict[str, Any]]]:
    """The records of an auto-tuning, a group for each row of the table."""
    known = {record["cell"]: record for record in run.records}
    parts = [run.description.get(part, []) for part in ("baseline", "tuned")]
    groups = [[known[cell] for cell in cells if cell in known] for cells in parts]
    return [group for group in groups if group]


def write(groups: Sequence[Sequence[dict[str, Any]]], folder: Path) -> list[Path]:
    """The table in three formats; returns their paths."""
    content = rows(groups)
    texts = {"csv": tables.csv_text(content), "md": markdown(content), "tex": latex(content)}
    for kind, text in texts.items():
        write_atomically(folder / f"table1.{kind}", text)
    return [folder / f"table1.{kind}" for kind in texts]


def published(record: dict[str, Any]) -> Published | None:
    """The paper's row that a record belongs to; None for another size, data set or recipe."""
    cell = Cell.fromdict(record["config"])
    full = cell.training.epochs == PAPER_EPOCHS and cell.model.base_filters == PAPER_FILTERS
    as_the_paper = evidence.is_as_the_paper_trains(cell)
    for paper in PAPER:
        named = (paper.dataset, paper.network) == (cell.data.name, cell.model.family)
        tuned = paper.network == "vgg" or cell.model.depth == paper.layers[0]
        if full and as_the_paper and named and tuned:
            return paper
    return None


def resnet_of(paper: Published) -> Published:
    """The row of the ResNet that a row is compared with."""
    return next(p for p in PAPER if (p.dataset, p.network) == (paper.dataset, "resnet"))


def _published(paper: Published) -> dict[str, str]:
    values = (
        paper.dataset, NETWORKS[paper.network], "paper", _pm(*paper.layers), _pm(*paper.accuracy),
        _pm(*paper.megabytes), _pm(*paper.milliseconds), "", "", "3", "120 epochs, 64 filters",
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _pm(mean: float, spread: float | None) -> str:
    return f"{mean:g}" if spread is None else f"{mean:g} ± {spread:g}"


def _spread(values: Sequence[float], digits: int) -> str:
    """Mean and sample standard deviation; a single value stands alone."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {statistics.stdev(values):.{digits}f}"


CAPTION = (
    "Accuracy: test set, mean of the last 5 epochs; ± is the standard deviation over n seeds. MB: "
    "float32 parameters and running statistics. ms/step: inference of 64 images, median of "
    "synchronised calls on the device named in the row, one core where that is a CPU worker; the "
    "paper's times are those of its own GPU. Rows at the end are smaller profiles, not table 1."
)


def markdown(content: Sequence[dict[str, str]]) -> str:
    lines = ["# Table 1", "", CAPTION, "", "| " + " | ".join(COLUMNS) + " |"]
    lines.append("|" + " --- |" * len(COLUMNS))
    lines += [tables.markdown_row([line[c] for c in COLUMNS]) for line in content]
    return "\n".join(lines) + "\n"


def latex(content: Sequence[dict[str, str]]) -> str:
    """A table for `booktabs`."""
    body = [tables.latex_row([line[c] for c in COLUMNS]) for line in content]
    head = [r"\begin{tabular}{" + "l" * len(COLUMNS) + "}", r"\toprule", tables.latex_row(COLUMNS)]
    return "\n".join([*head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]) + "\n"
