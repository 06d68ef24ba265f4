"""Measuring the layers of a model: bundles of all rows, and conflict rates of some of them at many
learning rates. Of each activation only signatures remain."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int32, PyTree, UInt32

from cbundles import bundles
from cbundles.arrays import Numbers
from cbundles.auditing import counting, signing, weights
from cbundles.auditing.batches import Batches, CutArrays, Picked, length_of
from cbundles.auditing.choices import Scan
from cbundles.auditing.findings import INPUT, Layer
from cbundles.auditing.peers import Watch
from cbundles.auditing.signing import Signing
from cbundles.auditing.subject import Subject
from cbundles.auditing.weights import CONSUMER, GLOBAL
from cbundles.bits import SCANNED_ROWS
from cbundles.bundles import Bundles, Headroom, Scale
from cbundles.bundles.headroom import BITS
from cbundles.observe import Site
from cbundles.observe.layers import Sites, names_of

SALT = 0
OTHER_WEIGHT = {
    GLOBAL: (CONSUMER, "the largest weight of the layer that reads the activation"),
    CONSUMER: (GLOBAL, "the largest weight of the whole model"),
}


class Setting(NamedTuple):
    """How layers are judged."""

    learning_rate: float
    batch_size: int
    whole: bool  # all samples are one batch
    rows: str
    amplitude: str | float


@dataclass(frozen=True)
class Measuring:
    """A model, and what of it is measured."""

    subject: Subject
    sites: Sites
    chosen: Sequence[Site]
    largest: dict[str, float]
    setting: Setting
    tokens: int | None

    @property
    def names(self) -> list[str]:
        return [site.name for site in self.chosen]

    @functools.cached_property
    def other_weight(self) -> tuple[str, str] | None:
        """The other way to choose the weight that sets the scale, and its words."""
        choice = self.setting.amplitude
        if choice not in OTHER_WEIGHT or self.sites.readers is None:
            return None
        return OTHER_WEIGHT[str(choice)]

    def measure_layers(
        self,
        batches: Batches,
        labels: Int32[np.ndarray, " rows"],
        classes: int,
        watch: Watch | None = None,
        input_layer: Layer | None = None,
    ) -> tuple[Layer, list[Layer]]:
        """The inputs and all layers, without headroom.

        watch: what takes part in the pass.
        input_layer: what was found of the same inputs before; they are not signed again.
        """
        scales = {name: self._scale(value) for name, value in self._own_amplitudes.items()}
        signed = _Signed(len(labels))
        reducer = signing.SIGN_ONCE[self.setting.rows]
        for start, batch in batches:
            whole = signing.all_bits(batch, self.tokens) if self.subject.sees_64_bits else batch
            keys = self._keys(whole)
            first_row = start * (self.tokens or 1)
            if input_layer is None:
                own = signing.sign_inputs(whole, signing.EXACT, keys, tokens=self.tokens)
                signed.put(first_row, {INPUT: own})
            if self.names:
                how = Signing(scales, keys)
                if watch is None:
                    signatures = self.subject.reduce(batch, self.names, reducer, how)
                else:
                    signatures = watch.sign(start, batch, how)
                signed.put(first_row, signatures)

        new = self.names if input_layer is not None else [INPUT, *self.names]
        found = counting.bundles_of_layers(signed.of_layers(new), labels, classes)
        if input_layer is None:
            shape = _shape_of_inputs(batches.first)
            input_layer = Layer(INPUT, INPUT, shape, found.pop(0), None, 0.0, 0.0)
        named = [(name, site) for site in self.chosen for name in names_of(site)]
        layers = [
            self._layer(name, site, of_layer, input_layer)
            for (name, site), of_layer in zip(named, found, strict=True)
        ]
        return input_layer, layers

    def scan_learning_rates(self, batches: Batches, part: Picked, input_layer: Layer) -> list[Scan]:
        """The conflict rates of every layer at many learning rates, on some of the samples."""
        tokens = self.tokens or 1
        picked_rows = (part[:, None] * tokens + np.arange(tokens)).reshape(-1)
        inputs = counting.some_of(input_layer.bundles, picked_rows)

        others: dict[str, float] = {}
        if self.other_weight is not None:
            others = self._amplitudes(self.other_weight[0])
        scales = {
            name: self._scales_of_scan(value, others.get(name))
            for name, value in self._own_amplitudes.items()
        }
        signed = _Signed(len(picked_rows))
        reducer = signing.SIGN_AT_SCALES[self.setting.rows]
        for start, batch, picked in self._batches_of_part(batches, part):
            how = Signing(scales, self._keys(batch), picked)
            signed.put(start * tokens, self.subject.reduce(batch, self.names, reducer, how))

        scans = []
        for name in self.names:
            for signatures in signed.scanned_layers(name, len(BITS) + bool(others)):
                rates, equal = counting.conflict_rates(signatures, inputs)
                scans.append(Scan(rates, equal))
        return scans

    def with_headroom(
        self, batches: Batches, part: Picked, input_layer: Layer, layers: Sequence[Layer]
    ) -> tuple[list[Layer], list[Scan]]:
        """The layers with their headroom, and the scans that it was found in."""
        scans = self.scan_learning_rates(batches, part, input_layer)
        judged = [
            _with_headroom(layer, scan, self.setting)
            for layer, scan in zip(layers, scans, strict=True)
        ]
        return judged, scans

    def _batches_of_part(
        self, batches: Batches, part: Picked
    ) -> Iterable[tuple[int, PyTree, Picked | None]]:
        """Batches of some samples: where the first is in the part, inputs, and of a batch that has
        others too, which ones are meant."""
        if self.setting.whole:  # the statistics of the batch are those of all samples
            return [(0, batches.first, part)]
        cut = CutArrays(batches.kept(), len(part), length_of(batches.first))
        return ((start, batch, None) for start, batch in cut)

    @functools.cached_property
    def _own_amplitudes(self) -> dict[str, float]:
        return self._amplitudes(self.setting.amplitude)

    def _amplitudes(self, choice: str | float) -> dict[str, float]:
        return weights.amplitudes_at(self.names, choice, self.largest, self.sites)

    def _scale(self, amplitude: float) -> Scale:
        return Scale.of(amplitude, self.setting.learning_rate, self.setting.batch_size)

    def _scales_of_scan(self, amplitude: float, other: float | None) -> Scale:
        """The scales at all `BITS`, and behind them that beside another weight, if any."""
        scanned = bundles.scales_of_scan(
            amplitude, self.setting.learning_rate, self.setting.batch_size
        )
        if other is None:
            return scanned
        joined: Scale = jax.tree.map(
            lambda many, one: np.append(many, one), scanned, self._scale(other)
        )
        return joined

    def _keys(self, batch: PyTree) -> UInt32[np.ndarray, " keys"]:
        axes = 1 if self.tokens is None else 2
        columns = [math.prod(site.shape[axes:]) for site in self.chosen]
        return _drawn_keys(max([*columns, signing.columns_of_inputs(batch, self.tokens)]))

    def _layer(self, name: str, site: Site, found: Bundles, input_layer: Layer) -> Layer:
        inputs = input_layer.bundles
        amplitude = self._own_amplitudes[site.name]
        return Layer(
            name=name,
            kind=site.kind,
            shape=site.shape[1:] if self.tokens is None else site.shape[2:],
            bundles=found,
            rate_of_equal_inputs=None
            if found.diverged or inputs.diverged
            else counting.rate_of_equal_inputs(found.bundle_ids, inputs),
            amplitude=amplitude,
            resolution=weights.resolution_of(
                amplitude, self.setting.learning_rate, self.setting.batch_size
            ),
        )


class _Signed:
    """Signatures of all rows, put together from those of batches."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._arrays: dict[str, UInt32[np.ndarray, "layers 4 rows"]] = {}

    def put(self, start: int, signatures: Mapping[str, UInt32[Numbers, "*layers 4 rows"]]) -> None:
        """Those of sites, by their names, of the rows from this one on."""
        for name, of_site in signatures.items():
            flat = np.asarray(of_site).reshape(-1, 4, of_site.shape[-1])
            if name not in self._arrays:
                self._arrays[name] = np.zeros((len(flat), 4, self.rows), np.uint32)
            self._arrays[name][:, :, start : start + flat.shape[-1]] = flat

    def of_layers(self, names: Sequence[str]) -> Iterator[UInt32[np.ndarray, "4 rows"]]:
        """Those of each layer of these sites; what was taken is forgotten here."""
        for name in names:
            yield from self._arrays.pop(name)

    def scanned_layers(self, name: str, scales: int) -> UInt32[np.ndarray, "layers scales 4 rows"]:
        """Those of a site at several scales; they are forgotten here."""
        return self._arrays.pop(name).reshape(-1, scales, 4, self.rows)


@functools.lru_cache(maxsize=1)
def _drawn_keys(columns: int) -> UInt32[np.ndarray, " keys"]:
    return bundles.draw_keys(columns, SALT)


def samples_to_scan(samples: int, tokens: int | None) -> Int32[np.ndarray, " part"]:
    """Which samples are looked at for headroom: about `SCANNED_ROWS` rows, and two samples at
    least, since one has nothing to conflict with. tokens: rows of a sample, where those are
    compared."""
    return bundles.evenly_spread(samples, max(2, SCANNED_ROWS // (tokens or 1)))


def _with_headroom(layer: Layer, scan: Scan, setting: Setting) -> Layer:
    if layer.diverged:
        return layer
    bits = bundles.bits_of_headroom(scan.rates, scan.of_equal_inputs)
    return replace(layer, headroom=Headroom(bits, setting.learning_rate))


def _shape_of_inputs(batch: PyTree) -> tuple[int, ...]:
    """Of one sample; of several arrays together how many numbers there are."""
    shapes = [leaf.shape[1:] for leaf in jax.tree.leaves(batch)]
    return shapes[0] if len(shapes) == 1 else (sum(map(math.prod, shapes)),)
