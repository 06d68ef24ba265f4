"""The metric: golden vectors, an independent oracle, and the properties it must have."""

from __future__ import annotations

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from conftest import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

import cbundles
from cbundles import bundles, config
from cbundles.bundles import equality, result
from cbundles.bundles.equality import RESOLUTIONS
from cbundles.bundles.leaders import leaders

CASES = sorted(p.stem for p in GOLDEN.glob("bundles_*.npz"))
DIVERGED = ("bundles_edge_nan", "bundles_edge_inf")
OUT_OF_RANGE = "bundles_edge_label_oob"
AMPLITUDE = bundles.Equality()
SIGNATURE = jax.jit(functools.partial(bundles.signature, equality=AMPLITUDE))


def measure_golden(case):
    return cbundles.bundle_entropy(
        case["a"],
        case["y"],
        num_classes=int(case["num_classes"]),
        amplitude=float(case["w"]),
        learning_rate=float(case["train_lr"]),
        batch_size=int(case["train_batch_size"]),
    )


@pytest.mark.parametrize("name", [c for c in CASES if c != OUT_OF_RANGE])
def test_golden_partitions_are_exact_and_entropies_close(golden, name):
    case = golden(name)
    found = measure_golden(case)
    np.testing.assert_array_equal(found.bundle_ids + 1, case["bundle_ids"])
    assert found.num_bundles == case["num_bundles"]
    if name in DIVERGED:
        assert found.diverged and found.entropy is None
    else:
        assert not found.diverged
        assert found.entropy == pytest.approx(float(case["bundle_entropy"]), abs=2e-6)


def test_all_golden_cases_are_here():
    assert len(CASES) >= 27 and OUT_OF_RANGE in CASES and set(DIVERGED) < set(CASES)


def test_the_schema_offers_what_the_metric_knows():
    choices = {f.name: f.metadata["choices"] for f in dataclasses.fields(config.Probe)}
    assert (choices["equality"], choices["resolution"]) == (equality.RULES, RESOLUTIONS)


def test_label_out_of_range_is_an_error(golden):
    with pytest.raises(ValueError, match=r"label 12 is outside 0\.\.9"):
        measure_golden(golden(OUT_OF_RANGE))


def compiled_bits(rows, amplitude, rate, batch, resolution="float32"):
    def update(rows, scale):
        return equality.rounded_bits(equality.weight_update(rows, scale, resolution), resolution)

    scale = bundles.Scale.of(amplitude, rate, batch)
    return np.asarray(jax.jit(update)(rows, scale))


def oracle_bits(rows, amplitude, rate, batch, resolution="float32"):
    q = oracle.weight_update(rows, amplitude, rate, batch, resolution)
    return np.where(q == 0, np.zeros_like(q), q).view(f"u{q.dtype.itemsize}").astype(np.uint32)


@pytest.mark.parametrize("name", CASES)
def test_compiled_weight_update_has_the_bits_of_numpy(golden, name):
    case = golden(name)
    rows = case["a"].reshape(len(case["a"]), -1)
    given = (rows, float(case["w"]), float(case["train_lr"]), int(case["train_batch_size"]))
    np.testing.assert_array_equal(compiled_bits(*given), oracle_bits(*given))


@pytest.mark.parametrize(
    ("batch_size", "resolution"),
    [(48, "float32"), (64, "float32"), (100, "float32"), *((50, name) for name in RESOLUTIONS)],
)
def test_weight_update_bits_on_many_values(batch_size, resolution):
    chance = np.random.default_rng(7)
    a = (chance.standard_normal((64, 333)) * 10.0 ** chance.integers(-12, 6, (64, 333))).astype(
        "f4"
    )
    for amplitude in (0.0, 1e-3, 0.37, 1.0, 11.5):
        for rate in (1e-3, 3e-4, 0.01):
            given = (a, amplitude, rate, batch_size, resolution)
            np.testing.assert_array_equal(compiled_bits(*given), oracle_bits(*given))


