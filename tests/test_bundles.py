"""The metric: golden vectors, an independent oracle, and the properties it must have."""

from __future__ import annotations

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
from cbundles import bundles

CASES = sorted(p.stem for p in GOLDEN.glob("bundles_*.npz"))
DIVERGED = ("bundles_edge_nan", "bundles_edge_inf")
OUT_OF_RANGE = "bundles_edge_label_oob"


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


def test_label_out_of_range_is_an_error(golden):
    with pytest.raises(ValueError, match=r"label 12 is outside 0\.\.9"):
        measure_golden(golden(OUT_OF_RANGE))


@pytest.mark.parametrize("name", CASES)
def test_compiled_weight_update_has_the_bits_of_numpy(golden, name):
    case = golden(name)
    rows = case["a"].reshape(len(case["a"]), -1)
    rate, batch = float(case["train_lr"]), int(case["train_batch_size"])
    expected = oracle.weight_update(rows, case["w"], rate, batch)
    resolution = bundles.Resolution.of(case["w"], rate, batch)
    compiled = np.asarray(jax.jit(bundles.weight_update)(rows, resolution))
    bits = np.where(expected == 0, np.float32(0), expected).view(np.uint32)
    np.testing.assert_array_equal(compiled.view(np.uint32), bits)


@pytest.mark.parametrize("batch_size", [48, 50, 64, 100])
def test_weight_update_bits_on_many_values(batch_size):
    chance = np.random.default_rng(7)
    a = (chance.standard_normal((64, 333)) * 10.0 ** chance.integers(-12, 6, (64, 333))).astype(
        "f4"
    )
    for amplitude in (0.0, 1e-3, 0.37, 1.0, 11.5):
        for rate in (1e-3, 3e-4, 0.01):
            expected = oracle.weight_update(a, amplitude, rate, batch_size)
            resolution = bundles.Resolution.of(amplitude, rate, batch_size)
            compiled = np.asarray(jax.jit(bundles.weight_update)(a, resolution))
            assert (compiled == expected).all()


@st.composite
def probes(draw):
    """Activations on a coarse grid (so that bundles occur), labels, and the number of classes.

    Few shapes, because each is compiled anew.
    """
    n, d = draw(st.sampled_from([1, 2, 40])), draw(st.sampled_from([1, 4]))
    num_classes = draw(st.integers(1, 5))
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


@given(probes(), st.just(3))
@settings(max_examples=60, deadline=None)
def test_padding_columns_changes_nothing(probe, columns):
    a, y, num_classes = probe
    padded = np.pad(a, ((0, 0), (0, columns)))
    before, after = entropy_of(a, y, num_classes), entropy_of(padded, y, num_classes)
    np.testing.assert_array_equal(after.bundle_ids, before.bundle_ids)
    assert after.entropy == before.entropy


def test_extremes():
    y = np.arange(2000) % 10
    distinct = np.arange(2000, dtype=np.float32)[:, None]
    assert entropy_of(distinct, y, 10).entropy == 0
    assert entropy_of(distinct, y, 10).num_bundles == 2000
    same = np.ones((2000, 7), np.float32)
    assert entropy_of(same, y, 10).entropy == pytest.approx(2.3024850, abs=2e-6)
    assert entropy_of(same, y * 0, 10).entropy == 0  # one class only: nothing conflicts


def test_any_shape_of_activation_is_flattened():
    a = np.random.default_rng(0).integers(0, 2, (50, 2, 3, 4)).astype(np.float32)
    y = np.arange(50) % 3
    flat = entropy_of(a.reshape(50, -1), y, 3)
    np.testing.assert_array_equal(entropy_of(a, y, 3).bundle_ids, flat.bundle_ids)


@pytest.mark.parametrize("kind", ["permuted columns", "sign flips", "progression", "one column"])
def test_rows_that_fool_weak_hashes_stay_apart(kind):
    n, d = 1024, 64
    chance = np.random.default_rng(1)
    row = chance.standard_normal(d).astype(np.float32)
    a = np.tile(row, (n, 1))
    if kind == "permuted columns":
        a = np.stack([chance.permutation(row) for _ in range(n)])
    elif kind == "sign flips":
        a *= np.where((np.arange(n)[:, None] >> np.arange(d) % 10) & 1, -1, 1)
    elif kind == "progression":
        a = (np.arange(n)[:, None] * np.arange(1, d + 1)).astype(np.float32)
    else:
        a[np.arange(n), np.arange(n) % d] += np.arange(n)
    expected = len(np.unique(oracle.weight_update(a, 0.0, 1e-3, 64), axis=0))
    assert entropy_of(a, np.zeros(n, int), 1, amplitude=0.0).num_bundles == expected


def fresh_jit():
    """A compiled `layer_bundles` that has not been traced with the real fingerprint before."""
    return jax.jit(lambda *arguments: bundles.layer_bundles(*arguments))


def test_a_hash_collision_is_noticed_and_another_salt_resolves_it(monkeypatch):
    """With a fingerprint that is blind for salt 0, the result must still be exact."""
    honest = bundles.fingerprint

    def blind_at_first(q, salt):
        lanes = honest(q, salt)
        return tuple(jnp.where(salt == 0, lane & jnp.uint32(1), lane) for lane in lanes)

    monkeypatch.setattr(bundles, "fingerprint", blind_at_first)
    monkeypatch.setattr(bundles, "_jitted_layer_bundles", fresh_jit())
    a = np.random.default_rng(3).integers(0, 3, (200, 4)).astype(np.float32)
    y = np.arange(200) % 4
    resolution = bundles.Resolution.of(0.5, 1e-3, 64)
    assert bundles.layer_bundles(jnp.asarray(a), jnp.asarray(y), resolution, np.uint32(0)).collided
    ids = oracle.bundle_ids(oracle.weight_update(a, 0.5, 1e-3, 64))
    np.testing.assert_array_equal(entropy_of(a, y, 4).bundle_ids, ids)


def test_fingerprint_that_always_collides_is_an_error(monkeypatch):
    def constant(q, salt):
        zero = jnp.zeros(q.shape[0], jnp.uint32)
        return zero, zero

    monkeypatch.setattr(bundles, "fingerprint", constant)
    monkeypatch.setattr(bundles, "_jitted_layer_bundles", fresh_jit())
    with pytest.raises(bundles.CollisionError):
        entropy_of(np.arange(4, dtype=np.float32)[:, None], np.zeros(4, int), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activations": np.ones((0, 3), "f4")}, "N >= 1"),
        ({"activations": np.ones((4, 3), int)}, "floating point"),
        ({"labels": [0, 1]}, r"labels must be \(4,\)"),
        ({"labels": [0.0, 1.0, 0.0, 1.0]}, "labels must be integers"),
        ({"labels": [0, 1, -1, 0]}, "label -1 is outside"),
        ({"amplitude": math.nan}, "amplitude"),
        ({"amplitude": -1.0}, "amplitude"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"batch_size": 0}, "batch_size"),
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
