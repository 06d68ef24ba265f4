"""Auto-tuned networks beside VGGs whose depth somebody picked, after equally many epochs.

Auto-tuning is worth something where it finds a depth that a short list of depths does not offer. So
its networks stand beside VGGs of a sweep that are trained in the same way on the same images. The
probe may differ: it does not change the training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import fmean, stdev

from cbundles.config import SECTIONS
from cbundles.records import SweepRecord
from cbundles.report import select, table1
from cbundles.report.runs import Run
from cbundles.report.table import Column, Row, Table
from cbundles.report.words import lowest_to_highest

# In what networks may differ that are set beside each other.
ACROSS = (
    "model.depth",
    "model.blocks",
    "training.epochs",
    "training.seed",
    "training.accuracy_epochs",
    "training.stop_conflicting",
    "training.conflict_checks",
    *(f"probe.{field.name}" for field in dataclasses.fields(SECTIONS["probe"])),
)
COLUMNS = [
    Column("network", "network"),
    Column("layers", "layers"),
    Column("accuracy", "accuracy [%]", to_the_right=True),
    Column("flops", "MFLOP/image", to_the_right=True),
    Column("n", "n", to_the_right=True),
]


def page_beside_fixed_depths(runs: Sequence[Run]) -> str:
    """In Markdown, for each auto-tuning of VGGs among these runs; "" without any."""
    parts = [_section(run, runs) for run in runs if _has_tuned_vggs(run)]
    return "\n## Auto-tuned beside hand-picked depths\n" + "".join(parts) if parts else ""


def _has_tuned_vggs(run: Run) -> bool:
    return any(record.is_convolutional for record in table1.parts_of(run)["tuned"])


def _section(run: Run, runs: Sequence[Run]) -> str:
    parts = table1.parts_of(run)
    tuned, picked = parts["tuned"], hand_picked(parts["tuned"], runs)
    epochs = min(record.epochs_trained for record in tuned)
    if not picked:
        return f"\n{run.name}: {_what_is_missing(tuned, epochs)}.\n"
    epoch = min([epochs, *(record.epochs_trained for record in picked)])
    rows = [_row_of_depth("auto-tune", tuned, epoch)]
    if parts["baseline"]:
        rows.append(_row_of_depth("ResNet", parts["baseline"], epoch))
    for depth in select.depths(picked):
        rows.append(_row_of_depth("VGG, hand-picked", select.only(picked, depth=depth), epoch))
    text = (
        f"{run.name}: accuracy after epoch {epoch}, the last that all of these have; mean and "
        "standard deviation over n seeds."
    )
    if epoch < epochs:
        text += f" Missing: {_what_is_missing(tuned, epochs)}."
    return f"\n{text}\n\n{Table(rows, COLUMNS).markdown()}"


def hand_picked(tuned: Sequence[SweepRecord], runs: Sequence[Run]) -> list[SweepRecord]:
    """VGGs of sweeps, each once, that are trained as these are, for any number of epochs."""
    swept = [record for run in runs if run.kind == "sweep" for record in run.sweeps]
    alike = select.groups([*tuned, *swept], across=ACROSS)[0].records
    networks: dict[tuple[str, int], SweepRecord] = {}
    for record in alike[len(tuned) :]:
        networks.setdefault((str(record.cell.blocks), record.seed), record)
    return list(networks.values())


def _what_is_missing(tuned: Sequence[SweepRecord], epochs: int) -> str:
    cell = tuned[0].cell
    return (
        f"no VGG of a hand-picked depth with {cell.model.base_filters} filters was trained for "
        f"{epochs} epochs on {cell.data.name}, as the auto-tuned ones were"
    )


def _row_of_depth(network: str, records: Sequence[SweepRecord], epoch: int) -> Row:
    accuracies = [100 * record.history.test_accuracy[epoch] for record in records]
    spread = f" ± {stdev(accuracies):.1f}" if len(accuracies) > 1 else ""
    return {
        "network": network,
        "layers": lowest_to_highest([record.depth for record in records]),
        "accuracy": f"{fmean(accuracies):.1f}{spread}",
        "flops": f"{fmean(record.flops for record in records) / 1e6:.1f}",
        "n": len(records),
    }
