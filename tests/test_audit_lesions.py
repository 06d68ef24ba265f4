"""Branches of any model switched off by an audit: every cost and curve equals brute force."""

from __future__ import annotations

import json
from typing import NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import lesioned
import numpy as np
import pytest
from flax import nnx
from lesioned import BruteForce, compare, labels_near, normal
from linen_models import drawn
from test_lesion import damaged  # noqa: F401  a small ResNet of our own

import cbundles
from cbundles.auditing import batches
from cbundles.auditing.lesion_findings import Difference
from cbundles.data import augment, pipelines
from cbundles.decisions import paired, removal
from cbundles.experiments import lesion
from cbundles.networks import network, pruning
from cbundles.networks.network import module_of, variables_of

SAMPLES, CLASSES = 40, 3
IMAGES = normal(SAMPLES, 8, 8, 2)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(batches, "AT_ONCE", lesioned.AT_ONCE)


# An unmodified ResNet of Flax linen; `off` is for brute force alone.


class Block(nn.Module):
    filters: int
    stride: int = 1
    off: bool = False
    by_batch: bool = False

    @nn.compact
    def __call__(self, x):
        def normalised(x):
            momentum = 0.0 if self.by_batch else 0.99
            return nn.BatchNorm(use_running_average=not self.by_batch, momentum=momentum)(x)

        def convolved(x, size, stride=1):
            return normalised(nn.Conv(self.filters, (size, size), stride, use_bias=False)(x))

        branch = convolved(nn.relu(convolved(x, 3, self.stride)), 3)
        skip = convolved(x, 1, self.stride) if self.stride > 1 else x
        return nn.relu(skip + (0 * branch if self.off else branch))


class ResNet(nn.Module):
    gone: tuple[int, ...] = ()
    by_batch: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        for number, (filters, stride) in enumerate([(4, 1), (4, 1), (6, 2), (6, 1)]):
            off = number in self.gone
            x = Block(filters, stride, off, self.by_batch, name=f"block{number}")(x)
        return nn.Dense(CLASSES)(x.mean((1, 2)))


@pytest.fixture(scope="module")
def resnet():
    variables = drawn(ResNet(), IMAGES)
    labels = labels_near(ResNet().apply(variables, IMAGES))
    brute = BruteForce(lambda gone: ResNet(tuple(gone)).apply(variables, IMAGES), labels)
    return variables, labels, brute


NAMES = [f"ResNet/block{number}/branch" for number in range(4)]


def test_a_linen_resnet_with_projection_shortcuts(resnet):
    variables, labels, brute = resnet
    before = jax.tree.map(np.array, variables)
    audit = cbundles.audit(ResNet(), IMAGES, labels, params=variables, lesion=True)
    assert compare(audit.lesions, brute, NAMES) > 10
    assert set(audit.lesions.curves) | set(audit.lesions.no_curve) == {
        "entropy", "conflict_rate", "headroom", "norm", "first_order", "cost", "greedy"
    }  # fmt: skip
    assert jax.tree.all(jax.tree.map(np.array_equal, before, variables))
    measured = {layer.name: layer for layer in audit.layers}
    for one in audit.lesions.branches:  # branches were measured as layers, too
        assert one.scores["entropy"] == measured[one.name].entropy
        assert one.scores["headroom"] == measured[one.name].headroom.bits


def test_statistics_are_taken_anew(resnet):
    """Means of those of the batches, the last of which overlaps the one before it."""
    variables, labels, brute = resnet
    starts = [0, 14, 26]

    def anew(gone):
        parts = [
            ResNet(gone, by_batch=True).apply(
                variables, IMAGES[start : start + 14], mutable=["batch_stats"]
            )[1]["batch_stats"]
            for start in starts
        ]
        means = jax.tree.map(lambda *each: sum(each) / 3, *parts)
        logits = ResNet(gone).apply({**variables, "batch_stats": means}, IMAGES)
        return np.asarray(logits).argmax(-1) == labels

    found = cbundles.audit(ResNet(), IMAGES, labels, params=variables, lesion=True).lesions
    assert found.no_anew is None
    assert found.accuracy_anew == pytest.approx(anew(()).mean())
    assert found.accuracy_anew != found.accuracy
    for number, one in enumerate(found.branches):
        assert (one.anew.lost, one.anew.gained) == brute.counts(anew((number,)))


