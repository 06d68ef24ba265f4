"""Audits that are compared with brute force, layer by layer, on values that were captured in the
very programs that sign them."""

from __future__ import annotations

import functools

import numpy as np
import oracle
import pytest

import cbundles
from cbundles.auditing import batches, jax_subject


def capture(monkeypatch):
    """From here on, the values of all sites by reducer and name, a list of those of batches; these
    are smaller than the samples, and the last overlaps the one before it."""
    monkeypatch.setattr(batches, "AT_ONCE", 16)
    seen = {}
    reduce = jax_subject.JaxSubject.reduce

    def capturing(self, batch, sites, reducer, arguments):
        @functools.wraps(reducer.func)
        def both(site, value, arguments):
            return reducer(site, value, arguments), value

        found = reduce(self, batch, sites, both, arguments)
        for site, (_, value) in found.items():
            key = reducer.func.__name__, site
            seen.setdefault(key, []).append(np.asarray(value, np.float32))
        return {site: signed for site, (signed, _) in found.items()}

    monkeypatch.setattr(jax_subject.JaxSubject, "reduce", capturing)
    return seen


def joined(parts, axes, samples):
    """The values of all samples from those of batches (repeats..., batch, ...)."""
    size = parts[0].shape[axes]
    whole = np.zeros((*parts[0].shape[:axes], samples, *parts[0].shape[axes + 1 :]), np.float32)
    for number, part in enumerate(parts):
        start = min(number * size, samples - size)
        index = (slice(None),) * axes + (slice(start, start + size),)
        whole[index] = part
    return whole.reshape(-1, samples, int(np.prod(whole.shape[axes + 1 :])))


def audit_and_compare(captured, model, inputs, labels, *, rate, **how):
    """An audit, each layer of which is compared with brute force on the values in its program."""
    audit = cbundles.audit(model, inputs, labels, learning_rate=rate, **how)
    by_site = {}
    for layer in audit.layers:
        by_site.setdefault(layer.name.split("[")[0], []).append(layer)
    partly = 0
    for site, layers in by_site.items():
        repeated = layers[0].name.count(",") + 1 if "[" in layers[0].name else 0
        values = joined(captured["sign_once", site], repeated, len(labels))
        scanned = joined(captured["sign_at_scales", site], repeated, len(labels))
        assert len(values) == len(layers)
        for layer, value, again in zip(layers, values, scanned, strict=True):
            partly += compare(layer, value, again, labels, rate)
    assert partly, "layers in which nothing or everything meets show little"
    return audit


def compare(layer, value, again, labels, rate):
    """A layer with brute force on its values, of which headroom saw those that came again. Whether
    some of its samples meet and others do not."""
    ids = oracle.bundle_ids(oracle.weight_update(value, layer.amplitude, rate, 64))
    np.testing.assert_array_equal(layer.bundles.bundle_ids, ids, err_msg=layer.name)
    assert layer.num_bundles == ids.max() + 1
    entropy = oracle.entropy(ids, labels, max(labels) + 1)
    assert layer.entropy == pytest.approx(entropy, abs=2e-6)
    assert layer.conflict_rate == pytest.approx(oracle.conflict_rate(ids, labels))
    bits = oracle.headroom(again, labels, layer.amplitude, rate)
    assert layer.headroom.bits == bits, layer.name
    return 1 < layer.num_bundles < len(labels)