@st.composite
def probes(draw):
    """Activations on a coarse grid (so that bundles occur), labels, and the number of classes.

    Few shapes, because each is compiled anew.
    """
    n, d = draw(st.sampled_from([1, 2, 40])), draw(st.sampled_from([1, 4]))
    num_classes = draw(st.sampled_from([1, 5]))
    values = st.sampled_from([0.0, -0.0, 0.25, 1.0, -3.0, 1e-7, 2e-7, 1e3])
    a = draw(st.lists(st.lists(values, min_size=d, max_size=d), min_size=n, max_size=n))
    y = draw(st.lists(st.integers(0, num_classes - 1), min_size=n, max_size=n))
    return np.array(a, np.float32), np.array(y), num_classes


def entropy_of(a, y, num_classes, amplitude=0.5):
    return cbundles.bundle_entropy(a, y, num_classes=num_classes, amplitude=amplitude)


@given(probes(), st.sampled_from([0.0, 0.01, 0.5, 1.0]))
@settings(max_examples=150, deadline=None)
def test_agrees_with_the_oracle(probe, amplitude):
    a, y, num_classes = probe
    found = entropy_of(a, y, num_classes, amplitude)
    ids = oracle.bundle_ids(oracle.weight_update(a, amplitude, 1e-3, 64))
    np.testing.assert_array_equal(found.bundle_ids, ids)
    assert found.num_bundles == ids.max() + 1
    assert found.entropy == pytest.approx(oracle.entropy(ids, y, num_classes), abs=2e-6)
    assert found.conflict_rate == pytest.approx(oracle.conflict_rate(ids, y), abs=1e-12)
    compiled = result.layer_bundles(
        a, y, bundles.Scale.of(amplitude, 1e-3, 64), bundles.draw_keys(a[0].size, 0), AMPLITUDE,
        num_classes,
    )  # fmt: skip
    assert float(compiled.conflict_rate) == pytest.approx(found.conflict_rate, abs=1e-7)


