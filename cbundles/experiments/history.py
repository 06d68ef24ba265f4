"""What happens to networks that change their depth: their history, edits, compute, and how a run of
them is interrupted and continued."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cbundles.config import Cell
from cbundles.data.device import Examples
from cbundles.errors import DamagedCheckpoint
from cbundles.experiments import entries
from cbundles.experiments.edits import Edit, Past
from cbundles.experiments.subjects import Snapshot, Subjects, plain
from cbundles.networks.shape import Shape

ENTRIES = 100  # in a history, about


@dataclass
class Member:
    """One network. flops: spent so far on training, scoring, judging; trial: an edit that is not
    judged yet, and the epoch after which it was made; before: the loss then, by which it will be
    judged; past: edits that were."""

    flops: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    trial: tuple[Edit, int] | None = None
    before: float = 0.0
    past: list[Past] = field(default_factory=list)

    @property
    def made(self) -> int:
        """Layers inserted, also those that were taken back."""
        return sum(event["kind"] == "insert" for event in self.events)

    def spend(self, flops: float) -> None:
        self.flops += flops

    def scored(
        self, epoch: int, sensitivities: Sequence[float], existing: Sequence[float], **more: Any
    ) -> None:
        shown = {"sensitivities": sensitivities, "existing": existing}
        rounded = {name: [_short(v) for v in values] for name, values in shown.items()}
        self.scores.append({"epoch": epoch, **rounded, **more})

    def edited(self, epoch: int, edit: Edit, depth: int, loss: float | None) -> None:
        what = {"position": edit.position, "count": edit.count, "depth": depth}
        before = None if loss is None else _short(loss)
        self.events.append({"epoch": epoch, "kind": edit.kind, **what, "loss_before": before})

    def judged(self, epoch: int, kept: bool, depth: int) -> None:
        """The edit on trial was kept, or undone."""
        assert self.trial is not None
        edit, _ = self.trial
        kind = "accept" if kept else "undo"
        self.edited(epoch, dataclasses.replace(edit, kind=kind), depth, None)
        self.past.append(Past(edit, epoch, kept))
        self.trial = None


@dataclass
class Moment:
    """A population between two epochs; `epoch` is -1 before anything was evaluated. kept: what
    members on trial were before. seconds: training, scoring and evaluating, without compiling."""

    subjects: Subjects
    members: list[Member]
    epoch: int = -1
    kept: Snapshot | None = None
    seconds: float = 0.0
    compile_seconds: float = 0.0
    programs: int = 0

    @classmethod
    def begin(cls, subjects: Subjects) -> Moment:
        return cls(subjects, [Member() for _ in subjects.cells])

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Add what happens inside to the seconds, and what was compiled to that."""
        compiled, programs = self.subjects.compile_seconds, self.subjects.programs
        started = time.perf_counter()
        yield
        compiled = self.subjects.compile_seconds - compiled
        self.seconds += time.perf_counter() - started - compiled
        self.compile_seconds += compiled
        self.programs += self.subjects.programs - programs

    def spend(self, active: np.ndarray) -> None:
        """Count an epoch of training of the members that are active, bool (members,)."""
        for i, member in enumerate(self.members):
            if active[i]:
                member.spend(self.subjects.epoch_flops(i))

    def evaluate(self, epoch: int, which: Sequence[bool], held_out: Examples | None = None) -> None:
        """Add an entry to the history of some members, and of those that were edited after this
        epoch. The loss on training images is that on the probe set."""
        self.epoch = epoch
        due = [
            chosen or bool(member.events and member.events[-1]["epoch"] == epoch)
            for chosen, member in zip(which, self.members, strict=True)
        ]
        if not any(due):
            return
        train = self.subjects.performance(self.subjects.data.probe)
        test = self.subjects.performance(self.subjects.data.test)
        apart = None if held_out is None else self.subjects.performance(held_out)
        for i, member in enumerate(self.members):
            if not due[i]:
                continue
            entry = {
                "epoch": epoch,
                "flops": member.flops,
                "depth": int(self.subjects.depths[i]),
                "train_loss": _finite(train.loss[i]),
                "train_accuracy": _short(train.accuracy[i]),
                "test_loss": _finite(test.loss[i]),
                "test_accuracy": _short(test.accuracy[i]),
            }
            if apart is not None:
                entry["held_out_loss"] = _finite(apart.loss[i])
            member.history.append(entry)

    def keep(self, which: np.ndarray) -> None:
        """Remember members, bool (members,), as they are, until they are kept or restored."""
        now = self.subjects.snapshot()
        self.kept = now if self.kept is None else self.subjects.merged(which, now, self.kept)

    def restore(self, which: np.ndarray) -> None:
        """Put members, bool (members,), back as they were remembered."""
        if which.any():
            assert self.kept is not None
            self.subjects.restore(self.kept, which)

    def freeze(self) -> bytes:
        """As bytes (MessagePack): plain arrays and numbers, nothing that executes."""
        from flax import serialization

        content = {
            "subjects": self.subjects.freeze(),
            "kept": {} if self.kept is None else plain(self.kept),
            "members": json.dumps([dataclasses.asdict(member) for member in self.members]),
            "clock": json.dumps([self.epoch, self.seconds, self.compile_seconds, self.programs]),
        }
        return serialization.msgpack_serialize(content)

    @classmethod
    def thaw(cls, frozen: bytes, subjects: Subjects) -> Moment:
        """What `freeze` made of a Moment. Raises DamagedCheckpoint for anything else."""
        from flax import serialization

        try:
            content = serialization.msgpack_restore(frozen)
            subjects.thaw(content["subjects"])
            kept = subjects.thawed(content["kept"]) if content["kept"] else None
            members = [_member(member) for member in json.loads(content["members"])]
            if len(members) != len(subjects.cells):
                raise ValueError("it holds other networks")
            epoch, seconds, compiled, programs = json.loads(content["clock"])
            entries.require_numbers([epoch, seconds, compiled, programs])
            return cls(subjects, members, epoch, kept, seconds, compiled, programs)
        except Exception as error:  # whatever a damaged file makes the decoder raise
            raise DamagedCheckpoint(str(error)) from error


