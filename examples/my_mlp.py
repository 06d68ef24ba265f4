"""An architecture of one's own for a sweep: any keyword of `build` may be an axis.

cbundles sweep examples/my_mlp.yaml --set training.epochs=1
"""

import flax.linen as nn


class MLP(nn.Module):
    depth: int
    width: int
    skip: bool

    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1)
        for number in range(self.depth):
            h = nn.relu(nn.Dense(self.width, name=f"layer{number + 1}")(x))
            x = x + h if self.skip and number else h
        return nn.Dense(10, name="head")(x)


def build(depth, width=64, skip=False):
    return MLP(depth, width, skip)
