"""Ranger: RAdam inside Lookahead, with decoupled weight decay (paper, sec. 3.1).

RAdam (Liu et al., 2020) rectifies Adam's adaptive step while its variance is still unreliable: for
the first five steps the plain bias-corrected mean is used. Weight decay is added to the step before
the learning rate, for every variable. Lookahead (Zhang et al., 2019) sets slow and fast weights to
slow + 0.5 (fast - slow) every sixth step. The network that trains and is measured has the fast
weights.
"""

from __future__ import annotations

import numpy as np
import optax
from jaxtyping import Array, Float


def ranger(
    learning_rate: float | Float[Array, ""] = 1e-3,
    *,
    weight_decay: float = 1e-2,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    threshold: float = 5.0,
    sync_period: int = 6,
    slow_step_size: float = 0.5,
) -> optax.GradientTransformation:
    """An optax transformation whose parameters are `optax.LookaheadParams` (fast and slow).

    Args:
        learning_rate: a number, or a float32 scalar where it differs between stacked networks.
        weight_decay: times the learning rate; for every variable.
        b1, b2, eps, threshold: those of RAdam; from more than `threshold` degrees of freedom on its
            step is rectified.
        sync_period, slow_step_size: those of Lookahead.

    >>> import jax.numpy as jnp, optax
    >>> params = optax.LookaheadParams.init_synced({"w": jnp.ones(3)})
    >>> optimizer = ranger(learning_rate=1e-3)
    >>> state = optimizer.init(params)
    >>> gradient = {"w": jnp.ones(3)}                       # of the fast weights
    >>> updates, state = optimizer.update(gradient, state, params)
    >>> params = optax.apply_updates(params, updates)
    """
    # In float32, 1 - 0.999 is off 0.001 by 1e-5 (relative). The bias correction 1 - b2^t is
    # computed on the device with that error; the average's own factor 1 - b2 must carry the same
    # one, or the two no longer cancel.
    b1, b2 = float(np.float32(b1)), float(np.float32(b2))
    radam = optax.chain(
        optax.scale_by_radam(b1=b1, b2=b2, eps=eps, threshold=threshold),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )
    return optax.lookahead(radam, sync_period=sync_period, slow_step_size=slow_step_size)
