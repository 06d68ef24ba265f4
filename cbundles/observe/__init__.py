"""Sites of any JAX function: read, gate, leave out or perturb the values made inside it.

A model is a plain function, without a line that measures it. `observe` traces it, finds its
*sites* (values that have a name, activations, residual sums and their branches, linear maps,
convolutions), and runs it with something done at them, in one compiled program:

    read      hand the value to a reduction
    gate      multiply it
    keep      leave it out, at run time and without the time it takes
    perturb   add zeros whose gradient is wanted

What is left without some residual branches, for good, `Observed.without` tells.

How the parts fit: `program` says what a program is to those who look for sites; `jaxprs` writes a
traced one out as steps in a row, and alone knows versions of JAX; `sites` finds the sites among the
steps, `consumers` the parameters that read them, and `outputs` which of them make the output;
`interpret` evaluates the steps with effects at the sites; `removal` leaves branches out for good;
`observed` is what users call; `modules` gives modules of flax.nnx their names. `layers` shows the
sites of a model from its samples, and `selection` says which of them are measured as layers.
docs/observe.md has examples.
"""

from cbundles.observe.modules import nnx_function
from cbundles.observe.observed import Observed, Selector, observe
from cbundles.observe.removal import Part, Remainder, ResidualSum
from cbundles.observe.sites import KINDS, Site, Skipped

__all__ = [
    "KINDS",
    "Observed",
    "Part",
    "Remainder",
    "ResidualSum",
    "Selector",
    "Site",
    "Skipped",
    "nnx_function",
    "observe",
]