def test_normalisation_over_devices_is_that_of_one():
    """A name of an axis matters where statistics are those of several devices, as in training."""

    class OfLinen(nn.Module):
        axis: str | None

        @nn.compact
        def __call__(self, x):
            h = nn.BatchNorm(use_running_average=True, axis_name=self.axis)(nn.Dense(6)(x))
            return nn.Dense(CLASSES)(x + nn.relu(h))

    class OfNnx(nnx.Module):
        def __init__(self, axis, rngs):
            self.inner, self.head = (nnx.Linear(6, size, rngs=rngs) for size in (6, CLASSES))
            self.norm = nnx.BatchNorm(6, axis_name=axis, rngs=rngs)

        def __call__(self, x):
            return self.head(x + nnx.relu(self.norm(self.inner(x))))

    x = normal(SAMPLES, 6)
    variables = OfLinen(None).init(jax.random.key(0), x)
    for made, how in (
        (OfLinen, {"params": variables}),
        (lambda axis: OfNnx(axis, nnx.Rngs(0)), {}),
    ):
        with_name, without = (
            cbundles.audit(made(axis), x, LABELS, lesion=True, headroom=False, **how).lesions
            for axis in ("devices", None)
        )
        assert without.no_anew is None
        assert with_name.to_dict() == without.to_dict()


def test_a_model_that_cannot_be_normalised_by_a_batch():
    class Refusing(nn.Module):
        @nn.compact
        def __call__(self, x):
            norm = nn.BatchNorm(use_running_average=True)
            h = norm(nn.Dense(6)(x))
            if not norm.use_running_average:
                raise RuntimeError("only at inference")
            return nn.Dense(CLASSES)(x + nn.relu(h))

    x = normal(SAMPLES, 6)
    variables = Refusing().init(jax.random.key(0), x)
    found = cbundles.audit(Refusing(), x, LABELS, params=variables, lesion=True).lesions
    assert found.no_anew.endswith("statistics of a batch: RuntimeError: only at inference")
    with pytest.raises(ValueError, match="only at inference"):
        cbundles.remove(Refusing(), 1, params=variables, inputs=x, recalibrate=True)


def test_norms_and_first_order_scores(resnet):
    variables, labels, _ = resnet
    found = cbundles.audit(
        ResNet(), IMAGES, labels, params=variables, lesion=True, headroom=False
    ).lesions

    def loss(gates):
        def gated(next_fun, args, kwargs, context):
            made = next_fun(*args, **kwargs)
            if isinstance(context.module, nn.BatchNorm) and context.module.name == "BatchNorm_1":
                number = int(context.module.path[0].removeprefix("block"))
                made = made * gates[number][:, None, None, None]
            return made

        with nn.intercept_methods(gated):
            logits = ResNet().apply(variables, IMAGES)
        return -jax.nn.log_softmax(logits)[np.arange(SAMPLES), labels].sum()

    slopes = jax.grad(loss)(jnp.ones((4, SAMPLES)))
    expected = np.abs(np.asarray(slopes)).mean(1)
    scores = [one.scores["first_order"] for one in found.branches]
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    assert found.branches[0].scores["headroom"] is None
    assert "not measured" in found.no_curve["headroom"]


# nnx, with blocks in a scan


class Residual(nnx.Module):
    def __init__(self, rngs):
        self.inner, self.norm = nnx.Linear(6, 6, rngs=rngs), nnx.BatchNorm(6, rngs=rngs)

    def __call__(self, x):
        return x + jnp.tanh(self.norm(self.inner(x)))


