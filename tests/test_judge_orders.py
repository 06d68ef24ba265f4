"""Orders of branches, judged on samples by which nobody has chosen them: equal to brute force."""

from __future__ import annotations

import jax
import lesioned
import numpy as np
import pytest
from lesioned import BruteForce, labels_near, normal
from test_audit_lesions import IMAGES, NAMES, ResNet, drawn

from cbundles import auditing
from cbundles.auditing import batches

OTHERS = normal(28, 8, 8, 2, seed=5)  # samples, of which there are two batches
HALVES = [OTHERS[:14], OTHERS[14:]]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(batches, "AT_ONCE", lesioned.AT_ONCE)


@pytest.fixture(scope="module")
def resnet():
    variables = drawn(ResNet(), IMAGES)
    return variables, labels_near(ResNet().apply(variables, IMAGES))


def test_orders_are_judged_as_they_are_and_with_statistics_of_other_samples(resnet):
    variables, labels = resnet
    orders = {"backwards": NAMES[::-1], "some": [NAMES[1], NAMES[3]]}
    judged = auditing.judge_orders(
        ResNet(), orders, IMAGES, labels, params=variables, recalibrate=OTHERS
    )

    def anew(gone):
        parts = [
            ResNet(gone, by_batch=True).apply(variables, half, mutable=["batch_stats"])[1]
            for half in HALVES
        ]
        means = jax.tree.map(lambda *each: sum(each) / 2, *parts)
        logits = ResNet(gone).apply(variables | means, IMAGES)
        return np.asarray(logits).argmax(-1) == labels

    brute = BruteForce(lambda gone: ResNet(tuple(gone)).apply(variables, IMAGES), labels)
    assert judged.accuracy == pytest.approx(brute.right_without(()).mean())
    assert judged.accuracy_anew == pytest.approx(anew(()).mean())
    assert judged.samples == len(IMAGES)
    for by, order in orders.items():
        curve, curve_anew = judged.curves[by], judged.curves_anew[by]
        assert curve.order == curve_anew.order == tuple(order)
        for k in range(len(order)):
            gone = tuple(NAMES.index(name) for name in order[: k + 1])
            found, found_anew = curve.differences[k], curve_anew.differences[k]
            assert (found.lost, found.gained) == brute.counts(brute.right_without(gone))
            assert (found_anew.lost, found_anew.gained) == brute.counts(anew(gone))
    changed = [one for curve in judged.curves_anew.values() for one in curve.differences]
    assert len({(one.lost, one.gained) for one in changed}) > 2


def test_without_statistics_there_are_no_curves_with_them(resnet):
    variables, labels = resnet
    judged = auditing.judge_orders(ResNet(), {"one": NAMES[:1]}, IMAGES, labels, params=variables)
    assert judged.accuracy_anew is None and not judged.curves_anew


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (["ResNet/block9/branch"], r"orders\['by'\]: no branch 'ResNet/block9/branch': did you"),
        ([NAMES[0], NAMES[0]], r"orders\['by'\]: ResNet/block0/branch goes twice"),
    ],
)
def test_orders_that_cannot_be(resnet, order, message):
    variables, labels = resnet
    with pytest.raises(ValueError, match=message):
        auditing.judge_orders(ResNet(), {"by": order}, IMAGES, labels, params=variables)


def test_a_model_without_statistics_to_take_anew():
    def residual(params, x):
        return x + jax.nn.relu(x @ params)

    rows = normal(12, 3)
    labels = np.arange(12) % 3
    with pytest.raises(ValueError, match="recalibrate: a function does not say"):
        auditing.judge_orders(
            residual, {}, rows, labels, params=np.eye(3, dtype=np.float32), recalibrate=rows
        )
