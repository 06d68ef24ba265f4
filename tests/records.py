"""Completion records made up for tests of what is computed from records."""

from __future__ import annotations

import dataclasses

from cbundles import config
from cbundles.experiments import removal


def record(
    depth, width, seed=0, *, first=None, accuracy=0.9, epochs=3, entropy=None, initial=0.0,
    bundles=2048, family="fc", blocks=None, accuracy_epochs=2, **probe,
):  # fmt: skip
    """A record whose layers conflict from layer `first` on, after every epoch."""
    model = {"width": width} if family == "fc" else {"base_filters": width}
    if family != "fc":
        model["blocks"] = blocks or ",".join(map(str, config.PAPER_BLOCKS.get(depth, (1, 1, 1, 1))))
    cell = config.Cell(
        config.Data(),
        config.Model(family=family, depth=depth, **model),
        config.Training(epochs=epochs, seed=seed, accuracy_epochs=accuracy_epochs),
        config.Probe(**probe),
    )
    h = entropy or [0.0 if first is None or layer < first else 0.5 for layer in range(1, depth + 1)]
    after = {"entropy": h, "num_bundles": [bundles] * depth}
    history = [{"test_accuracy": 0.1, "train_loss": None, "entropy": [initial] * depth,
                "num_bundles": [bundles] * depth}]  # fmt: skip
    for epoch in range(1, epochs + 1):
        scores = {"test_accuracy": accuracy * epoch / epochs, "train_loss": 1 / epoch}
        history.append({**scores, **after})
    return {
        "cell": cell.id,
        "config": cell.asdict(),
        "num_classes": 10,
        "parameters": 100 * width,
        "bytes": 400 * width,
        "flops": depth * width * width,
        "platform": "cpu",
        "device": "cpu",
        "processor": "a test",
        "versions": {"jax": "0"},
        "commit": "none",
        "history": history,
        "seconds": [0.1] + [1.0] * epochs,
        "compile_seconds": 2.0,
        "population": 1,
    }


def lesion_record(seed, *, conflicting, depth=120, harmless=None, rise=200, every=1):
    """A study of 59 blocks in which the blocks that conflict, or those named, cost nothing and each
    other one costs `rise` of 2,000 images, two thirds of what is left when more are removed."""
    harmless = set(conflicting if harmless is None else harmless)
    number = sum(config.PAPER_BLOCKS[depth])
    cell = record(depth, 8, seed, family="resnet")
    blocks = {
        "entropy": [2.0 if block in set(conflicting) else 0.0 for block in range(number)],
        "num_bundles": [1 if block in set(conflicting) else 2048 for block in range(number)],
        **{name: [0.1 if block in harmless else 1.0 for block in range(number)]
           for name in ("norm", "scaled_norm", "first_order")},
    }  # fmt: skip
    settings = removal.Settings(draws=5, every=every)
    evaluated = [
        (variant, min(1800, rise * len(set(variant.removed) - harmless)), 0)
        for variant in removal.variants(blocks, settings)
    ]
    single = [lost for variant, lost, _ in evaluated if variant.of == removal.SINGLE]
    return {
        "cell": cell["cell"],
        "config": cell["config"],
        "settings": dataclasses.asdict(settings),
        "images": 2000,
        "correct": 1860,
        "blocks": {**blocks, "lost": single, "gained": [0] * number},
        "curves": removal.curves(evaluated),
    }
