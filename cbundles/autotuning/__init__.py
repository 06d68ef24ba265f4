"""The paper's auto-tuning (sec. 3.6) of anybody's model, in anybody's training loop.

How the parts fit:

    any_model   the way of an auto-tuning, from a start that is too deep to a network that does not
                conflict: begin here
    asked       what it is asked for, checked first, and kept as plain data
    tuned       `Tuned`: what it leads to, as a chain of attempts, a model and a table row
    trained     what a training loop returns, as a model and its numbers; and these as a file
    progress    what was decided, as a file, from which an interrupted auto-tuning goes on

What is decided stands in `decisions.autotune`, as for the command; what is measured is an audit.
docs/depth.md has examples.
"""

from cbundles.autotuning.any_model import autotune
from cbundles.autotuning.tuned import Attempt, Tuned

__all__ = ["Attempt", "Tuned", "autotune"]
