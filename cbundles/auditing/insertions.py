"""Where one more layer would help: the sensitivity of a layer that does not exist.

Behind every activation stands a *virtual* layer, which computes the identity; the gradient of the
loss by its weights says how much a real one would help there. Its closed form needs the activation
and the gradient by it alone, so one backward pass serves all places, and no larger model is built.
The forms are those by which our own networks grow, in `networks.insertion` and `conv_insertion`:

    the activation              the layer
    is never negative           relu(W h), W the identity
    is negative somewhere       h + tanh(W h), W zero

W is a matrix for each sample or token, and for images a kernel of 3 x 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, PyTree

from cbundles.arrays import Numbers
from cbundles.auditing.batches import Batches, length_of
from cbundles.auditing.insertion_findings import Existing, Insertion, Insertions, ranked
from cbundles.auditing.subject import Scores, Subject
from cbundles.networks import conv_insertion, fc, insertion
from cbundles.observe import Site, Skipped
from cbundles.observe.layers import Sites, names_of

ACTIVATION = "activation"
IDENTITY, RESIDUAL = fc.PLAIN, "residual1-tanh"  # blocks of `networks.insertion`
FORMS = {IDENTITY: "relu({0})", RESIDUAL: "x + tanh({0})"}
NOT_REACHED = "no gradient of the loss reaches it"
NOT_FINITE = "its gradient is not finite"
NO_LAYER = "no square layer fits its shape, {shape}"
ONE_AXIS = "a convolution along one axis reads it, and no square layer is known for that"


class _Place(NamedTuple):
    """Where a virtual layer is considered.

    block: which of `FORMS`.
    repeats: over how many axes the activation repeats.
    is_image: whether its rows are images; of their axes the second is that of the channels, or the
        last one.
    """

    block: str
    repeats: int
    is_image: bool
    channels_first: bool


def insertions_of(
    subject: Subject,
    sites: Sites,
    batches: Batches,
    labels: Int32[np.ndarray, "samples ..."],
    scores: Scores,
) -> Insertions:
    """The sensitivity of a layer behind every activation, and of the layers that exist. Raises
    NoGradient."""
    considered, skipped = _considered(subject, sites, length_of(batches.first))
    places = _places(subject, sites, considered, batches)
    reducer = _Reducer(places)
    virtual: dict[str, Float32[np.ndarray, "repeats weights"]] = {}
    by_parameters: dict[str, np.ndarray] = {}
    seen = 0
    for start, batch in batches:
        part = slice(start, start + length_of(batch))
        # Of samples that came in the batch before as well, only what is new counts.
        weights = (np.arange(part.start, part.stop) >= seen).astype(np.float32)
        seen = part.stop
        names = [site.name for site in considered]
        found, slopes = subject.slopes(
            batch, labels[part], weights / labels.size, scores, names, reducer
        )
        for name, gradient in found.items():
            virtual[name] = virtual.get(name, 0) + np.asarray(gradient, np.float32)
        for name, slope in slopes.items():
            by_parameters[name] = by_parameters.get(name, 0) + np.asarray(slope, np.float32)

    inserted: list[Insertion] = []
    for site in considered:
        kind, shape = _layer_in_words(places[site.name], _features(site, places[site.name]))
        for name, gradient in zip(names_of(site), virtual[site.name], strict=True):
            reason = _why_unknown(gradient)
            if reason is not None:
                skipped.append(Skipped(name, ACTIVATION, reason))
                continue
            sensitivity = float(np.square(gradient, dtype=np.float64).sum())
            inserted.append(Insertion(name, kind, shape, sensitivity))
    existing = [
        Existing(name, slope.shape, _finite(float(np.square(slope, dtype=np.float64).sum())))
        for name, slope in by_parameters.items()
        if slope.ndim - sites.stacked.get(name, 0) > 1  # no bias, and no stack of biases
    ]
    return Insertions(len(labels), ranked(inserted), tuple(existing), tuple(skipped))


def _finite(sensitivity: float) -> float | None:
    return sensitivity if math.isfinite(sensitivity) else None


def _considered(subject: Subject, sites: Sites, samples: int) -> tuple[list[Site], list[Skipped]]:
    """The activations behind which a layer fits, and the others."""
    considered = []
    skipped = [one for one in sites.skipped if one.kind == ACTIVATION]
    for site in sites.found:
        if site.kind != ACTIVATION:
            continue
        reason = _why_not(subject, sites, site, samples)
        if reason is None:
            considered.append(site)
        else:
            skipped.append(Skipped(site.name, ACTIVATION, reason))
    return considered, skipped


def _why_not(subject: Subject, sites: Sites, site: Site, samples: int) -> str | None:
    if not jnp.issubdtype(site.dtype, jnp.floating):
        return f"its numbers are {site.dtype}, not floating point"
    has_samples = site.name not in sites.constant and site.shape[:1] == (samples,)
    if len(site.shape) not in (2, 3, 4) or not has_samples:
        return NO_LAYER.format(shape=list(site.shape))
    if sites.channels_first and len(site.shape) == 3 and sites.readers is not None:
        readers = [subject.parameters[name] for name in sites.readers[site.name]]
        if any(np.ndim(parameter) == 3 for parameter in readers):
            return ONE_AXIS
    return None


def _places(
    subject: Subject, sites: Sites, considered: Sequence[Site], batches: Batches
) -> dict[str, _Place]:
    names = [site.name for site in considered]
    smallest: Mapping[str, PyTree] = {}
    if names:
        smallest = subject.reduce(batches.first, names, _smallest, None)
    return {
        site.name: _Place(
            block=IDENTITY if float(np.min(smallest[site.name])) >= 0 else RESIDUAL,
            repeats=len(site.repeats),
            is_image=len(site.shape) == 4,
            channels_first=_channels_come_first(subject, sites, site),
        )
        for site in considered
    }


def _channels_come_first(subject: Subject, sites: Sites, site: Site) -> bool:
    """Whether the channels of a site come before its pixels: in a model with such convolutions, but
    not where matrices read the last axis, as in a ConvNeXt, which moves the channels there."""
    if not sites.channels_first or sites.readers is None:
        return sites.channels_first
    shapes = [np.shape(subject.parameters[name]) for name in sites.readers[site.name]]
    # Matrices are (out, in) in the libraries whose channels come first.
    read_last_axis = [len(s) == 2 and s[1] == site.shape[-1] != site.shape[1] for s in shapes]
    return not shapes or not all(read_last_axis)


def _smallest(site: str, value: Numbers, nothing: PyTree) -> Float32[Array, ""]:
    return jnp.min(jnp.asarray(value, jnp.float32))


class _Reducer:
    """A `subject.SlopeReducer`: the gradients by the weights of virtual layers."""

    def __init__(self, places: Mapping[str, _Place]) -> None:
        self.places = places

    def __call__(
        self, values: Mapping[str, Numbers], gradients: Mapping[str, Numbers]
    ) -> dict[str, Float32[Array, "repeats ..."]]:
        return {
            name: _virtual_gradients(values[name], gradients[name], place)
            for name, place in self.places.items()
        }


def _virtual_gradients(
    value: Numbers, gradient: Numbers, place: _Place
) -> Float32[Array, "repeats ..."]:
    """The gradients by the weights of the layer behind each repetition of an activation."""
    h, delta = (_in_order(array, place) for array in (value, gradient))
    if not place.is_image:
        return insertion.virtual_gradient(place.block, insertion.OUTER, h, delta)
    form: Callable[[Array, Array], Array] = conv_insertion.kernel_gradient
    if place.block == IDENTITY:
        form = conv_insertion.virtual_gradient
    return jax.lax.map(lambda pair: form(*pair), (h, delta))


def _in_order(array: Numbers, place: _Place) -> Float32[Array, "repeats ..."]:
    """(repeats, rows, features), or images with the channels last."""
    array = jnp.asarray(array, jnp.float32)
    array = array.reshape(-1, *array.shape[place.repeats :])
    if not place.is_image:
        return array.reshape(len(array), -1, array.shape[-1])
    return jnp.moveaxis(array, 2, -1) if place.channels_first else array


def _features(site: Site, place: _Place) -> int:
    return site.shape[1] if place.is_image and place.channels_first else site.shape[-1]


def _layer_in_words(place: _Place, features: int) -> tuple[str, tuple[int, ...]]:
    """What a layer would be, and the shape of its weights, as Flax would have them."""
    layer, shape = "dense(x)", (features, features)
    if place.is_image:
        return FORMS[place.block].format("conv3x3(x)"), (3, 3, *shape)
    return FORMS[place.block].format(layer), shape


def _why_unknown(gradient: np.ndarray) -> str | None:
    if not np.isfinite(gradient).all():
        return NOT_FINITE
    return None if gradient.any() else NOT_REACHED
