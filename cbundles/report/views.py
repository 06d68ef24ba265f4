"""The tables and figures of one run, or of a worked study, computed from its records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cbundles.config import AUTOTUNE, GROW, TOY, TUNE
from cbundles.files import write_atomically
from cbundles.records import PrunedRecord
from cbundles.report import (
    answer,
    arm_tables,
    fair_lesions,
    lesions,
    remeasured,
    summary,
    sweep_tables,
    table1,
    worked_tables,
)
from cbundles.report.runs import Run
from cbundles.report.table import Table, distinct_keys, write_long_csv
from cbundles.report.words import with_signs
from cbundles.report.worked_study import StudyFolder
from cbundles.store import CAPTIONS, FIGURE
from cbundles.wording import counted

if TYPE_CHECKING:
    from cbundles.report.drawing import DrawnPicture


def write(run: Run) -> list[DrawnPicture]:
    """Write everything that the records of a run show; returns its figures."""
    _write_tables(run)
    pictures = _draw(run)
    _write_captions(run.name, run.store.figures, pictures)
    return pictures


def write_worked(worked: StudyFolder) -> list[DrawnPicture]:
    """Write everything that a worked study shows; returns its figures."""
    from cbundles.report import worked_figures

    worked_tables.write_study_tables(worked)
    figures = worked.folder / "figures"
    pictures = worked_figures.draw_study(worked.study, figures)
    _write_captions(worked.name, figures, pictures)
    return pictures


def _write_captions(name: str, folder: Path, pictures: Sequence[DrawnPicture]) -> None:
    """Say in a file of their own what figures show; others in their folder are stale."""
    _remove_stale_figures(folder, pictures)
    if pictures:
        captions = "\n".join(map(_caption, pictures))
        write_atomically(folder / CAPTIONS, f"# Figures of {name}\n\n{captions}")


def _write_tables(run: Run) -> None:
    if run.kind == AUTOTUNE:
        table1.write_run(run)
    elif run.kind in (GROW, TUNE):
        arm_tables.write_arms(run.name, run.edited, run.store.folder)
    elif run.kind != TOY:
        _write_networks(run)
        if run.lesions:
            _write_lesions(run)
        write_pruned(run.pruned, run.store.folder)
        remeasured.write_readings(run)


def _draw(run: Run) -> list[DrawnPicture]:
    from cbundles.report import (
        arm_figures,
        fair_lesion_figures,
        lesion_figures,
        sweep_figures,
        toy_figures,
    )

    folder = run.store.figures
    if run.kind == TOY:
        return [] if run.unfinished else toy_figures.draw_toy(run.toys, folder)
    if run.kind == AUTOTUNE:
        return sweep_figures.draw_tuned(table1.parts_of(run)["tuned"], folder)
    if run.kind in (GROW, TUNE):
        return arm_figures.draw_arms(run.edited, folder)
    return [
        *sweep_figures.draw_sweep(run.sweeps, folder),
        *lesion_figures.draw_lesions(run.lesions, folder),
        *fair_lesion_figures.draw_fair_lesions(run.lesions, folder),
    ]


def _remove_stale_figures(folder: Path, pictures: Sequence[DrawnPicture]) -> None:
    """Remove figures that earlier versions drew, or that were drawn of fewer records."""
    stems = {picture.path.stem for picture in pictures}
    for path in [folder / CAPTIONS, *folder.glob(FIGURE)]:
        if path.stem not in stems or path.suffix == ".md":
            path.unlink(missing_ok=True)


def _caption(picture: DrawnPicture) -> str:
    """A figure with its message, what it shows, and where its numbers come from."""
    title, text = with_signs(picture.title), with_signs(picture.text)
    return (
        f"## {title}\n\n![{title}]({picture.path.name})\n\n{text}\n\n"
        f"{with_signs(picture.small_print)}.\n"
    )


def _write_lesions(run: Run) -> None:
    """The tables of lesion studies: lesion.*, and lesion_fair.csv where there is a fair part."""
    groups, folder = lesions.alike(run.lesions), run.store.folder
    Table(lesions.removal_rows(run.lesions)).write_csv(folder / "lesion.csv")
    page = lesions.study_page(run.name, groups) + fair_lesions.fair_page(groups)
    write_atomically(folder / "lesion.md", page)
    fair_rows = fair_lesions.order_rows(run.lesions)
    if fair_rows:
        Table(fair_rows).write_csv(folder / "lesion_fair.csv")


def _missing_figures(run: Run) -> list[str]:
    """That a sweep has too many settings for figures of each."""
    settings = len(summary.variants(run.sweeps))
    if settings <= summary.MOST_SETTINGS:
        return []
    return [f"{settings} settings: figures of each are drawn for {summary.MOST_SETTINGS} at most"]


def write_pruned(records: Sequence[PrunedRecord], folder: Path) -> None:
    """The table of a run's pruned networks, when there are any."""
    if records:
        rows = [lesions.pruned_row(record) for record in records]
        Table(rows).write_csv(folder / "pruned.csv")


def _write_networks(run: Run) -> None:
    """The tables of a sweep: table.* and layers.csv."""
    rows = [summary.summary_of(record) for record in run.sweeps]
    named = run.description.get("data", {})
    data = ", ".join(f"{name} ({fingerprint})" for name, fingerprint in named.items())
    notes = [
        f"{counted(len(rows), 'network')}; data {data}",
        *summary.origin_lines(run.records),
        *sorted({summary.probe_of(record) for record in run.sweeps}),
        *_missing_figures(run),
    ]
    folder, name = run.store.folder, run.description.get("name", run.name)
    Table(rows).write_csv(folder / "table.csv")
    page = sweep_tables.network_page(name, rows, notes, answer.page(run.sweeps))
    write_atomically(folder / "table.md", page)
    with_steps = any(record.first_epoch is not None for record in run.sweeps)
    with_headroom = any(record.history.headroom is not None for record in run.sweeps)
    # Of a user's architecture not every network needs to be given every keyword.
    keywords = distinct_keys([summary.keywords_of_build(record) for record in run.sweeps])
    blank = dict.fromkeys(("cell", *keywords))
    layers = (
        [{**blank, **row} for row in sweep_tables.layer_rows(record, with_steps, with_headroom)]
        for record in run.sweeps
    )
    write_long_csv(folder / "layers.csv", layers)
