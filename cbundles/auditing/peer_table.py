"""The peers of the bundle entropy as a table of text."""

from __future__ import annotations

from collections.abc import Sequence

from cbundles.auditing.layer_peers import LayerPeers
from cbundles.auditing.table import aligned

HEADS = ("layer", "eff. rank", "class cos", "ReLU bits", "1 - cos", "grad norm", "batch H")


def text_of_peers(peers: Sequence[LayerPeers], width: int) -> str:
    """A line for each layer, no wider than that if it can be."""
    return aligned([HEADS, *map(_cells, peers)], width)


def _cells(one: LayerPeers) -> tuple[str, ...]:
    rank = _number(one.effective_rank, ".1f")
    return (
        one.layer,
        f"~{rank}" if one.is_folded and one.effective_rank is not None else rank,
        _number(one.class_cosine, ".3f"),
        _number(one.relu_state_entropy, ".3f"),
        _number(one.block_change, ".3g"),
        _number(one.gradient_norm, ".3g"),
        _number(one.batch_entropy, ".3f"),
    )


def _number(value: float | None, form: str) -> str:
    # Adding zero makes a plain one of what is rounded to -0.
    return "-" if value is None else format(float(format(value, form)) + 0.0, form)
