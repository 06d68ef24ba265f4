"""Functions that many tests call, compiled: operation by operation, every call compiles anew."""

from __future__ import annotations

import functools

import jax

from cbundles import train
from cbundles.models import conv, conv_insertion, fc, insertion, network

# Many programs that run once: compiling them as little as possible takes a quarter of the time.
quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

logits = quickly(network.logits, static_argnums=0)
recalibrated = quickly(network.recalibrated, static_argnums=0)
# (loss, statistics) and the gradient by the parameters
slope = quickly(jax.value_and_grad(train.loss_of, has_aux=True), static_argnums=4)

forward = quickly(fc.forward, static_argnames="block")
visit_layers = quickly(fc.visit_layers, static_argnums=2, static_argnames="block")
conv_forward = quickly(conv.forward, static_argnames=("residual", "norm", "visit", "inserted"))

gradients = quickly(insertion.gradients, static_argnums=(0, 4))
scores = quickly(insertion.scores, static_argnums=(0, 4))
insert = quickly(insertion.insert, static_argnums=(0, 3), static_argnames="virtual")
resize = quickly(insertion.resize, static_argnums=(0, 2))
conv_gradients = quickly(conv_insertion.gradients, static_argnums=0)
