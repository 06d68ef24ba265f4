"""The tables of a worked study: its orders, and the smaller networks."""

from __future__ import annotations

from cbundles.decisions.paired import mcnemar
from cbundles.files import write_atomically
from cbundles.records.worked import SmallerNetwork, WorkedStudy
from cbundles.report.table import MISSING, Column, Row, Table, formatted
from cbundles.report.words import with_signs
from cbundles.report.worked_study import (
    StudyFolder,
    accuracies_of,
    answers_of,
    blocks_before_a_rise,
    blocks_in,
    counts_told,
    order_of_smaller,
)
from cbundles.report.worked_text import about_smaller, study_sentences

SMALLEST_P = 1e-16  # that is told: smaller ones are only small


def write_study_tables(worked: StudyFolder) -> None:
    """Write orders.csv, smaller.csv, and both for people in study.md."""
    study, folder = worked.study, worked.folder
    orders, smaller = table_of_orders(study), table_of_smaller(study)
    orders.write_csv(folder / "orders.csv")
    smaller.write_csv(folder / "smaller.csv")
    told = "".join(f"- {with_signs(sentence)}\n" for sentence in study_sentences(study))
    about = with_signs(about_smaller(study))
    page = f"# {worked.name}\n\n{told}\n{orders.markdown()}\n{about}\n\n{smaller.markdown()}"
    write_atomically(folder / "study.md", page)


def table_of_orders(study: WorkedStudy) -> Table:
    """A line for each order: how many blocks can go, and the accuracy without some."""
    blocks = blocks_in(study)
    counts = counts_told(study)
    rows: list[Row] = []
    for order in study.orders:
        row: Row = {"order": order.words, "chosen": order.chosen, "of": blocks}
        for anew, suffix in ((False, ""), (True, "_anew")):
            row[f"removable{suffix}"] = blocks_before_a_rise(answers_of(order, anew=anew))
            accuracies = accuracies_of(study, order, anew=anew)
            for k in counts:
                row[f"accuracy_without_{k}{suffix}"] = accuracies[k]
        rows.append(row)
    columns = [Column("order", "blocks go"), Column("chosen", "chosen")]
    for suffix, how in (("", ""), ("_anew", ", anew")):
        columns.append(Column(f"removable{suffix}", f"removable of {blocks}{how}", None, True))
        for k in counts:
            key = f"accuracy_without_{k}{suffix}"
            show = formatted(key, "{:.1f}", 100)
            columns.append(Column(key, f"% without {k}{how}", show, to_the_right=True))
    return Table(rows, columns)


def table_of_smaller(study: WorkedStudy) -> Table:
    """The whole network, and what is left of it without some blocks."""
    whole = study.smaller[0].before
    rows: list[Row] = [
        {
            "removed": 0,
            "accuracy": study.correct / study.images,
            "accuracy_anew": study.correct_anew / study.images,
            "p_anew": None,
            "parameters": whole.parameters,
            "bytes": whole.bytes,
            "flops": whole.flops,
            "seconds": whole.seconds,
            "seconds_before": whole.seconds,
        }
    ]
    rows += [_row_of_smaller(study, smaller) for smaller in study.smaller]
    columns = [
        Column("removed", "blocks gone", None, True),
        Column("accuracy", "accuracy [%]", formatted("accuracy", "{:.1f}", 100), True),
        Column("accuracy_anew", "anew [%]", formatted("accuracy_anew", "{:.1f}", 100), True),
        Column("p_anew", "p, anew", _show_p, True),
        Column("bytes", "MB", formatted("bytes", "{:.3f}", 1e-6), True),
        Column("flops", "GFLOPs", formatted("flops", "{:.2f}", 1e-9), True),
        Column("seconds_before", "ms, whole", formatted("seconds_before", "{:.0f}", 1e3), True),
        Column("seconds", "ms", formatted("seconds", "{:.0f}", 1e3), True),
        Column("time", "time", _show_change_of_time, True),
    ]
    return Table(rows, columns)


def _row_of_smaller(study: WorkedStudy, smaller: SmallerNetwork) -> Row:
    removed = len(smaller.blocks)
    order = order_of_smaller(study)
    return {
        "removed": removed,
        "accuracy": smaller.correct / study.images,
        "accuracy_anew": smaller.correct_anew / study.images,
        "p_anew": mcnemar(order.lost_anew[removed - 1], order.gained_anew[removed - 1]),
        "parameters": smaller.after.parameters,
        "bytes": smaller.after.bytes,
        "flops": smaller.after.flops,
        "seconds": smaller.after.seconds,
        "seconds_before": smaller.before.seconds,
    }


def _show_p(row: Row) -> str:
    if row["p_anew"] is None:
        return MISSING
    return f"{row['p_anew']:.2g}" if row["p_anew"] >= SMALLEST_P else f"< {SMALLEST_P:g}"


def _show_change_of_time(row: Row) -> str:
    return f"{100 * row['seconds'] / row['seconds_before']:.0f} %"
