"""What is known of networks whose depth changes: their history, their edits, their compute.

`grow` and `tune` decide which edits are made; here is what both write down of them, and how an edit
on trial is kept or taken back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import numpy as np

from cbundles.config import Cell
from cbundles.data.device import Examples
from cbundles.decisions.edits import Edit, JudgedEdit
from cbundles.experiments.entries import require_numbers, six_digits, six_digits_or_none
from cbundles.experiments.run_state import RunState
from cbundles.population import Scores
from cbundles.records import EditedHistory, EditedRecord, Event, Origin, Scoring

ENTRIES = 100  # in a history, about
Kept = TypeVar("Kept", bound=EditedRecord)


@dataclass
class Edited:
    """One network."""

    flops: float = 0.0  # spent so far on training, scoring and judging
    history: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    pending: Edit | None = None  # on trial since the end of pending_epoch
    pending_epoch: int = 0
    loss_before_trial: float = 0.0
    judged: list[JudgedEdit] = field(default_factory=list)

    @property
    def insertions(self) -> int:
        """Layers inserted, also those that were taken back."""
        return sum(event["kind"] == "insert" for event in self.events)

    def spend(self, flops: float) -> None:
        self.flops += flops

    def note_scores(self, epoch: int, scores: Scores, **more: Any) -> None:
        self.scores.append(
            {
                "epoch": epoch,
                "sensitivities": [six_digits(value) for value in scores.positions],
                "existing": [six_digits(value) for value in scores.existing],
                **more,
            }
        )

    def note_edit(self, epoch: int, edit: Edit, depth: int, loss: float | None = None) -> None:
        """depth: after it; loss: before it."""
        self.events.append(
            {
                "epoch": epoch,
                "kind": edit.kind,
                "position": edit.position,
                "count": edit.count,
                "depth": depth,
                "loss_before": None if loss is None else six_digits(loss),
            }
        )

    def put_on_trial(self, epoch: int, edit: Edit, loss: float) -> None:
        self.pending, self.pending_epoch, self.loss_before_trial = edit, epoch, loss

    def trial_ends(self, epoch: int, after: int) -> bool:
        """Whether an edit has been on trial for so many epochs."""
        return self.pending is not None and epoch - self.pending_epoch >= after

    def judge(self, epoch: int, kept: bool, depth: int) -> None:
        """The edit on trial was kept, or undone."""
        assert self.pending is not None
        kind = "accept" if kept else "undo"
        self.note_edit(epoch, dataclasses.replace(self.pending, kind=kind), depth)
        self.judged.append(JudgedEdit(self.pending, epoch, kept))
        self.pending = None


EditedRun = RunState[Edited]


def spend_epoch(state: EditedRun, active: np.ndarray) -> None:
    """Count an epoch of training of the members that are active, bool (members,)."""
    for number, member in enumerate(state.members):
        if active[number]:
            member.spend(state.population.epoch_flops(number))


def is_shown(epoch: int, epochs: int) -> bool:
    """Whether the history has an entry after this epoch, whatever happens in it: after about a
    hundred of so many epochs."""
    return epoch % max(1, epochs // ENTRIES) == 0


def evaluate(state: EditedRun, which: Sequence[bool], held_out: Examples | None = None) -> None:
    """Add an entry to the history of some members, and of those that were edited after this epoch.
    The loss on training images is that on the probe set."""
    population, epoch = state.population, state.epoch
    due = [
        chosen or bool(member.events and member.events[-1]["epoch"] == epoch)
        for chosen, member in zip(which, state.members, strict=True)
    ]
    if not any(due):
        return
    train = population.performance(population.data.probe)
    test = population.performance(population.data.test)
    apart = None if held_out is None else population.performance(held_out)
    for number, member in enumerate(state.members):
        if not due[number]:
            continue
        entry = {
            "epoch": epoch,
            "flops": member.flops,
            "depth": int(population.depths[number]),
            "train_loss": six_digits_or_none(train.loss[number]),
            "train_accuracy": six_digits(train.accuracy[number]),
            "test_loss": six_digits_or_none(test.loss[number]),
            "test_accuracy": six_digits(test.accuracy[number]),
        }
        if apart is not None:
            entry["held_out_loss"] = six_digits_or_none(apart.loss[number])
        member.history.append(entry)


def remember(state: EditedRun, which: np.ndarray) -> None:
    """Remember members, bool (members,), as they are, until their edit is kept or undone."""
    now = state.population.snapshot()
    state.kept = now if state.kept is None else state.population.merged(which, now, state.kept)


def judge_trials(state: EditedRun, ends: Sequence[bool], examples: Examples) -> None:
    """Take back the edits, of members whose trial ends, after which the loss on these examples is
    no lower than before; the others stay."""
    if not any(ends):
        return
    population, epoch = state.population, state.epoch
    loss = population.performance(examples).loss
    for number, member in enumerate(state.members):
        if ends[number]:
            member.spend(len(examples.labels) * population.flops(number))
    undone = np.array(
        [
            ends[number] and not loss[number] < member.loss_before_trial
            for number, member in enumerate(state.members)
        ]
    )
    if undone.any():
        assert state.kept is not None
        population.restore(state.kept, undone)
    for number, member in enumerate(state.members):
        if ends[number]:
            member.judge(epoch, not undone[number], int(population.depths[number]))


def records_of_type(
    kind: type[Kept], cells: Sequence[Cell], state: EditedRun, origin: Origin
) -> list[Kept]:
    """The completion record of each cell: everything that tables are made from."""
    result, count = [], len(cells)
    for number, (cell, member) in enumerate(zip(cells, state.members, strict=True)):
        shape = state.population.shape_of(number)
        record = kind(
            id=cell.id,
            origin=origin,
            config=cell.asdict(),
            num_classes=state.population.facts.num_classes,
            parameters=shape.parameters,
            bytes=shape.bytes,
            flops=shape.flops,
            compile_seconds=round(state.compile_seconds / count, 4),
            population=count,
            steps_per_epoch=state.population.steps,
            history=EditedHistory.of_entries(member.history),
            events=msgspec.convert(member.events, list[Event]),
            scores=msgspec.convert(member.scores, list[Scoring]),
            seconds=round(state.pending_seconds / count, 4),
            programs=len(state.programs),
        )
        result.append(record)
    return result


def member_of(content: dict[str, Any], number: int) -> Edited:
    """A member from plain data. Raises some error for what is none: it ends in a record."""
    for entry in content["history"]:
        known = ("epoch", "flops", "depth", "train_accuracy", "test_accuracy")
        require_numbers(entry[key] for key in known)
        losses = (entry["train_loss"], entry["test_loss"], entry.get("held_out_loss"))
        require_numbers(losses, or_none=True)
    for event in content["events"]:
        require_numbers(event[key] for key in ("epoch", "position", "count", "depth"))
    for score in content["scores"]:
        scores = [score["epoch"], *score["sensitivities"], *score["existing"]]
        require_numbers(scores, finite=False)
    numbers = [content[key] for key in ("flops", "pending_epoch", "loss_before_trial")]
    require_numbers(numbers, finite=False)
    pending = None if content["pending"] is None else Edit(**content["pending"])
    judged = [JudgedEdit(Edit(**p["edit"]), p["epoch"], p["kept"]) for p in content["judged"]]
    return Edited(**{**content, "pending": pending, "judged": judged})
