"""What a claim says of the same networks when the probe set has another size: H grows with it.

Nothing is trained again for this. Networks that were kept after the first epoch are measured once
more (`cbundles measure RUN --samples ...`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from cbundles import probe_sizes
from cbundles.records import Layers, MeasuredRecord, SweepRecord
from cbundles.report.evidence import Evidence

EPOCH = 1  # after which claims look for conflicts
Row = TypeVar("Row")


def layers_with(record: MeasuredRecord, size: str) -> Layers | None:
    """What a probe set of this size says, be it the network's own; None where none was asked."""
    if size in record.by_samples:
        return record.by_samples[size]
    return record.history if str(record.cell.probe.samples) == size else None


def over_probe_sizes(
    group: Evidence[SweepRecord],
    records: Sequence[SweepRecord],
    tell: Callable[[Sequence[SweepRecord]], str],
) -> list[str]:
    """A sentence with what is told of these networks for each size of the probe set; none where
    they were not all measured so.

    tell: says it of networks that were measured with one of the sizes after the first epoch
    """
    again = [group.measured.get(record.id) for record in records]
    kept = [one for one in again if one is not None and EPOCH in one.epochs_trained]
    if not kept or len(kept) < len(records):
        return []
    sizes = set.intersection(*(set(one.by_samples) for one in kept))
    if not sizes:
        return []
    own = {str(record.cell.probe.samples) for record in records}
    texts = []
    for size in probe_sizes.in_order(sizes | own):
        seen = [
            record if size in own else _as_seen_by(record, one, size)
            for record, one in zip(records, kept, strict=True)
        ]
        texts.append(f"{_size_in_words(size)}: {tell(seen)}")
    return [f"with other probe sets after epoch {EPOCH}: {'; '.join(texts)}"]


def _size_in_words(size: str) -> str:
    return "all training samples" if size == probe_sizes.ALL else f"{size} samples"


def _as_seen_by(record: SweepRecord, again: MeasuredRecord, size: str) -> SweepRecord:
    """The record as if its network had been measured so after the first epoch."""
    layers, kept = again.by_samples[size], again.epochs_trained.index(EPOCH)
    history = record.history
    return msgspec.structs.replace(
        record,
        history=msgspec.structs.replace(
            history,
            entropy=_with_row(history.entropy, layers.entropy[kept]),
            conflict_rate=_with_row(history.conflict_rate, layers.conflict_rate[kept]),
            num_bundles=_with_row(history.num_bundles, layers.num_bundles[kept]),
        ),
    )


def _with_row(rows: Sequence[Row], row: Row) -> list[Row]:
    """The rows of all evaluations, with another one after the first epoch."""
    return [*rows[:EPOCH], row, *rows[EPOCH + 1 :]]
