"""Helpers for tests that build networks."""

from __future__ import annotations

import numpy as np

from cbundles.networks import fc


def golden_params(case, prefix="w:") -> fc.Params:
    """The parameters of a stored network of width 10 and depth 4, in our layout."""
    hidden = range(1, 4)
    return fc.Params(
        first=case[f"{prefix}fc0/kernel"],
        first_bias=case[f"{prefix}fc0/bias"],
        hidden=np.stack([case[f"{prefix}fc{i}/kernel"] for i in hidden]),
        hidden_bias=np.stack([case[f"{prefix}fc{i}/bias"] for i in hidden]),
        last=case[f"{prefix}out/kernel"],
        last_bias=case[f"{prefix}out/bias"],
    )


def cut(params: fc.Params, depth: int, width: int) -> fc.Params:
    """The network inside a padded one."""
    return fc.Params(
        params.first[:, :width],
        params.first_bias[:width],
        params.hidden[: depth - 1, :width, :width],
        params.hidden_bias[: depth - 1, :width],
        params.last[:width],
        params.last_bias,
    )
