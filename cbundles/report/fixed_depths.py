"""Auto-tuned networks beside VGGs whose depth somebody picked, after equally many epochs.

Auto-tuning is worth something where it finds a depth that a short list of depths does not offer. So
its networks stand beside VGGs of a sweep that are trained in the same way on the same images. The
probe may differ: it does not change the training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from cbundles.config import SECTIONS, SWEEP
from cbundles.records import SweepRecord
from cbundles.report import select, table1
from cbundles.report.runs import Run
from cbundles.report.table import Column, Row, Table
from cbundles.report.words import listed, lowest_to_highest

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
    Column("run", "run"),
    Column("layers", "layers"),
    Column("accuracy", "accuracy [%]", to_the_right=True),
    Column("flops", "MFLOP/image", to_the_right=True),
    Column("n", "n", to_the_right=True),
]


@dataclass(frozen=True)
class Tuning:
    """An auto-tuning of VGGs, and what stands beside it.

    tuned, baseline: its networks, and the ResNets that it trained with them
    picked: VGGs of hand-picked depths, trained as those are, each once
    left_out: depths of further ones, which were trained for fewer epochs
    epochs: for how many all of its networks were trained
    """

    run: Run
    tuned: Sequence[SweepRecord]
    baseline: Sequence[SweepRecord]
    picked: Sequence[SweepRecord]
    left_out: Sequence[int]
    epochs: int

    @property
    def epoch(self) -> int:
        """The last epoch that those beside it have, too."""
        return min([self.epochs, *(record.epochs_trained for record in self.picked)])

    @property
    def scale(self) -> Hashable:
        """What is the same of auto-tunings that stand in one table."""
        cell = self.tuned[0].cell
        alike = cell.data.name, cell.model.base_filters
        return self.epoch, self.epochs, alike, tuple(record.id for record in self.picked)


def page_beside_fixed_depths(runs: Sequence[Run]) -> str:
    """In Markdown, for all auto-tuning of VGGs among these runs; "" without any."""
    tunings = [_tuning(run, runs) for run in runs if _has_tuned_vggs(run)]
    by_scale: dict[Hashable, list[Tuning]] = {}
    for tuning in tunings:
        by_scale.setdefault(tuning.scale, []).append(tuning)
    parts = [_section(some, runs) for some in by_scale.values()]
    return "\n## Auto-tuned beside hand-picked depths\n" + "".join(parts) if parts else ""


def _has_tuned_vggs(run: Run) -> bool:
    return any(record.is_convolutional for record in table1.parts_of(run)["tuned"])


def _tuning(run: Run, runs: Sequence[Run]) -> Tuning:
    parts = table1.parts_of(run)
    tuned = parts["tuned"]
    alike = _trained_alike(tuned, runs)
    epochs = min(record.epochs_trained for record in tuned)
    picked = [record for record in alike if record.epochs_trained >= epochs] or alike
    left_out = sorted({*select.depths(alike)} - {*select.depths(picked)})
    return Tuning(run, tuned, parts["baseline"], picked, left_out, epochs)


def _trained_alike(tuned: Sequence[SweepRecord], runs: Sequence[Run]) -> list[SweepRecord]:
    """VGGs of sweeps that are trained as these are, for any number of epochs: each once, as it was
    trained for longest."""
    swept = [record for run in runs if run.kind == SWEEP for record in run.sweeps]
    alike = select.groups([*tuned, *swept], across=ACROSS)[0].records[len(tuned) :]
    networks: dict[tuple[str, int], SweepRecord] = {}
    for record in sorted(alike, key=lambda record: -record.epochs_trained):
        networks.setdefault((str(record.cell.blocks), record.seed), record)
    return list(networks.values())


def _section(tunings: Sequence[Tuning], runs: Sequence[Run]) -> str:
    first, names = tunings[0], listed(tuning.run.name for tuning in tunings)
    if not first.picked:
        return f"\n{names}: {_what_is_missing(first)}.\n"
    rows = []
    for tuning in tunings:
        name = tuning.run.name
        rows.append(_row_of_depth("auto-tune", name, tuning.tuned, first.epoch))
        if tuning.baseline:
            rows.append(_row_of_depth("ResNet", name, tuning.baseline, first.epoch))
    for depth in select.depths(first.picked):
        some = select.only(first.picked, depth=depth)
        rows.append(_row_of_depth("VGG, hand-picked", _runs_of(some, runs), some, first.epoch))
    cell = first.tuned[0].cell
    text = (
        f"Accuracy after epoch {first.epoch} on {cell.data.name}, {cell.model.base_filters} "
        "filters; mean and standard deviation over n seeds."
    )
    if first.epoch < first.epochs:
        text += f" Missing: {_what_is_missing(first)}."
    if first.left_out:
        depths = listed(first.left_out)
        text += f" VGGs of {depths} layers, too, were trained, but for fewer epochs."
    return f"\n{text}\n\n{Table(rows, COLUMNS).markdown()}"


def _runs_of(records: Sequence[SweepRecord], runs: Sequence[Run]) -> str:
    """The names of the sweeps that these networks were found in."""
    sweeps = [run for run in runs if run.kind == SWEEP]
    names = [run.name for run in sweeps if any(record in run.sweeps for record in records)]
    return listed(dict.fromkeys(names))


def _what_is_missing(tuning: Tuning) -> str:
    cell = tuning.tuned[0].cell
    return (
        f"no VGG of a hand-picked depth with {cell.model.base_filters} filters was trained for "
        f"{tuning.epochs} epochs on {cell.data.name}, as the auto-tuned ones were"
    )


def _row_of_depth(network: str, run: str, records: Sequence[SweepRecord], epoch: int) -> Row:
    accuracies = [100 * record.history.test_accuracy[epoch] for record in records]
    spread = f" ± {stdev(accuracies):.1f}" if len(accuracies) > 1 else ""
    return {
        "network": network,
        "run": run,
        "layers": lowest_to_highest([record.depth for record in records]),
        "accuracy": f"{fmean(accuracies):.1f}{spread}",
        "flops": f"{fmean(record.flops for record in records) / 1e6:.1f}",
        "n": len(records),
    }
