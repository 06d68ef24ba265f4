"""One kind of table, and the forms in which it is written.

A row holds values by key. Machines get all of them (CSV); people get the columns that were chosen
for them, each of which says how it shows a row (Markdown, TeX, terminal).
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbundles.files import write_atomically, write_parts_atomically

if TYPE_CHECKING:
    from rich.table import Table as TerminalTable

Row = dict[str, Any]
MISSING = "-"
TEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "<": "$<$",
        ">": "$>$",
    }
)


@dataclass(frozen=True)
class Column:
    """A column for people.

    key: the value of a row that it tells
    title: what stands over it
    show: how a row is told, where that is not just its value
    to_the_right: whether its texts end at the same place, as numbers do
    """

    key: str
    title: str
    show: Callable[[Row], str] | None = None
    to_the_right: bool = False

    def text(self, row: Row) -> str:
        """What stands in this column of a row."""
        if self.show is not None:
            return self.show(row)
        value = row.get(self.key)
        return MISSING if value is None else str(value)


def formatted(key: str, template: str, factor: float | None = None) -> Callable[[Row], str]:
    """How a number is shown: in a template such as ``{:.1f} %``, multiplied by a factor."""

    def show(row: Row) -> str:
        value = row.get(key)
        if value is None:
            return MISSING
        return template.format(value if factor is None else factor * value)

    return show


@dataclass(frozen=True)
class Table:
    """Rows, and the columns in which people read them."""

    rows: Sequence[Row]
    columns: Sequence[Column] = ()

    @property
    def titles(self) -> list[str]:
        return [column.title for column in self.columns]

    @property
    def texts(self) -> list[list[str]]:
        """The rows as people read them."""
        return [[column.text(row) for column in self.columns] for row in self.rows]

    def first(self, number: int) -> Table:
        """The same table with no more than so many rows."""
        return Table(self.rows[:number], self.columns)

    def within(self, width: int) -> tuple[Table, int]:
        """The first columns that fit whole into lines of so many characters, and how many others
        there are. At least one column is kept."""
        widths = [least + 1 for least in self._least_widths()]  # and a space between them
        ends = itertools.accumulate(widths, initial=-1)
        shown = max(1, sum(end <= width for end in ends) - 1)
        return Table(self.rows, self.columns[:shown]), len(self.columns) - shown

    def _least_widths(self) -> list[int]:
        """Of each column, in which no word is broken, and no number."""
        least, texts = [], self.texts
        for number, column in enumerate(self.columns):
            parts = column.title.split()
            for line in texts:
                parts += [line[number]] if column.to_the_right else line[number].split()
            least.append(max(map(len, parts), default=0))
        return least

    def csv(self) -> str:
        """Every value of every row, under a header; None, and what a row lacks, is an empty field,
        booleans are true/false, an `Estimate` takes three columns. Nothing at all for no rows."""
        if not self.rows:
            return ""
        rows = [_fields(row) for row in self.rows]
        keys = distinct_keys(rows)
        return _csv_lines([keys, *([row.get(key) for key in keys] for row in rows)])

    def markdown(self) -> str:
        """Lines of Markdown; each ends with a line break."""
        rules = ["---:" if column.to_the_right else "---" for column in self.columns]
        lines = [self.titles, rules, *self.texts]
        return "".join(f"{_markdown_line(line)}\n" for line in lines)

    def latex(self, layout: str) -> str:
        """A table for `booktabs`, and for `tabularx` where the layout has flexible columns (X)."""
        environment, arguments = "tabular", f"{{{layout}}}"
        if "X" in layout:
            environment, arguments = "tabularx", rf"{{\textwidth}}{{{layout}}}"
        lines = [
            rf"\begin{{{environment}}}{arguments}",
            r"\toprule",
            _latex_line(self.titles),
            r"\midrule",
            *map(_latex_line, self.texts),
            r"\bottomrule",
            rf"\end{{{environment}}}",
        ]
        return "".join(f"{line}\n" for line in lines)

    def _widths_within(self, width: int) -> list[int]:
        """Of each column, where lines are so wide: what is left of it goes to columns that would
        break their texts between words, to those first that need least."""
        least, texts = self._least_widths(), [self.titles, *self.texts]
        wanted = [max(len(line[number]) for line in texts) for number in range(len(least))]
        spare, widths = width - sum(least) - len(least) + 1, list(least)
        waiting = sorted(range(len(least)), key=lambda number: wanted[number] - least[number])
        for place, number in enumerate(waiting):
            share = max(0, spare) // (len(waiting) - place)
            widths[number] += min(wanted[number] - least[number], share)
            spare -= widths[number] - least[number]
        return widths

    def terminal(self, title: str | None = None, width: int | None = None) -> TerminalTable:
        """For the console of `rich`. width: of its lines, for a table that fits `within` it, of
        which then no number is cut."""
        from rich.table import Table as TerminalTable

        table = TerminalTable(
            title=title,
            title_justify="left",
            box=None,
            header_style="bold",
            pad_edge=False,
            collapse_padding=True,
        )
        fixed = [None] * len(self.columns) if width is None else self._widths_within(width)
        for column, least, own in zip(self.columns, self._least_widths(), fixed, strict=True):
            table.add_column(
                column.title,
                justify="right" if column.to_the_right else "left",
                min_width=least,
                width=own,
            )
        for line in self.texts:
            table.add_row(*line)
        return table

    def write_csv(self, path: Path) -> None:
        """Write every value of every row."""
        write_atomically(path, self.csv())


def write_long_csv(path: Path, parts: Iterable[Sequence[Row]]) -> None:
    """Write rows with numbers, texts and None, part by part: a table that may be too long for
    memory. All rows have the keys of the first one."""
    write_parts_atomically(path, _csv_of_parts(parts))


def _csv_of_parts(parts: Iterable[Sequence[Row]]) -> Iterator[str]:
    keys: list[str] = []
    for rows in parts:
        if rows and not keys:
            keys = list(rows[0])
            yield _csv_lines([keys])
        yield _csv_lines([row[key] for key in keys] for row in rows)


def _csv_lines(lines: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def distinct_keys(rows: Sequence[Row]) -> list[str]:
    """All keys, in the order in which they come: rows may lack some of the others'."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _fields(row: Row) -> Row:
    """A row with a plain value for each column of a file."""
    fields: Row = {}
    for key, value in row.items():
        if isinstance(value, bool):
            fields[key] = str(value).lower()
        elif value is None or isinstance(value, (int, float, str)):
            fields[key] = value  # the writer makes an empty field of None
        else:
            fields |= value.fields(key)  # such as an Estimate
    return fields


def _markdown_line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def _latex_line(texts: Sequence[str]) -> str:
    return " & ".join(text.translate(TEX) for text in texts) + r" \\"
