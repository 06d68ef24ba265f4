"""A model without the residual blocks that it does not need, for good.

`remove` takes any model that an audit takes, and gives back a smaller one, with a report of what
that changes. How the parts fit:

    any_model   the way of a removal, for the models of every library: begin here
    given       inputs and labels, checked
    choosing    which residual sums are meant, and why others cannot go
    comparing   latency and predictions, before and after
    removed     `Removed`: what a user gets, whichever library the model is of
    report      `Report`: what went, and what that changed
    on_jax      models on JAX: what is left is a function of the parameters that are left
    pytorch     modules of PyTorch, through `torch.export`

docs/remove.md has examples.
"""

from cbundles.removing.any_model import remove
from cbundles.removing.removed import Removed
from cbundles.removing.report import Report

__all__ = ["Removed", "Report", "remove"]
