"""Completion records made up for tests of what is computed from records."""

from __future__ import annotations

import math

import msgspec

from cbundles import config
from cbundles.decisions import removal
from cbundles.records import (
    TRAINED_CASES,
    Blocks,
    Comparison,
    EditedHistory,
    Event,
    GrowRecord,
    InputGradients,
    Layers,
    LesionRecord,
    MeasuredRecord,
    Origin,
    PlainNetwork,
    PrunedRecord,
    Scoring,
    SweepHistory,
    SweepRecord,
    ToyHistory,
    ToyRecord,
    ToyTraining,
    TuneRecord,
)

# A value for each layer or block, and none behind them.
OLDEST_READING = {"last": "block", "amplitude": "all", "batch_norm": "batch"}
NEVER_STOPPED = {"stop_conflicting": "entropy", "conflict_checks": 0}  # as `config` says it
ORIGIN = Origin(
    platform="cpu",
    device="cpu",
    processor="a test",
    versions={"jax": "0"},
    commit="none",
    data_fingerprint="made up",
)


def changed(record, **fields):
    """A record with other values in some fields; a dictionary changes a part of what is there."""
    for name, value in fields.items():
        part = getattr(record, name)
        if isinstance(value, dict) and not isinstance(part, dict):
            fields[name] = changed(part, **value)
    return msgspec.structs.replace(record, **fields)


def with_settings(record, **sections):
    """A record of a network with other settings."""
    config = {name: {**keys, **sections.get(name, {})} for name, keys in record.config.items()}
    return changed(record, config=config)


def entries_of(history):
    """What was measured each time, as a list of dictionaries."""
    return _entries(msgspec.to_builtins(history), range(len(history)))


def _entries(columns, numbers):
    columns = {
        name: _entries(values, numbers) if isinstance(values, dict) else values
        for name, values in columns.items()
    }
    return [{name: values[number] for name, values in columns.items()} for number in numbers]


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
        config.Training(
            epochs=epochs,
            seed=seed,
            accuracy_epochs=accuracy_epochs,
            **NEVER_STOPPED,
        ),
        config.Probe(**{**OLDEST_READING, **probe}),
    )
    h = entropy or [0.0 if first is None or layer < first else 0.5 for layer in range(1, depth + 1)]
    after, numbers = range(1, epochs + 1), [bundles] * len(h)
    unknown = [None] * len(h)
    history = SweepHistory(
        test_accuracy=[0.1, *(accuracy * epoch / epochs for epoch in after)],
        train_loss=[None, *(1 / epoch for epoch in after)],
        entropy=[[initial] * len(h), *([*h] for _ in after)],
        conflict_rate=[[*unknown] for _ in range(epochs + 1)],
        num_bundles=[[*numbers] for _ in range(epochs + 1)],
    )
    return SweepRecord(
        id=cell.id,
        origin=ORIGIN,
        config=cell.asdict(),
        num_classes=10,
        parameters=100 * width,
        bytes=400 * width,
        flops=depth * width * width,
        compile_seconds=2.0,
        population=1,
        largest_entropy=math.log(10),
        history=history,
        seconds=[0.1] + [1.0] * epochs,
        probe_seconds=[],
    )


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
    return LesionRecord(
        id=cell.id,
        origin=ORIGIN,
        config=cell.config,
        settings=settings,
        images=2000,
        correct=1860,
        blocks=Blocks(**blocks, conflict_rate=[None] * number, lost=single, gained=[0] * number),
        curves=removal.curves(evaluated),
        network="made up",
    )


