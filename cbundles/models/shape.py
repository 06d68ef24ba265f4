"""Shapes of networks, and what follows from them. No JAX here, so that plans need none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A fully connected network. inputs and outputs: pixels and classes; depth: hidden layers;
    width: neurons in each."""

    inputs: int
    depth: int
    width: int
    outputs: int

    @property
    def parameters(self) -> int:
        hidden = (self.depth - 1) * (self.width + 1) * self.width
        return (self.inputs + 1) * self.width + hidden + (self.width + 1) * self.outputs

    @property
    def bytes(self) -> int:
        """Of the weights alone, float32."""
        return 4 * self.parameters

    @property
    def flops(self) -> int:
        """Of one sample's forward pass: multiplications and additions of the matrix products."""
        hidden = (self.depth - 1) * self.width * self.width
        return 2 * (self.inputs * self.width + hidden + self.width * self.outputs)
