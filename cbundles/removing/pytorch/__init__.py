"""Modules of PyTorch without some of their residual blocks.

How the parts fit: `module` is the way from a module to a smaller one; `branches` finds the residual
sums, and calls a module without some of their branches; `exporting` makes a module of what it then
computes, through `torch.export`, and `in_place` saves it memory; `costs` compares both modules.
PyTorch is imported by whoever made the model, not here.
"""
