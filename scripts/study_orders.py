"""The orders in which `study_torch_resnet.py` takes blocks away."""

from __future__ import annotations

from typing import Any

import numpy as np

from cbundles.auditing.lesion_findings import FITTED, WORDS
from cbundles.decisions.removal import ranking
from cbundles.records import worked

RANDOM_SEEDS = (1, 2, 3)
# Of which site of a block, lowest first: nobody says that these measures are meant for it.
PEERS = {
    "block_change": ("sum", "least 1 - cos(in, out) first"),
    "gradient_norm": ("branch", "smallest gradient norm first"),
    "effective_rank": ("branch", "lowest effective rank first"),
}
Part = dict[str, Any]  # of the study, as JSON holds it


def orders_of(audited: Part) -> dict[str, list[Part]]:
    """The orders that are judged: by scores and answers, by peers, and those that know nothing."""
    blocks = [one["name"] for one in audited["lesions"]["branches"]]
    return {
        "scores": score_orders(audited["lesions"]["curves"]),
        "controls": control_orders(blocks),
        "peers": peer_orders(audited["peers"], blocks),
    }


def score_orders(curves: Part) -> list[Part]:
    """The orders by which the audit itself has removed blocks, of images of training."""
    return [
        {
            "by": by,
            "words": WORDS[by],
            "chosen": worked.BY_ANSWERS if by in FITTED else worked.BY_SCORE,
            "order": curve["order"],
        }
        for by, curve in curves.items()
    ]


def control_orders(blocks: list[str]) -> list[Part]:
    """Orders that know nothing of the network but where its blocks are."""
    orders = {
        ("last_first", "last blocks first"): blocks[::-1],
        ("first_first", "first blocks first"): blocks,
    }
    for seed in RANDOM_SEEDS:
        drawn = np.random.default_rng(seed).permutation(len(blocks))
        orders[f"random_{seed}", f"drawn, seed {seed}"] = [blocks[number] for number in drawn]
    return [
        {"by": by, "words": words, "chosen": worked.BY_NOTHING, "order": order}
        for (by, words), order in orders.items()
    ]


def peer_orders(peers: list[Part], blocks: list[str]) -> list[Part]:
    """An order by each measure that others would take."""
    of_layer = {one["name"]: one for one in peers}
    orders = []
    for measure, (kind, words) in PEERS.items():
        seen = [block.removesuffix("branch") + kind for block in blocks]
        order = ranking([of_layer[name][measure] for name in seen], high_first=False)
        named = [blocks[number] for number in order]
        orders.append({"by": measure, "words": words, "chosen": worked.BY_SCORE, "order": named})
    return orders