def arms_record(kind, cell, entries, events, scores):
    """A completion record of a network whose depth changed."""
    depth = entries[-1]["depth"]
    return kind(
        id=cell.id,
        origin=ORIGIN,
        config=cell.asdict(),
        num_classes=2,
        parameters=30 * depth,
        bytes=120 * depth,
        flops=10 * depth,
        compile_seconds=1.0,
        population=1,
        steps_per_epoch=9,
        history=EditedHistory.of_entries(entries),
        events=msgspec.convert(events, list[Event]),
        scores=msgspec.convert(scores, list[Scoring]),
        seconds=2.0,
        programs=2,
    )


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
        config.Training(epochs=epochs, seed=seed, batch_size=batch_size, **NEVER_STOPPED),
        config.Probe(**OLDEST_READING),
        config.Growth(arm=arm, **growth),
    )
    final = depth + growth["insertions"]
    layers = {"matched": final, "large": growth["large_depth"]}.get(arm, depth)
    history, events, scores, flops = [], [], [], 0.0
    for epoch in range(epochs + 1):
        value = None if diverged and epoch > 1 else 0.8 * (loss / 0.8) ** (epoch / epochs)
        history.append({"epoch": epoch, "flops": flops, "depth": layers,
                        "train_loss": value, "test_loss": value and 2 * value,
                        "test_accuracy": 0.5 if value is None else 1 - value / 2,
                        "train_accuracy": 1.0})  # fmt: skip
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
    return arms_record(GrowRecord, cell, history, events, scores)


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
        config.Training(epochs=epochs, seed=seed, **NEVER_STOPPED),
        config.Probe(**OLDEST_READING),
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
    return arms_record(TuneRecord, cell, history, events, scores)


def toy_record(
    case, seed, *, bundles=1, deviation=0.001, accuracy=1.0, norm=1.0, lag=0.99, share=0.5
):
    trained, plain = None, PlainNetwork(layers=50, width=200)
    if case in TRAINED_CASES:
        entry = {"num_bundles": bundles, "deviation": deviation, "accuracy": accuracy,
                 "gradient_norm": norm, "entropy": 0.0, "outputs": [(0.5, 0.5)]}  # fmt: skip
        trained, plain = (
            ToyTraining(
                share=share,
                learning_rate=1e-4,
                batch_size=64,
                inputs=[0.5],
                history=ToyHistory.of_entries([entry] * 51),
            ),
            None,
        )
    return ToyRecord(
        id=f"{case}-{seed}",
        origin=ORIGIN,
        case=case,
        seed=seed,
        points=1,
        gradients=InputGradients(inputs=[0.5], values=[1.0], autocorrelation=[1.0, lag]),
        trained=trained,
        plain=plain,
    )


def pruned_record():
    """A network that lost two of its blocks."""
    network = record(10, 8, family="resnet")
    compared = Comparison(
        removed=[1, 2],
        epochs=1,
        images=2000,
        correct=(1860, 1200, 1800, 1870),
        lost=(0, 700, 80, 20),
        gained=(0, 40, 20, 30),
        difference=1e-6,
        layers=(10, 6),
        parameters=(4000, 2000),
        bytes=(16000, 8000),
        flops=(10**6, 5 * 10**5),
        latency_seconds=(0.02, 0.01),
    )
    return PrunedRecord(
        id=f"{network.id}-norm-2-abcdef",
        origin=ORIGIN,
        config=network.config,
        of=network.id,
        blocks="norm:2",
        network="0123456789abcdef",
        compared=compared,
    )


def measured_record():
    """Two networks of a cell, measured again."""
    network = record(10, 8, family="resnet")
    layers = Layers(
        entropy=[[0.0] * 4, [0.5] * 4],
        conflict_rate=[[0.0] * 4, [None] * 4],
        num_bundles=[[64] * 4, [3] * 4],
    )
    history = SweepHistory(
        test_accuracy=[0.1, 0.9],
        train_loss=[None, None],
        **msgspec.structs.asdict(layers),
        scaled_branch_entropy=[[0.0] * 4] * 2,
        scaled_branch_conflict_rate=[[0.0] * 4] * 2,
        readings={"paper": layers},
    )
    return MeasuredRecord(
        id=network.id,
        origin=ORIGIN,
        config=network.config,
        readings="paper",
        kept_after=["0", "last"],
        epochs_trained=[0, 3],
        networks={"0": "0123456789abcdef", "last": "abcdef0123456789"},
        largest_entropy=2.3,
        history=history,
    )
