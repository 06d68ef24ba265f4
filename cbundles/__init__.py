"""cbundles: find the layers of a deep classifier that conflict, after one epoch.

>>> from cbundles import bundle_entropy          # the metric, for your own activations
>>> from cbundles import audit                   # the metric, for all layers of your own model
>>> from cbundles import Monitor                 # the same while it trains, in your own loop
>>> from cbundles import remove                  # your own model without blocks it does not need
>>> from cbundles import autotune                # the depth that your own model needs
>>> from cbundles import load                    # a trained network, as a Flax module
>>> from cbundles.observe import observe         # values inside any JAX function
>>> from cbundles.optim import ranger            # the paper's optimizer, for optax
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cbundles import bundles, observe, optim
    from cbundles.auditing import Audit, audit
    from cbundles.autotuning import Tuned, autotune
    from cbundles.bundles import Bundles, Headroom, bundle_entropy, headroom
    from cbundles.monitoring import Monitor
    from cbundles.networks.saved import load
    from cbundles.removing import Removed, remove

__version__ = "0.1.0"
__all__ = [
    "Audit",
    "Bundles",
    "Headroom",
    "Monitor",
    "Removed",
    "Tuned",
    "__version__",
    "audit",
    "autotune",
    "bundle_entropy",
    "bundles",
    "headroom",
    "load",
    "observe",
    "optim",
    "remove",
]

# Where a name comes from. JAX is imported when it is needed, not before.
HOMES = {
    "Audit": "cbundles.auditing",
    "Bundles": "cbundles.bundles",
    "Headroom": "cbundles.bundles",
    "Monitor": "cbundles.monitoring",
    "Removed": "cbundles.removing",
    "Tuned": "cbundles.autotuning",
    "audit": "cbundles.auditing",
    "autotune": "cbundles.autotuning",
    "bundle_entropy": "cbundles.bundles",
    "headroom": "cbundles.bundles",
    "load": "cbundles.networks.saved",
    "remove": "cbundles.removing",
}
MODULES = ("bundles", "observe", "optim")


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(importlib.import_module(HOMES[name]), name)
    if name in MODULES:
        return importlib.import_module(f"cbundles.{name}")
    raise AttributeError(f"module 'cbundles' has no attribute {name!r}")
