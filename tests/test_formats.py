"""What was written once is read for ever: one small file of each format, made by version 0.1.0.

The files in tests/data/format1 are never made anew: what reads them today must read them always.
"""

from __future__ import annotations

import io
import json
import math
import shutil

import compiled
import jax
import numpy as np
import pytest
from conftest import GOLDEN
from records import changed, lesion_record

import cbundles
from cbundles import config, data, formats
from cbundles.data import device
from cbundles.errors import DamagedCheckpoint, InputError
from cbundles.experiments import sweep
from cbundles.networks import saved
from cbundles.networks.network import Network
from cbundles.networks.saved import Saved
from cbundles.networks.shape import FcShape
from cbundles.records import HASH_OF_FILE
from cbundles.report import runs
from cbundles.store import LESIONS, WEIGHTS, Store

FORMAT1 = GOLDEN / "format1"
NETWORKS = ("fc", "fc_residual2", "resnet", "resnet_pruned", "vgg")


@pytest.fixture(scope="module")
def expected():
    with np.load(FORMAT1 / "expected.npz", allow_pickle=False) as archive:
        return dict(archive)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_the_first_format_compute_what_they_did(expected, name):
    one = saved.read(FORMAT1 / f"{name}.npz")
    x, theirs = expected[f"{name}/x"], expected[f"{name}/logits"]
    ours = compiled.logits(one.shape, jax.tree.map(np.asarray, one.network), x)
    assert theirs.std() > 0.05
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_leaves_the_product_as_a_flax_module(expected, name):
    module, variables = cbundles.load(FORMAT1 / f"{name}.npz")
    x = expected[f"{name}/x"]
    apply = compiled.quickly(module.apply)
    np.testing.assert_allclose(apply(variables, x), expected[f"{name}/logits"], atol=1e-5)
    # As Flax itself would make them: the same names, shapes and dtypes.
    fresh = jax.eval_shape(module.init, jax.random.key(0), x)

    def shape_and_dtype(array):
        return array.shape, array.dtype

    assert jax.tree.map(shape_and_dtype, fresh) == jax.tree.map(shape_and_dtype, variables)


class Vector:
    """Numbers that are taken from the front, an array at a time."""

    def __init__(self, numbers):
        self.numbers = numbers

    def take(self, *shape):
        count = int(np.prod(shape))
        taken, self.numbers = self.numbers[:count], self.numbers[count:]
        return taken.reshape(shape)


def relu(x):
    return np.maximum(x, 0)


