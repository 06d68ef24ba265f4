"""Which weight sets the scale: the largest of the model, or of the layer that reads an activation.

A weight moves by steps of its own floating-point grid, and the papers take the largest weight of
the whole model, so that one outlier decides for all layers. It is therefore always said which one
it is, and what can be told apart beside it, in units of the activation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from cbundles.arrays import Numbers
from cbundles.errors import did_you_mean
from cbundles.observe.layers import Sites

GLOBAL, CONSUMER = "global", "consumer"
CHOICES = (GLOBAL, CONSUMER)


class Amplitude(NamedTuple):
    """The largest weight of a model.

    parameter: where it is; None for a number that was given.
    times_median: how many times the median of the largest weights of all layers.
    """

    value: float
    parameter: str | None = None
    times_median: float | None = None


def largest_weights(parameters: Mapping[str, Numbers]) -> dict[str, float]:
    """The largest absolute number of each parameter; of a complex one, that of both parts."""
    return {name: _largest(np.asarray(parameter)) for name, parameter in parameters.items()}


def _largest(array: np.ndarray) -> float:
    parts = (array.real, array.imag) if np.iscomplexobj(array) else (array,)
    return float(np.max([np.abs(np.asarray(one, np.float32)).max(initial=0.0) for one in parts]))


def largest_of_model(largest: Mapping[str, float]) -> Amplitude:
    """The largest weight of all; NaN counts as larger than any number."""
    by_layer: dict[str, float] = {}
    for name, value in largest.items():
        layer = name.rpartition("/")[0] or name  # a number that stands alone is a layer
        by_layer[layer] = max(by_layer.get(layer, 0.0), value, key=_nan_last)
    parameter = max(largest, key=lambda name: _nan_last(largest[name]))
    median = float(np.median(list(by_layer.values())))
    value = largest[parameter]
    return Amplitude(value, parameter, value / median if median else None)


def _nan_last(value: float) -> tuple[bool, float]:
    return math.isnan(value), value


def checked_choice(choice: str | float) -> str | float:
    """`GLOBAL`, `CONSUMER` or a number. Raises ValueError."""
    if isinstance(choice, str):
        if choice not in CHOICES:
            raise ValueError(
                f"amplitude = {choice!r}: {did_you_mean(choice, CHOICES)}, or a number"
            )
        return choice
    try:
        number = float(choice)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number < float(np.finfo(np.float32).max):
        raise ValueError(f"amplitude = {choice!r}: must be global, consumer or a number from 0 on")
    return number


def amplitude_of_model(choice: str | float, largest: Mapping[str, float]) -> Amplitude:
    """The weight that sets the scale of the whole model. Raises ValueError where none is known."""
    if not isinstance(choice, str):
        return Amplitude(choice)
    if not largest:
        raise ValueError(
            "which weights are trained? None are known of this model: pass params= of a function "
            "(params, batch) -> output, or amplitude=NUMBER, the largest absolute weight"
        )
    return largest_of_model(largest)


def amplitudes_at(
    names: Iterable[str], choice: str | float, largest: Mapping[str, float], sites: Sites
) -> dict[str, float]:
    """w for each site, by its name. Raises ValueError where the layers that read a site are not
    known."""
    names = list(names)
    if choice != CONSUMER:
        return dict.fromkeys(names, amplitude_of_model(choice, largest).value)
    if sites.readers is None:
        raise ValueError(
            'amplitude="consumer": the weights are inside the function, so that nobody knows '
            "which layer reads a value; pass the module, and call=lambda model, batch: ..."
        )
    everywhere = largest_of_model(largest).value  # of what no layer reads
    found = {}
    for name in names:
        reading = [largest[parameter] for parameter in sites.readers[name]]
        found[name] = max(reading, default=everywhere)
    return found


def resolution_of(amplitude: float, learning_rate: float, batch_size: int) -> float:
    """How far activations must differ to be told apart beside this weight, in their own units."""
    return float(np.spacing(np.float32(amplitude))) * batch_size / learning_rate
