"""The verdict of an audit in words: what conflicts, what the data bring along, how sure it is."""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np

from cbundles.auditing.counting import pairs_in_conflict
from cbundles.auditing.findings import BRANCH, Findings, Layer
from cbundles.auditing.signing import TOKENS
from cbundles.auditing.weights import CONSUMER
from cbundles.observe import Skipped
from cbundles.wording import counted

OUTLIER = 5.0  # times the median layer's largest weight


def verdict(findings: Findings) -> list[str]:
    """Sentences, the most important one first."""
    if not findings.layers:
        return [nothing_measured(findings.skipped), *_inputs(findings)]
    return [
        *_layers(findings),
        *_inputs(findings),
        *_headroom(findings),
        *_scale(findings),
        *[f"It hangs on a choice: {sentence}." for sentence in findings.hangs_on],
    ]


def nothing_measured(skipped: Sequence[Skipped]) -> str:
    """Why there is no layer to speak of."""
    if not skipped:
        return (
            "Nothing could be measured: the model has no activation, residual sum, linear map or "
            "convolution that can be recognised; name its values with checkpoint_name."
        )
    reasons = collections.Counter(one.reason for one in skipped)
    told = "; ".join(f"{number}: {reason}" for reason, number in reasons.most_common())
    return f"Nothing could be measured. What was left out, by its reason: {told}."


def _layers(findings: Findings) -> list[str]:
    layers = findings.layers
    if findings.input.diverged:
        return [
            "The inputs hold NaN or infinity: nothing that a layer makes of them has a meaning."
        ]
    if np.isnan(findings.amplitude.value):
        return [f"The weights hold NaN, first in {findings.amplitude.parameter}: it diverged."]
    if np.isinf(findings.amplitude.value):
        return [
            f"The weights hold infinity, in {findings.amplitude.parameter}: beside it no "
            "activations can be told apart. If it is not trained, name those that are, with "
            "trainable=."
        ]
    if _is_of_one_class(findings):
        return [
            f"All {findings.rows} have one class: no layer can conflict, so this says nothing of "
            "the model."
        ]
    diverged = [layer for layer in layers if layer.diverged]
    if diverged:
        first = diverged[0]
        return [
            f"Diverged: {_place(first, layers)} makes NaN or infinity, and {len(diverged)} of "
            f"{counted(len(layers), 'layer', ',')} do. Neither entropy nor conflicts mean anything "
            "there."
        ]
    judged = [layer for layer in layers if layer.kind != BRANCH] or layers
    return _conflicts(judged, findings.input)


def _is_of_one_class(findings: Findings) -> bool:
    return len(np.unique(findings.input.bundles.labels)) < 2


def _conflicts(layers: Sequence[Layer], inputs: Layer) -> list[str]:
    conflicting = [layer for layer in layers if layer.conflicting]
    if not conflicting:
        whose = "The only layer" if len(layers) == 1 else f"None of {len(layers)} layers"
        told = "does not conflict" if len(layers) == 1 else "conflicts"
        return [f"{whose} {told}: {_what_is_shared(layers, inputs)}."]
    first = conflicting[0]
    behind = layers[layers.index(first) :]
    if len(conflicting) == len(behind):
        return [f"Collapsed from {_place(first, layers)} on: {_how_far(behind[-1])}."]
    after = layers[layers.index(conflicting[-1]) + 1 :]
    told = f"{len(conflicting)} of {len(layers)} layers conflict, first {_place(first, layers)}"
    if not after:
        return [f"{told}, and so does the last one: {_how_far(behind[-1])}."]
    return [
        f"{told}, but from {after[0].name} on none does: samples that are bundled still differ, "
        "and later layers separate them."
    ]


def _what_is_shared(layers: Sequence[Layer], inputs: Layer) -> str:
    """What was measured where no layer conflicts, which says nothing about distances."""
    worst = max(layers, key=_added)
    most, equal = worst.conflict_rate or 0.0, worst.rate_of_equal_inputs or 0.0
    if most <= equal:
        but = " but equal inputs" if inputs.conflict_rate else ""
        return f"no samples of different classes{but} share a bundle at this resolution"
    within = f", {equal:.2g} because they are equal inputs" if equal else ""
    return (
        f"at most {most:.2g} of the pairs of samples of different classes share a bundle at this "
        f"resolution{within}"
    )


def _added(layer: Layer) -> float:
    """Its conflict rate without that of equal inputs."""
    return (layer.conflict_rate or 0.0) - (layer.rate_of_equal_inputs or 0.0)


def _how_far(last: Layer) -> str:
    if last.bundles.fully_conflicting:
        return f"{last.name} puts all samples into one bundle"
    return (
        f"in {last.name} the entropy is {last.entropy:.2f} of at most "
        f"{last.bundles.largest_entropy:.2f} nats, the conflict rate {last.conflict_rate:.2g}"
    )


def _inputs(findings: Findings) -> list[str]:
    found = findings.input.bundles
    again = len(found.labels) - found.num_bundles
    if findings.input.diverged or not again:
        return []
    what = findings.rows
    told = f"In the data {again} of {len(found.labels)} {what} repeat another one exactly"
    pairs = pairs_in_conflict(found.conflict_rate or 0.0, found.labels)
    if not pairs:
        return [f"{told}, always with its label."]
    fate = "they conflict in every layer, whatever the network does"
    if what == TOKENS:
        fate = "only what is around them can tell them apart"
    met = counted(pairs, "pair", ",") + (" has" if pairs == 1 else " have")
    return [
        f"{told}, and {met} different labels: {fate} (H {found.entropy:.3f}, conflict rate "
        f"{found.conflict_rate:.2g}; layers are judged by what they add)."
    ]


def _headroom(findings: Findings) -> list[str]:
    known = [
        (layer.headroom, layer.name)
        for layer in findings.layers
        if layer.headroom is not None and layer.kind != BRANCH
    ]
    if not known or _is_of_one_class(findings):
        return []
    headroom, name = min(known, key=lambda one: one[0].bits)
    which = "The farthest gone" if headroom.conflicting else "The nearest to a conflict"
    return [f"{which} is {name}: {headroom}."]


def _scale(findings: Findings) -> list[str]:
    amplitude = findings.amplitude
    if not np.isfinite(amplitude.value):
        return []
    judged = (
        f"Judged at a learning rate of {findings.learning_rate:g} and a batch size of "
        f"{findings.batch_size}"
    )
    if findings.choice == CONSUMER:
        resolutions = sorted(layer.resolution for layer in findings.layers)
        ends = dict.fromkeys(f"{one:.2g}" for one in (resolutions[0], resolutions[-1]))
        return [
            f"{judged}, beside the largest weight of the layer that reads each activation: those "
            f"that differ by at least the resolution there ({' to '.join(ends)}) are told apart."
        ]
    weight = f"the weight {amplitude.value:g}"
    if amplitude.parameter is not None:
        weight = f"the model's largest weight, {amplitude.value:.3g} in {amplitude.parameter}"
    told = [
        f"{judged}, beside {weight}: activations that differ by "
        f"{findings.layers[0].resolution:.2g} or more are told apart."
    ]
    times = amplitude.times_median
    if times is not None and times >= OUTLIER:
        told.append(
            f"That weight is {times:.0f} times the median layer's largest: one outlier decides for "
            'all layers; compare with amplitude="consumer".'
        )
    return told


def _place(layer: Layer, layers: Sequence[Layer]) -> str:
    return f"{layer.name} ({layers.index(layer) + 1} of {len(layers)})"
