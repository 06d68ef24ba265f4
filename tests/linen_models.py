"""What tests of linen modules share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def drawn(model, x):
    """Variables of a linen model, drawn without compiling its `init`."""
    random = np.random.default_rng(0)

    def draw(path, like):
        values = 0.4 * random.standard_normal(like.shape).astype(np.float32)
        is_positive = path[-1].key in ("var", "scale")
        return jnp.asarray(0.5 + abs(values) if is_positive else values)

    return jax.tree.map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0), x))