@given(probes(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_order_of_samples_and_names_of_classes_do_not_matter(probe, random):
    a, y, num_classes = probe
    order = random.sample(range(len(y)), len(y))
    names = np.array(random.sample(range(num_classes), num_classes))
    before, after = (
        entropy_of(a, y, num_classes),
        entropy_of(a[order], names[y[order]], num_classes),
    )
    assert after.num_bundles == before.num_bundles
    assert after.entropy == pytest.approx(before.entropy, abs=2e-6)


@given(probes(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_order_of_columns_does_not_matter(probe, random):
    a, y, num_classes = probe
    columns = random.sample(range(a.shape[1]), a.shape[1])
    before, after = entropy_of(a, y, num_classes), entropy_of(a[:, columns], y, num_classes)
    np.testing.assert_array_equal(after.bundle_ids, before.bundle_ids)
    assert after.entropy == before.entropy


@given(probes(), st.sampled_from(RESOLUTIONS[1:]))
@settings(max_examples=60, deadline=None)
def test_a_coarser_grid_only_merges_bundles(probe, resolution):
    """Of an amplitude that both formats hold: what is equal in the finer one stays equal, and the
    entropy does not fall (up to eps: a pure bundle is floored at 0)."""
    a, y, num_classes = probe
    fine = entropy_of(a, y, num_classes)
    coarse = cbundles.bundle_entropy(
        a, y, num_classes=num_classes, amplitude=0.5, resolution=resolution
    )
    pairs = set(zip(fine.bundle_ids.tolist(), coarse.bundle_ids.tolist(), strict=True))
    assert len(pairs) == fine.num_bundles >= coarse.num_bundles
    if not (fine.diverged or coarse.diverged):
        assert coarse.entropy >= fine.entropy - 2e-5


@given(probes())
@settings(max_examples=60, deadline=None)
def test_entropy_lies_between_that_of_pure_bundles_and_that_of_one(probe):
    """0 exactly where no bundle mixes classes, and never more than ln(classes)."""
    a, y, num_classes = probe
    found = entropy_of(a, y, num_classes)
    mixed = any(len(set(y[found.bundle_ids == b])) > 1 for b in range(found.num_bundles))
    assert (found.entropy > 0) == mixed == found.conflicting == (found.conflict_rate > 0)
    assert found.entropy <= found.largest_entropy + 2e-6 <= math.log(num_classes) + 3e-6
    of_itself = entropy_of(y[:, None].astype(np.float32), y, num_classes, amplitude=0.0)
    assert of_itself.entropy == 0 and not of_itself.conflicting


@given(probes(), st.just(3))
@settings(max_examples=60, deadline=None)
def test_padding_columns_changes_nothing(probe, columns):
    a, y, num_classes = probe
    padded = np.pad(a, ((0, 0), (0, columns)))
    before, after = entropy_of(a, y, num_classes), entropy_of(padded, y, num_classes)
    np.testing.assert_array_equal(after.bundle_ids, before.bundle_ids)
    assert after.entropy == before.entropy


@given(probes(), st.just(2))
@settings(max_examples=60, deadline=None)
def test_duplicating_every_sample_changes_nothing(probe, times):
    a, y, num_classes = probe
    before = entropy_of(a, y, num_classes)
    after = entropy_of(np.tile(a, (times, 1)), np.tile(y, times), num_classes)
    np.testing.assert_array_equal(after.bundle_ids[: len(y)], before.bundle_ids)
    assert after.num_bundles == before.num_bundles
    assert after.entropy == pytest.approx(before.entropy, abs=2e-6)


@given(st.lists(st.integers(0, 5), min_size=40, max_size=40), st.data())
@settings(max_examples=60, deadline=None)
def test_merging_two_bundles_never_lowers_the_entropy(groups, data):
    """H(D) is concave in the class shares. (Up to eps: a pure bundle is floored at 0.)"""
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=40, max_size=40)))
    into, of = data.draw(st.permutations(range(6)))[:2]
    merged = [into if group == of else group for group in groups]
    apart, together = (
        entropy_of(np.array(ids, np.float32)[:, None], labels, 4, amplitude=0.0)
        for ids in (groups, merged)
    )
    assert together.num_bundles <= apart.num_bundles
    assert together.entropy >= apart.entropy - 2e-5


@given(probes(), st.sampled_from([0, 1, 25]))
@settings(max_examples=60, deadline=None)
def test_signatures_of_batches_are_the_signatures_of_the_whole(probe, cut):
    a, y, _ = probe
    scale, keys = bundles.Scale.of(0.5, 1e-3, 64), bundles.draw_keys(a.shape[1], 0)
    sign = functools.partial(SIGNATURE, scale=scale, keys=keys)
    cut = min(cut, len(y))
    parts = [sign(jnp.asarray(part)) for part in (a[:cut], a[cut:]) if len(part)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), sign(jnp.asarray(a)))


@pytest.mark.parametrize("samples", [1, 3, 4, 5, 6, 7, 8, 9, 30])
@pytest.mark.parametrize("columns", [equality.GROUPED_FROM - 1, equality.GROUPED_FROM, 333])
def test_signatures_of_long_rows_are_those_of_each_row_alone(samples, columns):
    """However many are read together."""
    a = np.random.default_rng(samples).standard_normal((samples, columns)).astype(np.float32)
    a[-1, -1] = np.nan
    scale, keys = bundles.Scale.of(0.5, 1e-3, 64), bundles.draw_keys(columns, 0)
    alone = [SIGNATURE(row[None], scale, keys) for row in a]
    np.testing.assert_array_equal(SIGNATURE(a, scale, keys), np.concatenate(alone, axis=1))


@pytest.mark.parametrize("amplitude", [0.0, -0.0])
def test_zeros_of_both_signs_are_equal_beside_a_weight_of_zero(amplitude):
    a = np.array([[0.0, -0.0], [-0.0, 0.0], [0.0, 0.0], [1.0, 0.0]], np.float32)
    assert entropy_of(a, np.arange(4), 4, amplitude).bundle_ids.tolist() == [0, 0, 0, 1]


