"""The networks of an auto-tuning, as their records lead from one to the next (paper, sec. 3.6).

A chain has one seed. Its networks are ordinary cells, each following from the record of the one
before, so that a chain is never kept: whoever reads the records knows how far it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cbundles.config import Cell, Images
from cbundles.decisions import autotune
from cbundles.decisions.own_blocks import places_of_blocks
from cbundles.errors import InputError
from cbundles.records import SweepRecord
from cbundles.store import SWEEPS, Store

Fingerprints = Mapping[Images, str]  # of the data sets, by name


class Chain:
    """The attempts of one seed, each following from the record of the one before."""

    def __init__(self, first: Cell, rule: str) -> None:
        self.attempts = [first]
        self.rule = rule
        self.ended = False
        self.given_up = False  # it conflicts, and nothing would be left

    def advance(self, store: Store, fingerprints: Fingerprints | None) -> list[str]:
        """Read the records that exist, of this data (None: of any); returns what they say, a line
        each."""
        said = []
        while not self.ended:
            cell = self.attempts[-1]
            fingerprint = fingerprints[cell.data.images] if fingerprints else None
            if not store.is_finished(cell.id, fingerprint):
                break
            decision = decision_on(store.record(cell.id, SWEEPS), self.rule)
            said.append(f"seed {cell.training.seed}, {decision}")
            following = autotune.following(cell, decision)
            if following is not None:
                self.attempts.append(following)
                continue
            self.ended = True
            self.given_up = decision.conflict is not None
            if self.given_up:
                said.append(f"seed {cell.training.seed}, nothing would be left; given up")
        return said

    @property
    def latest(self) -> Cell:
        """Trained to its end, or what has to be trained before the chain can go on."""
        return self.attempts[-1]


def chains_so_far(
    first: Sequence[Cell], rule: str, store: Store, fingerprints: Fingerprints | None = None
) -> list[Chain]:
    """A chain for each of the first networks, as far as records lead it; see `Chain.advance`."""
    chains = [Chain(cell, rule) for cell in first]
    for chain in chains:
        chain.advance(store, fingerprints)
    return chains


def decision_on(record: SweepRecord, rule: str) -> autotune.Decision:
    """What follows from the record of an attempt."""
    cell = record.cell
    return autotune.decide(cell, record.epochs_trained, _measured_of_blocks(record), rule)


def _measured_of_blocks(record: SweepRecord) -> list[float | None]:
    """What was measured last, by the network's own criterion: of every block, and of what is behind
    the last one."""
    cell = record.cell
    measured: list[float | None] = getattr(record.history, cell.training.stop_conflicting)[-1]
    if record.layers is None:
        return measured
    return [measured[place] for place in places_of_blocks_in(cell, record.layers)]


def places_of_blocks_in(cell: Cell, layers: Sequence[str]) -> list[int]:
    """See `places_of_blocks`. InputError where names do not tell blocks."""
    try:
        return places_of_blocks(layers, cell.blocks)
    except ValueError as error:
        raise InputError(f"autotune {cell.model.build}: {error}") from None