def convolved(x, kernel, stride):
    """NHWC with SAME padding as TensorFlow has it: what is odd goes to the end."""
    size, out = kernel.shape[0], -(-x.shape[1] // stride)
    padding = max((out - 1) * stride + size - x.shape[1], 0)
    before = (padding // 2, padding - padding // 2)
    x = np.pad(x, ((0, 0), before, before, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
    return np.einsum("nhwckl,klcd->nhwd", windows[:, ::stride, ::stride], kernel)


class Unit:
    """A convolution and its normalisation, `count` of them stacked; as the format writes them."""

    def __init__(self, params, statistics, kernel, count=None):
        stack = () if count is None else (count,)
        self.kernel = params.take(*stack, *kernel)
        self.bias, self.gamma, self.beta = (params.take(*stack, kernel[-1]) for _ in range(3))
        self.mean, self.variance = (statistics.take(*stack, kernel[-1]) for _ in range(2))

    def __call__(self, x, stride, number=...):
        y = convolved(x, self.kernel[number], stride) + self.bias[number]
        y = (y - self.mean[number]) / np.sqrt(self.variance[number] + 1e-3)
        return y * self.gamma[number] + self.beta[number]


def documented_conv(shape, network, x):
    """Logits of a VGG or ResNet, read from its vectors by the text of `networks.saved` alone."""
    params, statistics = Vector(network.params), Vector(network.statistics)
    filters = shape["filters"]
    stem = Unit(params, statistics, (7, 7, 1, filters))
    stages = []
    for stage, blocks in enumerate(shape["blocks"]):
        channels = filters * 2**stage
        halves = stage > 0 and blocks > 0
        first = []
        if halves:
            kernels = [(3, 3, channels // 2, channels), (3, 3, channels, channels)]
            skip = [(1, 1, channels // 2, channels)] if shape["residual"] else []
            kernels = skip if stage in shape["bare"] else [*kernels, *skip]
            first = [Unit(params, statistics, kernel) for kernel in kernels]
        pair = [Unit(params, statistics, (3, 3, channels, channels), blocks - halves)
                for _ in range(2)]  # fmt: skip
        stages.append((first, pair, blocks - halves))
    features = filters * 2 ** max(s for s, blocks in enumerate(shape["blocks"]) if blocks)
    last, last_bias = params.take(features, shape["outputs"]), params.take(shape["outputs"])
    places = [stage for stage, blocks in enumerate(shape["blocks"]) for _ in range(blocks)]
    inserted = []
    for block in shape["inserted"]:
        d = filters * 2 ** places[block]
        inserted.append((block, params.take(3, 3, d, d), params.take(d)))
    assert not len(params.numbers) and not len(statistics.numbers)

    def block(x, units, stride, number=...):
        """Of two units, of three with a skip, or of the skip alone; then what was inserted."""
        pair = units[: len(units) // 2 * 2]
        skip = units[len(pair)](x, stride, number) if units[len(pair) :] else x
        branch = 0
        if pair:
            branch = pair[1](relu(pair[0](x, stride, number)), 1, number)
        x = relu(branch + skip if shape["residual"] else branch)
        passed.append(x)
        for place, kernel, bias in inserted:
            if place == len(passed) - 1:
                x = relu(convolved(x, kernel, 1) + bias)
        return x

    passed = []
    x = relu(stem(x.astype(np.float64), 2))
    for first, pair, repeats in stages:
        if first:
            x = block(x, first, 2)
        for number in range(repeats):
            x = block(x, pair, 1, number)
    return x.mean((1, 2)) @ last + last_bias


def documented_fc(shape, network, x):
    params = Vector(network.params)
    blocks, width = shape["depth"] - 1, shape["width"]
    first, first_bias = params.take(shape["inputs"], width), params.take(width)
    hidden, biases = params.take(blocks, width, width), params.take(blocks, width)
    last, last_bias = params.take(width, shape["outputs"]), params.take(shape["outputs"])
    outer = params.take(blocks, width, width) if shape["block"].startswith("residual2") else None
    assert not len(params.numbers) and not len(network.statistics)
    activation = np.tanh if shape["block"].endswith("tanh") else relu
    a = activation(x.reshape(len(x), -1) @ first + first_bias)
    for i in range(blocks):
        inside = activation(a @ hidden[i] + biases[i])
        a = inside if outer is None else a + inside @ outer[i]
    return a @ last + last_bias


@pytest.mark.parametrize("name", NETWORKS)
def test_the_order_of_parameters_is_the_documented_one(expected, name):
    """Read in plain NumPy, without the product: a layout that changed would show."""
    with np.load(FORMAT1 / f"{name}.npz", allow_pickle=False) as archive:
        header = json.loads(str(archive["header"]))
        network = Network(archive["params"], archive["statistics"])
    assert header["format"] == 1
    documented = documented_fc if header["kind"] == "fc" else documented_conv
    found = documented(header["shape"], network, expected[f"{name}/x"])
    np.testing.assert_allclose(found, expected[f"{name}/logits"], rtol=0, atol=1e-5)


def test_a_checkpoint_of_the_first_format_continues(tmp_path):
    cells = config.build(
        json.loads((FORMAT1 / "checkpoint.json").read_text()), default_name="checkpoint"
    ).cells
    stored = data.load("spirals")
    placed = device.place(stored, cells[0].data, cells[0].probe)
    resume = formats.unseal((FORMAT1 / "checkpoint.msgpack").read_bytes())
    *_, whole = sweep.train(cells, placed, stored.facts)
    epochs = []
    for state in sweep.train(cells, placed, stored.facts, resume):
        epochs.append(state.epoch)
    assert epochs == [2, 3]
    for ours, theirs in zip(whole.members, state.members, strict=True):
        for entry, other in zip(ours.history, theirs.history, strict=True):
            assert entry["train_loss"] == pytest.approx(other["train_loss"], abs=1e-3)


def test_a_run_of_the_first_format_is_read(tmp_path):
    run = runs.read(FORMAT1 / "run")
    (record,) = run.records
    assert run.unfinished == 0 and "format" not in run.description
    assert record.kind == "sweep" and record.epochs_trained == 3 and record.depth == 5
    assert record.history.test_accuracy[-1] == 0.8441 and record.origin.data_fingerprint is None
    assert record.history.conflict_rate == [[None] * 5] * 4 and record.probe_seconds == []
    assert record.largest_entropy == math.log(10)


@pytest.mark.parametrize("kind", ["run", "record", "network"])
def test_a_format_of_the_future_is_named(tmp_path, kind):
    shutil.copytree(FORMAT1 / "run", tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    if kind == "record":
        (file,) = (tmp_path / "run" / "cells").iterdir()
    if kind == "network":
        content = changed_network(header=lambda header: {**header, "format": 99})
        with pytest.raises(InputError, match="network of format 99, but this version"):
            saved.decode(content, "file")
        return
    file.write_text(json.dumps({"format": 99, **json.loads(file.read_text())}))
    with pytest.raises(InputError, match=rf"{file.name}: {kind} of format 99, but this version"):
        runs.read(tmp_path / "run")


def changed_network(header=lambda header: header, **arrays):
    """The bytes of a small network whose header, or arrays, are others."""
    with np.load(FORMAT1 / "fc.npz", allow_pickle=False) as archive:
        content = dict(archive)
    content["header"] = np.array(json.dumps(header(json.loads(str(content["header"])))))
    content |= {name: change(content[name]) for name, change in arrays.items()}
    file = io.BytesIO()
    np.savez(file, **content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: np.where(np.arange(len(p)) == 3, np.float32(np.nan), p), "NaN or infinity"),
        (lambda p: p * np.float32(np.inf), "NaN or infinity"),
        (lambda p: p.astype(np.complex64), "complex64, not float32"),
        (lambda p: p.astype(str), "not float32"),
        (lambda p: p.astype(np.float64), "float64, not float32"),
        (lambda p: p.astype(np.int32), "int32, not float32"),
        (lambda p: p[:-1], "needs 78 parameters"),
        (lambda p: p[None], "needs 78 parameters"),
        (lambda p: np.array([{}] * len(p)), "not a network of cbundles"),
    ],
)
def test_wrong_numbers_in_a_network_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        saved.decode(changed_network(params=change), "file")


def test_every_flipped_bit_of_a_checkpoint_is_noticed(tmp_path):
    store = Store(tmp_path)
    content = (FORMAT1 / "checkpoint.msgpack").read_bytes()
    store.save_checkpoint("key", formats.unseal(content))
    (file,) = (tmp_path / "checkpoints").iterdir()
    assert file.read_bytes() == content
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            with pytest.raises(DamagedCheckpoint):
                formats.unseal(flipped)
    for length in (0, 5, 30, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(DamagedCheckpoint):
            store.load_checkpoint("key")


def test_every_flipped_bit_of_a_network_is_noticed_or_harmless():
    """The archive has checksums of its own; what they do not cover is no number."""
    whole = saved.read(FORMAT1 / "fc.npz").network.params
    content = (FORMAT1 / "fc.npz").read_bytes()
    refused = 0
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        try:
            found = saved.decode(bytes(flipped), "file").network.params
        except InputError:
            refused += 1
        else:
            np.testing.assert_array_equal(found, whole)
    assert refused > len(content) // 2


def test_a_run_of_a_newer_version_is_not_overwritten(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="run of format 99"), store.locked():
        pass


def test_a_study_belongs_to_the_numbers_of_its_network(tmp_path):
    """Not to the file that holds them; records of the first format named the file."""
    store, shape = Store(tmp_path), FcShape(6, 3, 4, 2)
    one = saved.read(FORMAT1 / "fc.npz")
    path = tmp_path / WEIGHTS / "abc.npz"
    path.parent.mkdir()

    def write(network, origin):
        path.write_bytes(saved.encode(Saved(shape, network, origin)))

    assert store.network_digest("abc") is None
    write(one.network, {"commit": "one"})
    digest = store.network_digest("abc")
    record = changed(lesion_record(0, conflicting=()), network=digest)
    first = changed(record, network=f"{HASH_OF_FILE}0123456789abcdef")
    write(one.network, {"commit": "another"})
    assert store.network_digest("abc") == digest and store.is_network_of(record, "abc")
    assert not store.is_network_of(first, "abc")
    other = one.network._replace(params=one.network.params + 1)
    write(other, {"commit": "another"})
    assert not store.is_network_of(record, "abc")
    path.write_bytes(b"damaged")
    assert not store.is_network_of(record, "abc")
    path.unlink()
    assert store.is_network_of(record, "abc") and store.is_network_of(first, "abc")


def test_what_is_written_has_its_number(tmp_path):
    store = Store(tmp_path)
    store.finish(lesion_record(0, conflicting=()), LESIONS)
    (file,) = (tmp_path / "lesions").iterdir()
    assert json.loads(file.read_text())["format"] == 3
    store.seal()
    header, _ = (tmp_path / "lesions.jsonl").read_text().splitlines()
    assert json.loads(header)["format"] == 2
    store.write_run({"cells": []})
    assert json.loads((tmp_path / "run.json").read_text())["format"] == 1
