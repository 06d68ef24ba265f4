"""`cbundles reproduce`: the steps of a profile, one after the other, the report, the comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cbundles import data
from cbundles.commands.flags import RESULTS
from cbundles.commands.output import list_files, say, say_whose_times, warn
from cbundles.commands.places import reproduction_of
from cbundles.commands.profiles import Profile, Step, folders_of, runs_named_for
from cbundles.commands.report import write_report
from cbundles.commands.running import Options
from cbundles.console import duration
from cbundles.errors import InputError
from cbundles.report import comparison, gathering
from cbundles.report.runs import Run
from cbundles.report.table import Column, Table
from cbundles.report.words import listed
from cbundles.store import Store


@dataclass(frozen=True)
class Reproduction:
    """All runs of a profile, made again beside the published ones."""

    profile: Profile

    @classmethod
    def of_file(cls, path: Path, images: Sequence[str] = ()) -> Reproduction:
        """images: as they are typed, ``cifar10=FOLDER``."""
        return cls(Profile.of_file(path, folders_of(images)))

    @property
    def name(self) -> str:
        return self.profile.name

    def root(self, options: Options) -> Path:
        """The folder of its runs."""
        return self.profile.results if options.publish else reproduction_of(self.profile.results)

    def show_plan(self, options: Options, console: Console) -> None:
        """Print the steps and what is left of each; run nothing."""
        rows, total, reasons = [], 0.0, []
        unprepared, waiting = set(), 0.0  # data sets, and the time of the steps that want them
        for step in self.profile.steps:
            of_step = self._options_of(step, options)
            try:
                seconds = step.command.seconds_left(of_step)
            except InputError as error:
                seconds, left = None, "cannot run"
                reasons.append(f"{step.title} cannot run: {error}")
            if seconds == 0:
                left = "finished"
            elif seconds is not None:
                left = f"about {duration(seconds)}"
                total += seconds
                if wanted := _to_be_fetched(step, options):
                    left += f", wants {listed(wanted)}"
                    unprepared |= set(wanted)
                    waiting += seconds
            rows.append({"step": step.title, "time left": left, "results": of_step.out})
        titles = ("step", "time left", "results")
        table = Table(rows, [Column(title, title) for title in titles])
        console.print(table.terminal())
        for reason in reasons:
            say(console, reason)
        say(
            console,
            f"\nProfile {self.name}: about {duration(total)} left in all, then the report in "
            f"{self.root(options)}.",
        )
        if unprepared:
            say(
                console,
                f"About {duration(waiting)} of this want {listed(sorted(unprepared))}, not "
                "prepared yet: TensorFlow Datasets fetches them, or takes them from --manual-dir; "
                "or name a folder of images, --images DATASET=FOLDER. A step without its images "
                "is left out.",
            )
        say_whose_times(console, options)

    def execute(self, options: Options, console: Console) -> int:
        """Run what is not finished, then the report. A step whose input is missing is named and
        left out. Returns the exit code: that of the worst step."""
        self.show_plan(options, console)
        steps = self.profile.steps
        missing, worst = [], 0
        for number, step in enumerate(steps, start=1):
            of_steps = [(later, self._options_of(later, options)) for later in steps[number - 1 :]]
            left = sum(_seconds_left(later, of_step) or 0.0 for later, of_step in of_steps)
            console.print(
                f"\nstep {number} of {len(steps)}: {step.title}; "
                f"about {duration(left)} left in all",
                style="bold",
                highlight=False,
            )
            try:
                worst = max(worst, step.command.execute(self._options_of(step, options), console))
            except InputError as error:
                missing.append(f"{step.title}: {error}")
                warn(console, f"left out: {error}")
        console.print("\nreport", style="bold")
        root = self.root(options)
        made = write_report(root, console, self.profile.run_names | runs_named_for(root))
        for line in missing:
            warn(console, f"not run: {line}")
        if not options.publish:
            own = [run for run in made.judged if run.name in self.profile.run_names]
            compare_with_published(own, root, console)
        return 2 if missing else worst

    def _options_of(self, step: Step, options: Options) -> Options:
        folder = self.root(options) / step.folder_name
        Store(folder).recover()
        return dataclasses.replace(options, out=folder)


def _to_be_fetched(step: Step, options: Options) -> list[str]:
    """The data sets of a step that are neither here nor made of what is."""
    return [
        images.name
        for images in sorted(step.data_sets, key=str)
        if data.must_be_fetched(*images, manual_dir=options.manual_dir)
    ]


def _seconds_left(step: Step, options: Options) -> float | None:
    """None when its input is missing."""
    try:
        return step.command.seconds_left(options)
    except InputError:
        return None


def compare_with_published(own: list[Run], root: Path, console: Console) -> None:
    """Print each claim that was reached beside what the repository says of it."""
    published = gathering.gather(RESULTS, runs_named_for(RESULTS)).judged
    if not published:
        say(console, f"\nno published run in {RESULTS} to compare with")
        return
    table, unreached = comparison.beside_published(published, own)
    console.print(f"\ncomparison with the published runs in {RESULTS}", style="bold")
    console.print(table.terminal(), highlight=False)
    if unreached:
        say(console, f"left out, since these runs do not reach them: {unreached} claims")
    list_files(console, "written", comparison.write_comparison(table, root))
