"""Functions that many tests call, compiled: operation by operation, every call compiles anew."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from cbundles import train
from cbundles.networks import conv, conv_insertion, insertion, network, watched

# Many programs that run once: compiling them as little as possible takes a quarter of the time.
quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

logits = quickly(network.logits, static_argnums=(0, 3))
moving_logits = quickly(network.moving_logits, static_argnums=(0, 3))
masked_logits = quickly(watched.masked_logits, static_argnums=0)
recalibrated = quickly(network.recalibrated, static_argnums=0)
# (loss, statistics) and the gradient by the parameters
slope = quickly(jax.value_and_grad(train.loss_of, has_aux=True), static_argnums=4)

gradients = quickly(insertion.gradients, static_argnums=(0, 4))
scores = quickly(insertion.scores, static_argnums=(0, 4))
insert = quickly(insertion.insert, static_argnums=(0, 3), static_argnames="virtual")
resize = quickly(insertion.resize, static_argnums=(0, 2))
conv_gradients = quickly(conv_insertion.gradients, static_argnums=0)


@functools.partial(quickly, static_argnums=(0, 3, 4))
def seen(shape, subject, x, see=lambda a: a, norm=conv.RUNNING, keep=None):
    """Logits; see(output) of each layer or block; and see(scaled branch) of each block of a ResNet.
    keep: which branches are there, bool (blocks,)."""
    traced = watched.Watched(shape, subject, x, norm)
    read = dict.fromkeys(traced.outputs, see)
    branches = traced.sites(conv.BRANCH) if getattr(shape, "residual", False) else []
    if branches:

        def see_scaled(first, second, branch):
            return see(branch * watched.branch_scale(first, second))

        groups = watched.groups(traced, conv.FIRST, conv.SECOND, conv.BRANCH)
        read |= dict.fromkeys(groups, see_scaled)
    kept = {} if keep is None else watched.by_site(branches, keep)
    found, values = traced.run(read=read, keep=kept)
    return found, watched.by_block(traced.outputs, values), watched.by_block(branches, values)


def layers(shape, subject, x):
    """The output of every hidden layer of a fully connected network, (depth, B, width)."""
    return jnp.stack(seen(shape, subject, x)[1])
