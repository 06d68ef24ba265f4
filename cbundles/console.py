"""What a person or a program sees while a run is under way: rich, plain lines, or JSON lines."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cbundles.executor.planner import Job, wall_seconds

LINE_SECONDS = 30.0  # without a terminal there is a line at least so often, if there are news


class Tally:
    """How far a run is. Predicted seconds weigh the jobs; the clock tells what they are worth."""

    def __init__(self, jobs: dict[str, Job], cost: dict[str, float], workers: int) -> None:
        self.jobs = jobs
        self.cost = cost
        self.done_cells = 0
        self.total_cells = sum(len(job.cells) for job in jobs.values())
        self.told: dict[str, str] = {}  # what each job told last
        self.half_done: set[str] = set()  # which of them are not finished
        self._workers = workers
        self._share: dict[str, float] = {}
        self._resumed: dict[str, float] = {}
        self._trained: dict[str, float] = {}  # the share of its epochs that a population has had
        self._under_way: set[str] = set()
        self._seconds: dict[str, float] = {}  # of a worker, for each job
        self._counted_until = time.monotonic()

    def update(self, event: dict[str, Any]) -> None:
        key = event.get("population", "")
        self._count_seconds()
        if key:
            self._under_way.add(key)
        if event["event"] in ("epoch", "step"):
            self.told[key] = _progress(event, self.jobs[key])
            self.half_done.add(key)
        if event["event"] == "epoch":
            share = event["epoch"] / self.jobs[key].cells[0].training.epochs
            self._trained[key] = share
            self._progress(key, share)
        elif event["event"] == "step":
            self._progress(key, event["part"] / event["of"])
        elif event["event"] == "finished":
            self._end(key, self._trained.get(key, 1.0))
        elif event["event"] == "failed":
            self._end(key, self._share.get(key, 0.0))

    def _count_seconds(self) -> None:
        """Starting the interpreter is no measure of training: nothing is under way then."""
        now = time.monotonic()
        for key in self._under_way:
            self._seconds[key] = self._seconds.get(key, 0.0) + now - self._counted_until
        self._counted_until = now

    def _progress(self, key: str, share: float) -> None:
        self._resumed.setdefault(key, share)  # what was there when it began
        self._share[key] = share

    def _end(self, key: str, done: float) -> None:
        """What is left of a network that was stopped, or failed, is neither done nor to do."""
        self.cost[key] *= done
        self._resumed[key] = self._resumed.get(key, 0.0) / done if done else 0.0
        self._share[key] = 1.0
        self._under_way.discard(key)
        self.half_done.discard(key)
        self.done_cells += len(self.jobs[key].cells)

    def _spent(self, key: str) -> tuple[float, float]:
        """Seconds that a worker has had for a job, and what they were predicted to be."""
        share, resumed = self._share.get(key, 0.0), self._resumed.get(key, 0.0)
        return self._seconds.get(key, 0.0), self.cost[key] * (share - resumed)

    def add(self, job: Job, cost: float) -> None:
        """Something more to do has turned up."""
        self.jobs[job.key] = job
        self.cost[job.key] = cost
        self.total_cells += len(job.cells)

    @property
    def latest(self) -> list[str]:
        """How far each job is that is not finished."""
        return [text for key, text in self.told.items() if key in self.half_done]

    def at_the_end(self) -> list[str]:
        """Lines that say what a run that was stopped has done."""
        lines = [f"stopped: {self.done_cells} of {self.total_cells} networks done"]
        return [*lines, *(f"half done: {text}" for text in self.latest)]

    def seconds_left(self) -> float | None:
        """None until there is something to judge by."""
        spent, earned = map(sum, zip(*map(self._spent, self.jobs), strict=True))
        if earned <= 0:
            return None
        left = [cost * (1.0 - self._share.get(key, 0.0)) for key, cost in self.cost.items()]
        return wall_seconds(left, self._workers) * spent / earned


class Display(Protocol):
    def event(self, event: dict[str, Any], tally: Tally) -> None:
        """Show one event of the executor. `tally` has been updated with it."""

    def line(self, text: str) -> None:
        """Show a line of text."""

    def close(self) -> None:
        """Nothing more comes."""


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "..."
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def _progress(event: dict[str, Any], job: Job) -> str:
    """``fc width=10 depth=50 seed=0: epoch 3/10, accuracy 11.4 %, H 2.303`` (its first member);
    of a study, and where nothing has just been measured, how much of it is done."""
    cell = job.cells[0]
    if "bundle_entropy" not in event:
        return f"{cell.label}: {event['part']} of {event['of']} {event['what']}"
    more = f" (+{len(job.cells) - 1} more)" if len(job.cells) > 1 else ""
    entropy = event["bundle_entropy"][0]
    h = "diverged" if entropy is None else f"H {entropy:.3f}"
    accuracy = 100 * event["test_accuracy"][0]
    if event["event"] == "step":
        place = f"step {event['step']} of epoch 1/{cell.training.epochs}"
    else:
        place = f"epoch {event['epoch']}/{cell.training.epochs}"
    return f"{cell.label}{more}: {place}, accuracy {accuracy:.1f} %, {h}"


def _failure(event: dict[str, Any], job: Job) -> str:
    labels = ", ".join(cell.label for cell in job.cells)
    where = f" (see {event['log']})" if event["log"] else ""
    return f"FAILED {labels}: {event['reason']}{where}"


class PlainDisplay:
    """A line for each finished or failed job, and now and then how far the others are; for
    logs and pipes."""

    def __init__(self, file: TextIO | None = None) -> None:
        """file: a log, whose lines begin with the time; by default standard output."""
        self._file = file
        self._last_line = time.monotonic()

    def event(self, event: dict[str, Any], tally: Tally) -> None:
        key = event.get("population", "")
        left = f"about {duration(tally.seconds_left())} left"
        if event["event"] == "finished":
            label = tally.jobs[key].cells[0].label
            done = f"[{tally.done_cells}/{tally.total_cells}]"
            self.line(f"{done} {tally.told.get(key, label)}; {left}")
        elif event["event"] == "failed":
            self.line(_failure(event, tally.jobs[key]))
        elif event["event"] == "note":
            self.line(event["text"])
        elif time.monotonic() - self._last_line > LINE_SECONDS and tally.latest:
            self.line(f"... {'; '.join(tally.latest)}; {left}")

    def line(self, text: str) -> None:
        self._last_line = time.monotonic()
        if self._file is None:
            print(text, flush=True)
        else:
            print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=self._file, flush=True)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class RichDisplay:
    """A progress bar with what each worker is doing, for terminals."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("[bold]networks"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left"),
            console=console,
        )
        self._overall = self._progress.add_task("networks", total=total, left="...")
        self._rows: dict[str, Any] = {}
        description = TextColumn("  {task.description}", markup=False)
        self._status = Progress(description, console=console)
        from rich.console import Group
        from rich.live import Live

        self._live = Live(Group(self._progress, self._status), console=console, transient=True)
        self._live.start()

    def event(self, event: dict[str, Any], tally: Tally) -> None:
        key = event.get("population", "")
        if event["event"] == "started":
            label = tally.jobs[key].cells[0].label
            self._rows[key] = self._status.add_task(f"{label}: compiling")
        elif event["event"] in ("epoch", "step"):
            self._status.update(self._rows[key], description=tally.told[key])
        elif event["event"] in ("finished", "failed"):
            if key in self._rows:  # on Ray one may fail before it has started
                self._status.remove_task(self._rows.pop(key))
            if event["event"] == "failed":
                self.line(_failure(event, tally.jobs[key]))
        elif event["event"] == "note":
            self.line(event["text"])
        left = duration(tally.seconds_left())
        self._progress.update(self._overall, completed=tally.done_cells, left=left)

    def line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        self._live.stop()


