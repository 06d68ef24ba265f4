"""A perceptron in Equinox, which takes one image at a time: audited under vmap.

pip install 'cbundles[equinox]'
python examples/equinox_mlp.py                                     # writes equinox_mlp.png
cbundles audit examples.equinox_mlp:build --dataset mnist_mini     # the same on the command line
"""

import equinox as eqx
import jax
import numpy as np
import optax

import cbundles
from cbundles import data


class MLP(eqx.Module):
    layers: list[eqx.nn.Linear]

    def __init__(self, *sizes, key):
        shapes = zip(sizes[:-1], sizes[1:], jax.random.split(key, len(sizes) - 1), strict=True)
        self.layers = [eqx.nn.Linear(inputs, outputs, key=key) for inputs, outputs, key in shapes]

    def __call__(self, image):
        x = image.reshape(-1)
        for number, layer in enumerate(self.layers[:-1]):
            with jax.named_scope(f"layer{number + 1}"):  # modules of Equinox open no scopes
                x = jax.nn.relu(layer(x))
        return self.layers[-1](x)


def load_images():
    digits = data.load("mnist_mini")
    return np.asarray(digits.train_images, np.float32) / 255, np.asarray(digits.train_labels)


def build(steps=100):
    (images, labels), optimizer = load_images(), optax.adam(1e-3)
    model = MLP(784, 50, 50, 50, 50, 50, 50, 10, key=jax.random.key(0))
    state = optimizer.init(eqx.filter(model, eqx.is_array))

    @eqx.filter_jit
    def step(model, state, x, y):
        def loss(model):
            return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(x), y).mean()

        updates, state = optimizer.update(eqx.filter_grad(loss)(model), state)
        return eqx.apply_updates(model, updates), state

    for batch in np.arange(steps * 64).reshape(steps, 64):
        model, state = step(model, state, images[batch], labels[batch])
    return jax.vmap(model)


if __name__ == "__main__":
    images, labels = load_images()
    audit = cbundles.audit(build(), images[:2048], labels[:2048])
    print(audit)
    audit.plot("equinox_mlp.png")
