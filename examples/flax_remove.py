"""A ResNet in Flax linen without the blocks that it needs least: python examples/flax_remove.py"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import cbundles
from cbundles import data


class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(16, (5, 5), 2)(x))
        for _ in range(8):
            h = nn.BatchNorm(not train, momentum=0.9)(nn.Conv(16, (3, 3))(x))
            h = nn.BatchNorm(not train, momentum=0.9)(nn.Conv(16, (3, 3))(nn.relu(h)))
            x = nn.relu(x + h)
        return nn.Dense(10)(x.mean((1, 2)))


def build(images, labels, steps=120):
    model, optimizer = ResNet(), optax.adam(3e-3)
    variables = model.init(jax.random.key(0), images[:1])
    state = optimizer.init(variables["params"])

    @jax.jit
    def step(variables, state, x, y):
        def loss(params):
            whole = {**variables, "params": params}
            logits, moved = model.apply(whole, x, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), moved

        gradient, moved = jax.grad(loss, has_aux=True)(variables["params"])
        updates, state = optimizer.update(gradient, state)
        return {"params": optax.apply_updates(variables["params"], updates), **moved}, state

    for batch in np.arange(steps * 64).reshape(steps, 64):
        variables, state = step(variables, state, images[batch], labels[batch])
    return model, variables


if __name__ == "__main__":
    digits = data.load("mnist_mini")
    images, labels = jnp.asarray(digits.train_images) / 255, jnp.asarray(digits.train_labels)
    model, variables = build(images, labels)
    seen, x, y = images[:1024], images[-1024:], labels[-1024:]  # the last ones not in training
    audit = cbundles.audit(model, seen, labels[:1024], params=variables, layers="sum", lesion=True)
    print(audit)

    least = audit.lesions.curves["greedy"].order[:2]
    removed = cbundles.remove(model, least, params=variables, inputs=x, labels=y, recalibrate=seen)
    print("", removed, sep="\n")
    cbundles.audit(removed.model, x, y, params=removed.params).plot("flax_remove.png")
