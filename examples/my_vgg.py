"""A VGG of one's own, made as shallow as its data set needs.

python examples/my_vgg.py                                       # in a training loop of one's own
cbundles autotune examples.my_vgg:build --dataset mnist_mini    # in that of cbundles
"""

import flax.linen as nn
import jax
import numpy as np
import optax

import cbundles
from cbundles import data


class Block(nn.Module):
    filters: int
    strides: int

    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Conv(self.filters, (3, 3), self.strides)(x))


class VGG(nn.Module):
    blocks: tuple[int, ...]
    filters: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(self.filters, (5, 5), 4, name="stem")(x))
        for stage, count in enumerate(self.blocks):
            for number in range(count):
                strides = 2 if stage and not number else 1
                # The first two numbers of a name say which block it is: its stage, and its place.
                x = Block(self.filters * 2**stage, strides, name=f"stage{stage}_block{number}")(x)
        return nn.Dense(10, name="head")(x.mean((1, 2)))


def build(blocks=(3, 16, 3), filters=8):
    return VGG(tuple(blocks), filters)


def own_loop(images, labels, optimizer):
    def loss(params, model, x, y):
        logits = model.apply({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit(static_argnums=0)
    def step(model, params, state, x, y):
        updates, state = optimizer.update(jax.grad(loss)(params, model, x, y), state)
        return optax.apply_updates(params, updates), state

    def train(model, epoch):
        if isinstance(model, VGG):  # as `build` made it
            params = model.init(jax.random.key(0), images[:1])["params"]
            model = {"module": model, "params": params, "optimizer": optimizer.init(params)}
        order = np.random.default_rng(epoch).permutation(len(images)).reshape(-1, 100)
        for rows in order:
            params, state = model["params"], model["optimizer"]
            params, state = step(model["module"], params, state, images[rows], labels[rows])
            model = {**model, "params": params, "optimizer": state}
        return model

    return train


if __name__ == "__main__":
    digits = data.load("mnist_mini")
    images, labels = np.float32(digits.train_images) / 255, np.asarray(digits.train_labels)
    tuned = cbundles.autotune(
        build,
        (3, 16, 3),
        train=own_loop(images, labels, optax.adam(1e-3)),
        probe=(images[:1024], labels[:1024]),
        check_epochs=2,
        batch_size=100,
        folder="my_vgg",  # the same command then goes on where it was stopped
    )
    print(tuned)
