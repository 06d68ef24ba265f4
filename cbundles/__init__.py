"""cbundles: find the layers that keep a deep classifier from learning, after one epoch.

>>> from cbundles import bundle_entropy          # the metric, for your own activations
>>> from cbundles.optim import ranger            # the paper's optimizer, for optax
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cbundles.bundles import Bundles, bundle_entropy

__version__ = "0.1.0"
__all__ = ["Bundles", "__version__", "bundle_entropy"]


def __getattr__(name: str) -> Any:
    if name in ("Bundles", "bundle_entropy"):  # JAX is imported when it is needed, not before
        from cbundles import bundles

        return getattr(bundles, name)
    raise AttributeError(f"module 'cbundles' has no attribute {name!r}")
