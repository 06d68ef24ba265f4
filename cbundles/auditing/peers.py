"""Peers of the bundle entropy: what others measure of the same layers, in the same pass.

`Watch` takes part in the pass of `measuring`: of each batch it keeps sums (`peer_sums`), adds them
up in float64, and turns them into the measures of `peer_measures` in the end. No activation
outlives its batch. What is held for a layer is bounded (`peer_sums`); the gradient of the
loss, held once, is as large as the model's parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Int32, PyTree

from cbundles import peer_measures
from cbundles.auditing.batches import length_of
from cbundles.auditing.findings import Layer
from cbundles.auditing.layer_peers import MEASURES, LayerPeers
from cbundles.auditing.layer_sums import LayerSums
from cbundles.auditing.output import NoScores
from cbundles.auditing.peer_sums import SIGN_AND_SUM, BatchSums, Watching
from cbundles.auditing.signing import SAMPLES, TOKENS, Signing
from cbundles.auditing.subject import MadeWith, NoGradient, Scores, Subject
from cbundles.chance import FOLDING_SIGNS, generator
from cbundles.observe import Site
from cbundles.observe.layers import Sites

# Activations that are above 0 whatever they are given.
NEVER_OFF = ("hard_sigmoid", "hardsigmoid", "logistic", "sigmoid", "softplus")

DIVERGED = "the layer diverged: some activation is NaN or infinite"
OVERFLOW = "what is added up for it is too large for a float"
NO_PARAMETERS = "no parameters are known; pass the module, or params=..."
NO_MAKERS = "no trainable parameter between this layer and those before it"


class Watch:
    """Keeps what the peers need while batches pass through a model."""

    def __init__(
        self,
        subject: Subject,
        sites: Sites,
        chosen: Sequence[Site],
        batch: PyTree,
        labels: Int32[np.ndarray, "samples ..."],
        scores: Scores,
        tokens: int | None,
    ) -> None:
        """batch: the first one. labels: as given, of samples or of tokens. tokens: how many of them
        a sample has, where these are the rows."""
        self.subject = subject
        self.chosen = chosen
        self.labels = labels
        self.scores = scores
        self.tokens = tokens or 1
        self.reducer = SIGN_AND_SUM[SAMPLES if tokens is None else TOKENS]
        by_row = np.repeat(labels, self.tokens) if labels.ndim == 1 else labels.reshape(-1)
        occurring, self._classes = np.unique(by_row, return_inverse=True)
        self._branches = {
            site.name: sites.branches[site.name] for site in chosen if site.kind == "sum"
        }
        self._makers = subject.makers(batch, self.names)
        self._seen = 0  # samples
        axes = 1 if tokens is None else 2
        widths = {site.name: math.prod(site.shape[axes:]) for site in chosen}
        self._signs = _drawn_signs(max(widths.values()))
        self._sums = {
            site.name: [
                LayerSums(widths[site.name], len(occurring)) for _ in range(math.prod(site.repeats))
            ]
            for site in chosen
        }
        self._gradients: dict[str, np.ndarray] = {}
        self._no_gradient: str | None = None

    @property
    def names(self) -> list[str]:
        return [site.name for site in self.chosen]

    def sign(self, start: int, batch: PyTree, signing: Signing) -> dict[str, PyTree]:
        """The signatures of a batch that begins with this sample; what else is wanted of it is
        added up."""
        end = start + length_of(batch)
        is_new = np.arange(start, end) >= self._seen
        self._seen = end
        how = Watching(signing, self._signs, np.repeat(is_new, self.tokens))
        reduced = self.subject.reduce(batch, self.names, self.reducer, how, self._branches)
        labels = self._classes[start * self.tokens : end * self.tokens]
        with np.errstate(all="ignore"):  # a layer may hold NaN or infinity
            for name, (_, sums) in reduced.items():
                for layer, own in zip(self._sums[name], _by_repetition(sums), strict=True):
                    layer.add(own, labels, np.asarray(how.is_new))
        self._add_gradients(batch, self.labels[start:end], is_new)
        return {name: signatures for name, (signatures, _) in reduced.items()}

    def _add_gradients(self, batch: PyTree, labels: np.ndarray, is_new: np.ndarray) -> None:
        if self._no_gradient is not None:
            return
        weights = is_new.astype(np.float32)
        try:
            _, found = self.subject.slopes(batch, labels, weights, self.scores)
        except (NoGradient, NoScores) as error:
            self._no_gradient = str(error)
            return
        if not found:
            self._no_gradient = NO_PARAMETERS
        for name, gradient in found.items():
            if name not in self._gradients:
                self._gradients[name] = np.zeros(gradient.shape)
            self._gradients[name] += np.asarray(gradient)

    def measured(self, layers: Sequence[Layer]) -> tuple[LayerPeers, ...]:
        """The measures of all layers, once all batches have come."""
        repetitions = [
            (site, repetition, sums)
            for site in self.chosen
            for repetition, sums in enumerate(self._sums[site.name])
        ]
        with np.errstate(all="ignore"):
            return tuple(
                self._of_layer(layer, *one) for layer, one in zip(layers, repetitions, strict=True)
            )

    def _of_layer(self, layer: Layer, site: Site, repetition: int, sums: LayerSums) -> LayerPeers:
        if layer.diverged:
            return _peers(layer, dict.fromkeys(MEASURES, DIVERGED))
        change: float | str = f"not a residual sum, but of kind {site.kind}"
        if site.kind == "sum":
            change = _or(sums.block_change, "in every sample the input or the output is 0")
        states = _why_no_states(site, sums) or _or(sums.relu_state_entropy, "no units")
        return _peers(
            layer,
            {
                "effective_rank": _or(sums.effective_rank, "all activations are 0"),
                "class_cosine": _or(sums.class_cosine, "fewer than two classes are not all 0"),
                "relu_state_entropy": states,
                "block_change": change,
                "gradient_norm": self._gradient_norm(site, repetition),
                "batch_entropy": _or(sums.batch_entropy, "a single row"),
            },
        )

    def _gradient_norm(self, site: Site, repetition: int) -> float | str:
        if self._no_gradient is not None:
            return self._no_gradient
        makers = self._makers[site.name]
        if not makers:
            return NO_MAKERS
        parts = [_part(self._gradients[one.parameter], one, site, repetition) for one in makers]
        return peer_measures.gradient_norm(parts) / self.labels.size  # of the mean of the losses


def _peers(layer: Layer, outcomes: Mapping[str, float | str]) -> LayerPeers:
    """outcomes: of each measure its value, or why it has none."""
    values: dict[str, float | None] = dict.fromkeys(MEASURES)
    undefined = {}
    for measure, outcome in outcomes.items():
        if isinstance(outcome, str):
            undefined[measure] = outcome
        elif math.isfinite(outcome):
            values[measure] = outcome
        else:
            undefined[measure] = OVERFLOW
    return LayerPeers(layer.name, math.prod(layer.shape), **values, undefined=undefined)


def _or(value: float | None, reason: str) -> float | str:
    return reason if value is None else value


def _why_no_states(site: Site, sums: LayerSums) -> str | None:
    """Why a site's units are not on or off as those of a ReLU are."""
    if site.kind == "named":  # of what it names nothing is known
        return None if sums.lowest == 0 else "a named value that does not end in zeros"
    if site.kind != "activation":
        return f"not an activation, but of kind {site.kind}"
    return f"{site.label} is never off" if site.label in NEVER_OFF else None


def _part(gradient: np.ndarray, made_with: MadeWith, site: Site, repetition: int) -> np.ndarray:
    """Of the gradient by a parameter what belongs to this repetition of a site."""
    place = np.unravel_index(repetition, site.repeats) if site.repeats else ()
    own = tuple(int(place[scan]) for scan in made_with.scans)
    return np.asarray(gradient[own])


def _by_repetition(sums: BatchSums) -> list[BatchSums]:
    """Those of each repetition of a site, whose values have leading axes for it."""
    leading = sums.lowest.shape
    flat = [np.asarray(one).reshape(-1, *one.shape[len(leading) :]) for one in sums]
    return [BatchSums(*parts) for parts in zip(*flat, strict=True)]


def _drawn_signs(features: int) -> Float32[np.ndarray, " features"]:
    chance = generator(0, FOLDING_SIGNS)
    return chance.choice(np.array([-1, 1], np.float32), features)