class Scanned(nnx.Module):
    def __init__(self, rngs):
        made = nnx.vmap(lambda key: Residual(nnx.Rngs(key)), in_axes=0, out_axes=0)
        self.blocks = made(jax.random.split(rngs.params(), 3))
        self.last, self.head = Residual(rngs), nnx.Linear(6, CLASSES, rngs=rngs)

    def __call__(self, x):
        step = nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.head(self.last(step(x, self.blocks)))


def test_nnx_with_a_scan():
    model, x = Scanned(nnx.Rngs(0)), normal(SAMPLES, 6)
    state = nnx.state(model)
    nnx.update(model, jax.tree.map(lambda leaf: leaf + 0.3 * abs(normal(*leaf.shape)), state))

    def by_hand(gone):
        def residual(x, block, number, place=()):
            def of(array):
                return np.asarray(array)[place]

            if number in gone:
                return x
            h = x @ of(block.inner.kernel[...]) + of(block.inner.bias[...])
            h = (h - of(block.norm.mean[...])) / np.sqrt(of(block.norm.var[...]) + 1e-5)
            return x + np.tanh(h * of(block.norm.scale[...]) + of(block.norm.bias[...]))

        h = x
        for number in range(3):
            h = residual(h, model.blocks, number, (number,))
        h = residual(h, model.last, 3)
        return h @ np.asarray(model.head.kernel[...]) + np.asarray(model.head.bias[...])

    labels = labels_near(by_hand(()))
    found = cbundles.audit(model, x, labels, lesion=True).lesions
    names = [f"blocks/branch[{number}]" for number in range(3)] + ["last/branch"]
    assert compare(found, BruteForce(by_hand, labels), names) > 10
    assert found.no_anew is None
    assert all(one.anew is not None for one in found.branches)


# A small vision transformer: two branches in each block


class Transformer(nnx.Module):
    gone = frozenset()

    def __init__(self, rngs):
        self.embed = nnx.Linear(16, 8, rngs=rngs)
        self.blocks = nnx.List()
        for _ in range(2):
            self.blocks.append(
                nnx.Dict(
                    norm1=nnx.LayerNorm(8, rngs=rngs),
                    attention=nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs),
                    norm2=nnx.LayerNorm(8, rngs=rngs),
                    expand=nnx.Linear(8, 16, rngs=rngs),
                    contract=nnx.Linear(16, 8, rngs=rngs),
                )
            )
        self.head = nnx.Linear(8, CLASSES, rngs=rngs)

    def __call__(self, images):
        x = self.embed(images.reshape(len(images), 8, 16))
        for number, block in enumerate(self.blocks):
            branch = block.attention(block.norm1(x))
            x = x if 2 * number in self.gone else x + branch
            branch = block.contract(nnx.gelu(block.expand(block.norm2(x))))
            x = x if 2 * number + 1 in self.gone else x + branch
        return {"logits": self.head(x.mean(1)), "features": x}


def test_a_vision_transformer_with_a_dictionary_as_its_output():
    model = Transformer(nnx.Rngs(0))
    nnx.update(model, jax.tree.map(lambda leaf: 2 * leaf, nnx.state(model)))

    def without(gone):
        model.gone = gone
        made = model(IMAGES)["logits"]
        model.gone = frozenset()
        return made

    labels = labels_near(without(frozenset()))
    found = cbundles.audit(model, IMAGES, labels, lesion=True, output="logits").lesions
    assert compare(found, BruteForce(without, labels), [one.name for one in found.branches]) > 10
    assert len(found.branches) == 4
    assert found.no_anew == "the model has no batch normalisation"


# Our own networks


