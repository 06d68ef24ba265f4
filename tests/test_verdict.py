"""The verdict of an audit in words, on cases that are made for it."""

from __future__ import annotations

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cbundles
from cbundles.auditing.pictures import along_network

SAMPLES, WIDTH, CLASSES = 200, 32, 4
LABELS = np.random.default_rng(5).integers(0, CLASSES, SAMPLES)
INPUTS = np.random.default_rng(6).standard_normal((SAMPLES, WIDTH)).astype(np.float32)
NOTHING = (
    "None of 10 layers conflicts: no samples of different classes share a bundle at this "
    "resolution."
)


def perceptron(params, x):
    *hidden, last = params
    for layer in hidden:
        x = jax.nn.relu(x @ layer["weight"] + layer["bias"])
    return x @ last["weight"]


def healthy():
    """Ten layers that are drawn so that activations keep their size, and never all die."""
    random = np.random.default_rng(7)
    scale = (2 / WIDTH) ** 0.5
    hidden = [
        {
            "weight": random.standard_normal((WIDTH, WIDTH)).astype(np.float32) * scale,
            "bias": np.full(WIDTH, 0.1, np.float32),
        }
        for _ in range(10)
    ]
    return [*hidden, {"weight": np.ones((WIDTH, CLASSES), np.float32)}]


def audit(params, inputs=INPUTS, labels=LABELS, **how):
    return cbundles.audit(perceptron, inputs, labels, params=params, **how)


def begins(sentence, verdict):
    return any(one.startswith(sentence) for one in verdict)


def test_healthy():
    found = audit(healthy())
    assert found.first_conflict is None
    assert found.verdict[0] == NOTHING
    assert begins("The nearest to a conflict is relu", found.verdict)
    assert begins(
        "Judged at a learning rate of 0.001 and a batch size of 64, beside the model's largest "
        f"weight, {found.amplitude.value:.3g} in ",
        found.verdict,
    )
    assert len(found.verdict) == 3  # nothing in the data, no outlier, no choice that matters


def test_collapsed_from_layer_7_on():
    params = healthy()
    params[6]["weight"] *= 1e-9
    found = audit(params)
    assert found.first_conflict == "relu#7"
    assert found.verdict[0] == (
        "Collapsed from relu#7 (7 of 10) on: relu#10 puts all samples into one bundle."
    )
    assert begins("The farthest gone is relu#7: conflicts already, by", found.verdict)
    assert [layer.conflicting for layer in found.layers] == [False] * 6 + [True] * 4
    without = audit(params, headroom=False)
    assert without.verdict[0] == found.verdict[0]
    assert all(layer.headroom is None for layer in without.layers)


def test_diverged():
    params = healthy()
    params[4]["weight"] *= 1e30
    params[5]["weight"] *= 1e30
    found = audit(params)
    assert found.verdict[0] == (
        "Diverged: relu#6 (6 of 10) makes NaN or infinity, and 5 of 10 layers do. Neither entropy "
        "nor conflicts mean anything there."
    )
    assert found.layers[5].entropy is None and found.layers[5].headroom is None
    assert "diverged" in str(found)
    params[2]["bias"][0] = np.nan
    assert audit(params).verdict[0] == "The weights hold NaN, first in 2/bias: it diverged."
    json.dumps(audit(params).to_dict(), allow_nan=False)
    inputs = INPUTS.copy()
    inputs[3, 2] = np.inf
    assert audit(healthy(), inputs).verdict[0].startswith("The inputs hold NaN or infinity")


def test_duplicates_in_the_data():
    inputs, labels = INPUTS.copy(), LABELS.copy()
    inputs[150:], labels[150:] = inputs[:50], labels[:50]
    found = audit(healthy(), inputs, labels)
    assert found.verdict[:2] == [
        NOTHING,
        "In the data 50 of 200 samples repeat another one exactly, always with its label.",
    ]
    assert found.input.num_bundles == 150 and found.input.conflict_rate == 0


def test_duplicates_with_different_labels_are_no_fault_of_a_layer():
    inputs, labels = INPUTS.copy(), LABELS.copy()
    inputs[150:], labels[150:] = inputs[:50], (labels[:50] + 1) % CLASSES
    found = audit(healthy(), inputs, labels)
    assert found.first_conflict is None
    assert found.verdict[0] == NOTHING.replace("classes share", "classes but equal inputs share")
    assert found.verdict[1].startswith(
        "In the data 50 of 200 samples repeat another one exactly, and 50 pairs have different "
        "labels: they conflict in every layer, whatever the network does (H 0.347, conflict rate "
    )
    assert all(layer.conflict_rate == found.input.conflict_rate for layer in found.layers)
    assert all(layer.headroom.bits > 3 for layer in found.layers)