def test_extremes():
    y = np.arange(2000) % 10
    distinct = np.arange(2000, dtype=np.float32)[:, None]
    assert entropy_of(distinct, y, 10).entropy == 0
    assert entropy_of(distinct, y, 10).num_bundles == 2000
    same = np.ones((2000, 7), np.float32)
    assert entropy_of(same, y, 10).entropy == pytest.approx(2.3024850, abs=2e-6)
    assert entropy_of(same, y * 0, 10).entropy == 0  # one class only: nothing conflicts


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
def test_activations_of_small_float_formats_are_measured_exactly(dtype):
    a = jnp.asarray(np.random.default_rng(0).standard_normal((300, 1)), dtype)
    y = np.arange(300) % 7
    exact = np.asarray(a.astype(jnp.float32))
    found = entropy_of(a, y, 7)
    ids = oracle.bundle_ids(oracle.weight_update(exact, 0.5, 1e-3, 64))
    np.testing.assert_array_equal(found.bundle_ids, ids)
    assert 1 < found.num_bundles < 300


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_coarser_resolutions_agree_with_the_oracle(resolution):
    chance = np.random.default_rng(5)
    a = (10.0 ** chance.uniform(-2, 5, (400, 1))).astype(np.float32)
    y = np.arange(400) % 5
    found = cbundles.bundle_entropy(
        a, y, num_classes=5, amplitude=0.5, learning_rate=1e-3, resolution=resolution
    )
    ids = oracle.bundle_ids(oracle.weight_update(a, 0.5, 1e-3, 64, resolution))
    np.testing.assert_array_equal(found.bundle_ids, ids)
    assert found.entropy == pytest.approx(oracle.entropy(ids, y, 5), abs=2e-6)


def test_a_coarser_resolution_bundles_more():
    a = np.random.default_rng(5).uniform(0, 3000, (400, 1)).astype(np.float32)
    counts = [
        cbundles.bundle_entropy(
            a, np.zeros(400, int), num_classes=1, amplitude=0.5, resolution=resolution
        ).num_bundles
        for resolution in ("float32", "float16", "bfloat16", "float8_e4m3fn")
    ]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == 4


@given(probes(), st.sampled_from([0.0, 1e-5]))
@settings(max_examples=100, deadline=None)
def test_the_gamma_rule_agrees_with_its_oracle(probe, gamma):
    a, y, num_classes = probe
    found = cbundles.bundle_entropy(a, y, num_classes=num_classes, equality="gamma", gamma=gamma)
    ids = oracle.leader_ids(a, np.float32(1e-3) * np.float32(1 / 64), gamma)
    np.testing.assert_array_equal(found.bundle_ids, ids)
    assert found.entropy == pytest.approx(oracle.entropy(ids, y, num_classes), abs=2e-6)


@pytest.mark.parametrize("width", [1, 2, 7, 8, 9, 15, 16, 17, 64, 65])
def test_the_gamma_rule_at_every_width(width):
    a = np.repeat(np.arange(4.0), 2)[:, None] + np.zeros((1, width))
    assert oracle.leader_ids(a, np.float32(1e-3) * np.float32(1 / 64), 1e-8).max() == 3
    factor = np.float32(1e-3) * np.float32(1 / 64)
    found = leaders(jnp.asarray(a, jnp.float32), factor, 1e-8)
    assert found.tolist() == [0, 0, 2, 2, 4, 4, 6, 6]


def test_the_gamma_rule_is_not_transitive_and_follows_the_order():
    """Three points, each close to the next: whether they are one bundle depends on who is first."""
    step = 0.9 * 1e-8 * 64 / 1e-3
    a = np.array([[0.0], [step], [2 * step]], np.float32)

    def count(order):
        rows = a[list(order)]
        found = cbundles.bundle_entropy(
            rows, [0, 1, 0], num_classes=2, equality="gamma", gamma=1e-8
        )
        return found.num_bundles

    assert count([0, 1, 2]) == 2 and count([1, 0, 2]) == 1