def test_the_costs_are_those_of_a_lesion_study(damaged):  # noqa: F811
    shape, subject, cell, data = damaged
    *_, last = lesion.run(shape, subject, cell, data, removal.Settings(draws=1, every=6))
    alone = [tuple(outcome) for outcome in last.state["outcomes"][: shape.layers]]
    stored, labels = data.test.images, np.asarray(data.test.labels)
    images = augment.plain(stored, pipelines.pipeline_for(cell.data))
    audit = cbundles.audit(
        module_of(shape), images, labels, params=variables_of(shape, subject), lesion=True,
        headroom=False,
    )  # fmt: skip
    found = audit.lesions.branches
    assert [(one.difference.lost, one.difference.gained) for one in found] == alone
    assert any(lost for lost, _ in alone)


def test_statistics_taken_anew_are_those_of_our_own_surgery(damaged):  # noqa: F811
    shape, subject, cell, data = damaged
    labels = np.asarray(data.test.labels)[:200]
    images = augment.plain(data.test.images[:200], pipelines.pipeline_for(cell.data))
    found = cbundles.audit(
        module_of(shape), images, labels, params=variables_of(shape, subject), lesion=True,
        headroom=False,
    ).lesions  # fmt: skip

    def right(shape, one):
        one = jax.tree.map(jnp.asarray, one)
        fitting = jax.jit(network.recalibrated, static_argnums=0)(shape, one, images)
        logits = jax.jit(network.logits, static_argnums=0)(shape, fitting, images)
        return int((logits.argmax(1) == labels).sum())

    assert found.accuracy_anew == right(shape, subject) / 200
    for number in (0, shape.layers - 1):
        anew = found.branches[number].anew
        after = right(*pruning.without(shape, subject, [number]))
        assert anew.gained - anew.lost == after - round(200 * found.accuracy)


def test_norms_and_slopes_are_those_of_a_lesion_study(damaged):  # noqa: F811
    """On the same images, the probe set."""
    shape, subject, cell, data = damaged
    known = lesion.blocks(shape, jax.tree.map(jnp.asarray, subject), data, cell)
    images = augment.plain(data.probe.images, pipelines.pipeline_for(cell.data))
    audit = cbundles.audit(
        module_of(shape), images, np.asarray(data.probe.labels), lesion=True, headroom=False,
        params=variables_of(shape, subject),
    )  # fmt: skip
    for name in ("norm", "first_order"):
        found = [one.scores[name] for one in audit.lesions.branches]
        np.testing.assert_allclose(found, known[name], rtol=1e-3, atol=1e-5)


# One program; what it takes and refuses


def test_all_lesions_share_one_program(resnet, monkeypatch):
    variables, labels, _ = resnet
    compiled = []
    jit = jax.jit

    def counted(function, **how):
        compiled.append(getattr(function, "__qualname__", ""))
        return jit(function, **how)

    monkeypatch.setattr(jax, "jit", counted)
    cbundles.audit(ResNet(), IMAGES, labels, params=variables, lesion=True, headroom=False)
    assert sum("answers" in name for name in compiled) == 1
    assert sum("statistics" in name for name in compiled) == 1


def test_batches_that_come_once(resnet):
    variables, labels, _ = resnet
    parts = (IMAGES[start : start + 10] for start in range(0, SAMPLES, 10))
    by_batches = cbundles.audit(ResNet(), parts, labels, params=variables, lesion=True).lesions
    at_once = cbundles.audit(ResNet(), IMAGES, labels, params=variables, lesion=True).lesions
    assert by_batches.to_dict() == at_once.to_dict()


def test_tokens_with_labels_of_their_own():
    @jax.jit
    def tagger(params, x):
        h = x + jnp.tanh(x @ params["in"])
        h = h + jnp.tanh(h @ params["out"])
        return h @ params["head"]

    params = {"in": normal(6, 6), "out": normal(6, 6, seed=2), "head": normal(6, CLASSES, seed=3)}
    x = normal(SAMPLES, 5, 6)

    def by_hand(gone):
        h = x
        for number, name in enumerate(("in", "out")):
            h = h if number in gone else h + np.tanh(h @ params[name])
        return h @ params["head"]

    labels = labels_near(by_hand(()))
    audit = cbundles.audit(tagger, x, labels, params=params, rows="tokens", lesion=True)
    assert compare(audit.lesions, BruteForce(by_hand, labels), ["branch", "branch#2"]) > 10
    assert audit.lesions.no_anew.startswith("a function does not say")


