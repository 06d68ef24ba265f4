"""What an auto-tuning leads to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import PyTree

from cbundles.decisions.autotune import Decision


@dataclass(frozen=True)
class Attempt:
    """One network of a chain, from its initial weights to what was decided on it.

    Attributes:
        blocks: in each stage.
        epochs: after which it was measured last.
        layers: names of what was measured.
        measured: of each block, and of the last layer where it stands behind them: H in nats, or
            the conflict rate; None where activations were not finite.
        decision: what that leads to, in a sentence.
        left: the blocks of the network that follows; of the last attempt those that it has, or,
            where it was given up, none.
    """

    blocks: tuple[int, ...]
    epochs: int
    layers: tuple[str, ...]
    measured: tuple[float | None, ...]
    decision: str
    left: tuple[int, ...]

    @classmethod
    def decided(
        cls, decision: Decision, layers: tuple[str, ...], measured: tuple[float | None, ...]
    ) -> Attempt:
        """The attempt on which this was decided."""
        return cls(
            blocks=decision.before,
            epochs=decision.epoch,
            layers=layers,
            measured=measured,
            decision=str(decision),
            left=decision.left,
        )


@dataclass(frozen=True, eq=False)
class Tuned:
    """What `cbundles.autotune` returns.

    Attributes:
        chain: all attempts, in order.
        model: the last one, trained; or a linen module, whose variables are the params.
        params: those variables; None of other models.
        row: a row of a table: blocks, restarts, epochs, parameters, and what was measured at the
            end.
        given_up: whether the last network conflicts, and nothing would be left of it.
    """

    chain: tuple[Attempt, ...]
    model: Any
    params: PyTree | None
    row: dict[str, Any]
    given_up: bool

    @property
    def blocks(self) -> tuple[int, ...]:
        """Of the last network, in each stage."""
        return self.chain[-1].blocks

    @property
    def restarts(self) -> int:
        """How often a smaller network was begun."""
        return len(self.chain) - 1

    def __str__(self) -> str:
        lines = [f"{number}. {one.decision}" for number, one in enumerate(self.chain, start=1)]
        if self.given_up:
            lines.append("given up: nothing would be left")
        lines.append("; ".join(f"{name} {value}" for name, value in self.row.items()))
        return "\n".join(lines)
