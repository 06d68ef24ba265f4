"""Completion records made up for tests of what is computed from records."""

from __future__ import annotations

import dataclasses

from cbundles import config
from cbundles.decisions import removal


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
    after = {"entropy": h, "num_bundles": [bundles] * len(h)}
    history = [{"test_accuracy": 0.1, "train_loss": None, "entropy": [initial] * len(h),
                "num_bundles": [bundles] * len(h)}]  # fmt: skip
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


def arms_record(experiment, cell, history, events, scores):
    """A completion record of a network whose depth changed."""
    return {
        "cell": cell.id,
        "config": cell.asdict(),
        "experiment": experiment,
        "num_classes": 2,
        "parameters": 30 * history[-1]["depth"],
        "bytes": 120 * history[-1]["depth"],
        "flops": 10 * history[-1]["depth"],
        "history": history,
        "events": events,
        "scores": scores,
        "seconds": 2.0,
        "compile_seconds": 1.0,
        "programs": 2,
        "population": 1,
        "platform": "cpu",
        "device": "cpu",
        "processor": "a test",
        "versions": {"jax": "0"},
        "commit": "none",
        "data_fingerprint": "spirals-made-up",
    }


def growth_record(
    arm, seed=0, *, loss=0.1, epochs=4, depth=2, width=5, block="plain-relu", data="spirals",
    diverged=False, batch_size=64, **growth,
):  # fmt: skip
    """A network whose training loss falls from 0.8 to `loss`, by the same factor in each epoch; an
    epoch takes 1,000 FLOPs a layer. The arm max inserts at the last position."""
    growth = {"first_epoch": 2, "every": 1, "insertions": 1, "large_depth": 4, **growth}
    cell = config.Cell(
        config.Data(name=data),
        config.Model(depth=depth, width=width, block=block),
        config.Training(epochs=epochs, seed=seed, batch_size=batch_size),
        config.Probe(),
        config.Growth(arm=arm, **growth),
    )
    final = depth + growth["insertions"]
    layers = {"matched": final, "large": growth["large_depth"]}.get(arm, depth)
    history, events, scores, flops = [], [], [], 0.0
    for epoch in range(epochs + 1):
        value = None if diverged and epoch > 1 else 0.8 * (loss / 0.8) ** (epoch / epochs)
        history.append({"epoch": epoch, "flops": flops, "depth": layers,
                        "train_loss": value, "test_loss": value and 2 * value,
                        "test_accuracy": 0.5 if value is None else 1 - value / 2})  # fmt: skip
        due = (epoch - growth["first_epoch"]) % growth["every"] == 0
        if arm in config.INSERTING and growth["first_epoch"] <= epoch and due and layers < final:
            sensitivities = [0.1 * (position + 1) * (1 + seed / 10) for position in range(layers)]
            scores.append({"epoch": epoch, "sensitivities": sensitivities,
                           "existing": [0.05] * layers})  # fmt: skip
            position = layers - 1 if arm == "max" else 0
            layers += 1
            events.append({"epoch": epoch, "kind": "insert", "position": position, "count": 1,
                           "depth": layers, "loss_before": value})  # fmt: skip
        flops += 1000.0 * layers
    return arms_record("grow", cell, history, events, scores)


def tuning_record(
    arm, start=2, seed=0, *, end=None, accuracy=0.9, undone=0, epochs=8, budget_depth=4,
    diverged=False, **tuning,
):  # fmt: skip
    """A network that gains or loses a layer after each epoch until it has `end`, while its test
    accuracy rises evenly over its compute; some more insertions are undone at once."""
    tuning = {"budget_depth": budget_depth, "max_depth": 2 * max(budget_depth, start), **tuning}
    cell = config.Cell(
        config.Data(name="spirals"),
        config.Model(depth=start, width=5),
        config.Training(epochs=epochs, seed=seed),
        config.Probe(),
        config.Growth(),
        config.Tuning(arm=arm, **tuning),
    )
    budget, layers, flops, epoch = 1000.0 * budget_depth * epochs, start, 0.0, 0
    history, events = [], []
    while True:
        value = None if diverged and epoch > 1 else 1 - accuracy * flops / budget
        reached = 0.5 + (accuracy - 0.5) * flops / budget
        history.append({"epoch": epoch, "flops": flops, "depth": layers,
                        "train_loss": value, "test_loss": value, "held_out_loss": value,
                        "test_accuracy": reached, "train_accuracy": reached})  # fmt: skip
        if flops >= budget:
            break
        edit = {"epoch": epoch, "position": 0, "count": 1, "depth": layers, "loss_before": value}
        if end is not None and layers != end:
            kind, layers = ("insert", layers + 1) if end > layers else ("remove", layers - 1)
            events += [{**edit, "kind": kind, "depth": layers}, {**edit, "kind": "accept"}]
        elif undone > 0:
            undone -= 1
            events += [{**edit, "kind": "insert"}, {**edit, "kind": "undo"}]
        flops = min(budget, flops + 1000.0 * layers)
        epoch += 1
    scores = [{"epoch": 0, "sensitivities": [0.1] * start, "existing": [0.1] * start,
               "entropy": [0.0] * start}]  # fmt: skip
    return arms_record("tune", cell, history, events, scores)
