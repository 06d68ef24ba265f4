"""Lesions: masks against the original, pruning against masks, decisions, statistics, commands."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import signal

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from PIL import Image
from records import ORIGIN, lesion_record, with_settings
from scipy import stats
from test_conv import load, of_one_block_a_stage

from cbundles import config
from cbundles import data as data_sets
from cbundles.data import augment, device, pipelines
from cbundles.decisions import paired, removal
from cbundles.errors import DamagedCheckpoint, InputError
from cbundles.executor import local
from cbundles.experiments import lesion
from cbundles.networks import conv, lowering, network, pruning, saved, watched
from cbundles.networks.network import Network
from cbundles.networks.shape import ConvShape
from cbundles.records import reading
from cbundles.report import lesion_figures, lesions
from cbundles.store import LESIONS, PRUNED, Store


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(0), (32, 28, 28, 1))


def trained(shape, seed=0) -> Network:
    """A network with statistics and gammas as if it had been trained."""
    start, chance = network.initial(shape, seed, shape), np.random.default_rng(seed)
    params, statistics = (view(jnp.asarray(flat)) for view, flat
                          in zip(network.views(shape), start[:2], strict=True))  # fmt: skip

    def noisy(node):
        if isinstance(node, conv.Unit):
            noise = (
                chance.uniform(0.5, 1.5, node.gamma.shape),
                chance.normal(0, 0.2, node.beta.shape),
            )
            return node._replace(gamma=np.float32(noise[0]), beta=np.float32(noise[1]))
        noise = chance.normal(0, 0.2, node.mean.shape), chance.uniform(0.5, 2, node.mean.shape)
        return conv.Norm(np.float32(noise[0]), np.float32(noise[1]))

    def leaf(node):
        return isinstance(node, conv.Unit | conv.Norm)

    body = jax.tree.map(noisy, params._replace(last=(), last_bias=()), is_leaf=leaf)
    params = body._replace(last=params.last, last_bias=params.last_bias)
    statistics = jax.tree.map(noisy, statistics, is_leaf=leaf)
    return Network(*(np.asarray(ravel_pytree(tree)[0]) for tree in (params, statistics)))


def logits_of(shape, one, images):
    return compiled.logits(shape, Network(*map(jnp.asarray, one[:2])), images)


def masked_logits(shape, whole, images, removed):
    keep = np.array([block not in removed for block in range(shape.layers)])
    one = Network(*map(jnp.asarray, whole[:2]))
    return compiled.masked_logits(shape, one, images, jnp.asarray(keep))


def test_lesions_are_those_of_the_original(golden):
    """It removes blocks 0 and 2, one that halves the image among them, and only in inference."""
    case, residual, params, statistics = load(golden, "resnet_1111")
    lesioned = golden("forward_resnet_1111_lesion02")
    keep = jnp.array([False, True, False, True])
    shape, one = of_one_block_a_stage(case, residual, params, statistics)

    def view(a):
        return a.reshape(len(a), -1)[:2, :256].ravel()

    logits, outputs, _ = compiled.seen(shape, one, case["x"], view, conv.RUNNING, keep)
    np.testing.assert_allclose(logits, lesioned["logits_infer"], atol=2e-5)
    for block, found in enumerate(outputs):
        expected = lesioned[f"cb_infer:{2 * block + 1}:slice"].ravel()
        np.testing.assert_allclose(found, expected, atol=3e-5)
    assert float(np.abs(lesioned["logits_infer"] - case["logits_infer"]).max()) > 1
    np.testing.assert_array_equal(lesioned["logits_train"], case["logits_train"])


SHAPES = [(2, 3, 1, 2), (0, 2, 0, 3)]


@pytest.mark.parametrize("blocks", SHAPES)
def test_a_pruned_network_is_the_masked_one(images, blocks):
    shape = ConvShape((28, 28, 1), blocks, 4, True, 10)
    whole = trained(shape)
    chance = np.random.default_rng(1)
    cases = [(), tuple(range(shape.layers)), (0,)]
    cases += [tuple(np.flatnonzero(chance.random(shape.layers) < 0.5).tolist()) for _ in range(2)]
    for removed in cases:
        smaller, small = pruning.without(shape, whole, removed)
        assert small.params.shape == (smaller.parameters,)
        assert small.statistics.shape == (smaller.statistics,)
        assert smaller.depth == shape.depth - 2 * len(removed)
        assert smaller.flops < shape.flops or not removed
        expected = masked_logits(shape, whole, images, removed)
        found = logits_of(smaller, small, images)
        np.testing.assert_allclose(found, expected, atol=1e-5 * float(jnp.abs(expected).max()))


def test_masks_and_measured_activations_of_a_network_with_bare_blocks(images):
    """A bare block has no branch: nothing of it can be left out, and its branch is not measured."""
    shape = ConvShape((28, 28, 1), (2, 3, 1, 2), 4, True, 10)
    bare, one = pruning.without(shape, trained(shape), (2, 4))
    assert bare.bare == (1,)
    smaller, small = pruning.without(bare, one, (bare.layers - 2,))
    expected = logits_of(smaller, small, images)
    found = masked_logits(bare, one, images, (bare.layers - 2,))
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(jnp.abs(expected).max()))
    subject = Network(*map(jnp.asarray, one[:2]))
    see = {watched.OUTPUTS: mean_of, watched.BRANCHES: mean_of}
    seen = compiled.quickly(
        functools.partial(watched.visit, see=see, norm=conv.RUNNING), static_argnums=0
    )(bare, subject, images)
    assert seen[watched.OUTPUTS].shape == (bare.layers, len(images))
    assert seen[watched.BRANCHES].shape == (bare.branches, len(images))
    assert bare.branches == bare.layers - 1
    with pytest.raises(ValueError, match="3 rows for 7 blocks"):
        watched.masked_logits(bare, subject, images, jnp.ones(3, bool))
    branches = watched.Watched(bare, subject, images).sites(conv.BRANCH)
    with pytest.raises(ValueError, match="7 rows for 6 blocks"):
        watched.by_site(branches, jnp.ones(7))


def mean_of(a):
    return a.mean((1, 2, 3))


def test_what_a_mask_leaves_out_is_not_computed(images):
    """Every convolution of a branch, but none of a skip or of the stem, stands inside a cond."""
    shape = ConvShape((28, 28, 1), (2, 2, 0, 0), 4, True, 10)
    one = Network(*map(jnp.asarray, trained(shape)[:2]))
    program = jax.make_jaxpr(functools.partial(watched.masked_logits, shape))(
        one, images, jnp.ones(shape.layers, bool)
    )
    # All in all: stem, skip and output; of branches two products in each of three bodies.
    assert products(program.jaxpr, inside=False) == 3
    assert products(program.jaxpr, inside=True) == 2 * 3


def products(jaxpr, inside):
    """Matrix products in a program, inside or outside of `cond`, each body of a scan once."""
    count = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "cond":
            if inside:
                whole = equation.params["branches"][1].jaxpr
                count += products(whole, inside=False)
            continue
        count += equation.primitive.name == "dot_general" and not inside
        for value in equation.params.values():
            body = getattr(value, "jaxpr", value)
            if hasattr(body, "eqns"):
                count += products(body, inside)
    return count


def test_pruning_twice_is_pruning_once(images):
    shape = ConvShape((28, 28, 1), (2, 3, 1, 2), 4, True, 10)
    whole = trained(shape)
    once = pruning.without(shape, whole, (1, 2, 4, 7))
    twice = pruning.without(*pruning.without(shape, whole, (2, 4)), (1, 6))  # 7 is now the 6th
    assert once[0] == twice[0] and once[0].bare == (1,) and once[0].blocks == (1, 2, 1, 1)
    np.testing.assert_array_equal(once[1].params, twice[1].params)
    bare = pruning.without(*once, (1,))  # the skip alone: there is nothing more to take from it
    np.testing.assert_array_equal(bare[1].params, once[1].params)


def test_pruning_refuses_what_cannot_be():
    vgg = ConvShape((28, 28, 1), (1, 1, 1, 1), 4, False, 10)
    with pytest.raises(ValueError, match="skip"):
        pruning.without(vgg, network.initial(vgg, 0, vgg), (1,))
    resnet = dataclasses.replace(vgg, residual=True)
    with pytest.raises(ValueError, match="0 to 3"):
        pruning.without(resnet, network.initial(resnet, 0, resnet), (4,))


def test_a_gate_scales_the_branch(images):
    """The gradient by a gate is that by a common factor of gamma and beta behind the branch."""
    shape = ConvShape((28, 28, 1), (2, 2, 1, 1), 4, True, 10)
    whole = trained(shape)
    whole = Network(*map(jnp.asarray, whole[:2]))
    params = network.views(shape)[0](whole.params)

    def loss(params, gates):
        one = Network(ravel_pytree(params)[0], whole.statistics)
        traced = watched.Watched(shape, one, images)
        of_pixels = gates[..., None, None, None]
        logits, _ = traced.run(gate=watched.by_site(traced.sites(conv.BRANCH), of_pixels))
        return jnp.square(logits).sum()

    ones = jnp.ones((shape.layers, len(images)))
    slopes = compiled.quickly(jax.grad(loss, argnums=1))(params, ones).sum(1)
    for block, (stage, place) in enumerate([(0, 0), (0, 1), (1, None), (1, 0), (2, None)]):

        def scaled(factor, stage=stage, place=place):
            stages = list(params.stages)
            if place is None:
                one, two, skip = stages[stage].first
                two = two._replace(gamma=two.gamma * factor, beta=two.beta * factor)
                stages[stage] = stages[stage]._replace(first=(one, two, skip))
            else:
                one, two = stages[stage].rest
                two = two._replace(gamma=two.gamma.at[place].multiply(factor),
                                   beta=two.beta.at[place].multiply(factor))  # fmt: skip
                stages[stage] = stages[stage]._replace(rest=(one, two))
            return loss(params._replace(stages=tuple(stages)), ones)

        expected = float(compiled.quickly(jax.grad(scaled))(1.0))
        assert float(slopes[block]) == pytest.approx(expected, rel=2e-4, abs=1e-4)


@given(st.lists(st.sampled_from([0.0, 0.5, None]), min_size=1, max_size=12), st.integers(1, 4),
       st.integers(1, 5))  # fmt: skip
def test_draws_are_of_their_group_and_can_be_repeated(entropies, draws, every):
    number = len(entropies)
    scores = {name: [float(i) for i in range(number)] for name in removal.RANKINGS}
    known = {**scores, "entropy": entropies}
    settings = removal.Settings(draws=draws, every=every)
    found = removal.variants(known, settings)
    assert found == removal.variants(known, settings) and len(found) <= settings.most(number)
    groups = removal.groups(entropies)
    assert sorted(groups["conflicting"] + groups["non-conflicting"]) == list(groups["all"])
    singles = [v.removed for v in found if v.of == removal.SINGLE]
    assert singles == [(block,) for block in range(number)]
    for name, members in groups.items():
        sizes = [len(v.removed) for v in found if v.of == name]
        if name == "all" or 0 < len(members) < number:
            assert sizes == [k for k in settings.counts(len(members), number) for _ in range(draws)]
            assert all(set(v.removed) <= set(members) for v in found if v.of == name)
            assert all(len(set(v.removed)) == len(v.removed) for v in found)
        else:
            assert not sizes
    for name in removal.RANKINGS:
        rows = [v.removed for v in found if v.of == name]
        assert all(b[: len(a)] == a for a, b in itertools.pairwise(rows))


def test_other_draws_with_another_seed_and_rankings_from_the_least_important_on():
    known = {name: [0.3, 0.1, 0.2, 0.4] for name in removal.RANKINGS}
    known["entropy"] = [0.0, 0.5, 0.0, None]
    one, two = (removal.variants(known, removal.Settings(seed=seed)) for seed in (0, 1))
    assert len(one) == len(two) and one != two
    assert removal.ranking(known["entropy"], True) == (3, 1, 2, 0)
    assert removal.ranking(known["norm"], False) == (1, 2, 0, 3)
    assert removal.Settings(every=1).cover(removal.Settings(every=5))
    assert not removal.Settings(every=5).cover(removal.Settings(every=1))
    assert not removal.Settings(draws=3).cover(removal.Settings())
    assert removal.Settings(draws=20).cover(removal.Settings())
    assert removal.Settings(every=20).counts(59, 59) == [1, 5, 10, 15, 20, 30, 36, 40, 59]
    assert removal.Settings(every=20).counts(12, 59) == [1, 5, 10, 12]
    for bad in ({"draws": 0}, {"every": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match="must be at least"):
            removal.Settings(**bad)


@pytest.mark.parametrize(
    ("text", "blocks"),
    [("conflicting", (1, 3)), ("norm:2", (1, 2)), ("first-order:4", (0, 1, 2, 3)), ("4, 1", (0, 3)),
     ("entropy:1", (3,))],
)  # fmt: skip
def test_blocks_to_prune(text, blocks):
    known = {name: [0.3, 0.1, 0.2, 0.4] for name in removal.RANKINGS}
    known["entropy"] = [0.0, 0.5, 0.0, None]
    assert removal.choose(text, known) == blocks


@pytest.mark.parametrize(
    "text", ["", "0", "5", "1,,2", "norm:0", "norm:5", "norm:x", "size:2", "all"]
)
def test_blocks_that_cannot_be_pruned(text):
    known = {name: [0.3, 0.1, 0.2, 0.4] for name in removal.RANKINGS}
    known["first_order"] = [0.5] * 4  # no order
    with pytest.raises(ValueError, match=r"valid|must be"):
        removal.choose(text, known)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar(lost, gained):
    if lost + gained == 0:
        assert paired.mcnemar(lost, gained) == 1
        return
    expected = stats.binomtest(lost, lost + gained).pvalue
    assert paired.mcnemar(lost, gained) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert paired.rises(lost, gained) == (lost > gained and expected < 0.05)


def test_the_largest_number_of_blocks_that_can_go():
    fine, bad = (10, 10), (90, 2)
    course = {1: [fine] * 3, 2: [fine, fine, bad], 3: [bad, bad, fine], 4: [fine] * 3}
    assert lesions.removable(course) == 2  # what comes after a rise does not count
    low, high = lesions.removable_interval(course)
    assert 1 <= low <= 2 <= high
    assert lesions.removable({1: [bad]}) == 0 and lesions.removable_interval({1: [bad]}) == (0, 0)
    assert lesions.removable_interval({1: [fine], 2: [fine]}) == (2, 2)


DEAD = (1, 4)


@pytest.fixture(scope="module")
def damaged():
    """A network whose blocks 1 and 4 do nothing, with the images it is measured on."""
    shape = ConvShape((28, 28, 1), (2, 2, 1, 1), 4, True, 10)
    start = network.initial(shape, 0, shape)
    params = network.views(shape)[0](jnp.asarray(start.params))
    stages = list(params.stages)
    dead = stages[0].rest[1]
    dead = dead._replace(gamma=dead.gamma.at[1].set(0), beta=dead.beta.at[1].set(0))
    stages[0] = stages[0]._replace(rest=(stages[0].rest[0], dead))
    one, two, skip = stages[2].first
    two = two._replace(gamma=two.gamma * 0, beta=two.beta * 0)
    stages[2] = stages[2]._replace(first=(one, two, skip))
    params = params._replace(stages=tuple(stages))
    content = {
        "model": {"family": "resnet", "blocks": "2,2,1,1", "base_filters": 4},
        "probe": {"samples": 300},
    }
    cell = config.build(content, default_name="x").cells[0]
    stored = data_sets.load("mnist_mini")
    few = dataclasses.replace(
        stored, test_images=stored.test_images[:600], test_labels=stored.test_labels[:600]
    )
    placed = device.place(few, cell.data, cell.probe)
    return shape, Network(np.asarray(ravel_pytree(params)[0]), start.statistics), cell, placed


def test_blocks_that_do_nothing_conflict_and_cost_nothing(damaged):
    shape, subject, cell, data = damaged
    settings = removal.Settings(draws=2)
    *_, last = lesion.run(shape, subject, cell, data, settings)
    images = len(data.test.labels)
    record = lesion.record(cell, settings, last.state, images, "a digest", ORIGIN)
    assert reading.decode(reading.encode(record), "lesion", "a file") == record
    assert removal.groups(record.blocks.entropy)["conflicting"] == DEAD
    for block in range(shape.layers):
        dead = block in DEAD
        assert (record.blocks.entropy[block] > 2.2) == dead
        assert (record.blocks.num_bundles[block] == 1) == dead
        for score in ("norm", "scaled_norm", "first_order"):
            assert (record.blocks.by_ranking[score][block] == 0) == dead
        if dead:
            assert record.blocks.lost[block] == record.blocks.gained[block] == 0
    assert any(record.blocks.lost)
    for name in ("conflicting", "entropy", "norm", "first_order"):
        curve = lesions.curve(record, name)
        assert all(set(curve[k]) == {(0, 0)} for k in (1, 2))
    assert max(lesions.curve(record, "conflicting")) == 2
    x = augment.plain(data.test.images, pipelines.pipeline_for(cell.data))
    right = jnp.argmax(logits_of(shape, subject, x), 1)
    assert record.correct == int((right == data.test.labels).sum())
    assert record.images == len(data.test.labels)


def test_a_study_goes_on_where_it_was_stopped(damaged):
    shape, subject, cell, data = damaged
    settings = removal.Settings(draws=2)
    stages = list(lesion.run(shape, subject, cell, data, settings))
    assert stages[0].done == 0 and stages[-1].done == stages[-1].total
    middle = json.loads(json.dumps(stages[1].state))
    assert 0 < stages[1].done < stages[1].total
    *_, again = lesion.run(shape, subject, cell, data, settings, middle)
    assert again == stages[-1]


def test_scores_agree_with_a_plain_computation(damaged):
    """Norms in NumPy, and the first-order score by the gradient of each sample alone."""
    shape, subject, cell, data = damaged
    found = lesion.blocks(shape, subject, data, cell)
    one = Network(*map(jnp.asarray, subject[:2]))
    x = augment.plain(data.probe.images, pipelines.pipeline_for(cell.data))

    def rms(a):
        return jnp.sqrt(jnp.square(a).mean((1, 2, 3)))

    @jax.jit
    def ratios(one, x):
        traced = watched.Watched(shape, one, x)
        pairs = watched.groups(traced, conv.BRANCH, conv.SKIP)
        read = dict.fromkeys(pairs, lambda branch, skip: (rms(branch) / rms(skip)).mean())
        return watched.stack_blocks([skip for _, skip in pairs], traced.run(read=read)[1])

    np.testing.assert_allclose(found["norm"], ratios(one, x), rtol=1e-4)

    def loss(gate, i, block):
        gates = jnp.ones(shape.layers).at[block].set(gate)
        traced = watched.Watched(shape, one, x[i][None])
        logits, _ = traced.run(gate=watched.by_site(traced.sites(conv.BRANCH), gates))
        return -jax.nn.log_softmax(logits)[0, data.probe.labels[i]]

    slope = jax.jit(jax.vmap(jax.grad(loss), (None, 0, None)))
    for block in (0, 2, 5):
        values = slope(1.0, jnp.arange(len(x)), block)
        assert found["first_order"][block] == pytest.approx(float(jnp.abs(values).mean()), rel=1e-3)


def test_recalibrated_statistics_are_those_of_the_images(damaged, images):
    shape, subject, _, _ = damaged
    one = Network(*map(jnp.asarray, subject[:2]))
    fitting = compiled.recalibrated(shape, one, images)
    again = compiled.recalibrated(shape, fitting, images)
    np.testing.assert_allclose(again.statistics, fitting.statistics, rtol=1e-5, atol=1e-6)
    params, _ = network.views(shape)
    found = network.views(shape)[1](fitting.statistics)
    stem = params(one.params).stem
    first = lowering.convolve(images, stem.kernel, 2) + stem.bias
    np.testing.assert_allclose(found.stem.mean, first.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    expected = np.var(np.asarray(first, np.float64), axis=(0, 1, 2), ddof=0)
    count = first.size // first.shape[-1]
    np.testing.assert_allclose(found.stem.variance, expected * count / (count - 1), rtol=1e-4)


def test_kept_networks_can_be_read_and_damaged_ones_are_named(tmp_path):
    shape = ConvShape((28, 28, 1), (2, 2, 1, 1), 4, True, 10, bare=(1,))
    one = saved.Saved(shape, network.initial(shape, 0, shape), {"cell": "abc"})
    path = tmp_path / "one.npz"
    path.write_bytes(saved.encode(one))
    again = saved.read(path)
    assert (again.shape, again.origin) == (shape, {"cell": "abc"})
    np.testing.assert_array_equal(again.network.params, one.network.params)
    content = path.read_bytes()
    objects = tmp_path / "objects.npz"
    np.savez(objects, header=np.array([{}], dtype=object), params=[], statistics=[])
    for bad in (b"", content[:100], content[:-200], objects.read_bytes(), b"PK" + content[2:9]):
        path.write_bytes(bad)
        with pytest.raises(InputError, match=r"one\.npz"):
            saved.read(path)
    wrong = saved.Saved(dataclasses.replace(shape, filters=8), one.network, {})
    path.write_bytes(saved.encode(wrong))
    with pytest.raises(InputError, match="parameters"):
        saved.read(path)
    with pytest.raises(InputError, match="nowhere"):
        saved.read(tmp_path / "nowhere.npz")


def test_a_population_is_kept_as_networks_of_their_own_shape(cli, tmp_path):
    """Networks of width 6 share a program; what is kept classifies as the record says."""
    sets = ["--set", "model.width=6", "--set", "model.depth=[3, 5]", "--set", "training.epochs=1",
            "--set", "training.seed=[0, 1]", "--set", "probe.samples=100"]  # fmt: skip
    (tmp_path / "a.yaml").write_text("model: {width: 6, depth: 3}\n")
    done = cli("sweep", "a.yaml", *sets, "--keep-weights")
    assert done.returncode == 0, done.stderr
    stored = data_sets.load("mnist_mini")
    paths = sorted((tmp_path / "results/a/weights").glob("*.npz"))
    assert len(paths) == 4
    for path in paths:
        one = saved.read(path)
        record = Store(tmp_path / "results/a").record(path.stem)
        assert one.shape.depth == record.depth
        assert one.shape.parameters == record.parameters
        x = augment.plain(stored.test_images, pipelines.pipeline_for(config.Data()))
        logits = logits_of(one.shape, one.network, x)
        share = float((jnp.argmax(logits, 1) == stored.test_labels).mean())
        assert share == pytest.approx(record.history.test_accuracy[-1], abs=1e-3)


STUDY = """
name: study
model: {family: resnet, blocks: "2,3,0,0", base_filters: 2}
training: {epochs: 1, batch_size: 250}
probe: {samples: 256}
"""


def small_folder(root):
    """64 images of 16x16 in two classes: enough for a network to be trained, studied and pruned."""
    chance = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        for level, name in ((60, "dark"), (180, "light")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = chance.integers(level - 60, level + 60, (16, 16), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")


def test_lesion_and_prune_in_small(cli, tmp_path):
    """The way of a network through both commands, and a checkpoint that is nonsense."""
    small_folder(tmp_path / "images")
    study = {
        "data": {"name": "folder:images"},
        "model": {"family": "resnet", "blocks": "1,1,0,0", "base_filters": 2},
        "training": {"epochs": 1, "batch_size": 16},
        "probe": {"samples": 32},
    }
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    done = cli("lesion", "--config", "study.yaml", "--draws", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "results/study"
    (record,) = Store(run).records(LESIONS)
    assert len(record.blocks) == 2 and record.images == 16
    assert record.network == Store(run).network_digest(record.id)
    again = cli("lesion", str(run), "--draws", "2")
    assert again.returncode == 0 and "to study" not in again.stdout
    planned = cli("prune", str(run), "--blocks", "2", "--plan")
    assert planned.returncode == 0 and "blocks 2 would go" in planned.stdout
    planned = json.loads(cli("prune", str(run), "--blocks", "2", "--plan", "--json").stdout)
    assert [one["blocks"] for one in planned["to_prune"]] == [[2]] and planned["seconds"] > 0
    assert not list(run.glob("pruned*"))
    pruned = cli("prune", str(run), "--blocks", "2")
    assert pruned.returncode == 0, pruned.stdout + pruned.stderr
    assert "1 blocks removed, 6 -> 4 layers" in pruned.stdout
    told = json.loads(cli("prune", str(run), "--blocks", "2", "--json").stdout.splitlines()[-1])
    assert told["event"] == "done" and [row["layers_pruned"] for row in told["rows"]] == [4]
    (record,) = Store(run).records(PRUNED)
    assert record.compared.difference <= 1e-5


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"blocks": 5, "right": "zz", "outcomes": "abc"}',
        b'{"blocks": {}, "right": "", "outcomes": []}',
    ],
)
def test_a_study_does_not_go_on_from_nonsense(damaged, content):
    shape, subject, cell, data = damaged
    images = len(data.test.labels)
    (first, *_) = lesion.run(shape, subject, cell, data, removal.Settings(draws=2))
    assert lesion.thaw(lesion.freeze(first.state), shape, images) == first.state
    with pytest.raises(DamagedCheckpoint):
        lesion.thaw(content, shape, images)
    blocks = first.state["blocks"]
    unmeasured = {name: scores for name, scores in blocks.items() if name != "conflict_rate"}
    for other in (
        {"right": first.state["right"][:-2]},
        {"blocks": {name: scores[1:] for name, scores in blocks.items()}},
        {"blocks": unmeasured},  # as of an earlier version
        {"blocks": {**blocks, "num_bundles": [None for _ in blocks["num_bundles"]]}},
        {"blocks": {**blocks, "norm": ["1" for _ in blocks["norm"]]}},
        {"outcomes": [[1.5, 0]]},
    ):
        with pytest.raises(DamagedCheckpoint):
            lesion.thaw(lesion.freeze({**first.state, **other}), shape, images)


def test_a_fresh_study_that_finds_nothing_new_leaves_the_earlier_one(
    cli, tmp_path, monkeypatch, unchecked
):
    """Stopped before its first record: the earlier one is there again, and half a study is not."""
    (tmp_path / "study.yaml").write_text(
        "data: {name: spirals}\nmodel: {family: resnet, blocks: '1,1,0,0', base_filters: 2}\n"
        "training: {epochs: 1, seed: [0, 1]}\nprobe: {samples: 100}\n"
    )
    assert cli("lesion", "--config", "study.yaml", "--draws", "2", "--out", "run").returncode == 0
    assert cli("prune", "run", "--blocks", "2").returncode == 0
    run = Store(tmp_path / "run")
    whole = local.run_jobs
    commands = {
        LESIONS: ("lesion", "run", "--draws", "2"),
        PRUNED: ("prune", "run", "--blocks", "2"),
    }
    for kind, command in commands.items():
        before = (run.folder / kind.sealed_file).read_bytes()

        def stops(jobs, folder, kind=kind, **_):
            assert not Store(folder).ids(kind)
            Store(folder).save_checkpoint(f"{jobs[0].key}-of-new", b"half a study")
            raise KeyboardInterrupt

        monkeypatch.setattr(local, "run_jobs", stops)
        stopped = cli(*command, "--fresh")
        assert stopped.returncode == 130 and "the earlier run is as it was" in stopped.stdout
        assert "--fresh replaces what was found of 2 networks in run" in stopped.stdout
        assert (run.folder / kind.sealed_file).read_bytes() == before
        assert not list(run.folder.glob("checkpoints/*"))

        def stops_behind_the_first(jobs, folder, **more):
            yield from whole(jobs[:1], folder, **more)
            raise KeyboardInterrupt

        monkeypatch.setattr(local, "run_jobs", stops_behind_the_first)
        assert cli(*command, "--fresh").returncode == 130
        assert len(Store(run.folder).ids(kind)) == 1
        monkeypatch.setattr(local, "run_jobs", whole)
        goes_on = cli(*command)
        assert goes_on.returncode == 0 and "finished already: 1" in goes_on.stdout
        assert len(Store(run.folder).ids(kind)) == 2


@pytest.mark.slow
def test_lesion_and_prune_for_real(process, frozen, tmp_path):
    """Train, study, kill and go on; prune; what is written loads and is the masked network."""
    (tmp_path / "study.yaml").write_text(STUDY)
    words = ["lesion", "--config", "study.yaml", "--draws", "4"]
    run = tmp_path / "results/study"
    with frozen(*words, at="results/study/checkpoints/*-lesion-*") as running:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    left = list((run / "checkpoints").glob("*-lesion-*.msgpack"))
    assert left
    left[0].write_bytes(left[0].read_bytes()[:50])  # damaged: that one starts again
    done = process(*words)
    assert done.returncode == 0, done.stderr
    assert "to train" not in done.stdout and "5 blocks conflict" in done.stdout
    assert not list((run / "checkpoints").glob("*"))
    records = Store(run).records(LESIONS)
    assert len(records) == 1
    for name in ("lesion.csv", "lesion.md", "figures/fig_lesion_curves.png"):
        assert (run / name).stat().st_size > 100
    before = (run / "lesions.jsonl").read_bytes()
    again = process("lesion", str(run), "--draws", "4", "--every", "2")
    assert again.returncode == 0 and "to study" not in again.stdout
    assert (run / "lesions.jsonl").read_bytes() == before

    done = process("prune", str(run), "--blocks", "2,3,5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 blocks removed, 12 -> 6 layers") == 1
    stored = data_sets.load("mnist_mini")
    made = Store(run).records(PRUNED)
    assert len(made) == 1
    for one in made:
        assert one.compared.difference <= 1e-5 and one.compared.removed == [1, 2, 4]
        small = saved.read(run / f"pruned/{one.id}.npz")
        whole = saved.read(run / f"weights/{one.of}.npz")
        assert small.shape.depth == 6 and small.shape.bare == (1,)
        x = augment.plain(stored.test_images, pipelines.pipeline_for(config.Data()))
        logits = logits_of(small.shape, small.network, x)
        masked = masked_logits(whole.shape, whole.network, x, (1, 2, 4))
        np.testing.assert_allclose(logits, masked, atol=1e-5 * float(jnp.abs(masked).max()))
        right = int((jnp.argmax(logits, 1) == stored.test_labels).sum())
        assert abs(one.compared.correct[1] - right) <= 1
        assert one.compared.bytes[1] < one.compared.bytes[0]
        assert one.compared.flops[1] < one.compared.flops[0]
        fitting, tuned = (saved.read(run / f"pruned/{one.id}-{name}.npz")
                          for name in ("recalibrated", "tuned"))  # fmt: skip
        assert tuned.shape == fitting.shape == small.shape and len(one.compared.correct) == 4
        np.testing.assert_array_equal(fitting.network.params, small.network.params)
        assert not np.array_equal(fitting.network.statistics, small.network.statistics)
        assert not np.array_equal(tuned.network.params, small.network.params)
    nothing = process("prune", str(run))
    assert nothing.returncode == 0 and nothing.stdout.count("no block conflicts") == 1

    done = process("sweep", "study.yaml", "--keep-weights")  # trains nothing and loses nothing
    assert done.returncode == 0 and "to train" not in done.stdout
    assert (run / "figures/fig_lesion_curves.png").is_file() and (run / "pruned.csv").is_file()
    small_one = (run / f"pruned/{made[0].id}.npz").read_bytes()
    weights = run / f"weights/{made[0].of}.npz"
    for damage, said in ((small_one, "not this network"), (b"nothing", "not a network")):
        weights.write_bytes(damage)
        done = process("lesion", str(run), "--draws", "4", "--fresh")
        assert done.returncode == 2 and said in done.stderr and weights.name in done.stderr
    content = (run / "run.json").read_text()
    (run / "run.json").write_text(content[:20])
    done = process("lesion", str(run))
    assert done.returncode == 2 and "run.json: damaged" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lesion"], "name one of RUN"),
        (["lesion", "x", "--dataset", "mnist"], "name one of RUN"),
        (["lesion", "x"], "no run here"),
        (["lesion", "x", "--set", "training.epochs=2"], "change nothing"),
        (["lesion", "--dataset", "mnits"], "did you mean 'mnist'"),
        (["lesion", "--dataset", "mnist", "--depth", "121"], "nearest valid: 120"),
        (["lesion", "--dataset", "mnist", "--depth", "0"], "nearest valid: 4 (valid: 4, 10, 20"),
        (["lesion", "--dataset", "mnist", "--set", "model.family=vgg"], "nearest valid: resnet"),
        (["lesion", "x.yaml"], "no such file"),
        (
            ["lesion", "--dataset", "mnist_mini", "--set", "training.batch_size=10001", "--plan"],
            "nearest valid: 10000",
        ),
        (["lesion", "cpu/mnist_vgg"], "nearest valid: resnet"),
        (["prune", "x"], "neither the folder of a run nor PACKAGE.MODULE:FUNCTION"),
    ],
)
def test_bad_flags_are_answered_with_one_line(cli, arguments, message):
    done = cli(*arguments)
    assert done.returncode == 2 and message in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_plan_of_a_lesion_study_runs_nothing(cli, tmp_path):
    done = cli("lesion", "--dataset", "mnist_mini", "--plan")
    assert done.returncode == 0 and "up to 2065 networks" in done.stdout
    named = cli("lesion", "cpu/mnist_resnet_lesion", "--set", "training.seed=0", "--plan")
    assert named.returncode == 0 and "networks with some of its" in named.stdout
    assert not (tmp_path / "results").exists()


def test_rows_and_figures_of_a_study(tmp_path):
    records = [lesion_record(seed, conflicting=range(20, 59)) for seed in range(3)]
    rows = {row["remove"]: row for row in lesions.removal_table(records).rows}
    assert rows["conflicting, drawn"]["blocks_max"] == 39
    assert rows["conflicting, drawn"]["change_mean"] == pytest.approx(0)
    assert rows["conflicting, drawn"]["removable_percent"] == pytest.approx(100 * 39 / 59)
    assert rows["non-conflicting, drawn"]["change_mean"] is None  # fewer than 60 % of the blocks
    assert rows["highest H first"]["spearman"] == pytest.approx(
        stats.spearmanr([0] * 20 + [-1] * 39, lesions.cost(records[0])).statistic
    )
    assert all(map(all, lesions.removal_table(records).texts))
    pictures = lesion_figures.draw_lesions(records, tmp_path)
    assert [drawn.path.stem for drawn in pictures] == [
        "fig_lesion_curves", "fig_lesion_blocks", "fig_lesion_predictors",
    ]  # fmt: skip
    for drawn in pictures:
        assert "3 seeds" in drawn.small_print and "2,000 test images" in drawn.small_print
        assert drawn.path.with_suffix(".csv").read_text().count("\n") > 59
    none = [lesion_record(seed, conflicting=()) for seed in range(3)]
    assert math.isnan(lesions.predicts(none[0], "entropy"))
    none[0].blocks.entropy[3] = none[0].blocks.norm[3] = None  # that one diverged
    assert len(lesion_figures.draw_lesions(none, tmp_path / "none")) == 3
    wide = with_settings(lesion_record(0, conflicting=()), model={"base_filters": 16})
    assert len(lesion_figures.draw_lesions([wide, *none], tmp_path / "two")) == 6  # of two scales
