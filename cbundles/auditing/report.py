"""`Audit`: what was found, to be read, kept and looked at."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int64, PyTree

from cbundles.auditing import insertion_text, lesion_text
from cbundles.auditing.findings import Findings, Layer
from cbundles.auditing.insertion_findings import Insertions
from cbundles.auditing.layer_peers import LayerPeers
from cbundles.auditing.lesion_findings import Lesions
from cbundles.auditing.peer_table import text_of_peers
from cbundles.auditing.signing import SAMPLES
from cbundles.auditing.table import finite_or_none, row_of, text_of_layers
from cbundles.auditing.verdict import verdict
from cbundles.auditing.weights import Amplitude, resolution_of
from cbundles.errors import did_you_mean
from cbundles.files import write_atomically
from cbundles.observe import Skipped
from cbundles.wording import columns_of_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ConflictingBundle(NamedTuple):
    """Samples of several classes that a layer bundles.

    samples: their numbers, as they were given; with rows="tokens" those of tokens.
    classes: how many are of each class, largest first.
    """

    samples: Int64[np.ndarray, " samples"]
    classes: dict[int, int]


@dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """What `audit` found. ``str()`` of it is a table and the verdict in words.

    Attributes:
        findings: all that was measured; the properties below lead to its parts.
        inputs: the samples, as arrays with the samples first; None where they came in batches.
    """

    findings: Findings
    inputs: PyTree | None

    @property
    def input(self) -> Layer:
        """Layer 0: its bundles are exactly equal inputs. Where these have different labels, they
        conflict in every layer, whatever the network does."""
        return self.findings.input

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers that were measured, in the order in which their values are made."""
        return self.findings.layers

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Every other site, with the reason why it was not measured."""
        return self.findings.skipped

    @property
    def lesions(self) -> Lesions:
        """What the model would be without its branches. Raises ValueError where that was not asked
        for."""
        if self.findings.lesions is None:
            raise ValueError("no branch was switched off; ask for it: audit(..., lesion=True)")
        return self.findings.lesions

    @property
    def insertions(self) -> Insertions:
        """Where one more layer would help. Raises ValueError where that was not asked for."""
        if self.findings.insertions is None:
            raise ValueError("no layer was considered; ask for it: audit(..., insert=True)")
        return self.findings.insertions

    @property
    def first_conflict(self) -> str | None:
        """The name of the first layer that conflicts; branches do not count."""
        return self.findings.first_conflict

    @property
    def amplitude(self) -> Amplitude:
        """The weight that sets the scale of the whole model."""
        return self.findings.amplitude

    @property
    def peers(self) -> tuple[LayerPeers, ...]:
        """What others measure of each layer (`peer_measures`), with peers=True; else none."""
        return self.findings.peers

    @property
    def resolution(self) -> float:
        """How far activations must differ to be told apart beside that weight, in their units."""
        found = self.findings
        return resolution_of(found.amplitude.value, found.learning_rate, found.batch_size)

    @property
    def verdict(self) -> list[str]:
        """What it all means, in sentences."""
        return verdict(self.findings)

    def __str__(self) -> str:
        width = columns_of_lines()
        said = [textwrap.fill(sentence, width) for sentence in self.verdict]
        peers = ["", text_of_peers(self.peers, width)] if self.peers else []
        text = "\n".join([text_of_layers(self.findings, width), *peers, "", *said])
        return "\n\n".join([text, *self._sections(width)])

    def _sections(self, width: int) -> list[str]:
        """What was asked for besides, each a table and sentences."""
        found = []
        lesions, insertions = self.findings.lesions, self.findings.insertions
        if lesions is not None:
            found.append(
                (lesion_text.text_of_lesions(lesions, width), lesion_text.sentences(lesions))
            )
        if insertions is not None:
            told = insertion_text.sentences(insertions)
            found.append((insertion_text.text_of_insertions(insertions, width), told))
        return [
            "\n".join([table, "", *(textwrap.fill(one, width) for one in sentences)])
            for table, sentences in found
        ]

    def __repr__(self) -> str:
        return f"<Audit of {len(self.layers)} layers: {self.verdict[0]}>"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, text, lists and None, ready for JSON."""
        found = self.findings
        return {
            "samples": len(found.input.bundles.labels),
            "rows": found.rows,
            "num_classes": found.input.bundles.num_classes,
            "learning_rate": found.learning_rate,
            "batch_size": found.batch_size,
            "amplitude": {
                "choice": found.choice,
                "value": finite_or_none(found.amplitude.value),
                "parameter": found.amplitude.parameter,
                "times_median": finite_or_none(found.amplitude.times_median),
            },
            "resolution": finite_or_none(self.resolution),
            "first_conflict": self.first_conflict,
            "input": row_of(found.input),
            "layers": [row_of(layer) for layer in found.layers],
            "peers": [{"name": one.layer, **one.row} for one in found.peers],
            "skipped": [
                {"name": one.name, "kind": one.kind, "reason": one.reason} for one in found.skipped
            ],
            "hangs_on": list(found.hangs_on),
            "verdict": self.verdict,
            "lesions": None if found.lesions is None else found.lesions.to_dict(),
            "insertions": None if found.insertions is None else found.insertions.to_dict(),
        }

    def to_csv(self, path: str | Path) -> Path:
        """Write a line for the inputs and each layer, with its peers where there are any."""
        rows = [row_of(layer) for layer in self.layers]
        if self.peers:
            rows = [row | one.row for row, one in zip(rows, self.peers, strict=True)]
        rows = [row_of(self.input), *rows]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([{key: _cell(value) for key, value in row.items()} for row in rows])
        path = Path(path)
        write_atomically(path, text.getvalue())
        return path

    def plot(self, path: str | Path | None = None) -> Figure:
        """Bundle entropy and headroom along the network; also written to a file, if one is named,
        such as ``audit.png``."""
        from cbundles.auditing import pictures

        figure = pictures.along_network(self.findings)
        if path is not None:
            pictures.save(figure, path)
        return figure

    def plot_lesions(self, path: str | Path | None = None) -> Figure:
        """The accuracy without the first branches of every ranking; also written to a file, if one
        is named. Raises ValueError where lesions were not asked for."""
        from cbundles.auditing import lesion_pictures, pictures

        figure = lesion_pictures.removal_curves(self.lesions)
        if path is not None:
            pictures.save(figure, path)
        return figure

    def layer(self, name: str) -> Layer:
        """The layer of this name. Raises ValueError for any other name."""
        layers = {layer.name: layer for layer in (self.input, *self.layers)}
        if name not in layers:
            hint = did_you_mean(name, layers, most=20)
            raise ValueError(f"no layer {name!r} was measured: {hint}")
        return layers[name]

    def bundles(self, layer: str) -> list[ConflictingBundle]:
        """The conflicting bundles of a layer, largest first."""
        found = self.layer(layer).bundles
        order = np.argsort(found.bundle_ids, kind="stable")
        conflicting = []
        for samples in np.split(order, np.cumsum(found.sizes)[:-1]):
            classes, counts = np.unique(found.labels[samples], return_counts=True)
            if len(classes) > 1:
                by_size = np.argsort(-counts, kind="stable")
                counted = {int(classes[place]): int(counts[place]) for place in by_size}
                conflicting.append(ConflictingBundle(samples, counted))
        return sorted(conflicting, key=lambda bundle: -len(bundle.samples))

    def show(self, layer: str, path: str | Path | None = None) -> Figure:
        """The images that a layer bundles although they are of different classes, a bundle in a
        row, with their labels and numbers. Raises ValueError where the inputs are no images or
        tokens are compared, and for a layer without such bundles."""
        from cbundles.auditing import pictures

        if self.findings.rows != SAMPLES:
            raise ValueError("show is of samples; of tokens bundles(layer) has the numbers")
        images = self._images()
        conflicting = self.bundles(layer)
        if not conflicting:
            raise ValueError(f"{layer} has no conflicting bundles")
        labels = self.input.bundles.labels
        shown = [(bundle.samples, labels[bundle.samples].tolist()) for bundle in conflicting]
        figure = pictures.side_by_side(images, shown)
        if path is not None:
            pictures.save(figure, path)
        return figure

    def _images(self) -> np.ndarray:
        leaves = jax.tree.leaves(self.inputs)
        for leaf in leaves:
            grey = leaf.ndim == 3 and min(leaf.shape[1:]) > 1
            if grey or (leaf.ndim == 4 and leaf.shape[-1] in (1, 3)):
                return np.asarray(leaf)
            if leaf.ndim == 4 and leaf.shape[1] in (1, 3):  # channels first, as PyTorch has them
                return np.moveaxis(np.asarray(leaf), 1, -1)
        found = ", ".join(str(leaf.shape) for leaf in leaves) or "batches that came once"
        raise ValueError(
            f"show is for images, (samples, height, width, channels) or channels first, not {found}"
        )


def _cell(value: Any) -> Any:
    """What stands in a file of comma-separated values: lists and dictionaries as JSON."""
    return json.dumps(value) if isinstance(value, (list, dict)) else value