def residual(params, x):
    return x + jnp.tanh(x @ params["w"])


class Pair(NamedTuple):
    logits: jax.Array
    features: jax.Array


@flax.struct.dataclass
class Scored:
    logits: jax.Array
    features: jax.Array


PARAMS = {"w": normal(4, 4)}
LABELS = np.arange(SAMPLES) % CLASSES


@pytest.mark.parametrize(
    ("function", "how", "message"),
    [
        (lambda p, x: x @ p["w"], {}, "the model has no residual branch"),
        (lambda p, x: (residual(p, x), x), {}, "2 outputs .* say which one, such as output=1"),
        (lambda p, x: {"a": residual(p, x), "b": x}, {}, "say which one, such as output='b'"),
        (lambda p, x: {"a": residual(p, x)}, {"output": "b"}, "output='b': .*a"),
        (lambda p, x: Scored(residual(p, x), x), {}, "say which one, such as output='features'"),
        (lambda p, x: Scored(residual(p, x), x), {"output": "logit"}, "did you mean 'logits'"),
        (lambda p, x: {"a": (residual(p, x), x)}, {}, "2 outputs .* let call= return one of them"),
        (lambda p, x: [(residual(p, x), x)], {"output": 0}, "2 outputs .* let call= return one"),
        (residual, {"output": 1}, "the model returns one array; leave it out"),
        (lambda p, x: residual(p, x).mean(1), {}, r"no output .* class scores \(batch, classes\)"),
        (lambda p, x: residual(p, x)[:, :2], {}, "of at least 3 classes"),
        (lambda p, x: residual(p, x).argmax(1), {}, "there is int32"),
    ],
)
def test_what_cannot_work_is_refused(function, how, message):
    x = normal(SAMPLES, 4)
    with pytest.raises(ValueError, match=message):
        cbundles.audit(function, x, LABELS, params=PARAMS, lesion=True, headroom=False, **how)


def test_tables_fit_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    def model(params, x):
        with jax.named_scope("encoder/" * 12):
            return residual(params, x)

    x = normal(SAMPLES, 4)
    audit = cbundles.audit(
        model, x, LABELS, params=PARAMS, lesion=True, insert=True, peers=True, headroom=False
    )
    lines = str(audit).splitlines()
    assert max(map(len, lines)) <= 80
    for head in ("branch ", "one more layer behind "):
        (place,) = [number for number, line in enumerate(lines) if line.startswith(head)]
        assert lines[place + 1].startswith("…")


def test_too_few_samples_for_any_test_are_refused():
    with pytest.raises(ValueError, match="lesion=True: 5 labels; of fewer than 6 samples"):
        cbundles.audit(residual, normal(5, 4), LABELS[:5], params=PARAMS, lesion=True)


def test_a_part_of_a_tuple():
    x = normal(SAMPLES, 4)
    found = [
        cbundles.audit(function, x, LABELS, params=PARAMS, lesion=True, output=output).lesions
        for function, output in (
            (residual, None),
            (lambda p, x: (x, residual(p, x)), 1),
            (lambda p, x: (x, residual(p, x)), -1),
            (lambda p, x: {"scores": residual(p, x), "features": x[:, :2]}, None),
            (lambda p, x: Pair(residual(p, x), x), "logits"),
            (lambda p, x: Pair(residual(p, x), x), -2),
            (lambda p, x: Scored(residual(p, x), x), "logits"),
        )
    ]
    assert all(one.to_dict() == found[0].to_dict() for one in found[1:])


