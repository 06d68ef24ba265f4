"""Models on JAX without some of their residual blocks.

How the parts fit: `removed` is the way from a model to what a user gets; `smaller` is the smaller
model as a function of the parameters that are left; `costs` compares both models; `exporting`
writes a file of StableHLO.
"""
