"""A training loop in Flax with a monitor, which watches all layers while the network trains.

python examples/monitor.py                   # writes runs/monitor/events.jsonl
python examples/monitor.py --tensorboard     # event files, too: pip install 'cbundles[tensorboard]'
"""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import cbundles
from cbundles import data

LEARNING_RATE, BATCH_SIZE, STEPS = 1e-3, 64, 1000


class Perceptron(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1)
        for number in range(20):
            x = nn.relu(nn.Dense(32, name=f"layer{number + 1}")(x))
        return nn.Dense(10, name="head")(x)


def train(steps=STEPS, tensorboard=False):
    digits = data.load("mnist_mini")
    images = np.asarray(digits.train_images, np.float32) / 255
    labels = np.asarray(digits.train_labels)
    model, optimizer = Perceptron(), optax.adam(LEARNING_RATE)
    params = model.init(jax.random.key(0), images[:1])
    state = optimizer.init(params)

    @jax.jit
    def train_step(params, state, x, y):
        def loss(params):
            logits = model.apply(params, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    monitor = cbundles.Monitor(model, images, labels, tensorboard=tensorboard)
    for step in range(steps + 1):
        monitor(step, params)
        batch = (np.arange(BATCH_SIZE) + step * BATCH_SIZE) % len(images)
        params, state = train_step(params, state, jnp.asarray(images[batch]), labels[batch])
    return monitor


if __name__ == "__main__":
    print(train(tensorboard="--tensorboard" in sys.argv[1:]).last.audit)