def test_probabilities_have_the_same_gradients():
    x = normal(SAMPLES, 4)
    audit, behind_softmax = (
        cbundles.audit(function, x, LABELS, params=PARAMS, lesion=True, insert=True)
        for function in (residual, lambda p, x: jax.nn.softmax(residual(p, x)))
    )
    logits, probabilities = audit.lesions.branches[0], behind_softmax.lesions.branches[0]
    assert probabilities.scores == pytest.approx(logits.scores, rel=1e-5)
    existing = [one.insertions.existing[0].sensitivity for one in (audit, behind_softmax)]
    assert existing[1] == pytest.approx(existing[0], rel=1e-5)


def test_a_model_without_gradients():
    def model(params, x):
        return jax.lax.while_loop(lambda y: y.sum() > 1e9, lambda y: y / 2, residual(params, x))

    x = normal(SAMPLES, 4)
    found = cbundles.audit(model, x, LABELS, params=PARAMS, lesion=True).lesions
    assert found.branches[0].scores["norm"] is None
    assert found.no_curve["first_order"].startswith("the loss has no gradient: ValueError: Reverse")
    with pytest.raises(ValueError, match="the loss has no gradient"):
        cbundles.audit(model, x, LABELS, params=PARAMS, insert=True)


def test_nothing_is_there_unless_asked_for():
    audit = cbundles.audit(residual, normal(SAMPLES, 4), LABELS, params=PARAMS)
    with pytest.raises(ValueError, match="lesion=True"):
        _ = audit.lesions
    with pytest.raises(ValueError, match="lesion=True"):
        audit.plot_lesions()
    with pytest.raises(ValueError, match="insert=True"):
        _ = audit.insertions
    assert audit.to_dict()["lesions"] is None


# What is said


@pytest.mark.parametrize(
    ("lost", "gained", "smallest"), [(0, 0, 6), (3, 2, 6), (6, 0, 6), (15, 15, 12), (40, 3, 15)]
)
def test_the_smallest_rise_that_could_have_been_seen(lost, gained, smallest):
    changed = lost + gained
    surplus = [
        s
        for s in range(changed % 2, changed + 1, 2)
        if s and lesioned.binomial_p((changed + s) // 2, (changed - s) // 2) < 0.05
    ]
    assert min(surplus, default=6) == smallest
    assert Difference(lost, gained, 200).smallest_rise == pytest.approx(smallest / 2)


def test_p_values_of_many_tests_are_corrected():
    p_values = [0.01, 0.5, 0.04, 0.03, 0.005]
    found = paired.holm(p_values)
    assert found == pytest.approx([0.04, 0.5, 0.09, 0.09, 0.025])
    assert paired.holm([]) == []


def test_text_picture_and_json(resnet, tmp_path):
    variables, labels, _ = resnet
    audit = cbundles.audit(ResNet(), IMAGES, labels, params=variables, lesion=True, headroom=False)
    text = " ".join(str(audit).split())
    assert "On 40 samples the test sees a rise of 15 points at best (6 lost, none gained)" in text
    assert "'cheapest alone first' and 'greedy' are chosen on these very samples" in text
    assert f"{100 * audit.lesions.accuracy:.1f} % as it is" in text
    assert all(f"\n{name} " in str(audit) for name in NAMES)
    plain = json.loads(json.dumps(audit.to_dict(), allow_nan=False))["lesions"]
    assert [one["name"] for one in plain["branches"]] == NAMES
    assert plain["curves"]["greedy"]["accuracies"] == list(
        audit.lesions.curves["greedy"].accuracies
    )
    figure = audit.plot_lesions(tmp_path / "lesions.png")
    assert (tmp_path / "lesions.png").read_bytes()[:4] == b"\x89PNG"
    (axes,) = figure.axes
    drawn_lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    curve = audit.lesions.curves["greedy"]
    np.testing.assert_allclose(
        drawn_lines["greedy"], [100 * audit.lesions.accuracy, *np.multiply(100, curve.accuracies)]
    )
    assert "15 points" in axes.get_title("left") and "40 samples" in axes.get_title("left")
