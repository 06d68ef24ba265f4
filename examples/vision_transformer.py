"""A small vision transformer in Flax nnx, audited: python examples/vision_transformer.py"""

import numpy as np
from flax import nnx
from optax import adam
from optax import softmax_cross_entropy_with_integer_labels as cross_entropy

import cbundles
from cbundles import data


class Block(nnx.Module):
    def __init__(self, width, rngs):
        self.norm1, self.norm2 = (nnx.LayerNorm(width, rngs=rngs) for _ in range(2))
        self.attention = nnx.MultiHeadAttention(4, width, decode=False, rngs=rngs)
        self.expand = nnx.Linear(width, 4 * width, rngs=rngs)
        self.contract = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.contract(nnx.gelu(self.expand(self.norm2(x))))


class VisionTransformer(nnx.Module):
    def __init__(self, blocks, width, rngs):
        self.embed = nnx.Conv(1, width, (7, 7), strides=7, rngs=rngs)  # 4 x 4 patches
        self.positions = nnx.Param(0.02 * rngs.params.normal((16, width)))
        self.blocks = nnx.List([Block(width, rngs) for _ in range(blocks)])
        self.head = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, images):
        x = self.embed(images).reshape(len(images), *self.positions.shape) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def load_images():
    digits = data.load("mnist_mini")
    return np.asarray(digits.train_images, np.float32) / 255, np.asarray(digits.train_labels)


def build():
    (images, labels), model = load_images(), VisionTransformer(4, 32, nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, adam(1e-3), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y):
        optimizer.update(model, nnx.grad(lambda model: cross_entropy(model(x), y).mean())(model))

    for batch in np.arange(60 * 64).reshape(60, 64):
        step(model, optimizer, images[batch], labels[batch])
    return model


if __name__ == "__main__":
    audit = cbundles.audit(build(), *(array[:2048] for array in load_images()))
    print(audit)
    audit.plot("vision_transformer.png")