def test_a_few_pairs_that_meet_are_said():
    """They are no conflict of the layer, and nothing is said of distances."""
    inputs = INPUTS.copy()
    inputs[1] = inputs[0] * np.float32(1.000001)
    labels = LABELS.copy()
    labels[:2] = 0, 1
    found = audit(healthy(), inputs, labels)
    (rate,) = {layer.conflict_rate for layer in found.layers}
    assert 0 < rate < 1e-3
    assert found.verdict[0] == (
        f"None of 10 layers conflicts: at most {rate:.2g} of the pairs of samples of different "
        "classes share a bundle at this resolution."
    )


def test_one_outlier_decides_for_all_layers():
    params, inputs = healthy(), INPUTS.copy()
    inputs[:, 0] = 0  # so that the outlier has no part in anything
    params[0]["weight"][0, 3] = 3e4
    found = audit(params, inputs)
    assert found.amplitude.parameter == "0/weight"
    assert found.amplitude.times_median > 1e4
    assert found.resolution == pytest.approx(np.spacing(np.float32(3e4)) * 64 / 1e-3)
    assert found.verdict[0].startswith("Collapsed from relu (1 of 10) on")
    assert begins("That weight is ", found.verdict)
    choice = (
        "It hangs on a choice: measured beside the largest weight of the layer that reads the "
        "activation, no layer would conflict."
    )
    assert choice in found.verdict
    other = audit(params, inputs, amplitude="consumer")
    assert other.verdict[0] == NOTHING
    assert begins(
        "It hangs on a choice: measured beside the largest weight of the whole model, layers would "
        "conflict, from relu on.",
        other.verdict,
    )
    assert audit(params, inputs, trainable="[1-9]/*").verdict[0] == NOTHING


def test_nothing_measurable():
    def linear(params, x):
        return x @ params

    found = cbundles.audit(linear, INPUTS, LABELS, params=np.eye(WIDTH))
    assert found.layers == ()
    assert found.verdict == [
        "Nothing could be measured. What was left out, by its reason: 1: it makes the output, "
        "which is no hidden layer."
    ]
    nothing = cbundles.audit(lambda params, x: x * params, INPUTS, LABELS, params=np.ones(WIDTH))
    assert nothing.verdict[0].startswith("Nothing could be measured: the model has no activation")
    assert nothing.plot() is not None and "input" in str(nothing)


def test_what_is_bundled_can_be_told_apart_later():
    """Bundled is not indistinguishable: two layers make activations small, a third large again."""
    params = healthy()
    params[1]["weight"] *= 1e-5
    params[1]["bias"] *= 1e-5
    params[2]["bias"] *= 1e-5
    params[3]["weight"] *= 1e5
    found = audit(params, amplitude=1.0)
    assert found.verdict[0] == (
        "2 of 10 layers conflict, first relu#2 (2 of 10), but from relu#4 on none does: samples "
        "that are bundled still differ, and later layers separate them."
    )


def test_a_factor_of_ten_in_the_learning_rate_or_the_batch_size():
    found = audit(healthy())
    bits = min(layer.headroom.bits for layer in found.layers)
    near = found.findings.learning_rate * 2.0 ** -(bits - 1)  # a bit above a conflict
    close = audit(healthy(), learning_rate=near)
    assert close.first_conflict is None
    hint = "It hangs on a choice: with a tenth of the learning rate, or ten times the batch size"
    assert begins(f"{hint}, layers would conflict, from relu", close.verdict)
    beyond = audit(healthy(), learning_rate=near / 4)
    assert beyond.first_conflict is not None
    hint = "It hangs on a choice: with ten times the learning rate, or a tenth of the batch size"
    assert begins(f"{hint}, no layer would conflict", beyond.verdict)


def chosen_rows(*pairs):
    """Inputs of a network that does nothing to them, some of which are equal in pairs up to 1e-9,
    which no weight can see; a third column makes them different inputs."""
    inputs = INPUTS.copy() + 10
    for one, other in pairs:
        inputs[other] = inputs[one]
        inputs[other, 0] = np.nextafter(inputs[one, 0], np.float32(100))
    return inputs


def identity(params, x):
    return jax.nn.relu(x * params) @ jnp.ones((WIDTH, CLASSES))


def test_a_single_pair():
    labels = np.arange(SAMPLES) % 2
    found = cbundles.audit(identity, chosen_rows((0, 1)), labels, params=np.ones(WIDTH, np.float32))
    (layer,) = found.layers
    assert layer.entropy > 0 and not layer.conflicting
    assert "It hangs on a choice: in relu a single pair of samples meets, which is not called a " \
        "conflict." in found.verdict  # fmt: skip


def test_half_of_the_samples():
    """All pairs that meet are among every other sample."""
    labels = np.arange(SAMPLES) // 2 % 2
    pairs = [(4 * number, 4 * number + 2) for number in range(15)]
    found = cbundles.audit(identity, chosen_rows(*pairs), labels, params=np.ones(WIDTH, np.float32))
    assert found.first_conflict == "relu"
    assert (
        "It hangs on a choice: with half of the samples, no layer would conflict." in found.verdict
    )


