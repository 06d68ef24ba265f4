"""Headroom: an oracle that tries every learning rate, and the properties that it must have."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cbundles
from cbundles import bundles
from cbundles.criterion import CLEAR_RATE


@st.composite
def probes(draw):
    """Rows that differ by anything from 1e-5 to 1e4, labels, and the largest weight.

    Few shapes, because each is compiled anew.
    """
    samples, columns = draw(st.sampled_from([2, 12])), draw(st.sampled_from([1, 3]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = 10.0 ** random.uniform(-5, 4, (samples, 1))
    rows = random.standard_normal((samples, columns)) * spread
    rows[draw(st.integers(0, samples - 1))] = rows[0]
    amplitude = draw(st.sampled_from([1e-3, 0.4, 0.5, 7.9]))
    return rows.astype(np.float32), random.integers(0, 3, samples), amplitude


def bits_of(rows, labels, amplitude, **how):
    return cbundles.headroom(rows, labels, num_classes=3, amplitude=amplitude, **how).bits


@given(probes(), st.sampled_from([1e-3, 3e-5]), st.sampled_from([0.0, 0.3]))
@settings(max_examples=60, deadline=None)
def test_agrees_with_the_oracle(probe, rate, own):
    rows, labels, amplitude = probe
    found = bits_of(rows, labels, amplitude, learning_rate=rate, own_conflict_rate=own)
    assert found == oracle.headroom(rows, labels, amplitude, rate, own=own)


def inside(bits):
    """Neither below nor above what is scanned, also when it changes by two bits."""
    return -8 <= bits <= 12


@given(probes(), st.sampled_from([-2, -1, 1, 2]))
@settings(max_examples=60, deadline=None)
def test_twice_the_activation_or_learning_rate_is_a_bit_more(probe, more):
    rows, labels, amplitude = probe
    bits = bits_of(rows, labels, amplitude)
    if inside(bits):
        assert bits_of(rows * np.float32(2.0**more), labels, amplitude) == bits + more
        assert bits_of(rows, labels, amplitude, learning_rate=1e-3 * 2.0**more) == bits + more


@given(probes())
@settings(max_examples=60, deadline=None)
def test_twice_all_weights_is_a_bit_less(probe):
    """The grid of weights is twice as coarse. (q is then twice what it was, so q is the same.)"""
    rows, labels, amplitude = probe
    bits = bits_of(rows, labels, amplitude)
    if inside(bits):
        assert bits_of(rows, labels, 2 * amplitude) == bits - 1


@given(probes(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_order_of_samples_and_names_of_classes_do_not_matter(probe, random):
    rows, labels, amplitude = probe
    order = random.sample(range(len(labels)), len(labels))
    names = np.array(random.sample(range(3), 3))
    shuffled = bits_of(rows[order], names[labels[order]], amplitude)
    assert shuffled == bits_of(rows, labels, amplitude)


@given(probes())
@settings(max_examples=60, deadline=None)
def test_its_sign_is_the_verdict_at_the_learning_rate_itself(probe):
    """Unless the layer conflicts at a larger one, where it does not at this one."""
    rows, labels, amplitude = probe
    found = cbundles.headroom(rows, labels, num_classes=3, amplitude=amplitude)
    measured = cbundles.bundle_entropy(rows, labels, num_classes=3, amplitude=amplitude)
    if measured.conflict_rate > CLEAR_RATE:
        assert found.conflicting
    if not found.conflicting:
        assert measured.conflict_rate <= CLEAR_RATE


def test_the_range_ends_at_both_sides():
    labels = [0, 1]
    same = np.ones((2, 3), np.float32)
    assert bits_of(same, labels, 0.5) == -10.5
    apart = np.array([[0.0], [1e9]], np.float32)
    assert bits_of(apart, labels, 0.5) == 14
    assert bits_of(same, [1, 1], 0.5) == 14  # one class never conflicts


def test_conflicts_of_the_inputs_are_no_fault_of_a_layer():
    """A tenth of the samples stand twice in the data, with different labels."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((200, 4)).astype(np.float32)
    labels = random.integers(0, 3, 200)
    rows[180:] = rows[:20]
    labels[180:] = (labels[:20] + 1) % 3
    rate = cbundles.bundle_entropy(rows, labels, num_classes=3, amplitude=0.0).conflict_rate
    assert bits_of(rows[:180], labels[:180], 0.5) == bits_of(
        rows, labels, 0.5, own_conflict_rate=rate
    )
    rows, labels = rows[[0, 180, 1]], labels[[0, 180, 1]]
    assert bits_of(rows, labels, 0.5) == -10.5


def test_divergence_is_not_headroom():
    rows = np.array([[1.0], [np.nan], [2.0]], np.float32)
    assert cbundles.headroom(rows, [0, 1, 0], num_classes=2, amplitude=0.5) is None


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (5.0, "conflicts below a learning rate of 3.1e-05: 5 bits of headroom"),
        (1.0, "conflicts below a learning rate of 0.0005: 1 bit of headroom"),
        (-3.0, "conflicts already, by 3 bits"),
        (-10.5, "conflicts already, by more than 10 bits"),
        (14.0, "14 bits of headroom or more"),
    ],
)
def test_in_words(bits, words):
    assert str(bundles.Headroom(bits, 1e-3)) == words


def test_what_makes_no_sense_is_refused(unchecked):
    def refused(**wrong):
        given = {"activations": np.ones((2, 3)), "labels": [0, 1], "num_classes": 2}
        with pytest.raises(ValueError) as error:
            cbundles.headroom(**(given | {"amplitude": 0.5} | wrong))
        return str(error.value)

    assert "amplitude is missing" in refused(amplitude=None)
    assert "label 1 is outside 0..0" in refused(num_classes=1)
    assert "num_classes must be at most 16,777,216" in refused(num_classes=2**24 + 1)
    assert "own_conflict_rate must be a number from 0 to 1" in refused(own_conflict_rate=2)
    assert "learning_rate must be a number" in refused(learning_rate=0)
