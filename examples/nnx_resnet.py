"""A ResNet in Flax nnx, audited as training leaves it: python examples/nnx_resnet.py"""

import numpy as np
import optax
from flax import nnx

import cbundles
from cbundles import data


class Block(nnx.Module):
    def __init__(self, filters, rngs):
        self.conv1, self.conv2 = (nnx.Conv(filters, filters, (3, 3), rngs=rngs) for _ in range(2))
        self.norm1, self.norm2 = (nnx.BatchNorm(filters, rngs=rngs) for _ in range(2))

    def __call__(self, x):
        return nnx.relu(x + self.norm2(self.conv2(nnx.relu(self.norm1(self.conv1(x))))))


class ResNet(nnx.Module):
    def __init__(self, blocks, filters, rngs):
        self.stem = nnx.Conv(1, filters, (7, 7), strides=4, rngs=rngs)
        self.blocks = nnx.List([Block(filters, rngs) for _ in range(blocks)])
        self.head = nnx.Linear(filters, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


def load_images():
    digits = data.load("mnist_mini")
    return np.asarray(digits.train_images, np.float32) / 255, np.asarray(digits.train_labels)


def build(steps=60):
    images, labels = load_images()
    model = ResNet(4, 16, nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)

    def loss(model, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    @nnx.jit
    def step(model, optimizer, x, y):
        optimizer.update(model, nnx.grad(loss)(model, x, y))

    for batch in np.arange(steps * 64).reshape(steps, 64):
        step(model, optimizer, images[batch], labels[batch])
    return model


if __name__ == "__main__":
    images, labels = load_images()
    audit = cbundles.audit(build(), images[:2048], labels[:2048])
    print(audit)
    audit.plot("nnx_resnet.png")
