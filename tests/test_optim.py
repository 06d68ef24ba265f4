"""Ranger against 60 recorded steps of the original optimizer."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest
from conftest import GOLDEN

from cbundles.optim import ranger


@pytest.mark.parametrize("name", sorted(p.stem for p in GOLDEN.glob("ranger_*.npz")))
def test_trajectory(golden, name):
    case = golden(name)
    optimizer = ranger(float(case["lr"]))
    params = optax.LookaheadParams.init_synced([case[f"w0_{i}"] for i in range(3)])
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    for t in range(60):
        params, state = step(params, state, [case[f"g_{i}"][t] for i in range(3)])
        for i in range(3):
            np.testing.assert_allclose(params.fast[i], case[f"w_{i}"][t], rtol=0, atol=1e-6)
    for i in range(3):
        np.testing.assert_allclose(params.slow[i], case[f"final_slow_{i}"], rtol=0, atol=1e-6)


def test_all_golden_trajectories_are_here():
    assert len(list(GOLDEN.glob("ranger_*.npz"))) == 3


def test_slow_weights_move_every_sixth_step_only():
    optimizer = ranger(0.1)
    params = optax.LookaheadParams.init_synced(np.ones(3, np.float32))
    state = optimizer.init(params)
    moved = []
    for step in range(1, 13):
        updates, state = optimizer.update(np.full(3, 0.5, np.float32), state, params)
        new = optax.apply_updates(params, updates)
        if not np.array_equal(new.slow, params.slow):
            moved.append(step)
            np.testing.assert_allclose(new.fast, new.slow, rtol=1e-6)
        params = new
    assert moved == [6, 12]


def test_zero_gradient_of_a_zero_weight_moves_nothing():
    """Padding relies on it."""
    optimizer = ranger()
    params = optax.LookaheadParams.init_synced(np.zeros(4, np.float32))
    state = optimizer.init(params)
    for _ in range(20):
        updates, state = optimizer.update(np.zeros(4, np.float32), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(params.fast, np.zeros(4))