def shown(epoch: int, epochs: int) -> bool:
    """Whether the history has an entry after this epoch, whatever happens in it: after about a
    hundred of so many epochs."""
    return epoch % max(1, epochs // ENTRIES) == 0


def records(kind: str, cells: Sequence[Cell], moment: Moment) -> list[dict[str, Any]]:
    """The completion record of each cell, plain data: everything that tables are made from."""
    result, count = [], len(cells)
    for i, (cell, member) in enumerate(zip(cells, moment.members, strict=True)):
        shape: Shape = moment.subjects.shape_of(i)
        result.append(
            {
                "cell": cell.id,
                "config": cell.asdict(),
                "experiment": kind,
                "steps_per_epoch": moment.subjects.steps,
                "num_classes": moment.subjects.facts.num_classes,
                "parameters": shape.parameters,
                "bytes": shape.bytes,
                "flops": shape.flops,
                "history": member.history,
                "events": member.events,
                "scores": member.scores,
                "seconds": round(moment.seconds / count, 4),
                "compile_seconds": round(moment.compile_seconds / count, 4),
                "programs": moment.programs,
                "population": count,
            }
        )
    return result


def _member(content: dict[str, Any]) -> Member:
    """A member from plain data. Raises some error for what is none: it ends in a record."""
    for entry in content["history"]:
        known = ("epoch", "flops", "depth", "train_accuracy", "test_accuracy")
        entries.require_numbers(entry[key] for key in known)
        losses = (entry["train_loss"], entry["test_loss"], entry.get("held_out_loss"))
        entries.require_numbers(losses, or_none=True)
    for event in content["events"]:
        entries.require_numbers(event[key] for key in ("epoch", "position", "count", "depth"))
    for score in content["scores"]:
        scores = [score["epoch"], *score["sensitivities"], *score["existing"]]
        entries.require_numbers(scores, finite=False)
    entries.require_numbers([content["flops"], content["before"]], finite=False)
    trial, past = content["trial"], content["past"]
    if trial is not None:
        trial = (Edit(**trial[0]), trial[1])
    past = [Past(Edit(**p["edit"]), p["epoch"], p["kept"]) for p in past]
    return Member(**{**content, "trial": trial, "past": past})


def _finite(value: Any) -> float | None:
    return _short(value) if np.isfinite(value) else None


def _short(value: Any) -> float:
    """Six digits, all that a float32 is good for."""
    return float(f"{float(value):.6g}")