def test_many_columns_and_samples_under_the_gamma_rule():
    chance = np.random.default_rng(2)
    a = np.repeat(chance.standard_normal((90, 501)), 3, axis=0).astype(np.float32)
    a += chance.uniform(0, 1e-3, a.shape).astype(np.float32)  # of the order of gamma |B| / alpha
    y = np.arange(270) % 3
    found = cbundles.bundle_entropy(a, y, num_classes=3, equality="gamma", gamma=1.5e-8)
    ids = oracle.leader_ids(a, np.float32(1e-3) * np.float32(1 / 64), 1.5e-8)
    np.testing.assert_array_equal(found.bundle_ids, ids)
    assert 90 < found.num_bundles < 270


def test_a_nan_row_is_bundled_with_no_row_wherever_it_stands():
    """q of the second row is 0, so that all lanes of its hash are 0 under every key."""
    for rows, expected in (
        ([[np.nan], [64], [1]], [0, 1, 2]),
        ([[64], [np.nan], [64], [np.nan]], [0, 1, 0, 2]),
        ([[np.nan, 64], [64, 64], [np.nan, 64], [64, 64]], [0, 1, 2, 1]),
    ):
        found = cbundles.bundle_entropy(
            np.array(rows, np.float32), [0] * len(rows), num_classes=1, amplitude=1.0,
            learning_rate=1.0, batch_size=64,
        )  # fmt: skip
        assert found.bundle_ids.tolist() == expected and found.diverged


def test_the_conflict_rate_of_many_samples_is_exact():
    """The squares of 70,000 samples do not fit into 32 bits."""
    a = np.arange(70_000, dtype=np.float32)[:, None] // 35_000
    y = np.arange(70_000) % 2
    scale, keys = bundles.Scale.of(0.0, 1.0, 1), bundles.draw_keys(1, 0)
    found = result.layer_bundles(a, y, scale, keys, AMPLITUDE, 2)
    assert float(found.conflict_rate) == 0.5 == entropy_of(a, y, 2, 0.0).conflict_rate


def test_the_conflict_rate_does_not_grow_with_the_samples_as_the_entropy_does():
    """Samples fall into 10,000 bundles by chance: the more there are, the more of them meet."""
    rates, entropies = [], []
    for count in (512, 2048, 8192):
        chance = np.random.default_rng(count)
        a = chance.integers(0, 10_000, (count, 1)).astype(np.float32)
        found = entropy_of(a, chance.integers(0, 10, count), 10, amplitude=0.0)
        rates.append(found.conflict_rate)
        entropies.append(found.entropy)
    assert max(rates) < 1.3 * min(rates)
    assert entropies[2] > 3 * entropies[1] > 9 * entropies[0]


def test_the_largest_entropy_is_that_of_the_classes_that_are_there():
    labels = np.array([0] * 950 + [1] * 50)
    found = cbundles.bundle_entropy(np.ones((1000, 3)), labels, num_classes=10, amplitude=1.0)
    assert found.fully_conflicting
    assert found.entropy == pytest.approx(found.largest_entropy, abs=1e-6)
    assert found.largest_entropy == pytest.approx(oracle.entropy(0 * labels, labels, 10))
    assert "H = 0.1985 of at most 0.1985 nats; fully conflicting" in str(found)
    assert found.to_dict()["largest_entropy"] == found.largest_entropy
    assert bundles.largest_entropy(np.zeros(5, int)) == 0


def test_nan_and_infinity_are_close_to_nothing_under_the_gamma_rule():
    a = np.array([[1, 2], [np.nan, 2], [np.nan, 2], [np.inf, 0], [np.inf, 0], [1, 2]], np.float32)
    found = cbundles.bundle_entropy(a, [0] * 6, num_classes=2, equality="gamma")
    assert found.diverged and found.entropy is None
    assert found.bundle_ids.tolist() == [0, 1, 2, 3, 4, 0]


