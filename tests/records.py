"""Completion records made up for tests of what is computed from records."""

from __future__ import annotations

from cbundles import config


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
