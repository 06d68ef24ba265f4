"""What commands print, besides the progress of a run: lines, tables, names of files."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from cbundles import data
from cbundles.commands.running import Options
from cbundles.config import TUNE, Cell, Images, short_name
from cbundles.data.dataset import Facts
from cbundles.report.table import Table
from cbundles.report.words import listed
from cbundles.store import Store
from cbundles.wording import counted

LINE_WIDTH = 79
INDENT = "    "
NOTHING_WAS_RUN = "Nothing was run; leave out --plan to start."


def say(console: Console, text: str) -> None:
    """Text as it is: no line is broken, nothing coloured, and brackets are brackets."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def say_indented(console: Console, text: str) -> None:
    """A paragraph that explains the line before it, in lines that fit any terminal."""
    for line in textwrap.wrap(text, LINE_WIDTH - len(INDENT)):
        say(console, INDENT + line)


def show_what_fits(table: Table, console: Console) -> None:
    """A table whose columns stand in a file, too: those that the lines have room for, whole."""
    shown, others = table.within(console.width)
    console.print(shown.terminal(width=console.width))
    if others:
        say(console, f"... {counted(others, 'more column')} in the file")


def warn(console: Console, text: str) -> None:
    """Of what was left out; it does not change the exit code by itself."""
    console.print(text, style="red", highlight=False, markup=False, soft_wrap=True)


def say_beside_results(text: str, options: Options, console: Console) -> None:
    """For people: to standard error, where results are for machines."""
    if options.as_json:
        print(text, file=sys.stderr)
    else:
        say(console, text)


def say_what_was_found(cells: Sequence[Cell], options: Options, console: Console) -> None:
    """Images and classes of data sets that are folders, and what is left out of them; and by what
    the networks of a user's architecture are known."""
    model = cells[0].model  # a grid has one architecture
    if model.is_own:
        text = (
            f"{model.build}: the digest of its file, {model.source}, is part of the identity of "
            "every network; comments are not in it, nor is what the file imports"
        )
        say_beside_results(text, options, console)
    for name in dict.fromkeys(cell.data.name for cell in cells):
        say_contents(name, options, console)


def say_contents(name: str, options: Options, console: Console) -> None:
    """Images and classes of a data set that is a folder, and what is left out of it."""
    for line in data.contents(name):
        say_beside_results(line, options, console)


def say_remarks(images: Images, options: Options, console: Console) -> None:
    """What became of images when they were decoded."""
    for remark in data.remarks(*images):
        say_beside_results(f"{_short(images)}: {remark}", options, console)


def say_what_was_done(
    cells: Sequence[Cell], facts: Mapping[Images, Facts], options: Options, console: Console
) -> None:
    """What became of images when they were decoded, and probe sets that are smaller than asked."""
    for images in dict.fromkeys(cell.data.images for cell in cells):
        say_remarks(images, options, console)
    probes = {(cell.data.images, cell.probe.samples) for cell in cells if cell.kind != TUNE}
    for images, samples in sorted(probes, key=str):
        available = facts[images].train
        if isinstance(samples, int) and samples > available:
            fewer = f"the probe set is all {available} training images, not {samples}"
            say_beside_results(f"{_short(images)}: {fewer}", options, console)


def _short(images: Images) -> str:
    """Without the path of a folder, which was named before."""
    return str(images._replace(name=short_name(images.name)))


def list_files(console: Console, what: str, paths: Iterable[Path]) -> None:
    """A line for each file, beginning with what it is: table, figure, network."""
    for path in paths:
        say(console, f"{what:<9}{path}")


def say_failures(console: Console, failed: int, store: Store, *, fresh: bool) -> None:
    """fresh: whether the command began with `--fresh`, which would do all of it again."""
    if failed:
        how = "the same command without --fresh" if fresh else "the same command"
        warn(
            console,
            f"\n{counted(failed, 'network')} failed (tracebacks in {store.logs}); {how} tries "
            "again",
        )


def say_whose_times(
    console: Console, options: Options, cells: Iterable[Cell] | None = None
) -> None:
    """Every prediction is that of one CPU, scaled by what this machine took before."""
    known = options.speed.known_of(cells)
    told = [
        f"{networks} take {ratio:.2g} times as long as on the processor that was measured "
        f"(median of the last {counted(of, 'command')})"
        for networks, (ratio, of) in known.items()
    ]
    if told:
        say(console, f"The times are those of this machine: {listed(told)}.")
    elif options.device == "gpu":
        console.print("The times are those of a CPU; none has been measured on this GPU yet.")
