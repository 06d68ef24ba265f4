"""Table 1 in small: the experiment of the paper's Table 1 with fewer filters and epochs.

Each auto-tuning on a data set of the paper belongs to a scale, its filters and epochs. A scale has
a table as the paper's, in which every row stands beside the paper's own, and a caption that says
what is less: nobody shall take it for Table 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cbundles.config import AUTOTUNE
from cbundles.records import SweepRecord
from cbundles.report import table1
from cbundles.report.evidence import has_deepest_blocks
from cbundles.report.runs import Run
from cbundles.report.select import seeds
from cbundles.report.statistics import mean_and_spread
from cbundles.report.table import Column, Row, Table
from cbundles.report.table1 import PAPER, PAPER_EPOCHS, PAPER_FILTERS, Published
from cbundles.report.words import listed, lowest_to_highest
from cbundles.wording import counted

# The paper's columns in their order, and what it does not tell.
SHOWN = (
    "data set",
    "network",
    "source",
    "layers",
    "accuracy [%]",
    "MB",
    "ms/step",
    "GFLOP/image",
    "restarts",
    "n",
    "how",
)
COLUMNS = [Column(key, key) for key in SHOWN]
PAPERS_RESTARTS = "at most 3"  # sec. 3.6
ABOUT_SVHN = (
    "SVHN comes through TensorFlow Datasets alone; where it cannot be fetched its rows are not run."
)


class Scale(NamedTuple):
    """What the networks of one table have in common."""

    filters: int
    epochs: int


def _instead_of(papers: int, own: int) -> str:
    return " as in the paper" if own == papers else f" instead of {papers}"


@dataclass
class SmallTable:
    """The networks of one scale, a list of rows for each row of the paper that was run.

    seeds: of each of these rows
    """

    scale: Scale
    rows: dict[Published, list[Row]] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"Table 1 in small: {self.scale.filters} filters, {self.scale.epochs} epochs"

    @property
    def caption(self) -> str:
        """What differs from the paper, and what the columns say."""
        text = (
            f"This is not the paper's Table 1. {self._about_scale} A row has "
            f"{lowest_to_highest(self.seeds)} seeds (the paper: 3 runs). Images have the paper's "
            "size, 28 to 128 pixels; where the last column names a folder they are copies, perhaps "
            "with losses. Restarts: how often a network was pruned and started again. "
            f"{table1.OWN_CAPTION}"
        )
        is_missing = {paper.dataset for paper in PAPER if paper not in self.rows}
        return f"{text} {ABOUT_SVHN}" if "svhn_cropped" in is_missing else text

    @property
    def _about_scale(self) -> str:
        """Filters and epochs beside the paper's, and what can be compared then."""
        filters, epochs = self.scale
        beside = (
            f"{filters} filters in the first stage{_instead_of(PAPER_FILTERS, filters)}, trained "
            f"for {epochs} epochs{_instead_of(PAPER_EPOCHS, epochs)}"
        )
        if filters == PAPER_FILTERS:
            compared = (
                "Layers and sizes can be compared with the paper's; of accuracies only auto-tuned "
                "beside ResNet"
            )
        else:
            compared = (
                "Accuracies, sizes and times are those of smaller networks than the paper's: what "
                "can be compared is auto-tuned beside ResNet"
            )
        timed = "times only where nothing else used the machine"
        return f"Networks have {beside}. {compared}; {timed}."

    @property
    def table(self) -> Table:
        """The paper's rows, each followed by ours."""
        rows: list[Row] = []
        for paper in PAPER:
            restarts = PAPERS_RESTARTS if paper.network == "vgg" else ""
            rows.append({**table1.papers_row(paper), "restarts": restarts})
            rows += self.rows.get(paper) or [_row_without_run(paper)]
        return Table([{key: row[key] for key in SHOWN} for row in rows], COLUMNS)

    @property
    def page(self) -> str:
        """In Markdown."""
        return f"# {self.title}\n\n{self.caption}\n\n{self.table.markdown()}"


