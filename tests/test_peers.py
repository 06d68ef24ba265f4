"""Peers of the bundle entropy: each equals a plain NumPy version on captured activations, of models
that JAX traces; where one is undefined, it is said why."""

from __future__ import annotations

import csv
import itertools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import plain_peers
import pytest
from flax import nnx
from lesioned import normal
from linen_models import drawn

import cbundles
from cbundles import peer_measures
from cbundles.auditing import batches, jax_subject, layer_peers, peer_sums
from cbundles.observe import observe

SAMPLES, CLASSES = 40, 3
LABELS = (np.arange(SAMPLES) * 7 % CLASSES).astype(np.int32)


VECTORS, IMAGES = normal(SAMPLES, 6), normal(SAMPLES, 4, 4, 2)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Several of them, of which the last overlaps the one before it."""
    monkeypatch.setattr(batches, "AT_ONCE", 16)


@pytest.fixture
def captured(monkeypatch):
    """The values of all sites, and branches of sums, as they come: a list of those of batches."""
    seen = {}
    reduce = jax_subject.JaxSubject.reduce

    def capturing(self, batch, sites, reducer, arguments, beside):
        def values(site, value, arguments, *others):
            return value, others

        for site, (value, others) in reduce(self, batch, sites, values, (), beside).items():
            seen.setdefault(site, []).append(np.asarray(value))
            for other in others:
                seen.setdefault(f"branch of {site}", []).append(np.asarray(other))
        return reduce(self, batch, sites, reducer, arguments, beside)

    monkeypatch.setattr(jax_subject.JaxSubject, "reduce", capturing)
    return seen


def joined(parts, axes=0):
    """The values (repeats..., samples, ...) of all samples from those of batches, flattened to
    (repetitions, samples, ...)."""
    size = parts[0].shape[axes]
    last = SAMPLES - size * (len(parts) - 1)  # samples that are new in the last batch
    parts = [*parts[:-1], parts[-1][(slice(None),) * axes + (slice(size - last, None),)]]
    whole = np.concatenate(parts, axes)
    return whole.reshape(-1, *whole.shape[axes:])


def peers_of(model, inputs, labels=LABELS, **how):
    audit = cbundles.audit(model, inputs, labels, peers=True, headroom=False, **how)
    assert [one.layer for one in audit.peers] == [layer.name for layer in audit.layers]
    return audit.peers


def compare_with_captured(captured, peers, sites, *, repeats=()):
    """All peers but gradients with NumPy on what was captured; sites: by name, how often."""
    remaining = iter(peers)
    for site in sites:
        axes = 1 if site in repeats else 0
        values = joined(captured[site], axes)
        branches = [None] * len(values)
        if f"branch of {site}" in captured:
            branches = joined(captured[f"branch of {site}"], axes)
        for value, branch in zip(values if axes else values[None], branches, strict=False):
            one = next(remaining)
            assert one.layer.startswith(site)
            plain_peers.compare(one, value, LABELS, branch=branch, states="relu" in site)
    assert next(remaining, None) is None


# Functions of arrays


def test_measures_of_arrays():
    rows = np.maximum(normal(SAMPLES, 7), 0)
    measured = {
        "effective_rank": peer_measures.effective_rank(rows),
        "class_cosine": peer_measures.class_cosine(rows, LABELS),
        "relu_state_entropy": peer_measures.relu_state_entropy(rows),
        "block_change": peer_measures.block_change(rows + 1, rows + 2),
        "gradient_norm": peer_measures.gradient_norm([rows, rows[0]]),
        "batch_entropy": peer_measures.batch_entropy(rows),
    }
    assert list(measured) == list(layer_peers.MEASURES)
    assert measured["effective_rank"] == pytest.approx(plain_peers.effective_rank(rows))
    assert measured["class_cosine"] == pytest.approx(plain_peers.class_cosine(rows, LABELS))
    assert measured["relu_state_entropy"] == pytest.approx(plain_peers.relu_state_entropy(rows))
    assert measured["block_change"] == pytest.approx(plain_peers.block_change(rows + 1, rows + 2))
    assert measured["gradient_norm"] == pytest.approx(plain_peers.norm(rows, rows[0]))
    assert measured["batch_entropy"] == pytest.approx(plain_peers.batch_entropy(rows))


def test_measures_at_their_limits():
    one_direction = np.outer(np.arange(1, 9), np.ones(5)).astype(np.float32)
    assert peer_measures.effective_rank(one_direction) == pytest.approx(1)
    assert peer_measures.class_cosine(one_direction, np.arange(8) % 2) == pytest.approx(1)
    assert peer_measures.block_change(one_direction, 3 * one_direction) == pytest.approx(0)
    assert peer_measures.block_change(one_direction, -one_direction) == pytest.approx(2)
    assert peer_measures.relu_state_entropy(one_direction) == 0
    halves = np.repeat([[0.0], [1.0]], 3, axis=0)
    assert peer_measures.relu_state_entropy(halves) == 1
    # A small angle is not lost: 1 - cos is half of its square.
    turned = np.array([[1.0, 1e-6]])
    assert peer_measures.block_change(np.array([[1.0, 0.0]]), turned) == pytest.approx(5e-13)
    nothing = np.zeros((4, 3))
    assert peer_measures.effective_rank(nothing) is None
    assert peer_measures.class_cosine(nothing, np.arange(4)) is None
    assert peer_measures.class_cosine(one_direction, np.zeros(8, int)) is None
    assert peer_measures.block_change(nothing, nothing) is None
    assert peer_measures.batch_entropy(one_direction[:1]) is None
    assert peer_measures.batch_entropy(nothing) == 0


# Models


def perceptron(params, x):
    *hidden, last = params
    for weight, bias in hidden:
        x = jax.nn.relu(x @ weight + bias)
    return x @ last[0] + last[1]


def drawn_perceptron(*widths):
    sizes = itertools.pairwise(widths)
    return [
        (normal(before, after, seed=number, scale=0.5), normal(after, seed=-number % 97, scale=0.2))
        for number, (before, after) in enumerate(sizes, start=3)
    ]


def gradients_by_hand(params, x, labels):
    """Of the mean cross-entropy by the weights of each layer, and the values of hidden layers."""
    activations = [x.astype(np.float64)]
    for weight, bias in params[:-1]:
        activations.append(np.maximum(activations[-1] @ weight + bias, 0))
    logits = activations[-1] @ params[-1][0] + params[-1][1]
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    delta = exponentials / exponentials.sum(1, keepdims=True)
    delta[np.arange(len(x)), labels] -= 1
    delta /= len(x)
    gradients = []
    for (weight, _), activation in zip(reversed(params), reversed(activations), strict=True):
        gradients.insert(0, (activation.T @ delta, delta.sum(0)))
        delta = (delta @ weight.T) * (activation > 0)
    return gradients, activations[1:]


def test_perceptron():
    params = drawn_perceptron(6, 12, 9, 8, CLASSES)
    gradients, values = gradients_by_hand(params, VECTORS, LABELS)
    peers = peers_of(perceptron, VECTORS, params=params)
    for one, value, of_layer in zip(peers, values, gradients[:-1], strict=True):
        plain_peers.compare(one, value.astype(np.float32), LABELS)
        assert one.gradient_norm == pytest.approx(plain_peers.norm(*of_layer), rel=1e-5)
        assert not one.is_folded


def test_batches_that_come_once_give_the_same():
    params = drawn_perceptron(6, 12, 8, CLASSES)
    whole = peers_of(perceptron, VECTORS, params=params)
    coming = (VECTORS[start : start + 15] for start in range(0, SAMPLES, 15))
    for one, other in zip(whole, peers_of(perceptron, coming, params=params), strict=True):
        assert one.undefined == other.undefined
        for measure in layer_peers.MEASURES:
            if measure not in one.undefined:
                assert getattr(one, measure) == pytest.approx(getattr(other, measure), rel=1e-5)


def test_bundles_are_the_same_with_peers_and_without():
    params = drawn_perceptron(6, 12, 8, CLASSES)
    how = {"params": params, "learning_rate": 3e-6}
    alone = cbundles.audit(perceptron, VECTORS, LABELS, **how)
    together = cbundles.audit(perceptron, VECTORS, LABELS, peers=True, **how)
    assert alone.peers == () and alone.to_dict()["peers"] == []
    for one, other in zip(alone.layers, together.layers, strict=True):
        np.testing.assert_array_equal(one.bundles.bundle_ids, other.bundles.bundle_ids)
        assert one.headroom == other.headroom


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        h = nn.Conv(2, (3, 3), name="conv")(x)
        h = nn.relu(nn.BatchNorm(use_running_average=True, name="norm")(h))
        return x + nn.Conv(2, (3, 3), name="out")(h), None


class Stacked(nn.Module):
    @nn.compact
    def __call__(self, x):
        kinds = {"params": 0, "batch_stats": 0}
        x, _ = nn.scan(Block, kinds, split_rngs={"params": True}, length=3)(name="stack")(x, None)
        x, _ = Block(name="last")(x)
        return nn.Dense(CLASSES, name="head")(x.mean((1, 2)))


def mean_loss(logits):
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.asarray(LABELS)[:, None], 1)
    return -picked.mean()


def test_linen_with_a_scan(captured):
    model = Stacked()
    variables = drawn(model, IMAGES)
    peers = peers_of(model, IMAGES, params=variables)
    sites = [f"Stacked/{place}/{name}" for place in ("stack", "last") for name in ("relu", "sum")]
    compare_with_captured(captured, peers, sites, repeats=sites[:2])

    def loss(params):
        return mean_loss(model.apply(variables | {"params": params}, IMAGES))

    gradients = jax.grad(loss)(variables["params"])
    expected = []
    for names in (("conv", "norm"), ("out",)):
        leaves = jax.tree.leaves([gradients["stack"][name] for name in names])
        expected += [plain_peers.norm(*(leaf[i] for leaf in leaves)) for i in range(3)]
    for names in (("conv", "norm"), ("out",)):
        leaves = jax.tree.leaves([gradients["last"][name] for name in names])
        expected.append(plain_peers.norm(*leaves))
    np.testing.assert_allclose([one.gradient_norm for one in peers], expected, rtol=1e-4)


class Residual(nnx.Module):
    """With a projection for a shortcut, behind which there is an identity."""

    def __init__(self, rngs):
        self.conv1, self.conv2 = (nnx.Conv(n, 3, (3, 3), rngs=rngs) for n in (2, 3))
        self.project = nnx.Conv(2, 3, (1, 1), rngs=rngs)
        self.conv3 = nnx.Conv(3, 3, (3, 3), rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(3, CLASSES, rngs=rngs)

    def __call__(self, x):
        x = self.project(x) + self.conv2(nnx.relu(self.conv1(x)))
        x = self.drop(nnx.relu(x))
        return self.head(nnx.relu(x + self.conv3(x)).mean((1, 2)))


def test_nnx_with_a_projection(captured):
    model = Residual(nnx.Rngs(0))
    peers = peers_of(model, IMAGES)
    sites = ["relu", "sum", "relu#2", "sum#2", "relu#3"]
    assert [one.layer for one in peers] == sites
    compare_with_captured(captured, peers, sites)
    still = nnx.clone(model)
    still.eval()
    gradients = nnx.grad(lambda model: mean_loss(model(IMAGES)))(still)

    def of(*names):
        return plain_peers.norm(*jax.tree.leaves([gradients[name] for name in names]))

    expected = [of("conv1"), of("project", "conv2"), None, of("conv3"), None]
    for one, norm in zip(peers, expected, strict=True):
        assert one.gradient_norm == (None if norm is None else pytest.approx(norm, rel=1e-4))
        reason = one.undefined.get("gradient_norm")
        assert reason == (None if norm else "no trainable parameter between this layer and those "
                          "before it")  # fmt: skip


class Deep(nnx.Module):
    def __init__(self, rngs):
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=0, out_axes=0)
        def made(rngs):
            return nnx.Linear(6, 6, rngs=rngs)

        self.layers = made(rngs)
        self.head = nnx.Linear(6, CLASSES, rngs=rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def forward(x, layer):
            return x + nnx.relu(layer(x))

        return self.head(forward(x, self.layers))


def test_nnx_with_a_scan(captured):
    model = Deep(nnx.Rngs(0))
    peers = peers_of(model, VECTORS)
    compare_with_captured(captured, peers, ["relu", "sum"], repeats=["relu", "sum"])
    gradients = nnx.grad(lambda model: mean_loss(model(VECTORS)))(model)
    leaves = jax.tree.leaves(gradients["layers"])
    expected = [plain_peers.norm(*(leaf[i] for leaf in leaves)) for i in range(3)]
    np.testing.assert_allclose([one.gradient_norm for one in peers[:3]], expected, rtol=1e-4)


def test_tokens_are_rows():
    """Each with a label of its own, and logits for each."""
    tokens, width = 5, 7
    inputs, weight = normal(SAMPLES, tokens, 4), normal(4, width, seed=2)
    labels = np.random.default_rng(3).integers(0, CLASSES, (SAMPLES, tokens))
    head = normal(width, CLASSES, seed=4)

    def model(params, x):
        return jax.nn.relu(x @ params[0]) @ params[1]

    (one,) = peers_of(model, inputs, labels, params=[weight, head], rows="tokens")
    rows = np.maximum(inputs.reshape(-1, 4) @ weight, 0)
    plain_peers.compare(one, rows, labels.reshape(-1))
    gradients, _ = gradients_by_hand(
        [(weight, np.zeros(width)), (head, np.zeros(CLASSES))],
        inputs.reshape(-1, 4),
        labels.reshape(-1),
    )
    assert one.gradient_norm == pytest.approx(plain_peers.norm(gradients[0][0]), rel=1e-4)


# Wide layers


def test_wide_rows_are_folded():
    """As NumPy does it feature by feature, and so that what is measured hardly changes where rows
    have few directions and are alike."""
    features = 1000
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), features)
    directions = np.random.default_rng(1).standard_normal((4, features))
    rows = np.abs(normal(300, 4, seed=2)) @ directions.astype(np.float32)
    by_hand = np.zeros((300, peer_sums.FOLDED))
    for feature in range(features):
        by_hand[:, feature % peer_sums.FOLDED] += signs[feature] * rows[:, feature]
    folded = np.asarray(peer_sums.folded(jnp.asarray(rows), signs))
    np.testing.assert_allclose(folded, by_hand, rtol=1e-3, atol=1e-3)
    labels = np.arange(300) % 3
    rank = peer_measures.effective_rank(rows)
    assert peer_measures.effective_rank(folded) == pytest.approx(rank, rel=0.02)
    cosine = peer_measures.class_cosine(rows, labels)
    assert peer_measures.class_cosine(folded, labels) == pytest.approx(cosine, abs=0.05)


def test_a_wide_layer_is_said_to_be_folded(monkeypatch):
    monkeypatch.setattr(peer_sums, "MOST_UNITS", 200)
    width = 600
    params = drawn_perceptron(6, width, CLASSES)
    audit = cbundles.audit(perceptron, VECTORS, LABELS, params=params, peers=True)
    (one,) = audit.peers
    _, (value,) = gradients_by_hand(params, VECTORS, LABELS)
    assert one.is_folded and one.width == width
    assert f"~{one.effective_rank:.1f}" in str(audit)
    assert one.effective_rank == pytest.approx(plain_peers.effective_rank(value), rel=0.1)
    assert one.class_cosine == pytest.approx(plain_peers.class_cosine(value, LABELS), abs=0.1)
    # Of 600 units every seventh is counted: the first step that all channels share in.
    units = value[:, ::7].astype(np.float32)
    assert one.relu_state_entropy == pytest.approx(plain_peers.relu_state_entropy(units))
    assert one.batch_entropy == pytest.approx(plain_peers.batch_entropy(units), rel=1e-5)


# What is undefined


def reason_of(measure, model, inputs=VECTORS, labels=LABELS, layer=0, **how):
    one = peers_of(model, inputs, labels, **how)[layer]
    assert getattr(one, measure) is None
    return one.undefined[measure]


def test_a_dead_layer():
    params = drawn_perceptron(6, 12, 8, CLASSES)
    params[0] = (params[0][0], np.full(12, -1e3, np.float32))
    assert reason_of("effective_rank", perceptron, params=params) == "all activations are 0"
    assert "two classes" in reason_of("class_cosine", perceptron, params=params)
    one = peers_of(perceptron, VECTORS, params=params)[0]
    assert one.relu_state_entropy == one.batch_entropy == one.gradient_norm == 0


def test_a_diverged_layer():
    params = drawn_perceptron(6, 12, 8, 8, CLASSES)
    params[1] = (params[1][0] * np.float32(1e38), params[1][1] * np.float32(1e38))
    audit = cbundles.audit(perceptron, VECTORS, LABELS, params=params, peers=True)
    assert [layer.diverged for layer in audit.layers] == [False, True, True]
    healthy, *others = audit.peers
    assert healthy.effective_rank is not None
    assert healthy.undefined["gradient_norm"] == "what is added up for it is too large for a float"
    for one in others:
        assert set(one.undefined) == set(layer_peers.MEASURES)
        assert "diverged" in one.undefined["effective_rank"]
    lines = str(audit).splitlines()
    assert [line.split()[1:] for line in lines if line.startswith("relu#2 ")][1] == ["-"] * 6
    assert json.loads(json.dumps(audit.to_dict(), allow_nan=False))["peers"][1]["folded"] is False


def test_large_numbers_are_no_divergence():
    params = drawn_perceptron(6, 12, CLASSES)
    params[0] = tuple(part * np.float32(1e25) for part in params[0])
    (one,) = peers_of(perceptron, VECTORS, params=params)
    _, (value,) = gradients_by_hand(params, VECTORS, LABELS)
    assert one.effective_rank == pytest.approx(plain_peers.effective_rank(value), rel=1e-5)
    assert "too large for a float" in one.undefined["batch_entropy"]


@pytest.mark.parametrize(
    ("activation", "reason"),
    [
        (jax.nn.sigmoid, "logistic is never off"),
        (jax.nn.softplus, "softplus is never off"),
        (jax.nn.gelu, None),
        (lambda x: jnp.maximum(x, 0), None),
    ],
)
def test_states_of_other_activations(activation, reason):
    params = drawn_perceptron(6, 12, CLASSES)

    def model(params, x):
        (weight, bias), (head, last) = params
        return activation(x @ weight + bias) @ head + last

    (one,) = peers_of(model, VECTORS, params=params)
    assert one.undefined.get("relu_state_entropy") == reason
    value = np.asarray(activation(VECTORS @ params[0][0] + params[0][1]))
    plain_peers.compare(one, value, LABELS, states=reason is None)


def test_why_there_is_no_gradient():
    params = drawn_perceptron(6, 12, CLASSES)

    def reason(model, labels=LABELS, **how):
        return reason_of("gradient_norm", model, labels=labels, **how)

    def ends_in(change):
        return lambda params, x: change(perceptron(params, x))

    one_number = reason(ends_in(lambda logits: logits.max(1)), params=params)
    assert one_number.startswith("no output of the model can be class scores (batch, classes)")
    assert one_number.endswith("there is float32[14]")
    assert "2 outputs of the model could be" in reason(ends_in(lambda y: (y, y)), params=params)
    with pytest.raises(ValueError, match="output=3: "):
        peers_of(ends_in(lambda y: (y, y)), VECTORS, params=params, output=3)
    assert "no parameters are known" in reason(lambda x: perceptron(params, x), amplitude=1.0)

    def loops(params, x):
        return jax.lax.while_loop(lambda y: y.sum() > 1e9, lambda y: y / 2, perceptron(params, x))

    assert "no gradient: ValueError: Reverse-mode" in reason(loops, params=params)
    # Features beside the logits, and more logits than classes, do no harm.
    beside = ends_in(lambda y: {"logits": y, "features": jnp.concatenate([y, y], 1)})
    plain = peers_of(perceptron, VECTORS, params=params)[0].gradient_norm
    assert peers_of(beside, VECTORS, params=params)[0].gradient_norm == pytest.approx(plain)
    softmax = peers_of(ends_in(jax.nn.softmax), VECTORS, params=params)[0].gradient_norm
    assert softmax == pytest.approx(plain, rel=1e-5)
    two = (LABELS > 0).astype(int)
    assert peers_of(perceptron, VECTORS, two, params=params)[0].gradient_norm > 0


def test_a_single_class():
    params = drawn_perceptron(6, 12, CLASSES)
    assert "two classes" in reason_of(
        "class_cosine", perceptron, labels=np.zeros(SAMPLES, int), params=params
    )


# Which parameters make a value


def made_with(function, names, *arguments):
    """By site, the names of the parameters, with the scans that walk along them."""
    observed = observe(function, *arguments)
    sites = [site.name for site in observed.select(kind="activation")]
    found = observed.makers(sites, range(len(names)))
    return {
        site: sorted((names[one.number], one.scans) for one in makers)
        for site, makers in found.items()
    }


def test_makers_inside_scans():
    """What a repetition makes behind its last site belongs to the next one, of which the first has
    what comes before the scan: all repetitions count."""

    def stacked(stem, first, second, shared, head, x):
        def body(x, weights):
            return jax.nn.relu(x @ weights[0] @ shared) @ weights[1], None

        x, _ = jax.lax.scan(body, x @ stem, (first, second))
        return jax.nn.relu(x) @ head

    square, stack = np.ones((4, 4), np.float32), np.ones((3, 4, 4), np.float32)
    names = ["stem", "first", "second", "shared", "head"]
    assert made_with(stacked, names, square, stack, stack, square, square, square) == {
        "relu": [("first", (0,)), ("second", ()), ("shared", ()), ("stem", ())],
        "relu#2": [("second", ())],
    }


def test_makers_inside_two_scans():
    def nested(both, inner, outer, x):
        def repeat(x, of_outer):
            weights, bias = of_outer

            def body(x, of_inner):
                return jax.nn.relu(x @ of_inner[0] + of_inner[1] + bias), None

            return jax.lax.scan(body, x, (weights, inner))[0], None

        return jax.lax.scan(repeat, x, (both, outer))[0]

    shapes = (2, 3, 4, 4), (3, 4), (2, 4), (5, 4)
    assert made_with(nested, ["both", "inner", "outer"], *map(np.ones, shapes)) == {
        "relu": [("both", (0, 1)), ("inner", (1,)), ("outer", (0,))],
    }


# What is kept, and the command line


def test_table_and_files(tmp_path):
    model = Residual(nnx.Rngs(0))
    audit = cbundles.audit(model, IMAGES, LABELS, peers=True)
    heads = "layer   eff. rank  class cos  ReLU bits  1 - cos  grad norm  batch H"
    table = str(audit).split("\n\n")[1].splitlines()
    assert table[0].split() == heads.split()
    assert len(table) == 6 and table[2].split()[3] == "-"
    kept = audit.to_dict()["peers"]
    assert [one["name"] for one in kept] == [one.layer for one in audit.peers]
    assert kept[1]["block_change"] == audit.peers[1].block_change
    assert kept[1]["undefined"] == {
        "relu_state_entropy": "not an activation, but of kind sum",
    }
    with audit.to_csv(tmp_path / "audit.csv").open() as file:
        first, *rows = csv.DictReader(file)
    assert first["name"] == "input" and first["effective_rank"] == ""
    assert float(rows[1]["block_change"]) == audit.peers[1].block_change
    assert json.loads(rows[1]["undefined"]) == kept[1]["undefined"]


def test_command_line(cli, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "a_perceptron.py").write_text(
        "import jax, numpy as np\n"
        "def forward(w, x):\n"
        "    return jax.nn.relu(x.reshape(len(x), -1) @ w[0]) @ w[1]\n"
        "def build():\n"
        "    draw = np.random.default_rng(0).standard_normal\n"
        "    return forward, [draw((784, 8), np.float32), draw((8, 10), np.float32)]\n"
    )
    wanted = ["--dataset", "mnist_mini", "--samples", "100", "--no-headroom", "--peers"]
    done = cli("audit", "a_perceptron:build", *wanted, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "eff. rank" in done.stdout
    done = cli("audit", "a_perceptron:build", *wanted, "--device", "cpu", "--json")
    (one,) = json.loads(done.stdout)["peers"]
    assert one["name"] == "relu" and one["gradient_norm"] > 0