# What is left of it


def collapsed():
    params = healthy()
    params[6]["weight"] *= 1e-9
    return audit(params)


def test_the_table_fits_a_terminal(monkeypatch):
    found = collapsed()
    for columns in (80, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = str(found).splitlines()
        assert max(map(len, lines)) <= columns
        assert lines[0].split() == [
            "layer",
            "kind",
            "shape",
            "bundles",
            "H",
            "conflicts",
            "headroom",
        ]
        assert lines[1].split() == ["input", "input", "32", "200", "0.000", "0"]
        assert lines[8].split()[:4] == ["relu#7", "activation", "32", "1"]
        assert lines[8].endswith("<-10  conflicts")
    assert repr(found).startswith("<Audit of 10 layers: Collapsed from relu#7")


def test_names_are_shortened_from_the_left(monkeypatch):
    def scoped(params, x):
        with jax.named_scope("a_name/" * 12 + "end"):
            return jax.nn.relu(x * params).sum(1)

    monkeypatch.setenv("COLUMNS", "80")
    found = cbundles.audit(scoped, INPUTS, LABELS, params=np.ones(WIDTH, np.float32))
    line = str(found).splitlines()[2]
    assert line.startswith("…") and "end/relu " in line and len(line) <= 80


def test_plain_data(tmp_path):
    found = collapsed()
    data = json.loads(json.dumps(found.to_dict()))
    assert data["first_conflict"] == "relu#7" and len(data["layers"]) == 10
    assert data["layers"][6]["headroom"] == -10.5 and data["layers"][6]["conflict_rate"] == 1
    path = found.to_csv(tmp_path / "new" / "audit.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows[:2]] == ["input", "relu"] and len(rows) == 11
    assert rows[7]["conflicting"] == "True" and json.loads(rows[7]["shape"]) == [32]


def test_conflicting_bundles():
    found = collapsed()
    assert found.bundles("relu") == []
    (bundle,) = found.bundles("relu#7")
    assert sorted(bundle.samples) == list(range(SAMPLES))
    counts = {n: int((n == LABELS).sum()) for n in range(CLASSES)}
    assert bundle.classes == counts
    assert list(bundle.classes.values()) == sorted(counts.values(), reverse=True)
    with pytest.raises(ValueError, match="did you mean 'relu#7'"):
        found.bundles("relu7")
    with pytest.raises(ValueError, match="show is for images"):
        found.show("relu#7")


def test_bundles_are_in_order_of_size():
    inputs = np.repeat(np.eye(3, dtype=np.float32), [5, 9, 2], axis=0)
    inputs = np.pad(inputs, ((0, 0), (0, WIDTH - 3)))
    labels = np.array([0, 1] * 8)
    found = cbundles.audit(identity, inputs, labels, params=np.ones(WIDTH, np.float32))
    sizes = [len(bundle.samples) for bundle in found.bundles("relu")]
    assert sizes == [9, 5, 2]
    assert [sorted(bundle.samples) for bundle in found.bundles("input")][1] == [0, 1, 2, 3, 4]


def test_pictures(tmp_path):
    found = collapsed()
    figure = found.plot(tmp_path / "audit.png")
    assert (tmp_path / "audit.png").stat().st_size > 10_000
    entropies, headrooms = figure.axes
    drawn = entropies.collections[0].get_offsets()[:, 1]
    np.testing.assert_allclose(drawn, [0, *(layer.entropy for layer in found.layers)])
    assert headrooms.collections[0].get_offsets()[7, 1] == -10.5
    assert len(along_network(audit(healthy(), headroom=False).findings).axes) == 1

    def flat(params, x):
        return identity(params, x.reshape(len(x), -1))

    images = np.zeros((12, 4, 8, 1), np.float32)
    images[:, 0, 0, 0] = np.arange(12) // 6
    shown = cbundles.audit(flat, images, np.arange(12) % 3, params=np.ones(WIDTH, np.float32)).show(
        "relu", tmp_path / "bundles.png"
    )
    titles = [axes.get_title() for axes in shown.axes if axes.get_title()]
    assert len(titles) == 12 and [title[0] for title in titles[:3]] == ["0", "1", "2"]
    with pytest.raises(ValueError, match="relu has no conflicting bundles"):
        cbundles.audit(flat, images, np.zeros(12, int), params=np.ones(WIDTH, np.float32)).show(
            "relu"
        )


def test_an_array_alone_has_a_name():
    """Of parameters that are no collection, and so have no path."""

    def model(params, x):
        return jax.nn.relu(x @ params)[:, :CLASSES]

    audit = cbundles.audit(model, INPUTS, LABELS, params=jnp.eye(WIDTH) * 3)
    assert audit.amplitude.parameter == "params" and " in params" in str(audit)