class JsonDisplay:
    """Every event as one JSON object on a line of standard output; text goes to standard error."""

    def event(self, event: dict[str, Any], tally: Tally) -> None:
        if "population" in event:
            cells = tally.jobs[event["population"]].cells
            event = {**event, "cells": [cell.id for cell in cells]}
        left = tally.seconds_left()
        progress = {"done": tally.done_cells, "total": tally.total_cells, "seconds_left": left}
        print(json.dumps({**event, **progress}), flush=True)

    def line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


class Displays:
    """Several at once."""

    def __init__(self, *displays: Display) -> None:
        self._displays = displays

    def event(self, event: dict[str, Any], tally: Tally) -> None:
        for display in self._displays:
            display.event(event, tally)

    def line(self, text: str) -> None:
        for display in self._displays:
            display.line(text)

    def close(self) -> None:
        for display in self._displays:
            display.close()


def display_for(console: Console, total: int, as_json: bool, log: Path) -> Display:
    """What is right for the place where output goes; the same, as plain lines, goes to a log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    logged = PlainDisplay(log.open("a", encoding="utf-8", errors="backslashreplace"))
    if as_json:
        return Displays(JsonDisplay(), logged)
    # A notebook, for one, asks for colours where nothing can be drawn over.
    can_redraw = console.is_terminal and console.file.isatty()
    return Displays(RichDisplay(console, total) if can_redraw else PlainDisplay(), logged)