def small_tables(runs: Sequence[Run]) -> list[SmallTable]:
    """A table for each scale of these runs that is not the paper's, that of most filters last."""
    tables: dict[Scale, SmallTable] = {}
    for run in runs:
        for part, records in table1.parts_of(run).items():
            is_under_way = part == "tuned" and run.kind == AUTOTUNE and not records
            some = run.starts if is_under_way else records
            paper = _row_in_small(run, some)
            if paper is None:
                continue
            cell = some[0].cell
            scale = Scale(cell.model.base_filters, cell.training.epochs)
            table = tables.setdefault(scale, SmallTable(scale))
            if is_under_way:
                table.rows.setdefault(paper, []).append(_row_under_way(run, paper))
                continue
            restarts = _restarts(run) if part == "tuned" else ""
            table.rows.setdefault(paper, []).append(_our_small_row(records, paper, restarts))
            table.seeds.append(seeds(records))
    return [tables[scale] for scale in sorted(tables)]


def left_for_table1(runs: Sequence[Run]) -> list[list[SweepRecord]]:
    """The rows of these runs that no small table holds."""
    return [
        records
        for run in runs
        for records in table1.of_run(run)
        if _row_in_small(run, records) is None
    ]


def write_small_tables(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write all of them into one page, and into one file for machines; returns the paths, none
    without any network of such a scale."""
    tables = small_tables(runs)
    if not tables:
        return []
    page = "\n".join(table.page for table in tables)
    rows = [{**table.scale._asdict(), **row} for table in tables for row in table.table.rows]
    scale_columns = [Column(key, key) for key in Scale._fields]
    everything = Table(rows, [*scale_columns, *COLUMNS])
    return table1.write_in_formats(everything, folder / "table1_small", page)


def _row_in_small(run: Run, records: Sequence[SweepRecord]) -> Published | None:
    """The paper's row that networks belong to which are smaller than its own. Those that were tuned
    must have begun as deep as the paper's."""
    if not records or table1.published(records[0]) is not None:
        return None
    began_as_deep = all(has_deepest_blocks(start.cell) for start in run.starts)
    return table1.row_of(records[0].cell) if began_as_deep else None


def _our_small_row(records: Sequence[SweepRecord], paper: Published, restarts: str) -> Row:
    first, row = records[0], table1.our_row(records)
    batch = f"steps of {first.cell.training.batch_size} images an epoch"
    steps = "" if first.steps_per_epoch is None else f", {first.steps_per_epoch} {batch}"
    return {
        **row,
        "data set": paper.dataset,
        "restarts": restarts,
        "how": f"{row['how']}{steps}",
    }


def _restarts(run: Run) -> str:
    """How often the seeds that came to an end were pruned, and which did not."""
    tuned, given_up = run.description["tuned"], run.description.get("given_up", [])
    chains = run.description["attempts"]
    ended = [len(chain) - 1 for chain in chains if chain[-1] in tuned]
    text = mean_and_spread(ended, 1)
    if given_up:
        text += f"; {counted(len(given_up), 'seed')} given up"
    under_way = len(chains) - len(tuned) - len(given_up)
    return f"{text}; {counted(under_way, 'seed')} under way" if under_way else text


def _row_under_way(run: Run, paper: Published) -> Row:
    """Of an auto-tuning of which no seed has come to its end: the network that each is at."""
    attempts = table1.attempts(run)
    return {
        **_row_without_run(paper),
        "layers": f"{listed([one.layers[-1] for one in attempts])} so far",
        "accuracy [%]": "under way",
        "restarts": f"{listed([str(len(one.layers) - 1) for one in attempts])} so far",
    }


def _row_without_run(paper: Published) -> Row:
    return {**dict.fromkeys(SHOWN, ""), **table1.row_not_run(paper)}