def test_any_shape_of_activation_is_flattened():
    a = np.random.default_rng(0).integers(0, 2, (50, 2, 3, 4)).astype(np.float32)
    y = np.arange(50) % 3
    flat = entropy_of(a.reshape(50, -1), y, 3)
    np.testing.assert_array_equal(entropy_of(a, y, 3).bundle_ids, flat.bundle_ids)


def adversary(kind):
    """Rows that are all different and that fool weak hashes."""
    n, d = 1024, 64
    chance = np.random.default_rng(1)
    row = chance.standard_normal(d).astype(np.float32)
    number, column = np.arange(n)[:, None], np.arange(d)
    match kind:
        case "permuted columns":
            return np.stack([chance.permutation(row) for _ in range(n)])
        case "sign flips":
            return row * np.where(column < 10, 1 - 2 * (number >> column % 10 & 1), 1)
        case "arithmetic progression":
            return number + column
        case "multiples":
            return (number + 1) * np.arange(1, d + 1)
        case "powers of two":
            return np.tile(2.0 ** (number % 120 - 60) * (1 + 2 * (number // 120)), d)
        case "balanced changes":  # what one column gains, another loses
            change = np.where(column == number % d, 1, 0) - np.where(column == number // d, 1, 0)
            return 1000 + change * (number + 1)
        case "one ulp":
            bits = np.tile(row, (n, 1)).view(np.uint32)
            bits[np.arange(n), np.arange(n) % d] += 1 + np.arange(n, dtype=np.uint32) // d
            return bits.view(np.float32)
        case _:
            wide = np.zeros((64, 10**6), np.float32)
            wide[np.arange(64), chance.choice(10**6, 64, replace=False)] = 1
            return wide


@pytest.mark.parametrize(
    "kind",
    [
        "permuted columns",
        "sign flips",
        "arithmetic progression",
        "multiples",
        "powers of two",
        "balanced changes",
        "one ulp",
        "one column of a million",
    ],
)
def test_rows_that_fool_weak_hashes_stay_apart(kind):
    """In every lane by itself: even 32 of the 96 bits hardly ever confuse two of 1024 rows."""
    a = adversary(kind).astype(np.float32)
    n = len(a)
    expected = len({row.tobytes() for row in oracle.weight_update(a, 0.0, 1e-3, 64)})
    assert expected > 0.9 * n
    assert entropy_of(a, np.zeros(n, int), 1, amplitude=0.0).num_bundles == expected
    scale, keys = bundles.Scale.of(0.0, 1e-3, 64), bundles.draw_keys(a.shape[1], 0)
    lanes = SIGNATURE(a, scale, keys)[:3]
    assert [len(np.unique(lane)) for lane in lanes] == [expected] * 3


def test_rows_that_an_unkeyed_mixing_cannot_tell_apart():
    """Two numbers whose bits, mixed with fixed multipliers, differ in the highest bit alone. In two
    columns, that difference vanishes from any sum with odd keys."""
    a = np.array([[1.6944864] * 2, [16.963068] * 2], np.float32)
    found = cbundles.bundle_entropy(
        a, [0, 1], num_classes=2, amplitude=0.0, learning_rate=1.0, batch_size=1
    )
    assert found.num_bundles == 2


def test_swapped_elements_collide_in_no_lane_more_often_than_chance_has_it():
    """Two columns with the same change of opposite sign are the hardest case for a sum."""
    a = np.random.default_rng(8).standard_normal((200_000, 2)).astype(np.float32)
    scale, keys = bundles.Scale.of(0.5, 1.0, 1), bundles.draw_keys(2, 0)
    one, other = (np.asarray(SIGNATURE(rows, scale, keys)) for rows in (a, a[:, ::-1].copy()))
    assert not (one[:3] == other[:3]).any()
    assert len(np.unique(one[0])) > 200_000 - 20  # 5 expected to collide by birthday


def test_more_samples_and_classes_than_fit_beside_the_hash():
    """Label and index then no longer share a sort key with the hash."""
    chance = np.random.default_rng(9)
    a = chance.integers(0, 300, (70_000, 2)).astype(np.float32)
    y = chance.integers(0, 100, 70_000)
    found = entropy_of(a, y, 100, amplitude=0.0)
    _, first, ids = np.unique(a, axis=0, return_index=True, return_inverse=True)
    by_first_occurrence = np.argsort(np.argsort(first))
    np.testing.assert_array_equal(found.bundle_ids, by_first_occurrence[ids.ravel()])
    table = np.zeros((len(first), 100))
    np.add.at(table, (ids.ravel(), y), 1)
    share = table / table.sum(axis=1, keepdims=True)
    entropy = np.maximum(-(share * np.log(share + 1e-5)).sum(axis=1), 0)
    assert found.entropy == pytest.approx((entropy * table.sum(axis=1)).sum() / 70_000, abs=2e-6)


def keys_that_collide(columns, salt):
    """Two of three lanes are blind: all rows have one sort key, though not one hash."""
    keys = bundles.draw_keys(columns, salt)
    assert columns <= equality.LANE_DISTANCE
    keys[: 2 * equality.LANE_DISTANCE] = 0
    return keys


def test_a_hash_collision_is_noticed_and_other_keys_resolve_it(monkeypatch):
    a = np.random.default_rng(3).integers(0, 3, (200, 4)).astype(np.float32)
    y = (np.arange(200) % 4).astype(np.int32)
    scale = bundles.Scale.of(0.5, 1e-3, 64)
    layer = result.layer_bundles(a, y, scale, keys_that_collide(4, 0), AMPLITUDE, 4)
    assert layer.collided

    def blind_at_first(columns, salt):
        return (keys_that_collide if salt == 0 else bundles.draw_keys)(columns, salt)

    monkeypatch.setattr(result, "draw_keys", blind_at_first)
    ids = oracle.bundle_ids(oracle.weight_update(a, 0.5, 1e-3, 64))
    np.testing.assert_array_equal(entropy_of(a, y, 4).bundle_ids, ids)


def test_hashes_that_always_collide_are_an_error(monkeypatch):
    monkeypatch.setattr(result, "draw_keys", keys_that_collide)
    with pytest.raises(bundles.CollisionError):
        entropy_of(np.arange(4, dtype=np.float32)[:, None], np.zeros(4, int), 1)


def test_memory_is_linear_in_the_samples_and_no_activation_is_copied():
    """No (N, N) and no second (N, d) array."""

    def temporary(n, d):
        arrays = jnp.zeros((n, d)), jnp.zeros(n, jnp.int32)
        keys = bundles.draw_keys(d, 0)
        lowered = result.layer_bundles.lower(
            *arrays, bundles.Scale.of(0.5, 1e-3, 64), keys, AMPLITUDE, 10
        )
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(4000, 8) < 4000 * 200
    assert temporary(40_000, 8) < 40_000 * 200
    assert temporary(4000, 2048) < 4000 * 200


def test_the_result_describes_each_bundle():
    a = np.array([1, 1, 1, 2, 2, 3], np.float32)[:, None]
    found = entropy_of(a, [0, 2, 2, 1, 1, 0], 4)
    assert found.bundle_ids.tolist() == [0, 0, 0, 1, 1, 2]
    assert found.sizes.tolist() == [3, 2, 1]
    assert found.class_histogram.tolist() == [[1, 0, 2, 0], [0, 2, 0, 0], [1, 0, 0, 0]]
    assert found.conflicting_pairs == [(0, 2)]
    assert found.conflicting is True and found.fully_conflicting is False
    assert str(found) == (
        "6 samples in 3 bundles; H = 0.3182 of at most 1.0986 nats; conflicting (1 pair of classes)"
    )
    bundle = json.loads(json.dumps(found.to_dict()))["bundles"][0]
    assert bundle == {"size": 3, "classes": {"0": 1, "2": 2}}
    assert found.to_dict()["equality"]["resolution"] == "float32"
    assert repr(found) == f"<Bundles: {found}>"


def test_inside_jit_the_answer_is_clear():
    with pytest.raises(ValueError, match="outside of jit"):
        jax.jit(lambda a: entropy_of(a, np.zeros(4, int), 1).entropy)(jnp.ones((4, 2)))


@pytest.mark.usefixtures("unchecked")
def test_numbers_of_any_kind_and_many_classes_will_do():
    a = jnp.ones((4, 2), jnp.float32)
    found = cbundles.bundle_entropy(
        a, jnp.arange(4), num_classes=np.int64(10**7), amplitude=jnp.float32(0.5),
        learning_rate=np.float64(1e-3), batch_size=np.int32(64),
    )  # fmt: skip
    assert found.fully_conflicting and len(found.conflicting_pairs) == 6
    with jax.enable_x64(True):
        assert found.bundle_ids.dtype == entropy_of(a, np.arange(4), 4).bundle_ids.dtype == np.int32
        gamma = cbundles.bundle_entropy(a, np.arange(4), num_classes=4, equality="gamma")
    assert gamma.num_bundles == 1


@pytest.mark.parametrize(
    ("a", "y", "conflicting", "fully", "text"),
    [
        ([1, 1, 1], [0, 1, 2], True, True, "fully conflicting (3 pairs of classes)"),
        ([1, 1, 1], [1, 1, 1], False, False, "not conflicting"),
        ([1, 2, 3], [0, 1, 2], False, False, "not conflicting"),
        ([1, np.nan, np.inf], [0, 1, 2], None, None, "diverged"),
    ],
)
def test_the_result_says_whether_a_layer_conflicts(a, y, conflicting, fully, text):
    found = entropy_of(np.array(a, np.float32)[:, None], y, 3)
    assert (found.conflicting, found.fully_conflicting) == (conflicting, fully)
    assert text in str(found)
    assert json.loads(json.dumps(found.to_dict()))["conflicting"] is conflicting


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activations": np.ones((0, 3), "f4")}, "not empty"),
        ({"activations": np.ones((4, 3), int)}, "floating point"),
        ({"labels": [0, 1]}, r"labels must be \(4,\)"),
        ({"labels": [0.0, 1.0, 0.0, 1.0]}, "labels must be integers"),
        ({"labels": [0, 1, -1, 0]}, "label -1 is outside"),
        ({"amplitude": math.nan}, "amplitude"),
        ({"amplitude": -1.0}, "amplitude"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 6.4}, "batch_size must be a whole number"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"num_classes": 2.0}, "num_classes must be a whole number"),
        ({"num_classes": 2**31 - 1}, "num_classes must be at most 16,777,216, not 2,147,483,647"),
        ({"learning_rate": "fast"}, "learning_rate must be a number"),
        ({"learning_rate": 1e39}, "learning_rate"),
        ({"amplitude": 1e300}, "amplitude"),
        ({"amplitude": 1e5, "resolution": "float16"}, "amplitude must be a number from 0 to 65504"),
        ({"activations": None}, "floating point|arrays of numbers|not empty"),
        ({"activations": [[1.0], [2.0, 3.0]]}, "arrays of numbers"),
        ({"activations": [np.ones((4, 3), "f4")] * 4}, "measure the layers one by one"),
        ({"amplitude": "0.7"}, "amplitude must be a number from 0"),
        ({"batch_size": True}, "batch_size must be at least 1"),
        ({"gamma": 0.5}, "gamma has no effect"),
        ({"equality": "gamma", "resolution": "float16"}, "resolution has no effect"),
        ({"amplitude": None}, "amplitude is missing: the largest absolute trainable weight"),
        ({"activations": np.ones((4, 0), "f4")}, "empty"),
        ({"equality": "gama"}, "equality = 'gama': did you mean 'gamma'"),
        ({"gamma": -1.0}, "gamma"),
        ({"resolution": "float64"}, "valid: bfloat16"),
    ],
)
def test_nonsense_is_refused(change, message):
    good = {
        "activations": np.ones((4, 3), "f4"),
        "labels": [0, 1, 0, 1],
        "num_classes": 2,
        "amplitude": 0.5,
    }
    with pytest.raises(ValueError, match=message):
        cbundles.bundle_entropy(**{**good, **change})
