"""A convolutional network in Flax linen: trained for a moment, then audited.

python examples/linen_cnn.py                                       # writes linen_cnn.png
cbundles audit examples.linen_cnn:build --dataset mnist_mini       # the same on the command line
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import cbundles
from cbundles import data

LEARNING_RATE, BATCH_SIZE, STEPS = 1e-3, 64, 100


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        for number, filters in enumerate((8, 8, 16, 16, 32, 32)):
            strides = 2 if number % 2 else 1
            x = nn.relu(nn.Conv(filters, (3, 3), strides, name=f"conv{number + 1}")(x))
        return nn.Dense(10, name="head")(x.mean((1, 2)))


def load_images():
    digits = data.load("mnist_mini")
    return np.asarray(digits.train_images, np.float32) / 255, np.asarray(digits.train_labels)


def build(steps=STEPS):
    images, labels = load_images()
    model, optimizer = CNN(), optax.adam(LEARNING_RATE)
    params = model.init(jax.random.key(0), images[:1])
    state = optimizer.init(params)

    def loss(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y).mean()

    @jax.jit
    def step(params, state, x, y):
        updates, state = optimizer.update(jax.grad(loss)(params, x, y), state)
        return optax.apply_updates(params, updates), state

    for number in range(steps):
        batch = slice(number * BATCH_SIZE, (number + 1) * BATCH_SIZE)
        params, state = step(params, state, jnp.asarray(images[batch]), labels[batch])
    return model, params


if __name__ == "__main__":
    model, params = build()
    images, labels = load_images()
    audit = cbundles.audit(model, images[:2048], labels[:2048], params=params)
    print(audit)
    audit.plot("linen_cnn.png")
