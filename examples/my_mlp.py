"""An architecture of one's own for a sweep: any keyword of `build` may be an axis.

cbundles sweep examples/my_mlp.yaml --set training.epochs=1
"""

import flax.linen as nn


class MLP(nn.Module):
    depth: int
    width: int
    normalised: bool

    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1)
        for number in range(self.depth):
            x = nn.Dense(self.width, name=f"layer{number + 1}")(x)
            if self.normalised:
                x = nn.LayerNorm()(x)
            x = nn.relu(x)
        return nn.Dense(10, name="head")(x)


def build(depth, width=64, normalised=False):
    return MLP(depth, width, normalised)
