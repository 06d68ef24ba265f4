"""Activations that are hard to tell apart, against bundles that are counted by brute force.

The oracle of the tests (`tests/oracle.py`) shares no method with the product: dictionaries of rows,
sums in float64. Arguments that make no sense must be refused with a ValueError.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from attacks.attempt import Attempt
from cbundles import bundle_entropy
from cbundles.bundles.equality import RESOLUTIONS

TESTS = Path(__file__).parents[2] / "tests"
CLASSES = 4
# Few, since each is compiled anew.
SAMPLES, COLUMNS = (1, 2, 24), ((1,), (3,), (2, 4))
LEARNING_RATES, BATCHES = (1e-3, 1e-4, 0.1, 1.0, 3e-5), (1, 48, 64, 100)
AMPLITUDES = (0.0, 1e-3, 0.37, 0.5, 1.0, 11.5, 400.0)
SMALLEST = np.finfo(np.float32).tiny  # what is smaller, a processor may take for zero
ODD_VALUES = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    1e-7,
    2e-7,
    1e3,
    1e30,
    3e38,
    1e-30,
    math.nan,
    math.inf,
    -math.inf,
)


def attempts(chance: Random, count: int, folder: Path) -> Iterator[Attempt]:
    sys.path.insert(0, str(TESTS))
    oracle = importlib.import_module("oracle")
    for number in range(count):
        if number % 5 == 0:
            yield _nonsense(chance)
        else:
            yield _measured(chance, oracle)


def _measured(chance: Random, oracle: Any) -> Attempt:
    a = _activations(chance)
    as_read = np.where(np.abs(a) < SMALLEST, np.float32(0), a)
    labels = np.array([chance.randrange(CLASSES) for _ in a])
    rate, batch = chance.choice(LEARNING_RATES), chance.choice(BATCHES)
    how: dict[str, Any] = {"learning_rate": rate, "batch_size": batch, "num_classes": CLASSES}
    if chance.random() < 0.3:
        gamma = chance.choice((0.0, 1e-8, 1e-5, 1e-3))
        how |= {"equality": "gamma", "gamma": gamma}
        with np.errstate(all="ignore"):
            factor = np.float32(rate) * np.float32(1 / batch)
            ids = oracle.leader_ids(as_read, factor, gamma)
    else:
        amplitude, resolution = chance.choice(AMPLITUDES), chance.choice(RESOLUTIONS)
        how |= {"amplitude": amplitude, "resolution": resolution}
        with np.errstate(all="ignore"):
            q = oracle.weight_update(as_read, amplitude, rate, batch, resolution)
            ids = oracle.bundle_ids(q)
    what = f"{a.tolist()!r} {labels.tolist()} {how}"
    try:
        found = bundle_entropy(a, labels, **how)
    except Exception as error:
        return Attempt(what, f"{type(error).__name__}: {error}")
    return Attempt(what, _difference(found, ids, labels, oracle))


def _difference(found: Any, ids: np.ndarray, labels: np.ndarray, oracle: Any) -> str | None:
    if found.bundle_ids.tolist() != ids.tolist():
        return f"bundles {found.bundle_ids.tolist()}, by brute force {ids.tolist()}"
    if found.diverged:
        return None if found.entropy is None else "diverged, and has an entropy"
    entropy, rate = oracle.entropy(ids, labels, CLASSES), oracle.conflict_rate(ids, labels)
    if abs(found.entropy - entropy) > 2e-6 or abs(found.conflict_rate - rate) > 1e-12:
        return f"H {found.entropy}, c {found.conflict_rate}; by brute force {entropy}, {rate}"
    return None


def _activations(chance: Random) -> np.ndarray:
    """Rows of which many are equal, or differ in their last bit, or not after the update."""
    samples, columns = chance.choice(SAMPLES), chance.choice(COLUMNS)
    size = (samples, *columns)
    draws = np.random.default_rng(chance.randrange(2**32))
    match chance.randrange(5):
        case 0:
            a = draws.choice(ODD_VALUES, size)
        case 1:
            a = draws.integers(-2, 3, size) * 10.0 ** draws.integers(-8, 6)
        case 2:  # neighbours of the same numbers
            a = draws.integers(0, 3, size).astype(np.float32)
            a = np.nextafter(a, draws.choice((-1e9, 1e9), size).astype(np.float32))
        case 3:  # steps that are about as large as the update can see
            a = 1 + draws.integers(0, 4, size) * 10.0 ** draws.integers(-6, 0)
        case _:
            a = draws.standard_normal(size) * 10.0 ** draws.integers(-12, 8, size)
    rows = a.astype(np.float32)
    return rows[draws.integers(0, samples, samples)] if chance.random() < 0.5 else rows


NONSENSE: tuple[dict[str, Any], ...] = (
    {"labels": [0.5, 1]}, {"labels": [0, -1]}, {"labels": [0, CLASSES]}, {"labels": [0]},
    {"labels": [[0], [1]]}, {"labels": ["a", "b"]}, {"labels": None}, {"labels": [True, False]},
    {"labels": [0, 10**30]}, {"labels": np.array([0, 2**63], np.uint64)}, {"labels": []},
    {"activations": []}, {"activations": None}, {"activations": "text"}, {"activations": 1.0},
    {"activations": [[1, 2], [3]]}, {"activations": np.ones((2, 0))}, {"activations": [1, 2]},
    {"activations": np.ones((2, 3), complex)}, {"activations": np.array([object(), None])},
    {"activations": [np.ones((2, 3)), np.ones((2, 3))]}, {"activations": {"a": 1}},
    {"num_classes": 0}, {"num_classes": -1}, {"num_classes": 2.0}, {"num_classes": None},
    {"num_classes": 10**30}, {"num_classes": True}, {"batch_size": 0}, {"batch_size": 0.5},
    {"learning_rate": 0}, {"learning_rate": -1}, {"learning_rate": math.nan},
    {"learning_rate": math.inf}, {"learning_rate": "fast"}, {"learning_rate": 1e-46},
    {"amplitude": None}, {"amplitude": -1}, {"amplitude": math.nan}, {"amplitude": 1e39},
    {"amplitude": "large"}, {"amplitude": [1]}, {"equality": "gama"}, {"equality": None},
    {"equality": ["gamma"]}, {"gamma": -1.0}, {"gamma": math.nan}, {"gamma": 1e-3},
    {"resolution": "float23"}, {"resolution": None}, {"resolution": "float64"},
    {"equality": "gamma", "resolution": "float16"},
)  # fmt: skip


def _nonsense(chance: Random) -> Attempt:
    """An argument, or two, that must be refused."""
    wrong = chance.choice(NONSENSE)
    if chance.random() < 0.3:
        wrong = {**wrong, **chance.choice(NONSENSE)}
    sound = {
        "activations": np.ones((2, 3), np.float32),
        "labels": [0, 1],
        "num_classes": CLASSES,
        "amplitude": 0.5,
    }
    arguments: dict[str, Any] = {**sound, **wrong}
    activations, labels = arguments.pop("activations"), arguments.pop("labels")
    try:
        bundle_entropy(activations, labels, **arguments)
    except ValueError:
        return Attempt(repr(wrong), None)
    except Exception as error:
        return Attempt(repr(wrong), f"{type(error).__name__}: {error}")
    return Attempt(repr(wrong), "accepted")
