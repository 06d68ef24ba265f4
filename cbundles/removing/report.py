"""What went of a model, and what that changed, as numbers and in words."""

from __future__ import annotations

import dataclasses
import textwrap
from dataclasses import dataclass
from typing import Any

from cbundles.wording import columns_of_lines

SHOWN = 5  # names in a sentence


@dataclass(frozen=True)
class Cost:
    """What a model costs, and what it gets right.

    flops: of one batch of inputs.
    parameters: numbers that it needs: weights, and running statistics.
    bytes: of them.
    seconds: that one batch takes, compiled: a median of calls before and after in turn.
    correct: samples that it classifies correctly; None where no labels are given.
    """

    flops: float
    parameters: int
    bytes: int
    seconds: float
    correct: int | None = None


@dataclass(frozen=True)
class Report:
    """What `remove` did.

    blocks: the residual sums that lost their branches.
    gone: parameters and statistics that are not needed any more.
    before, after: the whole model, and the smaller one as it is.
    batch: how many samples a batch has, of FLOPs and seconds.
    judged: how many samples, or tokens, have labels.
    recalibrated: how many of them are classified correctly after running statistics have been taken
        anew; None where that was not wanted.
    training: whether it can be trained further, in a sentence.
    """

    blocks: tuple[str, ...]
    gone: tuple[str, ...]
    before: Cost
    after: Cost
    batch: int
    judged: int
    recalibrated: int | None
    training: str

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """Before and after, with the statistics of the whole model; None without labels."""
        if self.before.correct is None or self.after.correct is None:
            return None
        return self.before.correct / self.judged, self.after.correct / self.judged

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, text, lists and None, ready for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        rows = [("", "before", "after", "")]
        rows += [
            self._row("GFLOPs a batch", "flops", 1e9),
            self._row("ms a batch", "seconds", 1e-3),
        ]
        rows += [self._row("parameters", "parameters", 1), self._row("MB", "bytes", 1e6)]
        if self.accuracy is not None:
            before, after = self.accuracy
            rows.append(("accuracy", f"{before:.2%}", f"{after:.2%}", ""))
        if self.recalibrated is not None:
            share = self.recalibrated / self.judged
            rows.append(("  statistics anew", "", f"{share:.2%}", ""))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [_line(row, widths) for row in rows]
        width = columns_of_lines()
        sentences = [
            f"Went: {_enumerated(self.blocks)}.",
            f"A batch has {self.batch} samples. {self.training}",
        ]
        return "\n".join([*lines, "", *(textwrap.fill(one, width) for one in sentences)])

    def _row(self, words: str, name: str, unit: float) -> tuple[str, str, str, str]:
        before, after = getattr(self.before, name), getattr(self.after, name)
        share = f"{after / before:.0%}" if before else ""
        if unit == 1:
            return words, f"{before:,}", f"{after:,}", share
        return words, f"{before / unit:.4g}", f"{after / unit:.4g}", share


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    words, *cells = row
    padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
    return "  ".join([words.ljust(widths[0]), *padded]).rstrip()


def _enumerated(names: tuple[str, ...]) -> str:
    if len(names) <= SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[:SHOWN])} and {len(names) - SHOWN} more"
